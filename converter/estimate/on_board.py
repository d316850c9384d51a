# SPDX-License-Identifier: Apache-2.0
"""What a model takes on a board, as `run --on` and exports run it there: with weights packed as its core likes them."""

from __future__ import annotations

from mcuformer.converter.estimate.instructions import op_instructions
from mcuformer.converter.graph import Graph
from mcuformer.converter.passes.staging import is_staged
from mcuformer.converter.repack import repacked_graph
from mcuformer.cores import Core
from mcuformer.errors import ConfigError


def instructions_on(graph: Graph, core: Core) -> int | None:
    """Predicted for an image, staged weights packed as they are; None: the core has no model of them, or of an op."""
    if core.coefficients is None:
        return None
    graph = graph if is_staged(graph) else repacked_graph(graph, core)
    try:
        return sum(op_instructions(graph, op, core.coefficients) for op in graph.ops)
    except ConfigError:  # of an op that was not fitted
        return None
