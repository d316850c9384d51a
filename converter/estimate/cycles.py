# SPDX-License-Identifier: Apache-2.0
"""How many cycles a network takes on a core, an estimate: a model fitted as that of instructions (kernel_model.py), to
cycles that mcuformer/simulator/cycles.py estimates of what QEMU executes.

Wait states of flash and cache misses are not in it; mcuformer.boards.Board.cycle_factor stands for them.
"""

from __future__ import annotations

from pathlib import Path

from mcuformer import cores
from mcuformer.converter.estimate.kernel_model import KernelModel
from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.subnet_config import SubnetConfig

CORES = tuple(
    dict.fromkeys(core.cycle_coefficients for core in cores.CORES.values() if core.cycle_coefficients is not None)
)
MODEL = KernelModel("cycles", Path(__file__).with_name("cycle_coefficients.json"), CORES)


def op_cycles(graph: Graph, op: Op, core: str) -> int:
    """Estimated cycles of one op of a graph, for one image. core: one of CORES."""
    return MODEL.of_op(graph, op, core)


def cycles(config: SubnetConfig, core: str, schedule: str = "streamed", strips: bool = False) -> int:
    """Estimated cycles for one image, from the dimensions alone, as instructions()."""
    return MODEL.of_config(config, core, schedule, strips)
