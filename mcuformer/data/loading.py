# SPDX-License-Identifier: Apache-2.0
"""load(): one split of a data set, whatever its format."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcuformer.checks import is_whole
from mcuformer.data import fashion_mnist, wav_folder
from mcuformer.data.cifar import CIFAR_LAYOUTS, read_cifar
from mcuformer.data.dataset import Dataset
from mcuformer.data.idx import IDX_IMAGES, read_idx_folder
from mcuformer.data.image_files import FileImages, fit_array
from mcuformer.data.image_folder import read_image_files, read_image_folder
from mcuformer.data.npz import read_npz
from mcuformer.data.source import Source, check, listing, say_once, select, shape_text
from mcuformer.errors import ConfigError, DataError
from mcuformer.sizes import Size, is_size, sides, size_text
from mcuformer.sound import LogMel

SPLITS = ("train", "test", "all")


def load(
    spec: str | Path,
    split: str = "test",
    image_size: Size | None = None,
    limit: int | None = None,
    seed: int = 0,
    front_end: LogMel | None = None,
    channels: int | None = None,
) -> Dataset:
    """Loads one split of a data set.

    spec: "fashion-mnist", "fashion-mnist-full" (both padded from 28 to 32 pixels with zeros), or a path; the
    package's docstring says what a path may hold. For a folder of such a name, write "./fashion-mnist".
    split: "train", "test", "val" (the same, in a source without a third split) or "all".
    image_size: pixels, or (height, width); images are resized to cover it and cropped in the centre. None: as they are.
    front_end: how sounds become images; default: LogMel.of_image() of a pair image_size, else LogMel().
    limit: at most this many images, drawn without replacement with `seed`, kept in the order of the source.
    channels: how image files are read: 1 as grey, 3 as RGB (the default). Arrays and sounds have channels of their own.

    What is left out of a folder is counted in a line on standard error.
    Raises DataError, one line that names the file, the value and the fix.
    """
    if split not in (*SPLITS, "val"):
        raise DataError(f"split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
    if image_size is not None and not is_size(image_size):
        raise DataError(f"image_size is {image_size!r}; give a whole number from 1, (height, width), or leave it out")
    if limit is not None and not is_whole(limit, 1):
        raise DataError(f"limit is {limit!r}; give a whole number from 1, or leave it out")
    if channels is not None and not is_whole(channels, 1):
        raise DataError(f"channels is {channels!r}; give a whole number from 1, or leave it out")

    source = _open(spec)
    check(source)
    part = select(source, split)
    if split == "val" and "val" not in source.parts:
        split = "test"
    if limit is not None and limit < len(part.labels):
        part = part.take(np.sort(np.random.default_rng(seed).choice(len(part.labels), limit, replace=False)))
    held = part.images
    if not isinstance(held, np.ndarray) and held[0].suffix.lower() in wav_folder.SUFFIXES:
        if front_end is None:
            front_end = LogMel.of_image(*image_size) if isinstance(image_size, tuple) else LogMel()
        sounds = wav_folder.read_wav_files(held, front_end)
        return Dataset(sounds, part.labels, source.class_names, source.name, split, front_end)
    if isinstance(held, np.ndarray):
        if image_size is not None and held.shape[1:3] != sides(image_size):
            say_once(f"{source.name}: images of {shape_text(held)} are resized to {size_text(image_size)}")
        images: np.ndarray | FileImages = fit_array(held, image_size)
    else:
        images = _read_files(source, split, held, image_size, channels or 3)
    return Dataset(images, part.labels, source.class_names, source.name, split)


def _read_files(
    source: Source, split: str, paths: list[Path], image_size: Size | None, channels: int
) -> np.ndarray | FileImages:
    _check_channels(source.name, channels)
    if split == "train" and len(source.class_names) == 1:
        raise DataError(
            f"{source.name}: has one class only, {source.class_names[0]}; give the folder that holds the class "
            "folders, two or more"
        )
    everything = [path for part in source.parts.values() for path in part.images]
    return read_image_files(paths, image_size, channels, everything)


def _check_channels(name: str, channels: int) -> None:
    if channels not in (1, 3):
        raise DataError(
            f"{name}: image files have 1 channel or 3, the network takes {channels}; give an .npz or idx files"
        )


def load_sized(
    spec: str | Path,
    split: str,
    image_size: Size,
    limit: int | None = None,
    front_end: LogMel | None = None,
    channels: int | None = None,
) -> Dataset:
    """load() for a network that takes images of image_size pixels and so many channels; sounds become images of that
    size. front_end: the network's, if it has one."""
    return load(spec, split, image_size=image_size, limit=limit, front_end=front_end, channels=channels)


