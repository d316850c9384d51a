# SPDX-License-Identifier: Apache-2.0
"""An .npz file of images and labels, with or without splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mcuformer.data.source import Part, Source, numbered_classes, one_line
from mcuformer.errors import DataError

# Keys of images and labels, in the order they are tried.
NPZ_SPLITS = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
NPZ_ALL = {"all": ("images", "labels")}


def read_npz(path: Path) -> Source:
    """The arrays of a file, uint8 images [n, height, width] or [n, height, width, channels] and their labels [n].

    Of any channels: windows of a sensor too, scaled to 0 to 255.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = set(archive.files)
            layout = NPZ_ALL if keys >= {"images", "labels"} else NPZ_SPLITS
            found = {split: pair for split, pair in layout.items() if keys >= set(pair)}
            arrays = {key: archive[key] for pair in found.values() for key in pair}
    except Exception as error:  # a damaged archive can raise almost anything
        raise DataError(f"{path}: is not a readable .npz file ({one_line(error)}); fetch it again") from error
    if not found:
        raise DataError(
            f"{path}: holds {', '.join(sorted(keys)) or 'nothing'}; it needs images and labels, "
            f"or x_train, y_train, x_test and y_test"
        )
    parts = {
        split: Part(_npz_images(path, x, arrays[x]), _npz_labels(path, y, arrays[y])) for split, (x, y) in found.items()
    }
    return Source(str(path), parts, numbered_classes(str(path), parts))


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
