# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST: the subset in the package, and the whole set if it is on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from mcuformer.data.idx import IDX_IMAGES, read_idx_folder
from mcuformer.data.source import Part, Source, listing
from mcuformer.errors import DataError

NAMES = ("fashion-mnist", "fashion-mnist-full")
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION_MNIST_ENV = "MCUFORMER_FASHION_MNIST"
FASHION_MNIST_FULL = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it
FASHION_MNIST_SUBSET = Path(__file__).parent.parent / "datasets" / "fashion_mnist"


def read_fashion_mnist(name: str) -> Source:
    """One of NAMES, with the names of its classes; images are padded from 28 to 32 pixels with zeros."""
    folder = FASHION_MNIST_SUBSET if name == "fashion-mnist" else _full_folder(name)
    files = {path.name for path in listing(folder)}
    if not any(IDX_IMAGES.fullmatch(file) for file in files):
        raise DataError(f"{name}: no idx files in {folder}; it should hold train-images-idx3-ubyte.gz and the like")
    source = read_idx_folder(folder)
    parts = {
        split: Part(np.pad(np.asarray(part.images), ((0, 0), (2, 2), (2, 2), (0, 0))), part.labels)
        for split, part in source.parts.items()
    }
    return Source(name, parts, FASHION_MNIST_CLASSES)


def _full_folder(name: str) -> Path:
    folder = Path(os.environ.get(FASHION_MNIST_ENV) or FASHION_MNIST_FULL)
    if not folder.is_dir():
        raise DataError(
            f"{name}: folder {folder} does not exist; install Debian's package dataset-fashion-mnist, "
            f"or set {FASHION_MNIST_ENV} to a folder with its four idx files"
        )
    return folder
