# SPDX-License-Identifier: Apache-2.0
"""IntAttention: multi-head attention on int8 q, k, v without a tokens x tokens tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops import c_call
from mcuformer.converter.ops.fixed_point import bit_length, exact_matmul, mulhi_round, multiplier_of, sat8
from mcuformer.converter.ops.work import Shapes, Work

NAME = "IntAttention"
INPUTS = ("qkv", "head_params")
OVERWRITES = (0,)
OP_DATA_BYTES = 12

HEAD_PARAMS = 4  # int32 per query head: MCUF_ATTENTION_HEAD_PARAMS
_COUNTS = (
    "call", "token", "channel", "token_pair", "channel_pair", "pair_word", "token_vector", "channel_vector", "odd",
    "odd_token", "shifted_token",
)  # fmt: skip
KERNELS = {
    **{f"attention_{rows}": _COUNTS for rows in (4, 1)},
    "keys_and_values": ("call", "token", "element", "odd_token"),
}

STEPS_PER_NAT = 64
K_FLOOR = -127  # packed kernels cannot hold -128, so no kernel uses it
UNSHIFTED_TOKENS = 512  # sum e v of as many stays below 2^31
MIN_GAIN_EXPONENT, MAX_GAIN_EXPONENT = -8, 12
# A multiplier holds scales below 0.5. Scales of q and k are limited to MAX_STEP, slightly less than that, so that
# rounding cannot call for one shift too many.
MAX_STEP, MAX_SHIFTED_STEP = 0.499, 0.4999


def softmax_table() -> np.ndarray:
    """int16: round(32767 * exp(-i / 64)) up to and including the first zero."""
    values = np.rint(32767 * np.exp(-np.arange(1024) / STEPS_PER_NAT)).astype(np.int16)
    return values[: np.flatnonzero(values == 0)[0] + 1]


SOFTMAX_TABLE = softmax_table()


@dataclass(frozen=True)
class Options:
    kv_heads: int
    head_dim: int
    zero_point: int  # of the output; q, k and v have zero point 0


class Dims(NamedTuple):
    """tokens of [q of num_heads heads | k, v of kv_heads heads], each of head_dim channels."""

    tokens: int
    num_heads: int
    kv_heads: int
    head_dim: int


def dims(options: Options, shapes: Shapes) -> Dims:
    """The dimensions of an op with these options and input shapes."""
    return Dims(shapes[0][1], shapes[1][0], options.kv_heads, options.head_dim)


def input_elements(d: Dims) -> int:
    return d.tokens * (d.num_heads + 2 * d.kv_heads) * d.head_dim


def output_elements(d: Dims) -> int:
    """As wide as the input: head outputs replace q."""
    return input_elements(d)


def weight_elements(d: Dims) -> int:
    return 0


def constants(d: Dims) -> int:
    """How many constants the model file holds."""
    return 1


def constant_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of each constant in the model file."""
    return (4 * HEAD_PARAMS * d.num_heads,)


def scratch_bytes(d: Dims) -> int:
    return kernel_library.scratch_getter("int_attention")(d.tokens, d.head_dim)


def macs(d: Dims) -> int:
    return 2 * d.tokens**2 * d.num_heads * d.head_dim


