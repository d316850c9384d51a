# SPDX-License-Identifier: Apache-2.0
"""Parts: a Vision Transformer as every family describes it to assemble.py, before anything is folded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from mcuformer.converter.ops.relative_position import distances


class Matrix(NamedTuple):
    """weight [out, in] (of a convolution [out, in, height, width], of a LayerNorm [features]); bias [out]; None: 0.

    down [rank, in]: the matrix is weight @ down, with weight [out, rank].
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    down: torch.Tensor | None = None

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def rank(self) -> int:
        """Of the factors; 0: dense."""
        return 0 if self.down is None else self.down.shape[0]

    def dense(self) -> Matrix:
        """The same as one matrix."""
        return Matrix(self.product, self.bias)

    @property
    def product(self) -> torch.Tensor:
        """[out, in]"""
        return self.weight if self.down is None else self.weight @ self.down

    @property
    def offset(self) -> torch.Tensor:
        """The bias, [out]"""
        return self.weight.new_zeros(self.outputs) if self.bias is None else self.bias

    def scaled(self, by: torch.Tensor | None) -> Matrix:
        """Each output times its factor; None: 1."""
        return self if by is None else Matrix(self.weight * by[:, None], self.offset * by, self.down)


Grid = tuple[int, int]


@dataclass(frozen=True)
class RelativeBias:
    """What a layer adds to its scaled scores.

    table   [heads, 2 rows - 1, 2 columns - 1], by the rows and columns that a key is away from the query, from the
            most negative
    prefix  [heads, 3] of a key that is a patch for a query in the prefix, the other way round, both in the prefix;
            without a prefix [heads, 0]
    resize  (table, another grid) -> table
    """

    table: torch.Tensor
    prefix: torch.Tensor
    resize: Callable[[torch.Tensor, Grid], torch.Tensor]

    kind = "bias"

    def resized(self, grid: Grid) -> RelativeBias:
        return dataclasses.replace(self, table=self.resize(self.table, grid))

    def tensors(self, grid: Grid) -> dict[str, torch.Tensor]:
        """As RelativeBias of FloatViT names them."""
        return {"bias": torch.cat([self.table.flatten(1), self.prefix], dim=1)}


@dataclass(frozen=True)
class RelativeTables:
    """What a layer adds to its keys and values: vectors for the rows and for the columns that a key is away from the
    query. Keys that are further away than the tables reach have those of their ends.

    keys, values  (rows [2 * most + 1, head_dim], columns the same, prefix [1, head_dim]), from the most negative
    """

    keys: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    values: tuple[torch.Tensor, torch.Tensor, torch.Tensor]

    kind = "tables"

    def resized(self, grid: Grid) -> RelativeTables:
        return self

    def tensors(self, grid: Grid) -> dict[str, torch.Tensor]:
        """As RelativeTables of FloatViT names them."""
        made = {}
        for name, (rows, columns, prefix) in (("key", self.keys), ("value", self.values)):
            made[f"{name}_rows"], made[f"{name}_columns"] = _reaching(rows, grid[0]), _reaching(columns, grid[1])
            made[f"{name}_prefix"] = prefix
        return made


