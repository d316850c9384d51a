# SPDX-License-Identifier: Apache-2.0
"""Which entry of a table of relative positions each pair of a query and a key has: the order in which trained tables
and files hold them."""

from __future__ import annotations

import numpy as np

PREFIX_BIASES = 3  # of a key that is a patch for a query in the prefix, the other way round, both in the prefix


def bias_length(grid: tuple[int, int], prefix: int) -> int:
    """Biases of one head: one for each offset in rows and columns, and those of a prefix."""
    rows, columns = grid
    return (2 * rows - 1) * (2 * columns - 1) + (PREFIX_BIASES if prefix else 0)


def table_length(grid: tuple[int, int], prefix: int) -> int:
    """Vectors of one table: an entry for each offset in rows, one for each in columns, one for all pairs with a prefix
    token."""
    rows, columns = grid
    return 2 * rows - 1 + 2 * columns - 1 + (1 if prefix else 0)


def bias_entries(grid: tuple[int, int], prefix: int) -> np.ndarray:
    """int64 [tokens, tokens]: the bias of each query and key."""
    row, column = _offsets(grid)
    patches = row * (2 * grid[1] - 1) + column
    entries = np.empty((prefix + len(patches),) * 2, np.int64)
    first = bias_length(grid, 0)
    entries[:prefix, prefix:], entries[prefix:, :prefix], entries[:prefix, :prefix] = first, first + 1, first + 2
    entries[prefix:, prefix:] = patches
    return entries


def table_entries(grid: tuple[int, int], prefix: int) -> np.ndarray:
    """int64 [2, tokens, tokens]: the two entries whose sum is the vector of each query and key. Pairs with a prefix
    token have the prefix's entry and, for the second, table_length(), an entry of zeros after the last one."""
    row, column = _offsets(grid)
    entries = np.empty((2, prefix + len(row), prefix + len(row)), np.int64)
    entries[0], entries[1] = table_length(grid, 0), table_length(grid, prefix)
    entries[0, prefix:, prefix:], entries[1, prefix:, prefix:] = row, 2 * grid[0] - 1 + column
    return entries


def _offsets(grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """[patches, patches]: rows and columns of a key less those of the query, counted from 0."""
    rows, columns = grid
    row, column = np.divmod(np.arange(rows * columns), columns)
    return row[None] - row[:, None] + rows - 1, column[None] - column[:, None] + columns - 1
