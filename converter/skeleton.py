# SPDX-License-Identifier: Apache-2.0
"""The network, written once: its ops in order, from dimensions alone.

`skeleton(config, schedule)` lists the ops that `convert` makes of a config. All that is known without weights (arena,
model bytes, multiply-accumulates, instructions, the arena of stock tools) is a fold over this list, one module each in
converter/estimate/; lowering attaches data to the same list. Equal layers have one recipe, by which a fold keeps its
results.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from mcuformer.checks import one_of
from mcuformer.converter.memory.plan import align
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
    streamed_stem,
    token_mean,
)
from mcuformer.converter.ops.packed_weights import ROWS
from mcuformer.converter.ops.relative_position import length_of_tables
from mcuformer.converter.ops.streamed import tokens_at_once
from mcuformer.errors import ConfigError

if TYPE_CHECKING:
    from mcuformer.converter.ops.relative_position import Relative
    from mcuformer.converter.subnet_config import LayerConfig, Readout, SubnetConfig

SCHEDULES = ("overwrite", "streamed")
WEIGHTS = ("xip", "staged")


@dataclass(frozen=True)
class Schedule:
    """How a network is run.

    name       "overwrite" (op by op) or "streamed" (every half of a layer in place on the residual stream)
    strips     the image comes a few rows at a time
    weights    "xip" (read in place) or "staged" (read in tiles, here in the least scratch)
    packing    of weights, if the network allows it
    fuse_gelu  GELU inside the fully connected layers; False, with "overwrite" only: an op of its own
    stem_ops   a convolution stem without blocks op by op, as files of earlier versions have it; False: one op, row by
               row
    wide       1: the residual stream is int16 (converter/lower.py says of which networks)
    """

    name: str = "streamed"
    strips: bool = False
    weights: str = "xip"
    packing: int = ROWS
    fuse_gelu: bool = True
    stem_ops: bool = False
    wide: int = 0

    def __post_init__(self):
        one_of("schedule", self.name, SCHEDULES)
        one_of("weights", self.weights, WEIGHTS)
        if self.name == "streamed" and not self.fuse_gelu:
            raise ConfigError(
                'fuse_gelu = False with schedule = "streamed": GELU is inside StreamedMLP; use "overwrite"'
            )
        if self.strips and self.stem_ops:
            raise ConfigError("stem_ops = True with strips = True: op by op a stem keeps its whole image")


class Place(NamedTuple):
    """An op's place in a part: all but its dimensions.

    module  of the op
    name    of its output, in its part
    reads   (position in the op's INPUTS, source) of its activations: source -1 is the part's input, i the output of
            the part's op i
    stream  whether its output is the residual stream
    """

    module: ModuleType
    name: str
    reads: tuple[tuple[int, int], ...] = ((0, -1),)
    stream: bool = False


# Places that are the same in every network.
EMBED = Place(decomposed_patch_embed, "embed", stream=True)
STEM = Place(streamed_stem, "embed", stream=True)
NORM_PRE = Place(int_layer_norm, "norm_pre", stream=True)
ATTENTION = Place(streamed_attention, "proj", stream=True)
MLP = Place(streamed_mlp, "fc2", ((0, 0),), stream=True)
POST_NORM_LAYER = (
    ATTENTION,
    Place(int_layer_norm, "norm1", ((0, 0),), stream=True),
    Place(streamed_mlp, "fc2", ((0, 1),), stream=True),
    Place(int_layer_norm, "norm2", ((0, 2),), stream=True),
)


class Step(NamedTuple):
    """One op: its place, and dims of its module's type Dims."""

    module: ModuleType
    name: str
    reads: tuple[tuple[int, int], ...]
    stream: bool
    dims: Any

    @property
    def kind(self) -> str:
        return self.module.NAME


Part = tuple[int, tuple[tuple[Place, Any], ...]]
"""Ops between two places where only one activation is alive: the embedding, a layer, the head.

(bytes of the activation that enters, ops): 0 bytes for an image in strips, which is in no arena; (place, dims) of each
op, in order; the output of the last leaves the part.
"""

Recipe = tuple[Any, ...]
"""A function that makes a Part, and its arguments; equal for equal parts, so that a fold keeps its results by it."""


def steps_of(part: Part) -> list[Step]:
    return [Step(*place, dims) for place, dims in part[1]]


class Skeleton(NamedTuple):
    """recipes: (prefix of the names of its ops, recipe) of each part, in order. inputs: tensors that enter the graph, 0
    or 1."""

    recipes: tuple[tuple[str, Recipe], ...]
    inputs: int

    def parts(self) -> Iterator[tuple[str, Part]]:
        """(prefix, part) of each."""
        return ((prefix, make(*arguments)) for prefix, (make, *arguments) in self.recipes)

    def steps(self) -> Iterator[tuple[str, Step]]:
        """(full name of the output, step) of each op."""
        for prefix, part in self.parts():
            for step in steps_of(part):
                yield prefix + step.name, step


kept = functools.lru_cache(maxsize=512)
"""For a fold's results, by recipe: a search space has a few hundred different layers. Parts are not kept: those of a
network that never comes again would cost more memory, and so time, than they save."""


def runs_as_factors(rank: int | None, inputs: int, outputs: int) -> bool:
    """Whether a matrix [outputs, inputs] of low rank runs as two factors: only if these are smaller."""
    return rank is not None and rank * (inputs + outputs) < inputs * outputs


def skeleton(config: SubnetConfig, schedule: Schedule) -> Skeleton:
    """The ops of a network, in order. ConfigError if it cannot run this way."""
    n, d, packing, fuse_gelu, wide = (
        config.tokens, config.embed_dim, schedule.packing, schedule.fuse_gelu, schedule.wide,
    )  # fmt: skip
    staged, pre_norm = schedule.weights == "staged", config.norm == "pre"
    layer_part = _streamed_layer if schedule.name == "streamed" else _overwrite_layer
    recipes: list[tuple[str, Recipe]] = [("", _embedding(config, schedule, staged))]
    if config.norm_pre:
        recipes.append(("", (_norm_pre, n, d)))
    for i, layer in enumerate(config.layers):
        recipes.append(
            (f"layers.{i}.", (layer_part, n, d, layer, pre_norm, packing, staged, fuse_gelu, config.relative, wide))
        )
    recipes.append(("", (_head, n, d, config.readout, pre_norm, config.num_classes, packing, staged, wide)))
    return Skeleton(tuple(recipes), inputs=0 if schedule.strips else 1)


def with_more_heads(network: Skeleton, arena_head: int) -> Skeleton:
    """The same network with as many key/value heads at once in each StreamedAttention as that many bytes of activations
    and scratch have room for."""
    return network._replace(
        recipes=tuple([(prefix, _more_heads(recipe, arena_head)) for prefix, recipe in network.recipes])
    )


@functools.lru_cache(maxsize=4096)
def _more_heads(recipe: Recipe, arena_head: int) -> Recipe:
    make, *arguments = recipe
    if make is not _streamed_layer:
        return recipe
    input_bytes, ((_, dims), *_) = make(*arguments)  # attention is the first op
    return *recipe, streamed_attention.kv_heads_within(dims, arena_head - align(input_bytes))


def _part(input_bytes: int, ops: list[tuple[Place, Any]], staged: bool) -> Part:
    if staged:
        ops = [(place, place.module.staged(dims) if can_be_staged(place.module.NAME) else dims) for place, dims in ops]
    return input_bytes, tuple(ops)


def _embedding(config: SubnetConfig, schedule: Schedule, staged: bool) -> Recipe:
    image, prefix, packing, strips = config.image_shape, config.prefix_tokens, schedule.packing, schedule.strips
    if config.stem_blocks is not None and schedule.stem_ops:
        raise ConfigError(
            f"stem_ops = True with stem_blocks = {config.stem_blocks}: blocks are part of one op; use stem_ops = False"
        )
    if config.stem == "conv" and schedule.stem_ops:
        return _conv_stem, image, config.conv_channels, prefix, packing, staged
    if config.stem == "conv":
        return _streamed_stem, image, config.conv_channels, config.block_hidden, prefix, packing, strips
    patch, padding = config.patch_shape, config.patch_padding
    return _patch_embed, image, patch, padding, config.embed_dim, prefix, packing, staged, strips, schedule.wide


def _patch_embed(
    image: tuple[int, int, int], patch: tuple[int, int], padding: int, embed_dim: int, prefix: int, packing: int,
    staged: bool, strips: bool, wide: int,
) -> Part:  # fmt: skip
    dims = decomposed_patch_embed.Dims(*image, *patch, embed_dim, packing, prefix=prefix, padding=padding, wide=wide)
    if staged:
        dims = decomposed_patch_embed.staged(dims)
    if strips:
        dims = decomposed_patch_embed.in_strips(dims)
    return 0 if strips else decomposed_patch_embed.input_elements(dims), ((EMBED, dims),)


def _streamed_stem(
    image: tuple[int, int, int], conv_channels: tuple[int, ...], hidden: tuple[int, ...], prefix: int, packing: int,
    strips: bool,
) -> Part:  # fmt: skip
    dims = streamed_stem.Dims(*image, conv_channels, packing, prefix=prefix, hidden=hidden)
    if strips:
        dims = streamed_stem.in_strips(dims)
    return 0 if strips else streamed_stem.input_elements(dims), ((STEM, dims),)


def _conv_stem(
    image: tuple[int, int, int], conv_channels: tuple[int, ...], prefix: int, packing: int, staged: bool
) -> Part:
    height, width, channels = image
    ops: list[tuple[Place, Any]] = []
    for i, outputs in enumerate(conv_channels):
        last = i + 1 == len(conv_channels)
        dims = stem_conv.Dims(height, width, channels, outputs, packing, last, prefix=prefix if last else 0)
        ops.append((Place(stem_conv, "embed" if last else f"stem.{i}", ((0, i - 1),), last), dims))
        height, width, channels = dims.rows, dims.columns, outputs
    return _part(image[0] * image[1] * image[2], ops, staged)


def _norm_pre(n: int, d: int) -> Part:
    return n * d, ((NORM_PRE, _norm(n, d)),)


def _head(
    n: int, d: int, readout: Readout, pre_norm: bool, num_classes: int, packing: int, staged: bool, wide: int
) -> Part:
    pool_parts, norm_before, norm_after = readout
    parts = len(pool_parts)
    ops: list[tuple[Place, Any]] = []
    if norm_before:
        ops.append((_after(-1, int_layer_norm, "norm"), _norm(n, d, pre_norm, wide)))
    pool = token_mean.Dims(n, d, pool_parts, 0 if norm_before else wide)
    ops.append((_after(len(ops) - 1, token_mean, "pool"), pool))
    if norm_after:
        ops.append((_after(len(ops) - 1, int_layer_norm, "norm"), _norm(parts, d, pre_norm, wide)))
    if num_classes:
        dims = in_place_fc.Dims(1, parts * d, num_classes, packing)
        ops.append((_after(len(ops) - 1, in_place_fc, "head"), dims))
    return _part(n * d << wide, ops, staged)


@functools.lru_cache(maxsize=256)
def _after(source: int, module: ModuleType, name: str) -> Place:
    """Reads one activation only, the output of op `source`."""
    return Place(module, name, ((0, source),))


def _norm(n: int, d: int, of_sums: bool = True, wide: int = 0) -> int_layer_norm.Dims:
    """A LayerNorm. Sums (the embedding, or a branch added to the stream) have a scale, so a factor, per channel, unless
    they are wide; what another LayerNorm made has one scale."""
    return int_layer_norm.Dims(n, d, of_sums and d > 1 and not wide, wide)


MLP_NAMES = {2: ("fc1", "fc2"), 4: ("fc1.rank", "fc1", "fc2.rank", "fc2")}  # of the outputs, by number of matrices


def _mlp_matrices(d: int, layer: LayerConfig) -> tuple[tuple[int, int], ...]:
    """(inputs, outputs) of the MLP's matrices as they run."""
    wide, rank = layer.mlp_dim, layer.rank
    if rank is None or not runs_as_factors(rank, d, wide):
        return (d, wide), (wide, d)
    return (d, rank), (rank, wide), (wide, rank), (rank, d)


def attention_ranks(d: int, layer: LayerConfig) -> tuple[int, int]:
    """Rank of qkv and of the projection as they run; 0: dense."""
    qkv, proj = layer.attention_rank or 0, layer.proj_rank or 0
    return (
        qkv * runs_as_factors(layer.attention_rank, d, layer.qkv_dim),
        proj * runs_as_factors(layer.proj_rank, layer.q_dim, d),
    )


def _around_attention(packing: int, layer: LayerConfig) -> int:
    """The packing of the matrices before and after attention; heads of an odd width do not start at pairs of rows."""
    return ROWS if layer.head_dim % 2 else packing


def _overwrite_layer(
    n: int, d: int, layer: LayerConfig, pre_norm: bool, packing: int, staged: bool, fuse_gelu: bool,
    relative: Relative | None, wide: int,
) -> Part:  # fmt: skip
    """Each branch lies above the stream and overwrites itself; its last op adds it to the stream. A LayerNorm is the
    first op of its branch, or works on the stream after it."""
    around = _around_attention(packing, layer)
    ops: list[tuple[Place, Any]] = []

    def add(module: ModuleType, name: str, dims: Any, source: int, residual: int | None = None) -> int:
        """The number of the new op. source, residual: of ops, -1 for the part's input."""
        reads = ((0, source),) if residual is None else ((0, source), (5, residual))
        ops.append((Place(module, name, reads, residual is not None), dims))
        return len(ops) - 1

    def add_norm(name: str, source: int) -> int:
        ops.append((Place(int_layer_norm, name, ((0, source),), stream=not pre_norm), _norm(n, d, wide=wide)))
        return len(ops) - 1

    at = add_norm("norm1", -1) if pre_norm else -1
    qkv_rank, proj_rank = attention_ranks(d, layer)
    if qkv_rank:
        at = add(in_place_fc, "qkv.rank", in_place_fc.Dims(n, d, qkv_rank, around), at)
    at = add(in_place_fc, "qkv", in_place_fc.Dims(n, qkv_rank or d, layer.qkv_dim, around), at)
    heads = int_attention.Dims(n, layer.num_heads, layer.kv_heads, layer.head_dim, relative)
    at = add(int_attention, "attention", heads, at)
    if proj_rank:
        at = add(in_place_fc, "proj.rank", in_place_fc.Dims(n, layer.q_dim, proj_rank, around), at)
    proj = in_place_fc.Dims(n, proj_rank or layer.q_dim, d, around, residual=True, wide=wide)
    stream = add(in_place_fc, "proj", proj, at, -1)
    if not pre_norm:
        stream = add_norm("norm1", stream)
    at = add_norm("norm2", stream) if pre_norm else stream
    matrices = _mlp_matrices(d, layer)
    for name, (inputs, outputs) in zip(MLP_NAMES[len(matrices)], matrices, strict=True):
        gelu, last = name == "fc1", name == "fc2"
        dims = in_place_fc.Dims(n, inputs, outputs, packing, gelu and fuse_gelu, last, wide=wide * last)
        own_gelu = gelu and not fuse_gelu
        at = add(in_place_fc, "fc1.pre" if own_gelu else name, dims, at, stream if last else None)
        if own_gelu:
            at = add(int_gelu, name, int_gelu.Dims(n * outputs), at)
    if not pre_norm:
        add_norm("norm2", at)
    return _part(n * d << wide, ops, staged)


def _streamed_layer(
    n: int, d: int, layer: LayerConfig, pre_norm: bool, packing: int, staged: bool, fuse_gelu: bool,
    relative: Relative | None, wide: int, heads_at_once: int = 0,
) -> Part:  # fmt: skip
    """Both halves in place on the stream, and so are LayerNorms that come after them. heads_at_once: key/value heads;
    0: as many as need the least scratch."""
    heads, kv_heads, head_dim = layer.num_heads, layer.kv_heads, layer.head_dim
    heads_at_once = heads_at_once or streamed_attention.kv_heads_at_once(
        n, d, heads, kv_heads, head_dim, length_of_tables(relative, n)
    )
    around, at_once, matrices = _around_attention(packing, layer), tokens_at_once(n), _mlp_matrices(d, layer)
    factor = d > 1 and pre_norm and not wide
    gelu = len(matrices) // 2 - 1  # the one that makes mlp_dim
    attention = streamed_attention.Dims(
        n, d, heads, kv_heads, head_dim, heads_at_once, at_once, factor, around, norm=pre_norm,
        ranks=attention_ranks(d, layer), relative=relative, wide=wide,
    )  # fmt: skip
    mlp = streamed_mlp.Dims(n, d, matrices, gelu, at_once, factor, packing, norm=pre_norm, wide=wide)
    if pre_norm:
        return _part(n * d << wide, [(ATTENTION, attention), (MLP, mlp)], staged)
    norm = _norm(n, d)
    return _part(n * d, list(zip(POST_NORM_LAYER, (attention, norm, mlp, norm), strict=True)), staged)
