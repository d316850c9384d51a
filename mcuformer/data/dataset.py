# SPDX-License-Identifier: Apache-2.0
"""Dataset, and how images are held out for selection."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import zlib
from dataclasses import dataclass

import numpy as np

from mcuformer.data.image_files import FileImages
from mcuformer.data.source import say_once
from mcuformer.errors import DataError
from mcuformer.sound import LogMel

MAX_HELD_OUT = 5000  # by default; of more than 50 classes:
HELD_OUT_OF_CLASS = 100
SAMPLED_IMAGES = 128  # spread over the set, for its identity


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels.

    images: uint8, [n, height, width, channels], or FileImages, which are read when indexed; labels: int64,
    [n], each an index into class_names; source: where they came from; split: "train", "test", "val" or "all";
    front_end: what made the images of sounds; None for images.
    """

    images: np.ndarray | FileImages
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    split: str
    front_end: LogMel | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels_crc32(self) -> int:
        """Tells one set of labels from another."""
        return zlib.crc32(np.ascontiguousarray(self.labels).tobytes())

    @functools.cached_property  # a command asks several times, and files are decoded for it
    def pixels_sha256(self) -> str:
        """Tells one set of images from another: 16 digits of the SHA-256 of SAMPLED_IMAGES of them, spread over the
        set. A change in another image goes unseen."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(SAMPLED_IMAGES, len(self))).astype(np.int64))
        sample = np.ascontiguousarray(self.images[chosen])
        return hashlib.sha256(f"{sample.shape}".encode() + sample.tobytes()).hexdigest()[:16]

    def identity(self) -> dict:
        """Plain values by which a later command knows whether it has the same images and labels."""
        return {"images": len(self), "labels_crc32": self.labels_crc32, "pixels_sha256": self.pixels_sha256}


def hold_out(
    dataset: Dataset, count: int | None = None, seed: int = 0, stratified: bool = True
) -> tuple[Dataset, Dataset]:
    """(all images except `count`, those images), drawn with the seed: for selecting on images that were not trained on.

    count: default: a sixth of the images, at most 5,000, or 100 of each class if that is more.
    stratified: as large a share of each class; every class keeps an image to train on, and has one that is held out if
    it has two and `count` is large enough. False: drawn from all alike, as files of version 0.1.0 are.
    """
    most = max(MAX_HELD_OUT, HELD_OUT_OF_CLASS * len(dataset.class_names))
    count = min(most, len(dataset) // 6) if count is None else count
    if not 0 < count < len(dataset):
        raise DataError(
            f"{dataset.source}: {count} images to hold out of {len(dataset)}; give 1 to {len(dataset) - 1} of them"
        )
    order = np.random.default_rng(seed).permutation(len(dataset))
    if stratified:
        order = _class_shares_first(dataset, order, count)

    def part(chosen: np.ndarray, name: str) -> Dataset:
        images = dataset.images
        images = images.take(chosen) if isinstance(images, FileImages) else images[chosen]
        return dataclasses.replace(dataset, images=images, labels=dataset.labels[chosen], split=name)

    return part(np.sort(order[count:]), dataset.split), part(np.sort(order[:count]), f"{dataset.split}, held out")


def _class_shares_first(dataset: Dataset, order: np.ndarray, count: int) -> np.ndarray:
    """The order with a share of each class, its first ones, in the first `count` places."""
    _, labels, sizes = np.unique(dataset.labels[order], return_inverse=True, return_counts=True)
    if count > (most := int((sizes - 1).sum())):
        raise DataError(
            f"{dataset.source}: {count} images to hold out leave some of its {len(sizes)} classes none to train on; "
            f"give at most {most}"
        )
    shares = _shares(sizes, count)
    by_class = np.argsort(labels, kind="stable")
    place = np.empty(len(order), np.int64)  # of each image within its class
    place[by_class] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    held = place < shares[labels]
    if missing := int((shares == 0).sum()):
        say_once(
            f"{dataset.source}: {missing} of {len(sizes)} classes have no image among the {count} held out; hold out "
            "more, or add images"
        )
    return np.concatenate([order[held], order[~held]])


def _shares(sizes: np.ndarray, count: int) -> np.ndarray:
    """How many images of each class make up `count`: their shares, rounded to the nearest that has this sum; at least
    one, if there are enough, and never the last of a class. sizes: images of each class."""
    most = sizes - 1
    least = np.minimum(most, 1) if count >= (most > 0).sum() else np.zeros_like(sizes)
    exact = count * sizes / sizes.sum()
    shares = np.clip(np.floor(exact).astype(np.int64), least, most)
    while shares.sum() < count:
        shares[np.argmax(np.where(shares < most, exact - shares, -np.inf))] += 1
    while shares.sum() > count:
        shares[np.argmin(np.where(shares > least, exact - shares, np.inf))] -= 1
    return shares
