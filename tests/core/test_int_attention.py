# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import core_calls
import numpy as np
import pytest
import random_values as rv
from random_relative import random_relative, relative_constants
from scripts import load_script

from mcuformer.converter.ops import int_attention
from mcuformer.converter.ops.relative_position import (
    HEAD_PARAMS,
    Relative,
    bias_entries,
    bias_length,
    lower_bias,
    lower_tables,
    table_entries,
    table_length,
    table_scale,
)

ROOT = Path(__file__).parents[2]


LENGTHS = (511, 512, 513, 577, 1024, 1025, 2047, 2048)  # around those where numerators lose a bit


def heads_of(rng, heads, dim, tokens, relative=None):
    rows, tables = [], relative is not None and relative.tables
    for _ in range(heads):
        most = int_attention.largest_score_step(dim, relative is not None)
        step = most * 10 ** rng.uniform(-4, -0.01)
        rows.append(int_attention.lower_head(step, 1.0, 2.0 ** rng.uniform(-3, 6), 1.0, dim, tokens, tables))
    return np.stack(rows)


@pytest.mark.parametrize("seed", range(120))
def test_core_equals_reference(seed):
    rng = np.random.default_rng(seed)
    tokens = int(rng.choice((*rv.TOKENS, 200, 512)))
    dim = int(rng.choice((1, 3, 8, 17, 32, 64)))
    kv_heads = int(rng.integers(1, 4))
    heads = kv_heads * int(rng.integers(1, 4))
    qkv = rv.int8(rng, tokens, (heads + 2 * kv_heads) * dim + int(rng.choice([0, 3])))
    head_params, zero_point = heads_of(rng, heads, dim, tokens), rv.zero_point(rng)
    want = int_attention.reference(int_attention.Options(kv_heads, dim, zero_point), qkv[None], head_params)[0]
    want = want[:, : heads * dim]
    for dense, alias in ((False, None), (False, "input"), (True, None)):
        got = core_calls.int_attention(qkv, head_params, kv_heads, dim, zero_point, dense, alias)
        np.testing.assert_array_equal(got, want, err_msg=f"dense {dense}, output over {alias}")


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("dim", [1, 3, 32])
def test_core_equals_reference_of_many_tokens(tokens, dim):
    rng = np.random.default_rng(tokens + dim)
    heads = 1 if dim == 32 else 2
    qkv = rv.int8(rng, tokens, (heads + 2) * dim)
    head_params, zero_point = heads_of(rng, heads, dim, tokens), rv.zero_point(rng)
    want = int_attention.reference(int_attention.Options(1, dim, zero_point), qkv[None], head_params)[0]
    got = core_calls.int_attention(qkv, head_params, 1, dim, zero_point, alias="input")
    np.testing.assert_array_equal(got, want[:, : heads * dim])


def relative_case(rng, relative, tokens, dim, heads, kv_heads):
    """qkv, options, head_params, constants of the relative positions."""
    qkv = rv.int8(rng, tokens, (heads + 2 * kv_heads) * dim)
    options = int_attention.Options(kv_heads, dim, rv.zero_point(rng), *relative.grid)
    return (
        qkv, options, heads_of(rng, heads, dim, tokens, relative),
        relative_constants(rng, relative, tokens, heads, dim),
    )  # fmt: skip


def check_relative(qkv, options, head_params, constants):
    want = int_attention.reference(options, qkv[None], head_params, **constants)[0]
    grid = options.grid_rows, options.grid_columns
    for dense, alias in ((False, "input"), (True, None)):
        got = core_calls.int_attention(
            qkv, head_params, options.kv_heads, options.head_dim, options.zero_point, dense, alias, grid, **constants
        )
        np.testing.assert_array_equal(got, want[:, : len(head_params) * options.head_dim], err_msg=f"{options} {alias}")


@pytest.mark.parametrize("seed", range(150))
def test_relative_positions_equal_the_reference(seed):
    rng = np.random.default_rng(seed)
    relative, tokens = random_relative(rng)
    dim, kv_heads = int(rng.choice((1, 2, 3, 8, 17, 32, 600 if tokens < 30 else 64))), int(rng.integers(1, 3))
    check_relative(*relative_case(rng, relative, tokens, dim, kv_heads * int(rng.integers(1, 4)), kv_heads))


