# SPDX-License-Identifier: Apache-2.0
"""What a model takes on a board, as `run --on` and exports run it there: with weights packed as its core likes them."""

from __future__ import annotations

from collections.abc import Callable

from mcuformer.converter.estimate.cycles import op_cycles
from mcuformer.converter.estimate.instructions import op_instructions
from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.passes.staging import is_staged
from mcuformer.converter.repack import repacked_graph
from mcuformer.cores import Core
from mcuformer.errors import ConfigError


def instructions_on(graph: Graph, core: Core) -> int | None:
    """Predicted for an image, staged weights packed as they are; None: the core has no model of them, or of an op."""
    return _sum(graph, core, op_instructions, core.coefficients)


def cycles_on(graph: Graph, core: Core) -> int | None:
    """The same of estimated cycles."""
    return _sum(graph, core, op_cycles, core.cycle_coefficients)


def _sum(graph: Graph, core: Core, of_op: Callable[[Graph, Op, str], int], coefficients: str | None) -> int | None:
    if coefficients is None:
        return None
    graph = graph if is_staged(graph) else repacked_graph(graph, core)
    try:
        return sum(of_op(graph, op, coefficients) for op in graph.ops)
    except ConfigError:  # of an op that was not fitted
        return None
