# SPDX-License-Identifier: Apache-2.0
"""Relative positions as BEiT's checkpoints hold them: a table [entries, heads] for a layer, or one for all."""

from __future__ import annotations

import numpy as np
import torch

from mcuformer.converter.importers.parts import Grid, Positions, RelativeBias, without_positions
from mcuformer.converter.importers.settings import Settings
from mcuformer.converter.importers.weights import Weights

EXTRA = 3  # entries of the class token: to patches, from patches, to itself


def grid_of(weights: Weights, names: list[str]) -> Grid | None:
    """The square grid that the first of the tables that there are has entries for; None: none, or not of a square."""
    name = next((name for name in names if name in weights), None)
    if name is None:
        return None
    offsets = weights.shape(name)[0] - EXTRA
    side = int(max(offsets, 0) ** 0.5 + 0.5)
    return ((side + 1) // 2,) * 2 if side * side == offsets and side % 2 else None


def positions(weights: Weights, settings: Settings, names: list[str], d: int) -> Positions:
    """Of a network that has these tables and no position table."""
    said = settings.get("grid_shape")
    grid = said or grid_of(weights, names) or settings.need("grid_shape")
    return without_positions(grid, d, grid_assumed=said is None)


def bias(weights: Weights, names: list[str], num_heads: int, grid: Grid, resize) -> RelativeBias | None:
    """The sum of a layer's tables, of those that there are; ModelError if one is not of the grid."""
    table = None
    for name in names:
        if name not in weights:
            weights.maybe(name)
            continue
        rows, columns = 2 * grid[0] - 1, 2 * grid[1] - 1
        if (have := weights.shape(name)) != (rows * columns + EXTRA, num_heads):
            raise weights.error(
                f"tensor '{name}' has shape {list(have)}: the relative positions of {grid[0]} x {grid[1]} patches and "
                f"{num_heads} heads are [{rows * columns + EXTRA}, {num_heads}]"
            )
        part = weights.take(name, rows * columns + EXTRA, num_heads).T
        table = part if table is None else table + part
    if table is None:
        return None
    # BEiT counts from the key to the query, the network from the query to the key.
    patches = table[:, :-EXTRA].unflatten(1, (rows, columns)).flip(1, 2)
    return RelativeBias(patches, table[:, -EXTRA:], resize)


def resize_geometric(table: torch.Tensor, grid: Grid) -> torch.Tensor:
    """[heads, 2 rows - 1, 2 columns - 1] for another grid, as timm does it (and BEiT's authors, who interpolate
    cubically): the old offsets are spread over the new ones in steps that grow by one ratio away from 0, and what is
    between is interpolated linearly."""
    to = tuple(2 * side - 1 for side in grid)
    if tuple(table.shape[1:]) == to:
        return table
    rows, columns = (_spread(have, want) for have, want in zip(table.shape[1:], to, strict=True))
    return torch.einsum("ai,bj,hij->hab", rows, columns, table)


def _spread(have: int, want: int) -> torch.Tensor:
    """[want, have]: the weights of the old offsets for each new one."""
    half, reach = have // 2, want // 2
    least, most = 1.01, 1.5
    while most - least > 1e-6:
        ratio = (least + most) / 2
        if (1 - ratio**half) / (1 - ratio) > reach:
            most = ratio
        else:
            least = ratio
    away = np.cumsum(ratio ** np.arange(half))
    points = np.concatenate([-away[::-1], [0.0], away])
    targets = np.arange(want) - float(reach)
    return torch.from_numpy(np.stack([np.interp(targets, points, row) for row in np.eye(have)], axis=1))


def resize_linear(table: torch.Tensor, grid: Grid) -> torch.Tensor:
    """[heads, 2 rows - 1, 2 columns - 1] for another grid, as Hugging Face does it."""
    to = tuple(2 * side - 1 for side in grid)
    resized = torch.nn.functional.interpolate(table.float()[None], to, mode="bilinear", align_corners=False)
    return resized[0].double()
