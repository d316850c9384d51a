# SPDX-License-Identifier: Apache-2.0
"""Relative positions of a FloatViT for another grid of patches: the parameters of the same distances in tokens."""

from __future__ import annotations

import torch

from mcuformer.converter.ops.relative_position import distances

MARK = ".attention.relative."  # in the parameters' names


def for_grid(name: str, value: torch.Tensor, have: tuple[int, int], want: tuple[int, int]) -> torch.Tensor:
    """Parameter `name` of a network with a grid of `have` (rows, columns), for one of `want`.

    A smaller grid has the middle of a larger one's. A larger one has, for the distances that the smaller lacks, what
    that has for its furthest.
    """
    if have == want or name.endswith("_prefix"):
        return value
    rows, columns = (distances(*sides) for sides in zip(have, want, strict=True))
    if name.endswith("_rows"):
        return value[rows]
    if name.endswith("_columns"):
        return value[columns]
    offsets = 2 * have[0] - 1, 2 * have[1] - 1  # of bias, before those of a prefix
    patches = value[:, : offsets[0] * offsets[1]].unflatten(1, offsets)[:, rows][:, :, columns]
    return torch.cat([patches.flatten(1), value[:, offsets[0] * offsets[1] :]], dim=1)
