# SPDX-License-Identifier: Apache-2.0
"""The constants of a Streamed op in one uint8 tensor: tflm_kernels/kernels/params_blob.h reads it.

int32 words [count, offset, size, offset, size ...], then the sections, each at a multiple of 16 bytes; little-endian.
"""

from __future__ import annotations

import numpy as np

from mcuformer.converter.ops import int_layer_norm
from mcuformer.converter.ops.packed_weights import PAIRS

ALIGNMENT = 16


def pack(sections: list[np.ndarray | bytes | None]) -> np.ndarray:
    """uint8 [bytes]. None: an empty section."""
    contents = [_bytes_of(section) for section in sections]
    words, at = [len(contents)], _align(4 + 8 * len(contents))
    for content in contents:
        words += [at, len(content)]
        at += _align(len(content))
    blob = bytearray(at)
    blob[: 4 * len(words)] = np.array(words, "<i4").tobytes()
    for i, content in enumerate(contents):
        blob[words[1 + 2 * i] : words[1 + 2 * i] + len(content)] = content
    return np.frombuffer(bytes(blob), np.uint8)


def _bytes_of(section: np.ndarray | bytes | None) -> bytes:
    if section is None or isinstance(section, bytes):
        return section or b""
    return np.ascontiguousarray(section, section.dtype.newbyteorder("<")).tobytes()


def unpack(blob: np.ndarray) -> list[bytes]:
    """The sections' bytes. ValueError where they do not lie inside the blob."""
    content = blob.tobytes()
    count = int(np.frombuffer(content[:4], "<i4")[0])
    table = np.frombuffer(content[4 : 4 + 8 * count], "<i4").reshape(count, 2).tolist()
    if any(offset < 0 or size < 0 or offset + size > len(content) for offset, size in table):
        raise ValueError("a section lies outside the params")
    return [content[offset : offset + size] for offset, size in table]


def array(section: bytes, dtype: str) -> np.ndarray | None:
    """The section as a vector; None where it is empty."""
    return np.frombuffer(section, np.dtype(dtype).newbyteorder("<")).astype(dtype) if section else None


def fully_connected(sections: list[bytes], at: int, packing: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """weights as packed, bias and multiplier [out] of the three sections from `at`."""
    bias = array(sections[at + 1], "int32")
    shape = ((len(bias) + 1) // 2, -1, 2) if packing == PAIRS else (len(bias), -1)
    return array(sections[at], "int8").reshape(shape), bias, array(sections[at + 2], "int32")


def take_out(sections: list[bytes], places: list[int]) -> np.ndarray:
    """Empties sections of weights; returns them one behind the other, each at a multiple of 16 bytes: int8 [bytes]."""
    out = b""
    for place in places:
        out += sections[place] + bytes(-len(sections[place]) % ALIGNMENT)
        sections[place] = b""
    return np.frombuffer(out, np.int8)


def put_back(sections: list[bytes], places: list[int], sizes: list[int], weights: np.ndarray | None) -> None:
    """Undoes take_out; nothing where the weights are in their sections, weights None."""
    at = 0
    for place, size in zip(places, sizes, strict=True):
        if weights is not None:
            sections[place] = weights[at : at + size].tobytes()
        at += _align(size)


def layer_norm(sections: list[bytes], at: int, x: np.ndarray, zero_point: int, low: int, high: int) -> np.ndarray:
    """IntLayerNorm of x with gamma, beta and factor of the three sections from `at`; low, high: words of epsilon."""
    return int_layer_norm.reference(
        int_layer_norm.Options(zero_point, join_int64(low, high)),
        x,
        array(sections[at], "int16"),
        array(sections[at + 1], "int32"),
        array(sections[at + 2], "uint8"),
    )


def split_int64(value: int) -> tuple[int, int]:
    """Low and high word of an int64, as signed int32."""
    low, high = np.frombuffer(np.int64(value).tobytes(), "<i4")
    return int(low), int(high)


def join_int64(low: int, high: int) -> int:
    return (int(high) << 32) | (int(low) & 0xFFFFFFFF)


def _align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
