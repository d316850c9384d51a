# SPDX-License-Identifier: Apache-2.0
"""How many instructions a network takes on a core: a model fitted to counts in QEMU (kernel_model.py).

These are instructions, not cycles.
"""

from __future__ import annotations

from pathlib import Path

from mcuformer import cores
from mcuformer.converter.estimate.kernel_model import KERNELS, PACKING_OF, KernelModel, config_work, work_of
from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.subnet_config import SubnetConfig

__all__ = ["CORES", "KERNELS", "MODEL", "PACKING_OF", "config_work", "instructions", "op_instructions", "work_of"]

CORES = tuple(dict.fromkeys(core.coefficients for core in cores.CORES.values() if core.coefficients is not None))
MODEL = KernelModel("instructions", Path(__file__).with_name("instruction_coefficients.json"), CORES)


def op_instructions(graph: Graph, op: Op, core: str) -> int:
    """Predicted instructions of one op of a graph, for one image. core: one of CORES."""
    return MODEL.of_op(graph, op, core)


def instructions(config: SubnetConfig, core: str, schedule: str = "streamed", strips: bool = False) -> int:
    """Predicted instructions for one image, from the dimensions alone; fast enough for a search.

    For weights packed for that core. With strips, prefix tokens need not be made room for.
    """
    return MODEL.of_config(config, core, schedule, strips)
