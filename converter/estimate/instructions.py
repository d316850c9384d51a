# SPDX-License-Identifier: Apache-2.0
"""How many instructions a network takes on a Cortex-M: a linear model of what its kernels do, fitted to QEMU counts.

Every op is a number of kernel calls (Work). A kernel's instructions are a sum of counts, such as inputs per pair of
outputs or blocks of four tokens, times the core's coefficients. tools/fit_instruction_model.py fits those and writes
instruction_coefficients.json. These are instructions, not cycles. Loading strips and staged weights is not counted.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mcuformer import cores
from mcuformer.converter.estimate.feasibility import filled
from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import OPS
from mcuformer.converter.ops.packed_weights import PACKINGS, ROWS
from mcuformer.converter.ops.work import Work
from mcuformer.converter.skeleton import Part, Schedule, kept, skeleton, steps_of
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ConfigError

COEFFICIENTS = Path(__file__).with_name("instruction_coefficients.json")
CORES = tuple(dict.fromkeys(core.coefficients for core in cores.CORES.values() if core.coefficients is not None))
PACKING_OF = {  # the packing of a model converted for a board with that core
    core.coefficients: PACKINGS[core.packing] for core in cores.CORES.values() if core.coefficients is not None
}

KERNELS = {kernel: counts for module in OPS.values() for kernel, counts in module.KERNELS.items()}
"""What is counted for each kernel; see mcuformer.converter.ops.work."""


def work_of(graph: Graph, op: Op) -> list[Work]:
    """The kernel calls of one op of a graph."""
    return op.module.work(graph.dims(op))


def config_work(
    config: SubnetConfig, schedule: str = "streamed", strips: bool = False, packing: int = ROWS
) -> list[list[Work]]:
    """The kernel calls, one list per op, of a config that convert(..., schedule=schedule, strips=strips) converts.

    packing: a board's (mcuformer.converter.passes.packing).
    """
    network = filled(skeleton(config, Schedule(schedule, strips, packing=packing)))
    return [step.module.work(step.dims) for _, step in network.steps()]


@functools.cache
def _coefficients(core: str) -> dict[str, tuple[float, ...]]:
    if core not in CORES:
        raise ConfigError(f"core {core!r} is unknown; choose one of {', '.join(CORES)}")
    stored = json.loads(COEFFICIENTS.read_text(encoding="utf-8"))["coefficients"].get(core, {})
    fitted = {kernel: names for kernel, names in KERNELS.items() if set(names) <= set(stored.get(kernel, ()))}
    return {kernel: tuple(stored[kernel][name] for name in names) for kernel, names in fitted.items()}


def _instructions(work: Iterable[Work], core: str) -> float:
    """ConfigError for a kernel that was not fitted."""
    coefficients = _coefficients(core)
    try:
        return sum(sum(map(operator.mul, one.counts, coefficients[one.kernel])) for one in work)
    except KeyError as error:
        raise ConfigError(
            f"instructions of kernel {error.args[0]!r} on {core} are unknown: run tools/fit_instruction_model.py"
        ) from error


def op_instructions(graph: Graph, op: Op, core: str) -> int:
    """Predicted instructions of one op of a graph, for one image. core: one of CORES."""
    return round(_instructions(work_of(graph, op), core))


def instructions(config: SubnetConfig, core: str, schedule: str = "streamed", strips: bool = False) -> int:
    """Predicted instructions for one image, from the dimensions alone; fast enough for a search.

    For weights packed for that core. With strips, prefix tokens need not be made room for.
    """
    _coefficients(core)  # the core is known
    network = filled(skeleton(config, Schedule(schedule, strips, packing=PACKING_OF[core])))
    return round(sum(_part_instructions(core, *recipe) for _, recipe in network.recipes))


@kept
def _part_instructions(core: str, make: Callable[..., Part], *arguments: Any) -> float:
    return sum(_instructions(step.module.work(step.dims), core) for step in steps_of(make(*arguments)))
