# SPDX-License-Identifier: Apache-2.0
"""Strip input: the image comes a few rows at a time through a callback, and is never in the arena."""

from __future__ import annotations

import dataclasses

from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import decomposed_patch_embed
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ConfigError

NEEDS_PATCHES = 'strips need a patch embedding: this network has stem = "conv", which keeps its whole image'


def takes_strips(graph: Graph) -> bool:
    return graph.tensors[graph.inputs[0]].external


def check_takes_strips(config: SubnetConfig) -> None:
    """ConfigError where a network cannot take its image in strips."""
    if config.stem == "conv":
        raise ConfigError(NEEDS_PATCHES)


def in_strips(graph: Graph) -> Graph:
    """The same network with an image that comes in strips. ConfigError with a convolution stem: it needs all of it."""
    if takes_strips(graph):
        return graph
    first = graph.ops[0]
    if first.kind != "DecomposedPatchEmbed":
        raise ConfigError(NEEDS_PATCHES)
    (image,) = graph.inputs
    # External tensors come last: the image moves there, and all others one place up.
    order = [i for i in range(len(graph.tensors)) if i != image] + [image]
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    tensors = [graph.tensors[i] for i in order]
    tensors[-1] = dataclasses.replace(tensors[-1], external=True)
    ops = [Op(op.kind, tuple(place[i] for i in op.inputs), place[op.output], op.options) for op in graph.ops]
    d = graph.tensors[first.output].shape[-1]
    options = decomposed_patch_embed.in_strips(first.options, graph.tensors[image].shape, d)
    ops[0] = dataclasses.replace(ops[0], options=options)
    return Graph(tensors, ops, [place[image]], place[graph.output])