def _reaching(table: torch.Tensor, side: int) -> torch.Tensor:
    """[2 side - 1, head_dim] of a table of fewer or more distances."""
    return table[distances(len(table) // 2 + 1, side)]


@dataclass
class LayerParts:
    """One layer. qkv: rows of all q, then all k, all v, heads one after the other.

    attention_scale  of q k^T; None: head_dim^-0.5
    layer_scale      what the outputs of proj and of fc2 are multiplied by, one value per channel; None: 1
    relative         relative positions, of all layers or of none
    """

    num_heads: int
    norm1: Matrix
    qkv: Matrix
    proj: Matrix
    norm2: Matrix
    fc1: Matrix
    fc2: Matrix
    attention_scale: float | None = None
    layer_scale: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
    relative: RelativeBias | RelativeTables | None = None


@dataclass(frozen=True)
class Resize:
    """How a library resizes its position table, as arguments of torch's bicubic interpolation."""

    antialias: bool = False
    align_corners: bool = False

    def __call__(self, position: torch.Tensor, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
        """[rows * columns, d] from one grid to another. In float32, as the libraries do."""
        image = position.float().reshape(1, *old, -1).permute(0, 3, 1, 2)
        image = torch.nn.functional.interpolate(
            image, new, mode="bicubic", align_corners=self.align_corners, antialias=self.antialias
        )
        return image.permute(0, 2, 3, 1).reshape(new[0] * new[1], -1).double()


@dataclass
class VitParts:
    """A whole network.

    stem          convolution [d, channels, height, width], of stride = kernel
    prefix        [tokens, d], with their positions
    position      [rows * columns, d], of the patches
    grid_shape    (rows, columns)
    grid_assumed  they make a square, but nothing said so
    heads         none; one on what `pool` makes; two, of which each reads its own part of that, averaged
    mean, std     the stem's input is (pixels in [0, 1] - mean) / std: one value, or one per channel
    resize        (position, grid, another grid) -> position
    padding       pixels on every side of the normalised image, zeros, before it is cut into patches
    patch_size    pixels, or (height, width), that the stem's kernel is to be resized to; None: it stays
    image_shape   (height, width) of its images, where something but the grid says so
    """

    stem: Matrix
    prefix: torch.Tensor
    position: torch.Tensor
    grid_shape: tuple[int, int]
    layers: list[LayerParts]
    norm: Matrix | None
    heads: list[Matrix]
    pool: str
    activation: str
    norm_epsilon: float
    mean: list[float]
    std: list[float]
    final_norm: str = "before"
    norm_pre: Matrix | None = None
    norm_order: str = "pre"
    grid_assumed: bool = False
    resize: Callable[[torch.Tensor, tuple[int, int], tuple[int, int]], torch.Tensor] = Resize(antialias=True)
    class_names: list[str] | None = None
    padding: int = 0
    patch_size: int | tuple[int, int] | None = None
    image_shape: tuple[int, int] | None = None


class Positions(NamedTuple):
    """prefix: [tokens, d], of the first prefix tokens; patches [rows * columns, d]; grid_assumed: nothing said it."""

    prefix: torch.Tensor
    patches: torch.Tensor
    grid_shape: tuple[int, int]
    grid_assumed: bool

    def of(self, tokens: torch.Tensor) -> torch.Tensor:
        """Prefix tokens [n, d] with their positions: the first ones have some."""
        placed = tokens.clone()
        placed[: len(self.prefix)] += self.prefix
        return placed


def without_positions(grid_shape: Grid, d: int, grid_assumed: bool) -> Positions:
    """Of a network that has no position table."""
    rows, columns = (int(side) for side in grid_shape)
    zeros = torch.zeros(rows * columns, d, dtype=torch.float64)
    return Positions(zeros[:0], zeros, (rows, columns), grid_assumed)


def split_positions(
    table: torch.Tensor,
    choices: tuple[int, ...],
    grid_shape: tuple[int, int] | None,
    error: Callable[[str], Exception],
) -> Positions:
    """A position table [n, d], taken apart.

    choices     how many of its first rows can belong to prefix tokens
    grid_shape  rows and columns of patches; None: a square, if one choice leaves one
    """
    rows = len(table)
    if grid_shape is None:
        grids = {count: int((rows - count) ** 0.5 + 0.5) for count in choices if rows > count}
        fitting = [count for count, side in grids.items() if side * side == rows - count]
        mend = "set grid_shape, its rows and columns, such as grid_shape=[7,12] for 84 patches"
    else:
        fitting = [count for count in choices if rows - count == grid_shape[0] * grid_shape[1]]
        mend = f"not the {grid_shape[0]} x {grid_shape[1]} of grid_shape"
    if not fitting:
        held = " or ".join(str(rows - count) for count in choices)
        raise error(f"the position table stands for {held} patches, which make no square grid: {mend}" if grid_shape is
                    None else f"the position table stands for {held} patches, {mend}")  # fmt: skip
    if len(fitting) > 1:
        raise error(
            f"the position table has {rows} rows, of which {' or '.join(map(str, fitting))} can be those of prefix "
            f"tokens: set prefix_positions, for example prefix_positions={fitting[0]}"
        )
    count = fitting[0]
    side = int((rows - count) ** 0.5 + 0.5)
    grid = (side, side) if grid_shape is None else (int(grid_shape[0]), int(grid_shape[1]))
    return Positions(table[:count], table[count:], grid, grid_shape is None)
