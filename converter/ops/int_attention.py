# SPDX-License-Identifier: Apache-2.0
"""IntAttention: multi-head attention on int8 q, k, v without a tokens x tokens tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops.fixed_point import exact_matmul, mulhi_round, multiplier_of, sat8

NAME = "IntAttention"
INPUTS = ("qkv", "head_params")
OVERWRITES = (0,)
OP_DATA_BYTES = 12

STEPS_PER_NAT = 64
K_FLOOR = -127  # packed kernels cannot hold -128, so none reads it
MIN_GAIN_EXPONENT, MAX_GAIN_EXPONENT = -8, 12


def softmax_table() -> np.ndarray:
    """int16: round(32767 * exp(-i / 64)) up to and with the first zero."""
    values = np.rint(32767 * np.exp(-np.arange(1024) / STEPS_PER_NAT)).astype(np.int16)
    return values[: np.flatnonzero(values == 0)[0] + 1]


SOFTMAX_TABLE = softmax_table()


@dataclass(frozen=True)
class Options:
    kv_heads: int
    head_dim: int
    zero_point: int  # of the output; q, k and v have zero point 0


def largest_score_shift(head_dim: int) -> int:
    """The most that score differences, below head_dim * 2^15, can be shifted within int32."""
    return 15 - (head_dim - 1).bit_length()


def largest_score_step(head_dim: int) -> float:
    """The largest q_scale * k_scale that score_multiplier and score_shift can express."""
    return 0.499 * np.sqrt(head_dim) / STEPS_PER_NAT * 2.0 ** largest_score_shift(head_dim)


def lower_head(q_scale: float, k_scale: float, v_scale: float, out_scale: float, head_dim: int) -> np.ndarray:
    """int32 [4] of one query head: score_multiplier, out_multiplier, out_exponent, score_shift (see the C header)."""
    step = q_scale * k_scale / np.sqrt(head_dim) * STEPS_PER_NAT
    shift = max(0, int(np.ceil(np.log2(step / 0.4999))))
    mantissa, exponent = np.frexp(v_scale / out_scale)
    exponent = int(np.clip(exponent, MIN_GAIN_EXPONENT, MAX_GAIN_EXPONENT))
    mantissa = np.clip(np.rint(v_scale / out_scale * 2.0 ** (31 - exponent)), 2**30, 2**31 - 1)
    return np.array([multiplier_of(step / 2.0**shift), mantissa, exponent, shift], np.int64).astype(np.int32)


def reference(options: Options, qkv: np.ndarray, head_params: np.ndarray) -> np.ndarray:
    """qkv int8 [batch, tokens, S], head_params int32 [heads, 4] -> int8 like qkv, head outputs where q stood."""
    heads, dim, kv = len(head_params), options.head_dim, options.kv_heads
    out = qkv.copy()
    for h in range(heads):
        k_at = (heads + h * kv // heads) * dim
        v_at = k_at + kv * dim
        q = qkv[..., h * dim : (h + 1) * dim]
        k = np.maximum(qkv[..., k_at : k_at + dim], K_FLOOR)
        v = qkv[..., v_at : v_at + dim]
        score_multiplier, out_multiplier, out_exponent, score_shift = (int(value) for value in head_params[h])
        scores = exact_matmul(q, np.swapaxes(k, -1, -2))
        index = mulhi_round((scores.max(axis=-1, keepdims=True) - scores) << score_shift, score_multiplier)
        e = SOFTMAX_TABLE[np.minimum(index, len(SOFTMAX_TABLE) - 1)].astype(np.int64)
        total = e.sum(axis=-1, keepdims=True)
        zeros = 32 - np.ceil(np.log2(total + 0.5)).astype(np.int64)  # leading zeros of a 32-bit word
        inverse = 0xFFFFFFFF // ((total << zeros) >> 16)
        multiplier = (inverse * out_multiplier) >> 17
        shift = 30 - out_exponent - zeros
        high = mulhi_round(exact_matmul(e, v), multiplier)
        out[..., h * dim : (h + 1) * dim] = sat8(options.zero_point + ((high + (1 << (shift - 1))) >> shift))
    return out


def scratch_bytes(options: Options, tensors) -> int:
    return kernel_library.int_attention_scratch_bytes(tensors[0].shape[1], options.head_dim)


def output_shape(options: Options, shapes) -> tuple[int, ...]:
    """As wide as qkv: head outputs stand where q stood."""
    return shapes[0]
