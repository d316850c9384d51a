# SPDX-License-Identifier: Apache-2.0
"""idx files, MNIST's format: train-images-idx3-ubyte and its like, of other ranks too."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np

from mcuformer.data.source import MAX_BYTES, Part, Source, listing, numbered_classes, one_line
from mcuformer.errors import DataError

IDX_IMAGES = re.compile(r"(train|t10k|test)-images([.-])idx(\d+)-ubyte(\.gz)?")
# What the dimensions of images are, by their number; each becomes [n, height, width, channels].
RANKS = {2: "[n, width]", 3: "[n, height, width]", 4: "[n, height, width, channels]"}
MAX_CHANNELS = 64
PIECE = 2**24  # bytes unpacked at a time


class Readable(Protocol):
    """Has bytes to read."""

    def read(self, size: int, /) -> bytes: ...


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Reads an idx file of unsigned bytes, gzipped if its name ends in .gz: uint8 of `ndim` dimensions."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is a folder, a pipe or a device; give an idx file")
    try:
        with path.open("rb") as packed:
            file: Readable = gzip.GzipFile(fileobj=packed) if path.suffix == ".gz" else packed
            return _read(file, path, ndim)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked ({one_line(error)}); it is damaged, fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}); check the path and its permissions") from error


def _read(file: Readable, path: Path, ndim: int) -> np.ndarray:
    """No more than the header promises, and a byte to see whether that is all."""
    expected, header = 0x0800 | ndim, 4 + 4 * ndim
    data = bytearray(_up_to(file, header))
    magic = int.from_bytes(data[:4], "big")
    if len(data) < 4 or magic != expected:
        raise DataError(
            f"{path}: starts with {data[:4].hex() or 'nothing'}, not {expected:08x}; "
            f"give an idx file of unsigned bytes with {ndim} dimension{'s' if ndim > 1 else ''}"
        )
    shape = struct.unpack(f">{ndim}I", data[4:header]) if len(data) >= header else None
    size = None if shape is None else header + int(np.prod(shape, dtype=object))
    if size is not None:
        if size > MAX_BYTES:
            raise DataError(f"{path}: its header promises {size:,} bytes, more than {MAX_BYTES:,}; give a smaller set")
        data += _up_to(file, size + 1 - len(data))
    if size != len(data):
        found = f"more than {size}" if size is not None and len(data) > size else len(data)
        raise DataError(
            f"{path}: holds {found} bytes, its header promises {size or f'at least {header}'}; "
            f"it is damaged, fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _up_to(file: Readable, count: int) -> bytearray:
    """So many bytes, or what there is; memory follows what is read, not what is promised."""
    data = bytearray()
    while len(data) < count and (piece := file.read(min(PIECE, count - len(data)))):
        data += piece
    return data


def read_idx_folder(folder: Path) -> Source:
    """train-images-idx3-ubyte and its like, with the labels beside them."""
    parts = {}
    for path in listing(folder):
        match = IDX_IMAGES.fullmatch(path.name)
        if not match:
            continue
        split, rank = "train" if match[1] == "train" else "test", int(match[3])
        if split in parts:
            continue  # the same file exists twice, packed and unpacked
        stem = path.name.removesuffix(".gz").replace("images", "labels").replace(f"idx{match[3]}", "idx1")
        labels = next((folder / name for name in (stem, stem + ".gz") if (folder / name).is_file()), None)
        if labels is None:
            raise DataError(f"{folder}: has {path.name} without its labels; put {stem} or {stem}.gz beside it")
        parts[split] = Part(_read_images(path, rank), read_idx(labels, 1).astype(np.int64))
    return Source(str(folder), parts, numbered_classes(str(folder), parts))


def _read_images(path: Path, rank: int) -> np.ndarray:
    """uint8 [n, height, width, channels] of images of any of RANKS."""
    if rank not in RANKS:
        raise DataError(f"{path}: has images of {rank} dimensions; give {', '.join(RANKS.values())}")
    images = read_idx(path, rank)
    if rank == 4 and images.shape[3] > MAX_CHANNELS >= images.shape[1]:
        raise DataError(
            f"{path}: has images of {list(images.shape)}, so {images.shape[3]} channels; save them as {RANKS[4]}"
        )
    if rank == 2:
        return images[:, np.newaxis, :, np.newaxis]
    return images if rank == 4 else images[..., np.newaxis]
