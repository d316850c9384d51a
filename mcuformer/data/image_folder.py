# SPDX-License-Identifier: Apache-2.0
"""Folders of image files, one folder per class, with ImageNet's splits or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mcuformer.data.image_files import FileImages, read_image
from mcuformer.data.source import Part, Source, listing, shape_text
from mcuformer.errors import DataError
from mcuformer.sizes import Size

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
# Folder names of the two splits, in the order they are tried.
SPLIT_FOLDERS = {"train": ("train",), "test": ("val", "test")}
# Images that need more than this stay files.
MAX_BYTES = 8 * 2**30
PROGRESS_FROM = 1000  # image files; fewer are read before a bar is worth drawing


def read_image_folder(folder: Path) -> Source:
    """ImageNet's layout, train/CLASS/*.jpg with val/ or test/ beside it, or CLASS/*.jpg alone."""
    return read_class_folders(folder, IMAGE_SUFFIXES, "images", "image.jpg")


def read_class_folders(folder: Path, suffixes: set[str], kind: str, example: str, left_out: str = "") -> Source:
    """The same of files of any suffixes. kind, example: what errors call them; left_out: how the names of folders begin
    that are no classes."""

    def files_in(folder: Path) -> list[Path]:
        return [path for path in listing(folder) if path.suffix.lower() in suffixes]

    def is_class(entry: Path) -> bool:
        return entry.is_dir() and not (left_out and entry.name.startswith(left_out))

    roots = _split_folders(folder, files_in)
    images: dict[str, dict[str, list[Path]]] = {}  # split -> class -> files
    for split, root in roots.items():
        images[split] = {entry.name: files_in(entry) for entry in listing(root) if is_class(entry)}
        if any(images[split].values()):
            continue
        if files_in(root):
            raise DataError(f"{root}: holds {kind} but no class folders; put them as CLASS/{example}")
        raise DataError(
            f"{root}: holds nothing that can be read; give idx files, CIFAR's python files, or images or "
            "WAV files in class folders"
        )

    first = next(iter(images))
    class_names = tuple(images[first])
    parts = {}
    for split, classes in images.items():
        unknown = sorted(set(classes) - set(class_names))
        if unknown:
            raise DataError(
                f"{roots[split] / unknown[0]}: is not a class of {roots[first]}; "
                f"use the same class folders in every split"
            )
        paths = [path for paths in classes.values() for path in paths]
        counts = [len(paths) for paths in classes.values()]
        numbers = [class_names.index(name) for name in classes]
        parts[split] = Part(paths, np.repeat(np.array(numbers, np.int64), counts))
    return Source(str(folder), parts, class_names)


def _split_folders(folder: Path, files_in: Callable[[Path], list[Path]]) -> dict[str, Path]:
    """Where the splits lie: train/, and val/ or test/; or the folder itself, as "all"."""
    known = [name for names in SPLIT_FOLDERS.values() for name in names]
    if any(entry.is_dir() and entry.name not in known and files_in(entry) for entry in listing(folder)):
        return {"all": folder}  # even if a class is called "train"
    roots = {}
    for split, names in SPLIT_FOLDERS.items():
        for name in names:
            if split not in roots and (folder / name).is_dir():
                roots[split] = folder / name
    return roots or {"all": folder}


def read_image_files(paths: list[Path], image_size: Size | None) -> np.ndarray | FileImages:
    """The images as uint8 [n, height, width, 3]; grey ones become RGB. Too many for memory stay files."""
    first = read_image(paths[0], image_size)
    if len(paths) * first.nbytes > MAX_BYTES:
        if image_size is not None:
            return FileImages(paths, image_size)
        raise DataError(
            f"{paths[0].parent.parent}: {len(paths)} images of {shape_text(first[np.newaxis])} need more than "
            f"{MAX_BYTES / 2**30:.0f} GiB of memory; give a limit, or an image_size to read them when used"
        )
    images = np.empty((len(paths), *first.shape), np.uint8)
    console = Console(stderr=True)
    for i, path in enumerate(
        track(paths, "reading images", console=console, transient=True, disable=len(paths) < PROGRESS_FROM)
    ):
        image = read_image(path, image_size)
        if image.shape != first.shape:
            raise DataError(
                f"{path}: is {shape_text(image[np.newaxis])} pixels while {paths[0].name} is "
                f"{shape_text(first[np.newaxis])}; give image_size to resize them all"
            )
        images[i] = image
    return images
