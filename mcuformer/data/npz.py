# SPDX-License-Identifier: Apache-2.0
"""An .npz file of images and labels, with or without splits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from mcuformer.data.source import MAX_BYTES, Part, Source, numbered_classes, one_line
from mcuformer.errors import DataError

# Keys of images and labels, in the order they are tried.
NPZ_SPLITS = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
NPZ_ALL = {"all": ("images", "labels")}


def read_npz(path: Path, pixels: bool = True) -> Source:
    """The arrays of a file, uint8 images [n, height, width] or [n, height, width, channels] and their labels [n].

    Of any channels: windows of a sensor too, scaled to 0 to 255. pixels: False: images have their shape only, and take
    neither time nor memory.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = set(archive.files)
            layout = NPZ_ALL if keys >= {"images", "labels"} else NPZ_SPLITS
            found = {split: pair for split, pair in layout.items() if keys >= set(pair)}
            wanted = [key for pair in found.values() for key in pair]
            too_large = _beyond_memory(archive, wanted)
            images = {x for x, _ in found.values() if not pixels}
            read = {key: archive[key] for key in wanted if not too_large and key not in images}
            arrays = read | {key: _stand_in(archive, key) for key in images}
    except Exception as error:  # a damaged archive can raise almost anything
        raise DataError(f"{path}: is not a readable .npz file ({one_line(error)}); fetch it again") from error
    if not found:
        raise DataError(
            f"{path}: holds {', '.join(sorted(keys)) or 'nothing'}; it needs images and labels, "
            f"or x_train, y_train, x_test and y_test"
        )
    if too_large:
        raise DataError(f"{path}: {too_large}; give a smaller set, or a folder of image files")
    parts = {
        split: Part(_npz_images(path, x, arrays[x]), _npz_labels(path, y, arrays[y])) for split, (x, y) in found.items()
    }
    return Source(str(path), parts, numbered_classes(str(path), parts))


def _beyond_memory(archive: np.lib.npyio.NpzFile, keys: list[str]) -> str | None:
    """What array is too large to read, by its header, whatever the packed file weighs."""
    for key in keys:
        shape, dtype = _header(archive, key)
        if (size := math.prod(shape) * dtype.itemsize) > MAX_BYTES:
            return f"{key} is {dtype} {list(shape)}, {size:,} bytes, more than {MAX_BYTES:,}"
    return None


def _header(archive: np.lib.npyio.NpzFile, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array."""
    assert archive.zip is not None  # it is open
    with archive.zip.open(f"{key}.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
        shape, _, dtype = (read_header or np.lib.format.read_array_header_2_0)(file)
    return shape, dtype


def _stand_in(archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    """Zeros of an array's shape and type, all the same one."""
    shape, dtype = _header(archive, key)
    return np.broadcast_to(np.zeros((), dtype), shape)


def _npz_images(path: Path, key: str, images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(
            f"{path}: {key} is {images.dtype} {list(images.shape)}; save uint8 values as "
            f"[n, height, width, channels] or [n, height, width]"
        )
    return images


def _npz_labels(path: Path, key: str, labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(f"{path}: {key} is {labels.dtype} {list(labels.shape)}; save whole numbers of shape [n]")
    return labels.astype(np.int64)
