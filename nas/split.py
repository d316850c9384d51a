# SPDX-License-Identifier: Apache-2.0
"""Training images and images held out for selection: the same in every command that continues from a supernet."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

from mcuformer.converter.subnet_config import Size
from mcuformer.data import Dataset, hold_out, load_sized
from mcuformer.data.loading import absolute, kept_path
from mcuformer.errors import ConfigError, McuformerWarning
from mcuformer.nas.supernet import SuperNet
from mcuformer.sound import LogMel

DATA = "fashion-mnist"  # for a supernet that does not say what it was trained on
STRATIFIED = "stratified"  # in the notes; files of version 0.1.0 have none, and were drawn from all classes alike
IDENTITY = ("images", "labels_crc32", "pixels_sha256")
WORDS = {
    "images": "{} images", "labels_crc32": "labels of checksum {}", "pixels_sha256": "pixels of hash {}",
    "held_out": "{} images held out",
}  # fmt: skip


@dataclass(frozen=True)
class Split:
    """images: to train on; kept: to select on; notes: plain values for a later command to make the same split."""

    images: Dataset
    kept: Dataset
    notes: dict

    @property
    def identity(self) -> dict:
        """Of both together, as Dataset.identity()."""
        return {name: self.notes[name] for name in IDENTITY}


def split_images(
    data: str,
    image_size: Size,
    limit: int | None = None,
    held_out: int | None = None,
    front_end: LogMel | None = None,
    channels: int | None = None,
    stratified: bool = True,
) -> Split:
    """Holds images out of the training images. data: as mcuformer.data.load takes it; limit: use only so many images;
    held_out, stratified: see mcuformer.data.hold_out; front_end, channels: as mcuformer.data.load takes them."""
    whole = load_sized(data, "train", image_size, limit, front_end, channels)
    images, kept = hold_out(whole, held_out, stratified=stratified)
    notes: dict = {
        "data": absolute(data), "limit": limit, "held_out": len(kept), **whole.identity(),
        "class_names": list(kept.class_names), STRATIFIED: stratified,
    }  # fmt: skip
    if whole.front_end is not None:
        notes["front_end"] = whole.front_end.to_dict()
    return Split(images, kept, notes)


def split_of(
    supernet: SuperNet,
    path: str | os.PathLike,
    data: str | None = None,
    limit: int | None = None,
    held_out: int | None = None,
    front_end: LogMel | None = None,
) -> Split:
    """split_images() as the supernet in the file `path` was trained with it.

    ConfigError if the given options split differently: it would be judged by images that it was trained on.
    """
    notes = supernet.notes
    if front_end is None and "front_end" in notes:
        front_end = LogMel.from_dict(notes["front_end"])
    made = split_images(
        data or kept_path(notes.get("data"), DATA, path),
        supernet.space.image_size,
        notes.get("limit") if limit is None else limit,
        notes.get("held_out") if held_out is None else held_out,
        front_end,
        supernet.space.in_channels,
        notes.get(STRATIFIED, False),
    )
    for name, words in WORDS.items():
        if name in notes and notes[name] != made.notes[name]:
            raise ConfigError(
                f"{path}: was trained with {words.format(notes[name])}, here are {words.format(made.notes[name])}, "
                f"from {made.images.source}: it would be judged by images it was trained on, or by others; give the "
                "same --data, --limit and --held-out"
            )
    if "pixels_sha256" not in notes:
        warnings.warn(
            f"{path}: of an earlier version, it does not say which pixels it was trained on: those of "
            f"{made.images.source} are believed to be the same",
            McuformerWarning,
            stacklevel=2,
        )
    return made
