# SPDX-License-Identifier: Apache-2.0
"""What a camera and a flash chip do on a microcontroller: callbacks that bring image rows and staged weights."""

from __future__ import annotations

import ctypes

import numpy as np

from mcuformer import kernel_library


def rows_of(image: np.ndarray):
    """The callback that copies rows of an int8 image [H, W, C]. The caller keeps it alive."""
    image = np.ascontiguousarray(image)

    def rows(_user, first: int, count: int, target: int) -> int:
        strip = image[first : first + count]
        ctypes.memmove(target, strip.ctypes.data, strip.nbytes)
        return len(strip)

    return kernel_library.IMAGE_ROWS(rows)


def weights_from(content: bytes, read: list[int]):
    """The callback that copies staged weights; notes the bytes of every read. The caller keeps it alive."""
    memory = np.frombuffer(content, np.int8)

    def bring(_user, offset: int, count: int, target: int) -> int:
        piece = memory[offset : offset + count]
        ctypes.memmove(target, piece.ctypes.data, piece.nbytes)
        read.append(piece.nbytes)
        return piece.nbytes

    return kernel_library.WEIGHTS(bring)
