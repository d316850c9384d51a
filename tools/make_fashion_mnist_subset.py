# SPDX-License-Identifier: Apache-2.0
"""Makes the Fashion-MNIST subset that the package ships.

    python tools/make_fashion_mnist_subset.py /usr/share/datasets/fashion-mnist

takes the folder with the four original idx files (as Debian's package dataset-fashion-mnist installs them)
and writes the first 1,000 training and the first 200 test images of each class, in their original order.
"""

from __future__ import annotations

import argparse
import gzip
import os
import struct
from pathlib import Path

import numpy as np

from mcuformer.data import FASHION_MNIST_SUBSET, read_idx

PER_CLASS = {"train": 1000, "t10k": 200}


def subset(source: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 28, 28] and labels uint8 [n] of one split, "train" or "t10k"; classes balanced."""
    images = read_idx(source / f"{split}-images-idx3-ubyte.gz", 3)
    labels = read_idx(source / f"{split}-labels-idx1-ubyte.gz", 1)
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[: PER_CLASS[split]] for c in range(10)]))
    return images[chosen], labels[chosen]


def write_idx(path: Path, values: np.ndarray) -> None:
    """Writes uint8 values as a gzipped idx file, the same bytes every time, whole or not at all."""
    header = struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(gzip.compress(header + values.tobytes(), compresslevel=9, mtime=0))
    os.replace(partial, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the Fashion-MNIST subset that the package ships.")
    parser.add_argument("source", type=Path, help="folder with the four original .gz files")
    parser.add_argument("--output", type=Path, default=FASHION_MNIST_SUBSET, help="folder to write to")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for split in PER_CLASS:
        images, labels = subset(args.source, split)
        write_idx(args.output / f"{split}-images-idx3-ubyte.gz", images)
        write_idx(args.output / f"{split}-labels-idx1-ubyte.gz", labels)
        print(f"{split}: {len(labels)} images")


if __name__ == "__main__":
    main()
