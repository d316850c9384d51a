# SPDX-License-Identifier: Apache-2.0
"""What kernels do, as counts: the instruction model multiplies each with a coefficient of the core.

Each op module says in `KERNELS` what is counted for each of its kernels, and in `work(dims)` how often each happens.
Blocks of four, two and one tokens have kernels of their own; a pair is two outputs (keys, channels), a word two inputs,
a vector 16 inputs or 8 tokens, a piece 64 inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mcuformer.converter.ops.packed_weights import PACKINGS

PACKING_NAMES = {packing: name for name, packing in PACKINGS.items()}  # as in the names of kernels
Shapes = Sequence[Any]  # of an op's inputs: tuples of integers, None for an input left out
TOKEN_BLOCK = 4  # tokens that a kernel computes together, a block: MCUF_TOKEN_BLOCK
BLOCK_SIZES = (TOKEN_BLOCK, 2, 1)  # those that have a kernel of their own


@dataclass(frozen=True)
class Work:
    """Calls of one kernel: counts in the order of its names in KERNELS."""

    kernel: str
    counts: tuple[int, ...]


WIDE_WORK = Work("wide", ())
"""A kernel on a wide residual stream, which the models do not know."""


def token_blocks(tokens: int, threes: bool = False) -> list[tuple[int, int]]:
    """(tokens per block, number of blocks): blocks of four, the rest as two and one. threes: a rest of three is a
    block of four with a token that is not stored."""
    if threes and tokens % 4 == 3:
        tokens += 1
    return [(size, count) for size, count in ((4, tokens // 4), (2, tokens % 4 // 2), (1, tokens % 2)) if count]
