# SPDX-License-Identifier: Apache-2.0
"""The search's question: how much arena would this config take? Answered from the dimensions alone.

The answer equals that of the full plan (tests and benchmarks/feasibility.py compare), whose head is the most in use in
one step. A norm has a factor tensor unless there is but one channel.
"""

from __future__ import annotations

import functools

from mcuformer import kernel_library
from mcuformer.converter.memory.arena import tail_bytes
from mcuformer.converter.memory.board_arena import arena_of
from mcuformer.converter.memory.plan import align
from mcuformer.converter.ops import (
    decomposed_patch_embed,
    in_place_fc,
    int_attention,
    int_layer_norm,
    stem_conv,
    streamed_attention,
    streamed_mlp,
    token_mean,
)
from mcuformer.converter.passes.staging import least_tile
from mcuformer.converter.passes.streamed import block_of, kv_heads_at_once
from mcuformer.converter.passes.strips import check_takes_strips
from mcuformer.converter.subnet_config import LayerConfig, SubnetConfig
from mcuformer.errors import ConfigError

FC, NORM = in_place_fc.OP_DATA_BYTES, int_layer_norm.OP_DATA_BYTES


class _Tally:
    """Ops, tensors and scratch buffers of a file, and the most in use in one step."""

    def __init__(self, staged: bool, inputs: int):
        self.op_data: list[int] = []
        self.staged, self.inputs = staged, inputs
        self.tensors, self.scratch, self.head = inputs, 0, 0

    def op(self, data: int, tensors: int, live: int, scratch: int = 0) -> None:
        """tensors: constants and output; live: bytes of activations in the op's step, each rounded up."""
        self.op_data.append(data)
        self.tensors += tensors
        self.scratch += scratch > 0
        self.head = max(self.head, live + align(scratch))

    def fc(self, tensors: int, live: int, tokens: int, inputs: int, outputs: int) -> None:
        """An InPlaceFC; tensors: with its weights."""
        tile = least_tile([(inputs, outputs)]) if self.staged else 0
        scratch = kernel_library.in_place_fc_scratch_bytes(inputs, tile, block_of(tokens) if tile else 0)
        self.op(FC, tensors - self.staged, live, scratch)


def arena_bytes(config: SubnetConfig, schedule: str = "streamed", strips: bool = False, weights: str = "xip") -> int:
    """The arena, head and tail, of convert(...) with the same arguments, in the host's 64-bit interpreter.

    Of the default quantisation; with residual="per-tensor" the plan is some tens of bytes a layer smaller. A 32-bit
    board mostly takes less: board_arena_bytes.
    """
    tally = _tally(config, schedule, strips, weights)
    return tally.head + tail_bytes(tally.op_data, tally.tensors, tally.scratch, tally.inputs)


def board_arena_bytes(
    config: SubnetConfig, schedule: str = "streamed", strips: bool = False, weights: str = "xip"
) -> int:
    """The same on a 32-bit board: what Model.arena_bytes(board) is after convert(...) with the same arguments."""
    t = _tally(config, schedule, strips, weights)
    return arena_of(t.head, t.op_data, t.tensors, t.inputs, t.scratch, activations=t.inputs + len(t.op_data))


def fits(
    config: SubnetConfig, sram_bytes: int, schedule: str = "streamed", strips: bool = False, weights: str = "xip"
) -> bool:
    """Whether the arena on a board, as board_arena_bytes has it, is at most sram_bytes."""
    return board_arena_bytes(config, schedule, strips, weights) <= sram_bytes


def _tally(config: SubnetConfig, schedule: str, strips: bool, weights: str) -> _Tally:
    if schedule not in ("overwrite", "streamed"):
        raise ConfigError(f"schedule = {schedule!r}: must be one of overwrite, streamed")
    if weights not in ("xip", "staged"):
        raise ConfigError(f"weights = {weights!r}: must be one of xip, staged")
    if strips:
        check_takes_strips(config)
    n, d = config.tokens, config.embed_dim
    stream = align(n * d)
    tally = _Tally(weights == "staged", inputs=0 if strips else 1)
    if config.stem == "patch":
        _patch_embed(tally, config, strips)
    else:
        _conv_stem(tally, config)
    for layer in config.layers:
        if schedule == "streamed":
            attention, mlp = _streamed_scratch(n, d, layer, tally.staged)
            tally.op(streamed_attention.OP_DATA_BYTES, 2, stream, attention)
            tally.op(streamed_mlp.OP_DATA_BYTES, 2, stream, mlp)
        else:
            _layer(tally, n, d, layer)
    tally.op(NORM, 4 - (d == 1), stream)
    tally.op(token_mean.OP_DATA_BYTES, 1, stream)
    tally.fc(4, align(max(d, config.num_classes)), 1, d, config.num_classes)
    return tally