@pytest.mark.parametrize("grid", [(8, 16), (3, 43), (16, 16), (16, 32), (19, 27), (1, 1024), (1025, 1), (32, 64)])
@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("tables", [False, True])
def test_relative_positions_of_many_tokens(grid, prefix, tables):
    """Around the lengths where numerators lose bits, which are a quarter with tables."""
    rows, columns = grid
    tokens = rows * columns + prefix
    if tokens > 2048:
        rows -= 1
        tokens -= columns
    check_relative(*relative_case(np.random.default_rng(tokens), Relative(rows, columns, tables), tokens, 3, 1, 1))


@pytest.mark.parametrize("tokens", [1, 128, 129, 256, 257, 512, 513, 1024, 1025, 2048])
def test_sums_with_tables_fit_32_bits(tokens):
    """The proof of mcuf_int_attention_s8.h: what is rounded, and the sum with it."""
    total = tokens * (32767 >> int_attention.numerator_shift(tokens, tables=True))
    assert 2 * total * 128 * 2 < 2**31
    assert total * 128 + 2 * total * 128 < 2**31
    assert total < 2**24


@pytest.mark.parametrize("value", [-128, 127])
@pytest.mark.parametrize("tokens", [128, 512, 2048])
def test_extremes_of_tables_do_not_overflow(tokens, value):
    """All scores alike, all values and entries at one end, multipliers at the largest."""
    dim, relative = 2, Relative(tokens // 8, 8, tables=True)
    qkv = np.full((tokens, 3 * dim), value, np.int8)
    qkv[:, :dim] = 0
    table = np.full((table_length(relative.grid, 0), dim), value, np.int8)
    constants = {"relative_params": np.full((1, 2), 2**31 - 1, np.int32), "relative_keys": table}
    constants["relative_values"] = table
    head_params = int_attention.lower_head(1e-4, 1.0, 0.25, 1.0, dim, tokens, tables=True)[None]
    options = int_attention.Options(1, dim, 0, *relative.grid)
    check_relative(qkv, options, head_params, constants)
    got = int_attention.reference(options, qkv[None], head_params, **constants)[0, :, :dim]
    assert (abs(got - 3 * value * 0.25) <= 1).all()


def float_relative(q, k, v, grid, prefix, bias=None, keys=None, values=None):
    """Attention in float64, of every pair by itself; bias in nats, tables [entries, head_dim]."""
    tokens, dim = q.shape
    entries, (first, second) = bias_entries(grid, prefix), table_entries(grid, prefix)
    scores, more = q @ k.T / np.sqrt(dim), np.zeros((tokens, tokens, dim))
    if bias is not None:
        scores = scores + bias[entries]
    else:
        padded_keys, padded_values = (np.concatenate([table, np.zeros((1, dim))]) for table in (keys, values))
        scores = scores + np.einsum("id,ijd->ij", q, padded_keys[first] + padded_keys[second]) / np.sqrt(dim)
        more = padded_values[first] + padded_values[second]
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p @ v + np.einsum("ij,ijd->id", p, more)


@pytest.mark.parametrize("grid", [(7, 7), (14, 14), (3, 20), (24, 24)])
@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("tables", [False, True])
def test_relative_positions_within_one_step_of_float64(grid, prefix, tables):
    """Against float64 of the same int8 q, k, v and tables, and of the biases before they are integers: 99.9 % of the
    outputs within 1 LSB."""
    rng, dim = np.random.default_rng(grid), 32
    tokens = grid[0] * grid[1] + prefix
    qkv = np.clip(np.rint(rng.normal(0, 40, (tokens, 3 * dim))), -127, 127).astype(np.int8)
    step = 1 / (40 * 40)
    q_scale = np.sqrt(step)
    q, k, v = (qkv[:, i * dim : (i + 1) * dim] * q_scale for i in range(3))
    options, heads = int_attention.Options(1, dim, 0, *grid), np.ones(1)
    if tables:
        keys, values = rng.normal(0, 0.3, (2, table_length(grid, prefix), dim))
        assert max(table_scale(keys), table_scale(values)) < q_scale
        constants = lower_tables(keys, values, q_scale * heads, q_scale * heads)
        real = float_relative(
            q, k, v, grid, prefix, keys=constants["relative_keys"] * table_scale(keys),
            values=constants["relative_values"] * table_scale(values),
        )  # fmt: skip
    else:
        bias = rng.normal(0, 2, (1, bias_length(grid, prefix)))
        constants = lower_bias(bias, step / np.sqrt(dim) * heads, dim)
        real = float_relative(q, k, v, grid, prefix, bias=bias[0])
    out_scale = np.abs(real).max() / 127
    head = int_attention.lower_head(q_scale, q_scale, q_scale, out_scale, dim, tokens, tables)
    got = int_attention.reference(options, qkv[None], head[None], **constants)[0, :, :dim]
    off = np.abs(got - np.clip(np.rint(real / out_scale), -128, 127))
    assert (off <= 1).mean() >= 0.999
    assert off.max() <= 2


def numerators(scores, tokens):
    """Of one row, by the specification, from score differences in 64ths of a nat."""
    shift = max(0, int(np.ceil(np.log2(tokens / 512))))
    return np.rint(32767 * np.exp(-scores / 64)).astype(np.int64) >> shift


@pytest.mark.parametrize("tokens", [1, 2, *LENGTHS])
def test_numerators_are_shifted_as_little_as_sums_need(tokens):
    shift = int_attention.numerator_shift(tokens)
    assert shift == max(0, int(np.ceil(np.log2(tokens / 512))))
    assert tokens * (32767 >> shift) * 128 < 2**31
    assert tokens * (32767 >> shift) < 2**24  # mcuf_scale_of_row normalises it
    assert shift == 0 or tokens * (32767 >> (shift - 1)) * 128 > 2**31


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("value", [-128, 127])
def test_extremes_do_not_overflow(tokens, value):
    """All values at the ends: the sums stay inside int32 and equal the reference."""
    qkv = np.full((tokens, 96), value, np.int8)
    head_params = int_attention.lower_head(1e-4, 1.0, 1.0, 1.0, 32, tokens)[None]
    want = int_attention.reference(int_attention.Options(1, 32, 0), qkv[None], head_params)[0, :, :32]
    np.testing.assert_array_equal(core_calls.int_attention(qkv, head_params, 1, 32, 0), want)
    assert (want == value).all()


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("exponent", [-8, "most"])
def test_the_least_and_the_largest_sum_are_scaled(tokens, exponent):
    """One key far above all others, or all alike, with the least and the largest gain: no shift runs out of range."""
    most = int_attention.MAX_GAIN_EXPONENT - int_attention.numerator_shift(tokens)
    exponent = most if exponent == "most" else exponent
    gain = 2.0 ** (exponent - 1)  # mantissa 0.5
    qkv = np.zeros((tokens, 3), np.int8)
    qkv[0, 0], qkv[0, 1], qkv[:, 2] = 127, 127, 1  # the first query picks the first key, the others all of them
    qkv[0, 2] = 2 if exponent > 0 else 127
    head_params = int_attention.lower_head(int_attention.largest_score_step(1), 1.0, gain, 1.0, 1, tokens)[None]
    assert head_params[0, 2] == exponent
    want = int_attention.reference(int_attention.Options(1, 1, 0), qkv[None], head_params)[0, :, :1]
    np.testing.assert_array_equal(core_calls.int_attention(qkv, head_params, 1, 1, 0), want)
    e = numerators(np.where(np.arange(tokens) == 0, 0.0, 1e6), tokens)
    real = [(e * qkv[:, 2]).sum() / e.sum() * gain, qkv[:, 2].mean() * gain]
    np.testing.assert_array_equal(want[:2, 0], np.clip(np.floor(np.array(real) + 0.5), -128, 127))


def test_a_gain_beyond_the_largest_saturates():
    for tokens, most in ((512, 12), (513, 11), (2048, 10)):
        head = int_attention.lower_head(1e-3, 1.0, 1e6, 1.0, 4, tokens)
        assert head.tolist()[1:3] == [2**31 - 1, most]


@pytest.mark.parametrize("tokens", [5, 49, 196, 500, 577, 1030])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0, 30.0])
def test_within_one_step_of_float64(tokens, spread):
    """Against float64 attention of the same int8 q, k, v: 99.9 % of the outputs within 1 LSB."""
    rng = np.random.default_rng(tokens)
    dim = 32
    qkv = np.clip(np.rint(rng.normal(0, 40, (4, tokens, 3 * dim))), -127, 127).astype(np.int8)
    q, k, v = (qkv[..., i * dim : (i + 1) * dim].astype(np.float64) for i in range(3))
    step = spread / (40 * 40)
    scores = step * q @ k.transpose(0, 2, 1) / np.sqrt(dim)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    real = weights @ v / weights.sum(-1, keepdims=True)
    out_scale = np.abs(real).max() / 127
    want = np.clip(np.rint(real / out_scale), -128, 127)
    head_params = int_attention.lower_head(step, 1.0, 1.0, out_scale, dim, tokens)[None]
    got = int_attention.reference(int_attention.Options(1, dim, 0), qkv, head_params)[..., :dim]
    off = np.abs(got - want)
    assert (off <= 1).mean() >= 0.999
    assert off.max() <= 2


