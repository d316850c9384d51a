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
from mcuformer.converter.ops.streamed import block_of
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
    staged, pre_norm = schedule.weights == "staged", config.norm == "pre"
    layer_part = _streamed_layer if schedule.name == "streamed" else _overwrite_layer
    parts = [("", _embedding(config, schedule))]
    if config.norm_pre:
        parts.append(("", _norm_pre(n, d)))
    for i, layer in enumerate(config.layers):
        parts.append((f"layers.{i}.", layer_part(n, d, layer, pre_norm, packing, staged, fuse_gelu)))
    norms = config.norm_before_pool, config.norm_after_pool
    parts.append(("", _head(n, d, config.pool_parts, *norms, pre_norm, config.num_classes, packing, staged)))
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
        return _conv_stem(config.image_shape, config.conv_channels, config.prefix_tokens, schedule.packing, staged)
    return _patch_embed(
        config.image_shape, config.patch_shape, config.embed_dim, config.prefix_tokens, schedule.packing, staged,
        schedule.strips,
    )  # fmt: skip


@functools.lru_cache(maxsize=16384)
def _patch_embed(
    image: tuple[int, int, int], patch: tuple[int, int], embed_dim: int, prefix: int, packing: int, staged: bool,
    strips: bool,
) -> Part:  # fmt: skip
    dims = decomposed_patch_embed.Dims(*image, *patch, embed_dim, packing, prefix=prefix)
    if staged:
        dims = decomposed_patch_embed.staged(dims)
    if strips:
        dims = decomposed_patch_embed.in_strips(dims)
    step = Step(decomposed_patch_embed, "embed", dims, stream=True)
    return Part(0 if strips else decomposed_patch_embed.input_elements(dims), (step,))


@functools.lru_cache(maxsize=16384)
def _conv_stem(
    image: tuple[int, int, int], conv_channels: tuple[int, ...], prefix: int, packing: int, staged: bool
) -> Part:
    height, width, channels = image
    steps: list[Step] = []
    for i, outputs in enumerate(conv_channels):
        last = i + 1 == len(conv_channels)
        dims = stem_conv.Dims(height, width, channels, outputs, packing, last, prefix=prefix if last else 0)
        steps.append(Step(stem_conv, "embed" if last else f"stem.{i}", dims, ((0, i - 1),), stream=last))
        height, width, channels = dims.rows, dims.columns, outputs
    return _part(image[0] * image[1] * image[2], steps, staged)


@functools.lru_cache(maxsize=16384)
def _norm_pre(n: int, d: int) -> Part:
    return Part(n * d, (Step(int_layer_norm, "norm_pre", _norm(n, d), stream=True),))


@functools.lru_cache(maxsize=16384)
def _head(
    n: int, d: int, pool_parts: tuple[tuple[int, int], ...], norm_before: bool, norm_after: bool, pre_norm: bool,
    num_classes: int, packing: int, staged: bool,
) -> Part:  # fmt: skip
    parts = len(pool_parts)
    steps: list[Step] = []

    def add(module: ModuleType, name: str, dims: Any) -> None:
        steps.append(Step(module, name, dims, ((0, len(steps) - 1),)))

    if norm_before:
        add(int_layer_norm, "norm", _norm(n, d, pre_norm))
    add(token_mean, "pool", token_mean.Dims(n, d, pool_parts))
    if norm_after:
        add(int_layer_norm, "norm", _norm(parts, d, pre_norm))
    if num_classes:
        add(in_place_fc, "head", in_place_fc.Dims(1, parts * d, num_classes, packing))
    return _part(n * d, steps, staged)


def _norm(n: int, d: int, of_sums: bool = True) -> int_layer_norm.Dims:
    """A LayerNorm. Sums (the embedding, or a branch added to the stream) have a scale, so a factor, per channel; what
    another LayerNorm made has one scale."""
    return int_layer_norm.Dims(n, d, of_sums and d > 1)


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
def _overwrite_layer(
    n: int, d: int, layer: LayerConfig, pre_norm: bool, packing: int, staged: bool, fuse_gelu: bool
) -> Part:
    """Each branch lies above the stream and overwrites itself; its last op adds it to the stream. A LayerNorm is the
    first op of its branch, or works on the stream after it."""
    around = _around_attention(packing, layer)
    steps: list[Step] = []

    def add(module: ModuleType, name: str, dims: Any, source: int, residual: int | None = None) -> int:
        """The number of the new step. source, residual: of steps, -1 for the part's input."""
        reads = ((0, source),) if residual is None else ((0, source), (5, residual))
        steps.append(Step(module, name, dims, reads, residual is not None))
        return len(steps) - 1

    def add_norm(name: str, source: int) -> int:
        steps.append(Step(int_layer_norm, name, _norm(n, d), ((0, source),), stream=not pre_norm))
        return len(steps) - 1

    at = add_norm("norm1", -1) if pre_norm else -1
    at = add(in_place_fc, "qkv", in_place_fc.Dims(n, d, layer.qkv_dim, around), at)
    at = add(int_attention, "attention", int_attention.Dims(n, layer.num_heads, layer.kv_heads, layer.head_dim), at)
    stream = add(in_place_fc, "proj", in_place_fc.Dims(n, layer.q_dim, d, around, residual=True), at, -1)
    if not pre_norm:
        stream = add_norm("norm1", stream)
    at = add_norm("norm2", stream) if pre_norm else stream
    for name, inputs, outputs in _mlp_matrices(d, layer):
        gelu, last = name == "fc1", name == "fc2"
        dims = in_place_fc.Dims(n, inputs, outputs, packing, gelu and fuse_gelu, last)
        own_gelu = gelu and not fuse_gelu
        at = add(in_place_fc, "fc1.pre" if own_gelu else name, dims, at, stream if last else None)
        if own_gelu:
            at = add(int_gelu, name, int_gelu.Dims(n * outputs), at)
    if not pre_norm:
        add_norm("norm2", at)
    return _part(n * d, steps, staged)


@functools.lru_cache(maxsize=16384)
def _streamed_layer(
    n: int, d: int, layer: LayerConfig, pre_norm: bool, packing: int, staged: bool, fuse_gelu: bool
) -> Part:
    """Both halves in place on the stream, and so are LayerNorms that come after them."""
    heads, kv_heads, head_dim = layer.num_heads, layer.kv_heads, layer.head_dim
    at_once, around = (
        streamed_attention.kv_heads_at_once(n, d, heads, kv_heads, head_dim),
        _around_attention(packing, layer),
    )
    factor = d > 1 and pre_norm
    attention = streamed_attention.Dims(
        n, d, heads, kv_heads, head_dim, at_once, block_of(n), factor, around, norm=pre_norm
    )
    sizes = tuple([(inputs, outputs) for _, inputs, outputs in _mlp_matrices(d, layer)])
    gelu = len(sizes) // 2 - 1  # what makes mlp_dim
    mlp = streamed_mlp.Dims(n, d, sizes, gelu, block_of(n), factor, packing, norm=pre_norm)
    ops: list[tuple[ModuleType, str, Any]] = [(streamed_attention, "proj", attention), (streamed_mlp, "fc2", mlp)]
    if not pre_norm:
        ops = [ops[0], (int_layer_norm, "norm1", _norm(n, d)), ops[1], (int_layer_norm, "norm2", _norm(n, d))]
    steps = [Step(*op, ((0, i - 1),), stream=True) for i, op in enumerate(ops)]
    return _part(n * d, steps, staged)
