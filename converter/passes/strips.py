# SPDX-License-Identifier: Apache-2.0
"""Strip input: the image comes a few rows at a time through a callback, and is never in the arena."""

from __future__ import annotations

import dataclasses

from mcuformer.converter.graph import Graph
from mcuformer.converter.passes.staging import externals_last
from mcuformer.converter.passes.stem import streamed_stem_of


def takes_strips(graph: Graph) -> bool:
    return graph.tensors[graph.inputs[0]].external


def in_strips(graph: Graph) -> Graph:
    """The same network, its image in strips; a convolution stem becomes one op."""
    if takes_strips(graph):
        return graph
    graph = streamed_stem_of(graph)
    first = graph.ops[0]
    (image,) = graph.inputs
    tensors = list(graph.tensors)
    tensors[image] = dataclasses.replace(tensors[image], external=True)
    options = first.module.strip_options(first.options, graph.dims(first))
    ops = [dataclasses.replace(first, options=options), *graph.ops[1:]]
    return externals_last(Graph(tensors, ops, [image], graph.output))
