# SPDX-License-Identifier: Apache-2.0
"""The network, written once: its ops in order, from dimensions alone.

`skeleton(config, schedule)` lists the ops that `convert` makes of a config. All that is known without weights (arena,
model bytes, multiply-accumulates, instructions, the arena of stock tools) is a fold over this list, one module each in
converter/estimate/; lowering attaches data to the same list. Equal layers share one Part: a fold may cache by Part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mcuformer.converter.ops import (
    can_be_staged,
    decomposed_patch_embed,
    in_place_fc,
    int_attention,
    int_gelu,
    int_layer_norm,
    stem_conv,
    streamed_attention,
    streamed_mlp,
    token_mean,
)
from mcuformer.converter.ops.packed_weights import ROWS
from mcuformer.converter.ops.streamed import tokens_at_once
from mcuformer.errors import ConfigError

if TYPE_CHECKING:
    from mcuformer.converter.subnet_config import LayerConfig, SubnetConfig

SCHEDULES = ("overwrite", "streamed")
WEIGHTS = ("xip", "staged")
NEEDS_PATCHES = 'strips need a patch embedding: this network has stem = "conv", which keeps its whole image'


@dataclass(frozen=True)
class Schedule:
    """How a network is run.

    name       "overwrite" (op by op) or "streamed" (every half of a layer in place on the residual stream)
    strips     the image comes a few rows at a time
    weights    "xip" (read in place) or "staged" (read in tiles, here in the least scratch)
    packing    of weights, if the network allows it
    fuse_gelu  GELU inside the fully connected layers; False, with "overwrite" only: an op of its own
    """

    name: str = "streamed"
    strips: bool = False
    weights: str = "xip"
    packing: int = ROWS
    fuse_gelu: bool = True

    def __post_init__(self):
        if self.name not in SCHEDULES:
            raise ConfigError(f"schedule = {self.name!r}: must be one of {', '.join(SCHEDULES)}")
        if self.weights not in WEIGHTS:
            raise ConfigError(f"weights = {self.weights!r}: must be one of {', '.join(WEIGHTS)}")
        if self.name == "streamed" and not self.fuse_gelu:
            raise ConfigError(
                'fuse_gelu = False with schedule = "streamed": GELU is inside StreamedMLP; use "overwrite"'
            )


class Step(NamedTuple):
    """One op of `module`.

    name    of its output, in its part
    dims    of its module's type Dims
    reads   (position in the op's INPUTS, source) of its activations: source -1 is the part's input, i the output of
            the part's step i
    stream  whether its output is the residual stream
    """

    module: ModuleType
    name: str
    dims: Any
    reads: tuple[tuple[int, int], ...] = ((0, -1),)
    stream: bool = False

    @property
    def kind(self) -> str:
        return self.module.NAME


class Part:
    """Ops between two places where only one activation is alive: the embedding, a layer, the head.

    input_bytes: of the activation that enters; 0 for an image in strips, which is in no arena. steps: in order; the
    output of the last leaves the part. folds: cached results, see per_part().
    """

    __slots__ = ("folds", "input_bytes", "steps")

    def __init__(self, input_bytes: int, steps: tuple[Step, ...]):
        self.input_bytes = input_bytes
        self.steps = steps
        self.folds: dict[Any, Any] = {}


class Skeleton(NamedTuple):
    """parts: (prefix of the names of its ops, part), in order. inputs: tensors that enter the graph, 0 or 1."""

    parts: tuple[tuple[str, Part], ...]
    inputs: int

    def steps(self) -> Iterator[tuple[str, Step]]:
        """(full name of the output, step) of each op."""
        for prefix, part in self.parts:
            for step in part.steps:
                yield prefix + step.name, step


Result = TypeVar("Result")


def per_part(compute: Callable[..., Result]) -> Callable[..., Result]:
    """compute(part, *key), once per part and key: the result is kept with the part."""

    @functools.wraps(compute)
    def kept(part: Part, *key: Any) -> Result:
        result = part.folds.get((compute, key))
        if result is None:
            part.folds[compute, key] = result = compute(part, *key)
        return result

    return kept


def runs_as_factors(rank: int | None, inputs: int, outputs: int) -> bool:
    """Whether a matrix [outputs, inputs] of low rank runs as two factors: only if these are smaller."""
    return rank is not None and rank * (inputs + outputs) < inputs * outputs


def skeleton(config: SubnetConfig, schedule: Schedule) -> Skeleton:
    """The ops of a network, in order. ConfigError if it cannot run this way."""
    n, d, packing, fuse_gelu = config.tokens, config.embed_dim, schedule.packing, schedule.fuse_gelu
    staged = schedule.weights == "staged"
    layer_part = _streamed_layer if schedule.name == "streamed" else _overwrite_layer
    parts = [("", _embedding(config, schedule))]
    for i, layer in enumerate(config.layers):
        parts.append((f"layers.{i}.", layer_part(n, d, layer, packing, staged, fuse_gelu)))
    parts.append(("", _head(n, d, config.num_classes, packing, staged)))
    return Skeleton(tuple(parts), inputs=0 if schedule.strips else 1)


def check_takes_strips(config: SubnetConfig) -> None:
    """ConfigError if a network cannot take its image in strips."""
    if config.stem == "conv":
        raise ConfigError(NEEDS_PATCHES)


def _part(input_bytes: int, steps: list[Step], staged: bool) -> Part:
    if staged:
        steps = [s._replace(dims=s.module.staged(s.dims)) if can_be_staged(s.kind) else s for s in steps]
    return Part(input_bytes, tuple(steps))


def _embedding(config: SubnetConfig, schedule: Schedule) -> Part:
    staged = schedule.weights == "staged"
    if schedule.strips:
        check_takes_strips(config)
    if config.stem == "conv":
        return _conv_stem(config.image_shape, config.conv_channels, schedule.packing, staged)
    return _patch_embed(
        config.image_shape, (config.patch_size, config.patch_size), config.embed_dim, schedule.packing, staged,
        schedule.strips,
    )  # fmt: skip


@functools.lru_cache(maxsize=16384)
def _patch_embed(
    image: tuple[int, int, int], patch: tuple[int, int], embed_dim: int, packing: int, staged: bool, strips: bool
) -> Part:
    dims = decomposed_patch_embed.Dims(*image, *patch, embed_dim, packing)
    if staged:
        dims = decomposed_patch_embed.staged(dims)
    if strips:
        dims = decomposed_patch_embed.in_strips(dims)
    step = Step(decomposed_patch_embed, "embed", dims, stream=True)
    return Part(0 if strips else decomposed_patch_embed.input_elements(dims), (step,))


@functools.lru_cache(maxsize=16384)
def _conv_stem(image: tuple[int, int, int], conv_channels: tuple[int, ...], packing: int, staged: bool) -> Part:
    height, width, channels = image
    steps: list[Step] = []
    for i, outputs in enumerate(conv_channels):
        last = i + 1 == len(conv_channels)
        dims = stem_conv.Dims(height, width, channels, outputs, packing, last)
        steps.append(Step(stem_conv, "embed" if last else f"stem.{i}", dims, ((0, i - 1),), stream=last))
        height, width, channels = dims.rows, dims.columns, outputs
    return _part(image[0] * image[1] * image[2], steps, staged)


@functools.lru_cache(maxsize=16384)
def _head(n: int, d: int, num_classes: int, packing: int, staged: bool) -> Part:
    steps = [
        Step(int_layer_norm, "norm", int_layer_norm.Dims(n, d, d > 1)),
        Step(token_mean, "mean", token_mean.Dims(n, d), ((0, 0),)),
        Step(in_place_fc, "head", in_place_fc.Dims(1, d, num_classes, packing), ((0, 1),)),
    ]
    return _part(n * d, steps, staged)


def _mlp_matrices(d: int, layer: LayerConfig) -> list[tuple[str, int, int]]:
    """(name of the output, inputs, outputs) of the MLP's matrices as they run."""
    wide, rank = layer.mlp_dim, layer.rank
    if rank is None or not runs_as_factors(rank, d, wide):
        return [("fc1", d, wide), ("fc2", wide, d)]
    return [("fc1.rank", d, rank), ("fc1", rank, wide), ("fc2.rank", wide, rank), ("fc2", rank, d)]


def _around_attention(packing: int, layer: LayerConfig) -> int:
    """The packing of the matrices before and after attention; heads of an odd width do not start at pairs of rows."""
    return ROWS if layer.head_dim % 2 else packing


@functools.lru_cache(maxsize=16384)
def _overwrite_layer(n: int, d: int, layer: LayerConfig, packing: int, staged: bool, fuse_gelu: bool) -> Part:
    """Each branch lies above the stream and overwrites itself; its last op adds it to the stream."""
    norm, around = int_layer_norm.Dims(n, d, d > 1), _around_attention(packing, layer)
    steps = [
        Step(int_layer_norm, "norm1", norm),
        Step(in_place_fc, "qkv", in_place_fc.Dims(n, d, layer.qkv_dim, around), ((0, 0),)),
        Step(int_attention, "attention",
             int_attention.Dims(n, layer.num_heads, layer.kv_heads, layer.head_dim), ((0, 1),)),
        Step(in_place_fc, "proj", in_place_fc.Dims(n, layer.q_dim, d, around, residual=True), ((0, 2), (5, -1)), True),
        Step(int_layer_norm, "norm2", norm, ((0, 3),)),
    ]  # fmt: skip
    for name, inputs, outputs in _mlp_matrices(d, layer):
        before, gelu, last = len(steps) - 1, name == "fc1", name == "fc2"
        dims = in_place_fc.Dims(n, inputs, outputs, packing, gelu and fuse_gelu, last)
        reads = ((0, before), (5, 3)) if last else ((0, before),)
        own_gelu = gelu and not fuse_gelu
        steps.append(Step(in_place_fc, "fc1.pre" if own_gelu else name, dims, reads, last))
        if own_gelu:
            steps.append(Step(int_gelu, name, int_gelu.Dims(n * outputs), ((0, before + 1),)))
    return _part(n * d, steps, staged)


@functools.lru_cache(maxsize=16384)
def _streamed_layer(n: int, d: int, layer: LayerConfig, packing: int, staged: bool, fuse_gelu: bool) -> Part:
    """Both halves in place on the stream."""
    heads, kv_heads, head_dim = layer.num_heads, layer.kv_heads, layer.head_dim
    at_once, around = (
        streamed_attention.kv_heads_at_once(n, d, heads, kv_heads, head_dim),
        _around_attention(packing, layer),
    )
    attention = streamed_attention.Dims(n, d, heads, kv_heads, head_dim, at_once, tokens_at_once(n), d > 1, around)
    sizes = tuple([(inputs, outputs) for _, inputs, outputs in _mlp_matrices(d, layer)])
    mlp = streamed_mlp.Dims(
        n, d, sizes, len(sizes) // 2 - 1, tokens_at_once(n), d > 1, packing
    )  # GELU: what makes mlp_dim
    steps = [
        Step(streamed_attention, "proj", attention, stream=True),
        Step(streamed_mlp, "fc2", mlp, ((0, 0),), stream=True),
    ]
    return _part(n * d, steps, staged)
