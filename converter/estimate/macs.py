# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of matrix products, as lowered: a low rank above break-even runs dense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.skeleton import Schedule, skeleton

if TYPE_CHECKING:  # SubnetConfig.macs asks this module
    from mcuformer.converter.subnet_config import SubnetConfig


def macs(config: SubnetConfig) -> int:
    """A network's, for one image; the same in every schedule."""
    return sum(step.module.macs(step.dims) for _, step in skeleton(config, Schedule("overwrite")).steps())


def op_macs(graph: Graph, op: Op) -> int:
    """One op's, for one image."""
    return op.module.macs(graph.dims(op))
