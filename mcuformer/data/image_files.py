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
from mcuformer.sizes import Size, sides


class FileImages:
    """Looks like a uint8 array [n, height, width, 3]; indexing reads the images from their files.

    Index it with a slice or an array of indices: images[a:b], images[chosen].
    """

    ndim, dtype = 4, np.dtype(np.uint8)

    def __init__(self, paths: list[Path], image_size: Size):
        self.paths, self.image_size = paths, image_size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), *sides(self.image_size), 3

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


def read_image(path: Path, image_size: Size | None) -> np.ndarray:
    """One file as uint8 [height, width, 3], of image_size pixels unless that is None. DataError names it."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, EOFError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as an image ({reason}); replace or remove it") from error
    return np.asarray(image if image_size is None else fit(image, image_size))


def fit(image: Image.Image, size: Size) -> Image.Image:
    """An image of `size` pixels: resized until it just covers them, the centre kept."""
    height, width = sides(size)
    scale = max(height / image.height, width / image.width)
    across, down = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, top = (across - width) // 2, (down - height) // 2
    if (across, down) != image.size:
        image = image.resize((across, down), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + width, top + height))


def fit_array(images: np.ndarray, size: Size | None) -> np.ndarray:
    """uint8 NHWC of any size -> [n, height, width, channels], one channel at a time."""
    if size is None or images.shape[1:3] == sides(size):
        return np.ascontiguousarray(images)
    fitted = np.empty((len(images), *sides(size), images.shape[3]), np.uint8)
    for n, image in enumerate(images):
        for channel in range(images.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(image[:, :, channel]))
            fitted[n, :, :, channel] = np.asarray(fit(plane, size))
    return fitted
