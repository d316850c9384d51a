# SPDX-License-Identifier: Apache-2.0
"""A model for another core: the same network, its weights packed as that core runs them fastest; equal logits."""

from __future__ import annotations

from mcuformer.converter import tflite_file
from mcuformer.converter.graph import Graph
from mcuformer.converter.memory.arena import plan_arena
from mcuformer.converter.ops.packed_weights import PACKINGS
from mcuformer.converter.passes.packing import packed
from mcuformer.converter.passes.staging import is_staged, weights_content, weights_info
from mcuformer.cores import Core


def repacked_graph(graph: Graph, core: Core) -> Graph:
    """The graph for a core; unchanged if it is already packed for it. Staged weights must have their data."""
    result = packed(graph, PACKINGS[core.packing])
    unchanged = all(old.options == new.options for old, new in zip(graph.ops, result.ops, strict=True))
    return graph if unchanged else result


def repacked(content: bytes, graph: Graph, core: Core) -> tuple[bytes, Graph]:
    """A .tflite file and its graph for a core; unchanged if they are already packed for it.

    content: the file; graph: the graph in it, with its staged weights if it has any.
    """
    result = repacked_graph(graph, core)
    if result is graph:
        return content, graph
    plan = plan_arena(result)
    info = {**tflite_file.read(content).info, **plan.sizes}
    if is_staged(result):
        info["weights"] = weights_info(weights_content(result))
    return tflite_file.write(result, plan.tensor_offsets(result), info), result
