# SPDX-License-Identifier: Apache-2.0
"""Images in files: one read and resized, or many read when indexed."""

from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mcuformer.errors import DataError


class FileImages:
    """Looks like a uint8 array [n, size, size, 3]; indexing reads the images from their files.

    Index it with a slice or an array of indices: images[a:b], images[chosen].
    """

    ndim, dtype = 4, np.dtype(np.uint8)

    def __init__(self, paths: list[Path], image_size: int):
        self.paths, self.image_size = paths, image_size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), self.image_size, self.image_size, 3

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, chosen: slice | np.ndarray) -> np.ndarray:
        indices = np.arange(len(self))[chosen]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the interpreter's lock
            images = list(pool.map(lambda i: read_image(self.paths[i], self.image_size), indices))
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)

    def take(self, chosen: np.ndarray) -> FileImages:
        """These images, still as files."""
        return FileImages([self.paths[i] for i in chosen], self.image_size)


def read_image(path: Path, image_size: int | None) -> np.ndarray:
    """One file as uint8 [height, width, 3], a square of image_size pixels unless that is None. DataError names it."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, EOFError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as an image ({reason}); replace or remove it") from error
    return np.asarray(image if image_size is None else fit(image, image_size))


def fit(image: Image.Image, size: int) -> Image.Image:
    """A square of `size` pixels: the shorter side resized, the centre kept."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + size, top + size))


def fit_array(images: np.ndarray, size: int | None) -> np.ndarray:
    """uint8 NHWC of any size -> [n, size, size, channels], one channel at a time."""
    if size is None or images.shape[1:3] == (size, size):
        return np.ascontiguousarray(images)
    fitted = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for n, image in enumerate(images):
        for channel in range(images.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(image[:, :, channel]))
            fitted[n, :, :, channel] = np.asarray(fit(plane, size))
    return fitted
