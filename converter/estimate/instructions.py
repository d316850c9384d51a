# SPDX-License-Identifier: Apache-2.0
"""How many instructions a network takes on a Cortex-M: a linear model of what its kernels do, fitted to QEMU counts.

Every op is a number of calls of kernels (Work); a kernel's instructions are a sum of counts, such as inputs of pairs of
outputs or blocks of four tokens, each times a coefficient of the core. tools/fit_instruction_model.py fits them and
writes instruction_coefficients.json. They are instructions, never cycles. Bringing strips or staged weights is not
counted.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcuformer import cores
from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import decomposed_patch_embed, params_blob, streamed_mlp
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS
from mcuformer.converter.passes import staging
from mcuformer.converter.passes.streamed import block_of, kv_heads_at_once
from mcuformer.converter.passes.strips import check_takes_strips
from mcuformer.converter.subnet_config import LayerConfig, SubnetConfig
from mcuformer.errors import ConfigError

COEFFICIENTS = Path(__file__).with_name("instruction_coefficients.json")
PACKINGS = {ROWS: "rows", PAIRS: "pairs"}
CORES = tuple(core.coefficients for core in cores.CORES.values() if core.coefficients is not None)
PACKING_OF = {  # what a model converted for a board with that core has
    core.coefficients: {name: packing for packing, name in PACKINGS.items()}[core.packing]
    for core in cores.CORES.values()
    if core.coefficients is not None
}

_FULLY_CONNECTED = (
    "call", "block", "input", "vector", "pair", "pair_word", "pair_vector", "pair_tail", "pair_piece", "odd",
    "odd_word", "output", "gelu", "residual",
)  # fmt: skip
_PATCH_EMBED = ("call", "block", "output", "field", "field_channel", "field_pair", "field_pair_channel", "edge")
_ATTENTION = (
    "call", "token", "channel", "token_pair", "channel_pair", "pair_word", "token_vector", "channel_vector", "odd",
    "odd_token",
)  # fmt: skip
KERNELS = {
    **{f"fully_connected_{p}_{size}": _FULLY_CONNECTED for p in PACKINGS.values() for size in (4, 2, 1)},
    **{f"patch_embed_{p}_{size}": _PATCH_EMBED for p in PACKINGS.values() for size in (4, 2, 1)},
    **{f"attention_{rows}": _ATTENTION for rows in (4, 1)},
    "keys_and_values": ("call", "token", "element", "odd_token"),
    **{f"layer_norm{kind}": ("token", "element") for kind in ("", "_factor", "_other", "_other_factor")},
    "layer_norm_call": ("call",),
    "stem_conv": ("call", "pixel", "value", "odd", "edge"),
    "token_mean": ("call", "channel", "element"),
    "gelu": ("call", "element"),
}  # fmt: skip
"""What is counted of every kernel. Blocks of four, two and one tokens have kernels of their own; a pair is two outputs
(keys, channels), a word two inputs, a vector 16 inputs or 8 tokens, a piece 64 inputs. A convolution of a stem is a
fully connected layer on its taps, and what gathering them takes more than copying tokens."""


@dataclass(frozen=True)
class Work:
    """Calls of one kernel: counts by the names that KERNELS has for it, in order."""

    kernel: str
    counts: tuple[int, ...]


def _blocks(tokens: int) -> list[tuple[int, int]]:
    """(tokens of a block, such blocks): four as long as there are, the rest as two and one."""
    return [(size, count) for size, count in ((4, tokens // 4), (2, tokens % 4 // 2), (1, tokens % 2)) if count]


def fully_connected(
    tokens: int, inputs: int, outputs: int, packing: int, gelu: bool = False, residual: bool = False, calls: int = 1
) -> list[Work]:
    """`calls` times InPlaceFC on `tokens` tokens."""
    pairs, words, odd = (outputs + 1) // 2, (inputs + 1) // 2, outputs % 2
    vectors, pieces, work = -(-inputs // 16), -(-inputs // 64), []
    for i, (size, count) in enumerate(_blocks(tokens)):
        blocks = calls * count
        elements = blocks * size * outputs
        counts = (
            calls * (i == 0), blocks, blocks * inputs, blocks * vectors, blocks * pairs, blocks * pairs * words,
            blocks * pairs * vectors, blocks * pairs * (inputs % 16 > 0), blocks * pairs * pieces, blocks * odd,
            blocks * odd * words, elements, elements * gelu, elements * residual,
        )  # fmt: skip
        work.append(Work(f"fully_connected_{PACKINGS[packing]}_{size}", counts))
    return work


def layer_norm(tokens: int, features: int, factor: bool, calls: int = 1) -> list[Work]:
    """`calls` times IntLayerNorm. factor: it has a factor a channel. Widths of whole words have their own kernels."""
    fits = features % 4 == 0 and features <= (257 if factor else 900)
    kind = f"layer_norm{'' if fits else '_other'}{'_factor' if factor else ''}"
    return [Work("layer_norm_call", (calls,)), Work(kind, (calls * tokens, calls * tokens * features))]


def attention(tokens: int, head_dim: int, rows: int, calls: int = 1) -> Work:
    """`calls` times the attention of at most four query rows of one head; fewer than four run one by one."""
    calls = calls if rows == 4 else calls * rows
    keys, channels, odd = (tokens + 1) // 2, (head_dim + 1) // 2, head_dim % 2
    counts = (
        1, tokens, head_dim, keys, channels, keys * channels, keys * -(-head_dim // 16), head_dim * -(-tokens // 8),
        odd, odd * tokens,
    )  # fmt: skip
    return Work(f"attention_{4 if rows == 4 else 1}", tuple(calls * count for count in counts))


def _query_rows(tokens: int, head_dim: int, times: int) -> list[Work]:
    """Attention of all tokens' query rows in blocks of four, `times` times (heads)."""
    full, rest = divmod(tokens, 4)
    found = [attention(tokens, head_dim, 4, full * times)] if full else []
    return found + ([attention(tokens, head_dim, rest, times)] if rest else [])


