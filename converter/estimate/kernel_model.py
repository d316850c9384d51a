# SPDX-License-Identifier: Apache-2.0
"""What a network takes on a core, as a linear model of what its kernels do, fitted to counts in QEMU.

Every op is a number of kernel calls (Work). What a kernel takes is a sum of counts, such as inputs per pair of outputs
or blocks of four tokens, times the core's coefficients, of a file that tools/fit_instruction_model.py writes.
instructions.py and cycles.py hold one such model each. Loading strips and staged weights is not counted.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcuformer import cores
from mcuformer.converter.estimate.feasibility import filled
from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import OPS
from mcuformer.converter.ops.packed_weights import PACKINGS, ROWS
from mcuformer.converter.ops.work import WIDE_WORK, Work
from mcuformer.converter.skeleton import Part, Schedule, kept, skeleton, steps_of
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ConfigError

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


@dataclass(frozen=True)
class KernelModel:
    """what: it predicts; file: of its coefficients; cores: the keys that it holds."""

    what: str
    file: Path
    cores: tuple[str, ...]

    def of_work(self, work: Iterable[Work], core: str) -> float:
        """ConfigError for a kernel that was not fitted."""
        coefficients = coefficients_of(self, core)
        try:
            return sum(sum(map(operator.mul, one.counts, coefficients[one.kernel])) for one in work)
        except KeyError as error:
            if error.args[0] == WIDE_WORK.kernel:
                raise ConfigError(
                    f"{self.what} of an int16 residual stream on {core} are unknown: none were counted"
                ) from error
            raise ConfigError(
                f"{self.what} of kernel {error.args[0]!r} on {core} are unknown: run tools/fit_instruction_model.py"
            ) from error

    def of_op(self, graph: Graph, op: Op, core: str) -> int:
        """Of one op of a graph, for one image. core: one of self.cores."""
        return round(self.of_work(work_of(graph, op), core))

    def of_config(self, config: SubnetConfig, core: str, schedule: str = "streamed", strips: bool = False) -> int:
        """For one image, from the dimensions alone; fast enough for a search.

        For weights packed for that core. With strips, prefix tokens need not be made room for.
        """
        coefficients_of(self, core)  # the core is known
        network = filled(skeleton(config, Schedule(schedule, strips, packing=PACKING_OF[core])))
        return round(sum(_of_part(self, core, *recipe) for _, recipe in network.recipes))


@functools.cache
def coefficients_of(model: KernelModel, core: str) -> dict[str, tuple[float, ...]]:
    """kernel -> what each of its KERNELS takes. ConfigError for a core that the model does not hold."""
    if core not in model.cores:
        raise ConfigError(f"core {core!r} is unknown; choose one of {', '.join(model.cores)}")
    stored = json.loads(model.file.read_text(encoding="utf-8"))["coefficients"].get(core, {})
    fitted = {kernel: names for kernel, names in KERNELS.items() if set(names) <= set(stored.get(kernel, ()))}
    return {kernel: tuple(stored[kernel][name] for name in names) for kernel, names in fitted.items()}


@kept
def _of_part(model: KernelModel, core: str, make: Callable[..., Part], *arguments: Any) -> float:
    return sum(model.of_work(step.module.work(step.dims), core) for step in steps_of(make(*arguments)))
