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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcuformer.converter import staging
from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import decomposed_patch_embed, params_blob, streamed_attention, streamed_mlp
from mcuformer.converter.stream import block_of, kv_heads_at_once
from mcuformer.converter.strips import check_takes_strips
from mcuformer.converter.subnet_config import LayerConfig, SubnetConfig
from mcuformer.errors import ConfigError

CORES = ("m4", "m7", "m55")
COEFFICIENTS = Path(__file__).with_name("instruction_coefficients.json")


@dataclass(frozen=True)
class Work:
    """Calls of one kernel: counts by the names that KERNELS has for it, in order."""

    kernel: str
    counts: tuple[float, ...]


KERNELS = {
    "fully_connected": (
        "call", "block", "block_input", "block_pair", "block_pair_input", "block_pair_odd_input", "tail_pair",
        "tail_pair_input", "tail_token_pair_input", "output", "gelu", "residual",
    ),
    "layer_norm": ("call", "token", "element", "factor"),
    "attention": (
        "call", "token", "channel", "token_channel", "row_token", "row_channel", "row_token_channel", "row",
    ),
    "transposed": ("call", "element"),
    "patch_embed": (
        "call", "block", "block_output", "block_field", "block_field_input", "block_field_pair",
        "block_field_pair_input", "output",
    ),
    "stem_conv": ("call", "block", "block_input", "block_pair", "block_pair_input", "output"),
    "token_mean": ("call", "channel", "element"),
    "gelu": ("call", "element"),
}  # fmt: skip
"""What is counted of every kernel. A pair: two outputs; a block: four tokens or fewer; a tail: one of fewer."""


