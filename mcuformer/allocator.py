# SPDX-License-Identifier: Apache-2.0
"""Keeps the memory that tensors free for the next ones.

glibc maps a large block anew for every tensor and unmaps it when it is freed; Linux then hands out its pages one by one
and zeroes each. That takes a large part of the time of small networks, whose tensors live for a millisecond
(benchmarks/evaluation_time.py).
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt()'s parameters, of malloc.h
LARGEST = 1 << 26, 1 << 25  # bytes of a block; the second is the most that older versions of glibc take
KEPT = 1 << 30  # bytes, at most


def keep_freed_memory() -> bool:
    """From now on this process keeps up to 1 GiB of freed blocks of up to 64 MiB (older glibc: 32 MiB) each. Whether it
    does: False without glibc, where nothing changes."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return any(mallopt(MMAP_THRESHOLD, most) for most in LARGEST) and bool(mallopt(TRIM_THRESHOLD, KEPT))
