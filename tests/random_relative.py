# SPDX-License-Identifier: Apache-2.0
"""Random relative positions of attention, with all values at their ends at times."""

from __future__ import annotations

import numpy as np

from mcuformer.converter.ops.relative_position import Relative, bias_length, table_length

GRIDS = ((1, 1), (1, 7), (6, 1), (2, 3), (3, 2), (4, 4), (7, 5), (5, 9))
PREFIXES = (0, 1, 3, 5)


def relative_constants(rng: np.random.Generator, relative: Relative, tokens: int, heads: int, dim: int) -> dict:
    """The constants of an op with these relative positions, by name."""
    prefix = relative.prefix(tokens)
    ends = rng.random() < 0.2
    if not relative.tables:
        largest = 32767 if ends else int(2.0 ** rng.uniform(4, 15))
        shape = heads, bias_length(relative.grid, prefix)
        bias = rng.choice([-32768, 32767], shape) if ends else rng.integers(-largest, largest + 1, shape)
        factor = rng.integers(1, dim + 1, heads) if rng.random() < 0.5 else np.full(heads, dim)
        params = np.stack([factor, np.zeros(heads, np.int64)], axis=1)
        return {"relative_params": params.astype(np.int32), "relative_bias": bias.astype(np.int16)}
    shape = table_length(relative.grid, prefix), dim
    keys, values = (rng.choice([-128, 127], shape) if ends else rng.integers(-128, 128, shape) for _ in range(2))
    params = rng.choice([0, 1 << 20, 1 << 29, 2**31 - 1], (heads, 2)) if ends else rng.integers(0, 2**31, (heads, 2))
    return {
        "relative_params": params.astype(np.int32),
        "relative_keys": keys.astype(np.int8),
        "relative_values": values.astype(np.int8),
    }


def random_relative(rng: np.random.Generator) -> tuple[Relative, int]:
    """Relative positions, and the tokens of their grid and a prefix."""
    rows, columns = GRIDS[rng.integers(len(GRIDS))]
    return Relative(rows, columns, bool(rng.random() < 0.5)), rows * columns + int(rng.choice(PREFIXES))