def fully_connected(tokens: int, inputs: int, outputs: int, gelu=False, residual=False, calls: int = 1) -> Work:
    """`calls` times InPlaceFC on `tokens` tokens."""
    blocks, rest, pairs = -(-tokens // 4), tokens % 4, (outputs + 1) // 2
    tail, elements = float(rest > 0), tokens * outputs
    counts = (
        1, blocks, blocks * inputs, blocks * pairs, blocks * pairs * inputs, blocks * pairs * (inputs % 4),
        tail * pairs, tail * pairs * inputs, rest * pairs * inputs, elements, elements * gelu, elements * residual,
    )  # fmt: skip
    return Work("fully_connected", tuple(calls * count for count in counts))


def layer_norm(tokens: int, features: int, factor: bool, calls: int = 1) -> Work:
    """`calls` times IntLayerNorm. factor: it has a factor a channel."""
    elements = tokens * features
    return Work("layer_norm", tuple(calls * count for count in (1, tokens, elements, elements * factor)))


def attention(tokens: int, head_dim: int, rows: int, calls: int = 1) -> Work:
    """`calls` times the attention of at most four query rows of one head."""
    area = tokens * head_dim
    counts = (1, tokens, head_dim, area, rows * tokens, rows * head_dim, rows * area, rows)
    return Work("attention", tuple(calls * count for count in counts))


def _query_rows(tokens: int, head_dim: int, times: int) -> list[Work]:
    """Attention of all tokens' query rows in blocks of four, `times` times (heads)."""
    full, rest = divmod(tokens, 4)
    found = [attention(tokens, head_dim, 4, full * times)] if full else []
    return found + ([attention(tokens, head_dim, rest, times)] if rest else [])


def patch_embed(side: int, channels: int, patch: int, outputs: int) -> Work:
    """DecomposedPatchEmbed to side x side tokens."""
    blocks, fields = side * -(-side // 4), (-(-patch // decomposed_patch_embed.FIELD)) ** 2
    inputs, pairs = 16 * channels, (outputs + 1) // 2
    counts = (
        1, blocks, blocks * outputs, blocks * fields, blocks * fields * inputs, blocks * fields * pairs,
        blocks * fields * pairs * inputs, side**2 * outputs,
    )  # fmt: skip
    return Work("patch_embed", counts)


def stem_conv(side: int, channels: int, outputs: int) -> Work:
    """StemConv to side x side pixels."""
    blocks, inputs, pairs = -(-side * side // 4), 9 * channels, (outputs + 1) // 2
    return Work(
        "stem_conv",
        (1, blocks, blocks * inputs, blocks * pairs, blocks * pairs * inputs, side * side * outputs),
    )


def token_mean(tokens: int, features: int) -> Work:
    return Work("token_mean", (1, features, tokens * features))


def gelu(elements: int) -> Work:
    return Work("gelu", (1, elements))


def transposed(elements: int, calls: int) -> Work:
    """Attention's values written in columns."""
    return Work("transposed", (calls, elements))


def overwrite_attention(tokens: int, num_heads: int, kv_heads: int, head_dim: int) -> list[Work]:
    """IntAttention: values are transposed, then four query rows of a head at a time."""
    return [transposed(kv_heads * tokens * head_dim, kv_heads), *_query_rows(tokens, head_dim, num_heads)]


def streamed_attention_work(
    tokens: int, d: int, num_heads: int, kv_heads: int, head_dim: int, at_once: int, block: int, factor: bool
) -> list[Work]:
    """StreamedAttention; see the order of its passes in mcuf_streamed_attention_s8.h."""
    passes, group, work = kv_heads // at_once, num_heads // kv_heads, []
    queries = group * at_once
    full, rest = divmod(tokens, block)
    for count, blocks in ((block, full), (rest, int(rest > 0))):
        if not blocks:
            continue
        times = passes * blocks
        work.append(layer_norm(count, d, factor, 2 * times))
        work.append(fully_connected(count, d, head_dim, calls=2 * at_once * times))
        work.append(transposed(at_once * times * count * head_dim, at_once * times))
        work.append(fully_connected(count, d, queries * head_dim, calls=times))
        work.append(fully_connected(count, num_heads * head_dim, d, residual=True, calls=blocks))
        for rows, parts in ((4, count // 4), (count % 4, int(count % 4 > 0))):
            if parts:
                work.append(attention(tokens, head_dim, rows, queries * times * parts))
    return work


def streamed_mlp_work(
    tokens: int, d: int, layers: Iterable[tuple[int, int]], gelu_layer: int, block: int, factor: bool
) -> list[Work]:
    """StreamedMLP. layers: (inputs, outputs) of each; gelu_layer: the one with GELU, -1 none."""
    layers, work = list(layers), []
    full, rest = divmod(tokens, block)
    for count, blocks in ((block, full), (rest, int(rest > 0))):
        if not blocks:
            continue
        work.append(layer_norm(count, d, factor, blocks))
        for i, (inputs, outputs) in enumerate(layers):
            last = i + 1 == len(layers)
            work.append(fully_connected(count, inputs, outputs, i == gelu_layer, last, blocks))
    return work


def work_of(graph: Graph, op: Op) -> list[Work]:
    """The kernel calls of one op of a graph."""
    shapes = [graph.tensors[i].shape if i >= 0 else None for i in op.inputs]
    output = graph.tensors[op.output].shape
    if op.kind == "DecomposedPatchEmbed":
        _, height, _, channels = shapes[0]
        return [patch_embed(height // op.options.patch_size, channels, op.options.patch_size, output[-1])]
    if op.kind == "StemConv":
        return [stem_conv(-(-shapes[0][1] // 2), shapes[0][3], output[-1])]
    if op.kind == "IntLayerNorm":
        return [layer_norm(output[1], output[-1], shapes[3] is not None)]
    if op.kind == "InPlaceFC":
        tokens = int(np.prod(output[:-1]))
        has_gelu, residual = shapes[4] is not None, shapes[5] is not None
        ((inputs, outputs),) = staging.layers_of(graph, op)
        return [fully_connected(tokens, inputs, outputs, has_gelu, residual)]
    if op.kind == "IntAttention":
        return overwrite_attention(output[1], shapes[1][0], op.options.kv_heads, op.options.head_dim)
    if op.kind == "IntGeLU":
        return [gelu(int(np.prod(output)))]
    if op.kind == "TokenMean":
        return [token_mean(shapes[0][1], shapes[0][2])]
    sections = params_blob.unpack(graph.tensors[op.inputs[1]].data)
    layers, (_, tokens, d) = staging.layers_of(graph, op), output
    if op.kind == "StreamedMLP":
        scalars = params_blob.array(sections[streamed_mlp.SCALARS], "int32").tolist()
        factor = bool(sections[streamed_mlp.NORM + 2])
        return streamed_mlp_work(tokens, d, layers, scalars[4], scalars[streamed_mlp.BLOCK], factor)
    module = streamed_attention
    block, kv_heads, at_once, head_dim, *_ = params_blob.array(sections[module.SCALARS], "int32").tolist()
    heads, factor = layers[1][0] // head_dim, bool(sections[module.NORM + 2])
    return streamed_attention_work(tokens, d, heads, kv_heads, head_dim, at_once, block, factor)


def config_work(config: SubnetConfig, schedule: str = "streamed", strips: bool = False) -> list[list[Work]]:
    """The kernel calls of every op that convert(..., schedule=schedule, strips=strips) makes of a config."""
    if schedule not in ("overwrite", "streamed"):
        raise ConfigError(f"schedule = {schedule!r}: must be one of overwrite, streamed")
    if strips:
        check_takes_strips(config)
    n, d = config.tokens, config.embed_dim
    ops = []
    if config.stem == "patch":
        ops.append([patch_embed(config.grid, config.in_channels, config.patch_size, d)])
    side, channels = config.image_size, config.in_channels
    for outputs in config.conv_channels:
        side = (side + 1) // 2
        ops.append([stem_conv(side, channels, outputs)])
        channels = outputs
    for layer in config.layers:
        ops += _layer_work(n, d, layer, schedule)
    return [*ops, [layer_norm(n, d, d > 1)], [token_mean(n, d)], [fully_connected(1, d, config.num_classes)]]


def _mlp_layers(d: int, layer: LayerConfig) -> tuple[list[tuple[int, int]], int]:
    """(inputs, outputs) of the MLP's layers as lowered, and which has the GELU."""
    rank, wide = layer.rank, layer.mlp_dim
    if rank is not None and rank * (d + wide) < d * wide:
        return [(d, rank), (rank, wide), (wide, rank), (rank, d)], 1
    return [(d, wide), (wide, d)], 0


@functools.lru_cache(maxsize=65536)
def _layer_work(n: int, d: int, layer: LayerConfig, schedule: str) -> list[list[Work]]:
    layers, gelu_layer = _mlp_layers(d, layer)
    factor = d > 1
    if schedule == "streamed":
        at_once = kv_heads_at_once(n, d, layer.num_heads, layer.kv_heads, layer.head_dim)
        return [
            streamed_attention_work(
                n, d, layer.num_heads, layer.kv_heads, layer.head_dim, at_once, block_of(n), factor
            ),
            streamed_mlp_work(n, d, layers, gelu_layer, block_of(n), factor),
        ]
    last = len(layers) - 1
    mlp = [[fully_connected(n, *sizes, i == gelu_layer, i == last)] for i, sizes in enumerate(layers)]
    return [
        [layer_norm(n, d, factor)],
        [fully_connected(n, d, layer.qkv_dim)],
        overwrite_attention(n, layer.num_heads, layer.kv_heads, layer.head_dim),
        [fully_connected(n, layer.q_dim, d, residual=True)],
        [layer_norm(n, d, factor)],
        *mlp,
    ]


@functools.cache
def _coefficients() -> dict[str, dict[str, tuple[float, ...]]]:
    stored = json.loads(COEFFICIENTS.read_text(encoding="utf-8"))["coefficients"]
    return {
        core: {kernel: tuple(stored[core][kernel][name] for name in names) for kernel, names in KERNELS.items()}
        for core in CORES
    }


def _instructions(work: Iterable[Work], core: str) -> float:
    if core not in CORES:
        raise ConfigError(f"core {core!r} is unknown; choose one of {', '.join(CORES)}")
    coefficients = _coefficients()[core]
    return sum(sum(a * b for a, b in zip(one.counts, coefficients[one.kernel], strict=True)) for one in work)


def op_instructions(graph: Graph, op: Op, core: str) -> int:
    """Predicted instructions of one op of a graph, for one image. core: "m4", "m7" or "m55"."""
    return round(_instructions(work_of(graph, op), core))


def instructions(config: SubnetConfig, core: str, schedule: str = "streamed", strips: bool = False) -> int:
    """Predicted instructions of a network for one image, from its dimensions alone: quick enough for a search."""
    return round(sum(_op_costs(config, core, schedule, strips)))


def _op_costs(config: SubnetConfig, core: str, schedule: str, strips: bool) -> list[float]:
    return [_instructions(work, core) for work in config_work(config, schedule, strips)]