def _patch_embed(tally: _Tally, config: SubnetConfig, strips: bool) -> None:
    size, channels, d = config.image_size, config.in_channels, config.embed_dim
    tokens = align(config.tokens * d)
    row = decomposed_patch_embed.FIELD**2 * channels
    tile = least_tile([(row, d)]) if tally.staged else 0
    if strips:
        options = decomposed_patch_embed.Options(config.patch_size, 0)
        rows = decomposed_patch_embed.in_strips(options, (1, size, size, channels), d).strip_rows
        live = tokens
        scratch = decomposed_patch_embed.strip_scratch_bytes(size, channels, config.patch_size, d, rows, 1, tile)
    else:
        live = max(align(size * size * channels), tokens)
        scratch = kernel_library.decomposed_patch_embed_scratch_bytes(size, channels, config.patch_size, d, 1, tile)
    tally.op(decomposed_patch_embed.OP_DATA_BYTES, 6 - tally.staged, live, scratch)


def _conv_stem(tally: _Tally, config: SubnetConfig) -> None:
    side, inputs = config.image_size, config.in_channels
    live = align(side * side * inputs)
    for i, outputs in enumerate(config.conv_channels):
        side = (side + 1) // 2
        output = align(side * side * outputs)
        constants = 5 if i + 1 == len(config.conv_channels) else 3
        scratch = kernel_library.stem_conv_scratch_bytes(inputs)
        tally.op(stem_conv.OP_DATA_BYTES, 1 + constants, live + output, scratch)
        live, inputs = output, outputs


def _factors(d: int, layer: LayerConfig) -> bool:
    """Whether the MLP's matrices run as two factors."""
    return layer.rank is not None and layer.rank * (d + layer.mlp_dim) < d * layer.mlp_dim


def _mlp_inputs(d: int, layer: LayerConfig) -> tuple[int, ...]:
    """What each fully connected layer of the MLP takes."""
    return (d, layer.rank, layer.mlp_dim, layer.rank) if _factors(d, layer) else (d, layer.mlp_dim)


@functools.lru_cache(maxsize=65536)
def _streamed_scratch(n: int, d: int, layer: LayerConfig, staged: bool) -> tuple[int, int]:
    """Scratch of StreamedAttention and StreamedMLP."""
    inputs = _mlp_inputs(d, layer)
    tiles = (0, 0)
    if staged:
        attention_tile = least_tile([(d, layer.qkv_dim), (layer.q_dim, d)])
        tiles = (attention_tile, least_tile(list(zip(inputs, (*inputs[1:], d), strict=True))))
    at_once = kv_heads_at_once(n, d, layer.num_heads, layer.kv_heads, layer.head_dim)
    attention = kernel_library.streamed_attention_scratch_bytes(
        n, block_of(n), d, layer.num_heads, layer.kv_heads, at_once, layer.head_dim, tiles[0]
    )
    return attention, kernel_library.streamed_mlp_scratch_bytes(block_of(n), inputs, tiles[1])


def _layer(tally: _Tally, n: int, d: int, layer: LayerConfig) -> None:
    """The ops of schedule "overwrite": each branch stands above the stream and overwrites itself."""
    stream = align(n * d)

    def fully_connected(tensors: int, inputs: int, outputs: int) -> None:
        tally.fc(tensors, stream + align(n * max(inputs, outputs)), n, inputs, outputs)

    tally.op(NORM, 4 - (d == 1), 2 * stream)
    fully_connected(4, d, layer.qkv_dim)
    attention = kernel_library.int_attention_scratch_bytes(n, layer.head_dim)
    tally.op(int_attention.OP_DATA_BYTES, 2, stream + align(n * layer.qkv_dim), attention)
    tally.fc(5, stream + align(n * layer.qkv_dim), n, layer.q_dim, d)
    tally.op(NORM, 4 - (d == 1), 2 * stream)
    rank = layer.rank if _factors(d, layer) else None
    if rank is not None:
        fully_connected(4, d, rank)
    fully_connected(5, rank or d, layer.mlp_dim)
    if rank is not None:
        fully_connected(4, layer.mlp_dim, rank)
    tally.fc(5, stream + align(n * (rank or layer.mlp_dim)), n, rank or layer.mlp_dim, d)