def test_the_table_in_c_is_the_generators():
    generator = load_script("tools/make_softmax_table.py")
    assert (ROOT / "tflm_kernels/core/mcuf_softmax_table.h").read_text() == generator.header()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"tokens": 2048}, core_calls.OK),
        ({"tokens": 2049}, core_calls.SIZE),
        ({"kv_heads": 3}, core_calls.SIZE),
        ({"kv_heads": 0}, core_calls.SIZE),
        ({"head_dim": 0}, core_calls.SIZE),
        ({"in_stride": 95}, core_calls.SIZE),
        ({"out_stride": 31}, core_calls.SIZE),
        ({"zero_point": -129}, core_calls.VALUE),
        ({"head_params": None}, core_calls.NULL),
        ({"head_params": np.array([[-1, 1 << 30, 0, 0]] * 2, np.int32)}, core_calls.VALUE),
        ({"head_params": np.array([[1, 1, 0, 0]] * 2, np.int32)}, core_calls.VALUE),
        ({"head_params": np.array([[1, 1 << 30, 13, 0]] * 2, np.int32)}, core_calls.VALUE),
        ({"head_params": np.array([[1, 1 << 30, -9, 0]] * 2, np.int32)}, core_calls.VALUE),
        ({"tokens": 512, "head_params": np.array([[1, 1 << 30, 12, 0]] * 2, np.int32)}, core_calls.OK),
        ({"tokens": 513, "head_params": np.array([[1, 1 << 30, 11, 0]] * 2, np.int32)}, core_calls.OK),
        ({"tokens": 513, "head_params": np.array([[1, 1 << 30, 12, 0]] * 2, np.int32)}, core_calls.VALUE),
        ({"tokens": 1025, "head_params": np.array([[1, 1 << 30, 10, 0]] * 2, np.int32)}, core_calls.OK),
        ({"tokens": 1025, "head_params": np.array([[1, 1 << 30, 11, 0]] * 2, np.int32)}, core_calls.VALUE),
        ({"head_params": np.array([[1, 1 << 30, 0, -1]] * 2, np.int32)}, core_calls.VALUE),
        ({"head_params": np.array([[1, 1 << 30, 0, 12]] * 2, np.int32)}, core_calls.VALUE),
    ],
)
def test_check_refuses(change, status):
    values = dict(
        tokens=4, num_heads=2, kv_heads=2, head_dim=16, in_stride=96, out_stride=96, zero_point=0,
        head_params=np.array([[1, 1 << 30, 0, 0]] * 2, np.int32),
    )  # fmt: skip
    keep: list = []
    params = core_calls.filled(core_calls.AttentionParams, keep, **(values | change))
    assert core_calls.check("mcuf_int_attention_s8", params) == status