def query_rows_work(tokens: int, head_dim: int, rows: int, calls: int = 1) -> Work:
    """The work of `calls` times the attention of up to four query rows of one head; fewer than four run one by one."""
    calls = calls if rows == 4 else calls * rows
    keys, channels, odd = (tokens + 1) // 2, (head_dim + 1) // 2, head_dim % 2
    counts = (
        1, tokens, head_dim, keys, channels, keys * channels, keys * -(-head_dim // 16), head_dim * -(-tokens // 8),
        odd, odd * tokens, tokens if numerator_shift(tokens) else 0,
    )  # fmt: skip
    return Work(f"attention_{4 if rows == 4 else 1}", tuple(calls * count for count in counts))


def keys_and_values_work(tokens: int, head_dim: int, calls: int) -> Work:
    """The work of `calls` times copying the keys and values of `tokens` tokens to where attention wants them."""
    counts = (1, tokens, tokens * head_dim, tokens * (head_dim % 2))
    return Work("keys_and_values", tuple(calls * count for count in counts))


def work(d: Dims) -> list[Work]:
    found = [keys_and_values_work(d.tokens, d.head_dim, d.kv_heads)]
    for rows, blocks in ((4, d.tokens // 4), (d.tokens % 4, int(d.tokens % 4 > 0))):
        if blocks:
            found.append(query_rows_work(d.tokens, d.head_dim, rows, blocks * d.num_heads))
    return found


def call(op, c: c_call.Context) -> c_call.Call:
    qkv, head_params = op.inputs
    d, stride = dims(op.options, [c.shape(qkv), c.shape(head_params)]), c.shape(qkv)[-1]
    fields = {
        "tokens": d.tokens, "num_heads": d.num_heads, "kv_heads": d.kv_heads, "head_dim": d.head_dim,
        "in_stride": stride, "out_stride": stride, "zero_point": op.options.zero_point,
        "head_params": c.tensor(head_params),
    }  # fmt: skip
    return c_call.call("int_attention", fields, c.address(qkv), c.address(op.output), c.scratch)


def largest_score_shift(head_dim: int) -> int:
    """The largest shift of score differences (below head_dim * 2^15) that stays within int32."""
    return 15 - (head_dim - 1).bit_length()


def largest_score_step(head_dim: int) -> float:
    """The largest q_scale * k_scale that score_multiplier and score_shift can express."""
    return MAX_STEP * np.sqrt(head_dim) / STEPS_PER_NAT * 2.0 ** largest_score_shift(head_dim)


def numerator_shift(tokens: int) -> int:
    """By how many bits the numerators are shifted right, so that their sums fit: ceil(log2(tokens / 512))."""
    return max(0, (tokens - 1).bit_length() - (UNSHIFTED_TOKENS - 1).bit_length())


def lower_head(
    q_scale: float, k_scale: float, v_scale: float, out_scale: float, head_dim: int, tokens: int
) -> np.ndarray:
    """int32 [4] for one query head: score_multiplier, out_multiplier, out_exponent, score_shift (see the C header)."""
    step = q_scale * k_scale / np.sqrt(head_dim) * STEPS_PER_NAT
    shift = max(0, int(np.ceil(np.log2(step / MAX_SHIFTED_STEP))))
    mantissa, exponent = np.frexp(v_scale / out_scale)
    exponent = int(np.clip(exponent, MIN_GAIN_EXPONENT, MAX_GAIN_EXPONENT - numerator_shift(tokens)))
    mantissa = np.clip(np.rint(v_scale / out_scale * 2.0 ** (31 - exponent)), 2**30, 2**31 - 1)
    return np.array([multiplier_of(step / 2.0**shift), mantissa, exponent, shift], np.int64).astype(np.int32)


def reference(options: Options, qkv: np.ndarray, head_params: np.ndarray) -> np.ndarray:
    """qkv int8 [batch, tokens, S], head_params int32 [heads, 4] -> int8 like qkv, with head outputs in place of q."""
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
        e = SOFTMAX_TABLE[np.minimum(index, len(SOFTMAX_TABLE) - 1)].astype(np.int64) >> numerator_shift(qkv.shape[1])
        total = e.sum(axis=-1, keepdims=True)
        zeros = 32 - bit_length(total)  # leading zeros of a 32-bit word
        inverse = 0xFFFFFFFF // ((total << zeros) >> 16)
        multiplier = (inverse * out_multiplier) >> 17
        shift = 30 - out_exponent - zeros
        high = mulhi_round(exact_matmul(e, v), multiplier)
        out[..., h * dim : (h + 1) * dim] = sat8(options.zero_point + ((high + (1 << (shift - 1))) >> shift))
    return out


def output_shape(options: Options, shapes: Shapes) -> tuple[int, ...]:
    """As wide as qkv: head outputs replace q."""
    return shapes[0]
