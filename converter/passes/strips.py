# SPDX-License-Identifier: Apache-2.0
"""Strip input: the image comes a few rows at a time through a callback, and is never in the arena."""

from __future__ import annotations

import dataclasses

from mcuformer.converter.graph import Graph
from mcuformer.converter.ops import decomposed_patch_embed
from mcuformer.converter.passes.staging import externals_last
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
    tensors = list(graph.tensors)
    tensors[image] = dataclasses.replace(tensors[image], external=True)
    d = tensors[first.output].shape[-1]
    options = decomposed_patch_embed.in_strips(first.options, tensors[image].shape, d)
    ops = [dataclasses.replace(first, options=options), *graph.ops[1:]]
    return externals_last(Graph(tensors, ops, [image], graph.output))
