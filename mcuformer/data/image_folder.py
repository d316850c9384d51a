# SPDX-License-Identifier: Apache-2.0
"""Folders of image files, one folder per class, with ImageNet's splits or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mcuformer.data.class_folders import Kind, read_class_folders
from mcuformer.data.image_files import HEIF_SUFFIXES, FileImages, ImageReader, image_suffixes
from mcuformer.data.source import MAX_BYTES, Source, say_once, shape_text
from mcuformer.errors import DataError
from mcuformer.sizes import Size

PROGRESS_FROM = 1000  # image files; fewer are read before a bar is worth drawing


def read_image_folder(folder: Path) -> Source:
    """ImageNet's layout, train/CLASS/*.jpg with val/ or test/ beside it, or CLASS/*.jpg alone."""
    hints = dict.fromkeys(HEIF_SUFFIXES, "pip install pillow-heif reads them")
    return read_class_folders(folder, Kind(image_suffixes(), "images", "image.jpg", hints=hints))


def read_image_files(
    paths: list[Path], image_size: Size | None, channels: int = 3, of_set: list[Path] | None = None
) -> np.ndarray | FileImages:
    """The images as uint8 [n, height, width, channels]: 1 for grey, 3 for RGB. More than MAX_BYTES stay files.

    of_set: all pictures of the set, if `paths` are some of them.
    """
    folder = paths[0].parent.parent
    reader = ImageReader(of_set or paths, image_size, channels, lambda line: say_once(f"{folder}: {line}"))
    first = reader(paths[0])
    if len(paths) * first.nbytes > MAX_BYTES:
        if image_size is not None:
            return FileImages(paths, image_size, reader)
        raise DataError(
            f"{folder}: {len(paths)} images of {shape_text(first[np.newaxis])} need more than "
            f"{MAX_BYTES / 2**30:.0f} GiB of memory; give a limit, or an image_size to read them when used"
        )
    images = np.empty((len(paths), *first.shape), np.uint8)
    images[0] = first
    console = Console(stderr=True)
    for i, path in enumerate(
        track(paths[1:], "reading images", console=console, transient=True, disable=len(paths) < PROGRESS_FROM), 1
    ):
        image = reader(path)
        if image.shape != first.shape:
            raise DataError(
                f"{path}: is {shape_text(image[np.newaxis])} pixels while {paths[0].name} is "
                f"{shape_text(first[np.newaxis])}; give image_size to resize them all"
            )
        images[i] = image
    if reader.frames:
        say_once(
            f"{folder}: {len(reader.frames)} files of several pictures, such as {reader.frames[0].name}: the first of "
            "each is read"
        )
    return images