@dataclass(frozen=True)
class Outline:
    """A data set's training images without their pixels. name: of the set; labels: int64 [n]; shape: height, width and
    channels, None if they are those of the network: of files; sound: WAV files."""

    name: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    shape: tuple[int, int, int] | None
    sound: bool = False

    def as_dataset(self, image_size: Size, channels: int) -> Dataset:
        """What load_sized() will give a network of that size and channels; every pixel 0, in no memory. DataError if
        image files are not of so many channels."""
        if self.shape is not None:
            channels = self.shape[2]
        elif self.sound:
            channels = 1
        else:
            _check_channels(self.name, channels)
        images = np.broadcast_to(np.uint8(0), (len(self.labels), *sides(image_size), channels))
        return Dataset(images, self.labels, self.class_names, self.name, "train")


def outline(spec: str | Path) -> Outline:
    """Classes, labels and shape of a set's training images, before any picture is decoded. DataError as load()."""
    path = Path(spec).expanduser()
    archive = spec not in fashion_mnist.NAMES and path.is_file() and path.suffix.lower() == ".npz"
    source = read_npz(path, pixels=False) if archive else _open(spec)
    check(source)
    part = select(source, "train")
    if isinstance(part.images, np.ndarray):
        _, height, width, channels = part.images.shape
        return Outline(source.name, source.class_names, part.labels, (height, width, channels))
    sound = part.images[0].suffix.lower() in wav_folder.SUFFIXES
    return Outline(source.name, source.class_names, part.labels, None, sound)


def absolute(spec: str | Path) -> str:
    """The spec as a file keeps it: the name of a set, or an absolute path, so that it holds in any folder."""
    return str(spec) if spec in fashion_mnist.NAMES else os.path.abspath(Path(spec).expanduser())


def kept_path(stated: object, default: str, file: str | os.PathLike) -> str:
    """The data that `file` says it was made with. ConfigError if they are no longer there."""
    spec = default if stated is None else str(stated)
    if spec not in fashion_mnist.NAMES and not os.path.exists(Path(spec).expanduser()):
        raise ConfigError(f"{file}: was trained on {spec}, which is not there; give the place of these data as --data")
    return spec


def _open(spec: str | Path) -> Source:
    """Finds out what `spec` is and reads everything except image files."""
    if spec in fashion_mnist.NAMES:
        return fashion_mnist.read_fashion_mnist(str(spec))
    path = Path(spec).expanduser()
    if not os.path.exists(path):
        raise DataError(f"{path}: does not exist; give fashion-mnist, fashion-mnist-full or an existing path")
    if not path.is_dir() and not path.is_file():
        raise DataError(f"{path}: is a pipe or a device, not a file; give a folder or an .npz file")
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise DataError(f"{path}: is not a data set that can be read; give a folder or an .npz file")
        return read_npz(path)
    files = {entry.name for entry in listing(path) if entry.is_file()}
    if any(IDX_IMAGES.fullmatch(name) for name in files):
        return read_idx_folder(path)
    for layout in CIFAR_LAYOUTS:
        if files & {layout.meta, *layout.train, *layout.test}:
            return read_cifar(path, layout)
    return wav_folder.read_wav_folder(path) if wav_folder.holds_wav(path) else read_image_folder(path)
