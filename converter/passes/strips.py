# SPDX-License-Identifier: Apache-2.0
"""Strip input: the image comes a few rows at a time through a callback, and is never in the arena."""

from __future__ import annotations

import dataclasses

from mcuformer.converter.graph import Graph
from mcuformer.converter.ops import decomposed_patch_embed
from mcuformer.converter.passes.staging import externals_last
from mcuformer.converter.skeleton import NEEDS_PATCHES
from mcuformer.errors import ConfigError


def takes_strips(graph: Graph) -> bool:
    return graph.tensors[graph.inputs[0]].external


def in_strips(graph: Graph) -> Graph:
    """The same network, its image in strips. ConfigError for a convolution stem, which needs the whole image."""
    if takes_strips(graph):
        return graph
    first = graph.ops[0]
    if first.kind != "DecomposedPatchEmbed":
        raise ConfigError(NEEDS_PATCHES)
    (image,) = graph.inputs
    tensors = list(graph.tensors)
    tensors[image] = dataclasses.replace(tensors[image], external=True)
    options = decomposed_patch_embed.strip_options(first.options, graph.dims(first))
    ops = [dataclasses.replace(first, options=options), *graph.ops[1:]]
    return externals_last(Graph(tensors, ops, [image], graph.output))
