# SPDX-License-Identifier: Apache-2.0
"""How a Streamed op's options and constants lie in one uint8 tensor of the file, since every tensor costs arena.

int32 words [count, offset, size, offset, size ...], then the sections, each at a multiple of 16 bytes; little-endian.
The first section holds scalars, the others one constant each. tflm_kernels/kernels/params_blob.h reads it;
tflm_kernels/kernels/streamed_layout.h has the same order of scalars and sections as the `Layout`s of the ops. In the
graph they are options and tensors, as for every op: only converter/file_form.py packs and unpacks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ALIGNMENT = 16


@dataclass(frozen=True)
class Layout:
    """Scalars and sections of one op, in order.

    scalars        names of the int32 in the first section
    repeated       name of a scalar that follows once per matrix; empty: none
    dtypes         name of each constant -> its dtype; in the order of the sections
    to_scalars     options -> scalars
    from_scalars   scalars -> options
    """

    scalars: tuple[str, ...]
    repeated: str
    dtypes: dict[str, str]
    to_scalars: Callable[[Any], list[int]]
    from_scalars: Callable[[list[int]], Any]


def pack(sections: Sequence[np.ndarray | None]) -> np.ndarray:
    """uint8 [bytes]. None: an empty section."""
    contents = [b"" if section is None else _bytes_of(section) for section in sections]
    words, at = [len(contents)], align(4 + 8 * len(contents))
    for content in contents:
        words += [at, len(content)]
        at += align(len(content))
    blob = bytearray(at)
    blob[: 4 * len(words)] = np.array(words, "<i4").tobytes()
    for i, content in enumerate(contents):
        blob[words[1 + 2 * i] : words[1 + 2 * i] + len(content)] = content
    return np.frombuffer(bytes(blob), np.uint8)


def packed_bytes(section_bytes: Iterable[int]) -> int:
    """Size of the blob that pack() makes of sections of these sizes."""
    sizes = list(section_bytes)
    return align(4 + 8 * len(sizes)) + sum(map(align, sizes))


def unpack(blob: np.ndarray) -> list[bytes]:
    """The sections' bytes. ValueError if they do not lie inside the blob."""
    content = blob.tobytes()
    count = int(np.frombuffer(content[:4], "<i4")[0])
    table = np.frombuffer(content[4 : 4 + 8 * count], "<i4").reshape(count, 2).tolist()
    if any(offset < 0 or size < 0 or offset + size > len(content) for offset, size in table):
        raise ValueError("a section lies outside the params")
    return [content[offset : offset + size] for offset, size in table]


def array(section: bytes, dtype: str) -> np.ndarray | None:
    """The section as a vector; None if it is empty."""
    return np.frombuffer(section, np.dtype(dtype).newbyteorder("<")).astype(dtype) if section else None


def split_int64(value: int) -> tuple[int, int]:
    """Low and high word of an int64, as signed int32."""
    low, high = np.frombuffer(np.int64(value).tobytes(), "<i4")
    return int(low), int(high)


def join_int64(low: int, high: int) -> int:
    return (int(high) << 32) | (int(low) & 0xFFFFFFFF)


def align(size: int) -> int:
    """size rounded up to a multiple of 16."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _bytes_of(section: np.ndarray) -> bytes:
    return np.ascontiguousarray(section, section.dtype.newbyteorder("<")).tobytes()