GOOD_RELATIVE = dict(rows=1, columns=3, relative_params=np.array([[1, 0], [16, 0]], np.int32),
                     relative_bias=np.zeros((2, 8), np.int16), relative_kernels=1)  # fmt: skip
GOOD_TABLES = GOOD_RELATIVE | dict(
    relative_params=np.array([[0, 2**31 - 1], [2**31 - 1, 0]], np.int32), relative_bias=None,
    relative_keys=np.zeros((7, 16), np.int8), relative_values=np.zeros((7, 16), np.int8),
)  # fmt: skip


@pytest.mark.parametrize(
    ("good", "change", "status"),
    [
        (GOOD_RELATIVE, {}, core_calls.OK),
        (GOOD_TABLES, {}, core_calls.OK),
        (GOOD_RELATIVE, {"rows": 2, "columns": 2}, core_calls.OK),
        (GOOD_RELATIVE, {"rows": 2}, core_calls.SIZE),
        (GOOD_RELATIVE, {"rows": -1}, core_calls.SIZE),
        (GOOD_RELATIVE, {"rows": 0}, core_calls.SIZE),
        (GOOD_RELATIVE, {"columns": 0}, core_calls.SIZE),
        (GOOD_RELATIVE, {"rows": 1 << 16, "columns": 1 << 16}, core_calls.SIZE),
        (GOOD_RELATIVE, {"relative_params": None}, core_calls.NULL),
        (GOOD_RELATIVE, {"relative_bias": None}, core_calls.NULL),
        (GOOD_RELATIVE, {"relative_kernels": None}, core_calls.NULL),
        (GOOD_TABLES, {"relative_keys": None}, core_calls.NULL),
        (GOOD_TABLES, {"relative_values": None}, core_calls.NULL),
        (GOOD_TABLES, {"relative_bias": np.zeros((2, 8), np.int16)}, core_calls.NULL),
        (GOOD_RELATIVE, {"relative_params": np.array([[1, 0], [17, 0]], np.int32)}, core_calls.VALUE),
        (GOOD_RELATIVE, {"relative_params": np.array([[0, 0], [1, 0]], np.int32)}, core_calls.VALUE),
        (GOOD_RELATIVE, {"relative_params": np.array([[1, 1], [1, 0]], np.int32)}, core_calls.VALUE),
        (GOOD_TABLES, {"relative_params": np.array([[-1, 0], [0, 0]], np.int32)}, core_calls.VALUE),
        (GOOD_TABLES, {"relative_params": np.array([[0, 0], [0, -1]], np.int32)}, core_calls.VALUE),
        (GOOD_RELATIVE, {"head_params": np.array([[1, 1 << 30, 0, 9]] * 2, np.int32)}, core_calls.OK),
        (GOOD_RELATIVE, {"head_params": np.array([[1, 1 << 30, 0, 10]] * 2, np.int32)}, core_calls.VALUE),
        (GOOD_RELATIVE, {"tokens": 512, "head_params": np.array([[1, 1 << 30, 12, 0]] * 2, np.int32)}, core_calls.OK),
        (GOOD_TABLES, {"tokens": 129, "head_params": np.array([[1, 1 << 30, 11, 0]] * 2, np.int32)}, core_calls.OK),
        (GOOD_TABLES, {"tokens": 129, "head_params": np.array([[1, 1 << 30, 12, 0]] * 2, np.int32)}, core_calls.VALUE),
    ],
)
def test_check_refuses_relative_positions(good, change, status):
    values = dict(
        tokens=4, num_heads=2, kv_heads=2, head_dim=16, in_stride=96, out_stride=96, zero_point=0,
        head_params=np.array([[1, 1 << 30, 0, 0]] * 2, np.int32),
    )  # fmt: skip
    assert good["relative_params"].shape[1] == HEAD_PARAMS
    params = core_calls.filled(core_calls.AttentionParams, [], **(values | good | change))
    assert core_calls.check("mcuf_int_attention_s8", params) == status
