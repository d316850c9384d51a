# SPDX-License-Identifier: Apache-2.0
"""StreamedAttention: LayerNorm, q, k, v, attention, projection, residual: in place on the stream."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops import in_place_fc, int_attention, params_blob
from mcuformer.converter.ops.packed_weights import row_bytes_and_rows

NAME = "StreamedAttention"
INPUTS = ("stream", "params", "weights")
OVERWRITES = (0,)
OP_DATA_BYTES = 4

SCALARS, NORM, HEAD_PARAMS, RESIDUAL_SCALE, QKV, PROJ = 0, 1, 4, 5, 6, 9  # sections
BLOCK, TILE_BYTES, WEIGHTS_OFFSET, PACKING = 0, 10, 11, 12  # scalars


@dataclass(frozen=True)
class Options:
    """None: everything is in the params, since options would be read anew in every call."""


def params(
    block: int, kv_heads_at_once: int, norm: tuple, qkv: tuple, attention: tuple, proj: tuple, residual_scale
) -> np.ndarray:
    """The params tensor. norm: (options, gamma, beta, factor); attention: (options, head_params); qkv, proj: (options,
    weights, bias, multiplier)."""
    norm_options, *norm_constants = norm
    attention_options, head_params = attention
    epsilon = params_blob.split_int64(norm_options.epsilon)
    scalars = [
        block, attention_options.kv_heads, kv_heads_at_once, attention_options.head_dim, attention_options.zero_point,
        norm_options.zero_point, *epsilon, qkv[0].zero_point, proj[0].zero_point, 0, 0,
        qkv[0].packing,
    ]  # fmt: skip
    sections = [np.array(scalars, np.int32), *norm_constants, head_params, residual_scale, *qkv[1:], *proj[1:]]
    return params_blob.pack(sections)


def layers_of(sections: list[bytes], d: int) -> list[tuple[int, int]]:
    """(inputs, outputs) of qkv and of the projection."""
    head_dim = params_blob.array(sections[SCALARS], "int32")[3]
    return [(d, len(sections[QKV + 1]) // 4), (len(sections[HEAD_PARAMS]) // 16 * int(head_dim), d)]


def weight_sections(sections: list[bytes]) -> list[int]:
    return [QKV, PROJ]


def reference(
    options: Options, stream: np.ndarray, params: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """stream int8 [batch, tokens, d] -> int8 of the same shape. weights int8 [bytes]: staged ones, see take_out."""
    sections = params_blob.unpack(params)
    scalars = params_blob.array(sections[SCALARS], "int32").tolist()
    sizes = [math.prod(row_bytes_and_rows(*layer, scalars[PACKING])) for layer in layers_of(sections, stream.shape[-1])]
    params_blob.put_back(sections, weight_sections(sections), sizes, weights)
    _, kv_heads, _, head_dim, attention_zero, norm_zero, low, high, qkv_zero, proj_zero, _, _, packing = scalars
    x = params_blob.layer_norm(sections, NORM, stream, norm_zero, low, high)
    qkv = in_place_fc.reference(
        in_place_fc.Options(qkv_zero, packing), x, *params_blob.fully_connected(sections, QKV, packing)
    )
    head_params = params_blob.array(sections[HEAD_PARAMS], "int32").reshape(-1, 4)
    x = int_attention.reference(int_attention.Options(kv_heads, head_dim, attention_zero), qkv, head_params)
    return in_place_fc.reference(
        in_place_fc.Options(proj_zero, packing),
        x,
        *params_blob.fully_connected(sections, PROJ, packing),
        None,
        stream,
        params_blob.array(sections[RESIDUAL_SCALE], "int16"),
    )


def scratch_bytes(options: Options, tensors) -> int:
    _, tokens, d = tensors[0].shape
    sections = params_blob.unpack(tensors[1].data)
    scalars = params_blob.array(sections[SCALARS], "int32").tolist()
    block, kv_heads, at_once, head_dim, *_ = scalars
    heads = len(sections[HEAD_PARAMS]) // 16
    return kernel_library.streamed_attention_scratch_bytes(
        tokens, block, d, heads, kv_heads, at_once, head_dim, scalars[TILE_BYTES]
    )


def output_shape(options: Options, shapes) -> tuple[int, ...]:
    return shapes[0]