def patch_embed(side: int, channels: int, patch: int, outputs: int, packing: int) -> list[Work]:
    """DecomposedPatchEmbed to side x side tokens."""
    fields, pairs, work = (-(-patch // decomposed_patch_embed.FIELD)) ** 2, (outputs + 1) // 2, []
    edges = fields if patch % decomposed_patch_embed.FIELD else 0
    for i, (size, count) in enumerate(_blocks(side)):
        blocks = side * count
        counts = (
            int(i == 0), blocks, blocks * size * outputs, blocks * fields, blocks * fields * channels,
            blocks * fields * pairs, blocks * fields * pairs * channels, blocks * edges,
        )  # fmt: skip
        work.append(Work(f"patch_embed_{PACKINGS[packing]}_{size}", counts))
    return work


def stem_conv(side: int, channels: int, outputs: int, packing: int, position: bool) -> list[Work]:
    """StemConv from side x side pixels. position: with a position table."""
    rows, inputs = (side + 1) // 2, 9 * channels
    pixels, edge = rows * rows, rows * (1 + side % 2)  # edge: pixels with padding before or after them
    counts = (1, pixels, pixels * inputs, pixels * (channels % 2), edge)
    return [*fully_connected(pixels, inputs, outputs, packing, residual=position), Work("stem_conv", counts)]


def keys_and_values(tokens: int, head_dim: int, calls: int) -> Work:
    """`calls` times the keys and values of `tokens` tokens put where attention wants them."""
    counts = (1, tokens, tokens * head_dim, tokens * (head_dim % 2))
    return Work("keys_and_values", tuple(calls * count for count in counts))


def overwrite_attention(tokens: int, num_heads: int, kv_heads: int, head_dim: int) -> list[Work]:
    """IntAttention."""
    return [keys_and_values(tokens, head_dim, kv_heads), *_query_rows(tokens, head_dim, num_heads)]


def streamed_attention_work(
    tokens: int, d: int, num_heads: int, kv_heads: int, head_dim: int, at_once: int, block: int, factor: bool,
    packing: int,
) -> list[Work]:  # fmt: skip
    """StreamedAttention; see the order of its passes in mcuf_streamed_attention_s8.h."""
    passes, queries, work = kv_heads // at_once, num_heads // kv_heads * at_once, []
    full, rest = divmod(tokens, block)
    for count, blocks in ((block, full), (rest, int(rest > 0))):
        if not blocks:
            continue
        times = passes * blocks
        work += layer_norm(count, d, factor, 2 * times)
        work += fully_connected(count, d, head_dim, packing, calls=2 * at_once * times)
        work.append(keys_and_values(count, head_dim, at_once * times))
        work += fully_connected(count, d, queries * head_dim, packing, calls=times)
        work += fully_connected(count, num_heads * head_dim, d, packing, residual=True, calls=blocks)
        for rows, parts in ((4, count // 4), (count % 4, int(count % 4 > 0))):
            if parts:
                work.append(attention(tokens, head_dim, rows, queries * times * parts))
    return work


def streamed_mlp_work(
    tokens: int, d: int, layers: Iterable[tuple[int, int]], gelu_layer: int, block: int, factor: bool, packing: int
) -> list[Work]:
    """StreamedMLP. layers: (inputs, outputs) of each; gelu_layer: the one with GELU, -1 none."""
    layers, work = list(layers), []
    full, rest = divmod(tokens, block)
    for count, blocks in ((block, full), (rest, int(rest > 0))):
        if not blocks:
            continue
        work += layer_norm(count, d, factor, blocks)
        for i, (inputs, outputs) in enumerate(layers):
            last = i + 1 == len(layers)
            work += fully_connected(count, inputs, outputs, packing, i == gelu_layer, last, blocks)
    return work


def token_mean(tokens: int, features: int) -> Work:
    return Work("token_mean", (1, features, tokens * features))


def gelu(elements: int) -> Work:
    return Work("gelu", (1, elements))


def work_of(graph: Graph, op: Op) -> list[Work]:
    """The kernel calls of one op of a graph."""
    shapes = [graph.tensors[i].shape if i >= 0 else None for i in op.inputs]
    output = graph.tensors[op.output].shape
    if op.kind == "DecomposedPatchEmbed":
        _, height, _, channels = shapes[0]
        size = op.options.patch_size
        return patch_embed(height // size, channels, size, output[-1], op.options.packing)
    if op.kind == "StemConv":
        return stem_conv(shapes[0][1], shapes[0][3], output[-1], op.options.packing, shapes[4] is not None)
    if op.kind == "IntLayerNorm":
        return layer_norm(output[1], output[-1], shapes[3] is not None)
    if op.kind == "InPlaceFC":
        ((inputs, outputs),) = staging.layers_of(graph, op)
        tokens, has_gelu, residual = int(np.prod(output[:-1])), shapes[4] is not None, shapes[5] is not None
        return fully_connected(tokens, inputs, outputs, op.options.packing, has_gelu, residual)
    if op.kind == "IntAttention":
        return overwrite_attention(output[1], shapes[1][0], op.options.kv_heads, op.options.head_dim)
    if op.kind == "IntGeLU":
        return [gelu(int(np.prod(output)))]
    if op.kind == "TokenMean":
        return [token_mean(shapes[0][1], shapes[0][2])]
    sections = params_blob.unpack(graph.tensors[op.inputs[1]].data)
    layers, (_, tokens, d) = staging.layers_of(graph, op), output
    module = staging.STREAMED[op.kind]
    scalars = params_blob.array(sections[module.SCALARS], "int32").tolist()
    block, packing, factor = scalars[module.BLOCK], scalars[module.PACKING], bool(sections[module.NORM + 2])
    if op.kind == "StreamedMLP":
        return streamed_mlp_work(tokens, d, layers, scalars[streamed_mlp.GELU_LAYER], block, factor, packing)
    _, kv_heads, at_once, head_dim, *_ = scalars
    heads = layers[1][0] // head_dim
    return streamed_attention_work(tokens, d, heads, kv_heads, head_dim, at_once, block, factor, packing)


def config_work(config: SubnetConfig, schedule: str = "streamed", strips: bool = False, packing: int = ROWS) -> list:
    """The kernel calls of every op that convert(..., schedule=schedule, strips=strips) makes of a config: a list each.

    packing: that of a board (mcuformer.converter.passes.packing).
    """
    if schedule not in ("overwrite", "streamed"):
        raise ConfigError(f"schedule = {schedule!r}: must be one of overwrite, streamed")
    if strips:
        check_takes_strips(config)
    ops = _ends_work(config, packing)
    at = len(ops) - 3
    for layer in config.layers:
        ops[at:at] = _layer_work(config.tokens, config.embed_dim, layer, schedule, packing)
        at = len(ops) - 3
    return ops


def _ends_work(config: SubnetConfig, packing: int) -> list[list[Work]]:
    """What is before the layers, and the three ops after them."""
    n, d, ops = config.tokens, config.embed_dim, []
    if config.stem == "patch":
        ops.append(patch_embed(config.grid, config.in_channels, config.patch_size, d, packing))
    side, channels = config.image_size, config.in_channels
    for i, outputs in enumerate(config.conv_channels):
        position = i + 1 == len(config.conv_channels)
        ops.append(stem_conv(side, channels, outputs, packing, position))
        side, channels = (side + 1) // 2, outputs
    return [*ops, layer_norm(n, d, d > 1), [token_mean(n, d)], fully_connected(1, d, config.num_classes, packing)]


def _mlp_layers(d: int, layer: LayerConfig) -> tuple[list[tuple[int, int]], int]:
    """(inputs, outputs) of the MLP's layers as lowered, and which has the GELU."""
    rank, wide = layer.rank, layer.mlp_dim
    if rank is not None and rank * (d + wide) < d * wide:
        return [(d, rank), (rank, wide), (wide, rank), (rank, d)], 1
    return [(d, wide), (wide, d)], 0


def _layer_work(n: int, d: int, layer: LayerConfig, schedule: str, packing: int) -> list[list[Work]]:
    layers, gelu_layer = _mlp_layers(d, layer)
    factor = d > 1
    around = ROWS if layer.head_dim % 2 else packing  # heads of an odd width do not start at pairs
    heads = (layer.num_heads, layer.kv_heads, layer.head_dim)
    if schedule == "streamed":
        at_once = kv_heads_at_once(n, d, *heads)
        return [
            streamed_attention_work(n, d, *heads, at_once, block_of(n), factor, around),
            streamed_mlp_work(n, d, layers, gelu_layer, block_of(n), factor, packing),
        ]
    last = len(layers) - 1
    return [
        layer_norm(n, d, factor),
        fully_connected(n, d, layer.qkv_dim, around),
        overwrite_attention(n, *heads),
        fully_connected(n, layer.q_dim, d, around, residual=True),
        layer_norm(n, d, factor),
        *(fully_connected(n, *sizes, packing, i == gelu_layer, i == last) for i, sizes in enumerate(layers)),
    ]


@functools.cache
def _coefficients(core: str) -> dict[str, tuple[float, ...]]:
    if core not in CORES:
        raise ConfigError(f"core {core!r} is unknown; choose one of {', '.join(CORES)}")
    stored = json.loads(COEFFICIENTS.read_text(encoding="utf-8"))["coefficients"][core]
    return {kernel: tuple(stored[kernel][name] for name in names) for kernel, names in KERNELS.items()}


def _instructions(work: Iterable[Work], core: str) -> float:
    coefficients = _coefficients(core)
    return sum(sum(map(operator.mul, one.counts, coefficients[one.kernel])) for one in work)


def op_instructions(graph: Graph, op: Op, core: str) -> int:
    """Predicted instructions of one op of a graph, for one image. core: "m4", "m7" or "m55"."""
    return round(_instructions(work_of(graph, op), core))


def instructions(config: SubnetConfig, core: str, schedule: str = "streamed", strips: bool = False) -> int:
    """Predicted instructions of a network for one image, from its dimensions alone: quick enough for a search.

    For weights as they are packed for a board with that core. Strips change nothing but who brings the image.
    """
    if schedule not in ("overwrite", "streamed"):
        raise ConfigError(f"schedule = {schedule!r}: must be one of overwrite, streamed")
    if strips:
        check_takes_strips(config)
    _coefficients(core)  # the core is known
    ends = sum(_instructions(work, core) for work in _ends_work(config, PACKING_OF[core]))
    return round(ends + sum(_layer(config.tokens, config.embed_dim, layer, schedule, core) for layer in config.layers))


@functools.lru_cache(maxsize=65536)
def _layer(n: int, d: int, layer: LayerConfig, schedule: str, core: str) -> float:
    return sum(_instructions(work, core) for work in _layer_work(n, d, layer, schedule, PACKING_OF[core]))
