# SPDX-License-Identifier: Apache-2.0
"""idx files, MNIST's format: train-images-idx3-ubyte and its like."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from mcuformer.data.source import Part, Source, listing, numbered_classes, one_line
from mcuformer.errors import DataError

IDX_IMAGES = re.compile(r"(train|t10k|test)-images[.-]idx3-ubyte(\.gz)?")


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Reads an idx file of unsigned bytes, gzipped if its name ends in .gz: uint8 of `ndim` dimensions."""
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked ({one_line(error)}); it is damaged, fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}); check the path and its permissions") from error
    expected = 0x0800 | ndim
    magic = int.from_bytes(data[:4], "big")
    if len(data) < 4 or magic != expected:
        raise DataError(
            f"{path}: starts with {data[:4].hex() or 'nothing'}, not {expected:08x}; "
            f"give an idx file of unsigned bytes with {ndim} dimension{'s' if ndim > 1 else ''}"
        )
    header = 4 + 4 * ndim
    shape = struct.unpack(f">{ndim}I", data[4:header]) if len(data) >= header else None
    size = None if shape is None else header + int(np.prod(shape, dtype=object))
    if size != len(data):
        raise DataError(
            f"{path}: holds {len(data)} bytes, its header promises {size or f'at least {header}'}; "
            f"it is damaged, fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_idx_folder(folder: Path) -> Source:
    """train-images-idx3-ubyte and its like, with the labels beside them."""
    parts = {}
    for path in listing(folder):
        match = IDX_IMAGES.fullmatch(path.name)
        if not match:
            continue
        split = "train" if match[1] == "train" else "test"
        if split in parts:
            continue  # the same file exists twice, packed and unpacked
        stem = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
        labels = next((folder / name for name in (stem, stem + ".gz") if (folder / name).is_file()), None)
        if labels is None:
            raise DataError(f"{folder}: has {path.name} without its labels; put {stem} or {stem}.gz beside it")
        parts[split] = Part(read_idx(path, 3)[..., np.newaxis], read_idx(labels, 1).astype(np.int64))
    return Source(str(folder), parts, numbered_classes(str(folder), parts))
