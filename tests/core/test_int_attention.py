# SPDX-License-Identifier: Apache-2.0
import importlib.util
from pathlib import Path

import core_calls
import numpy as np
import pytest
import random_values as rv

from mcuformer.converter.ops import int_attention

ROOT = Path(__file__).parents[2]


LENGTHS = (511, 512, 513, 577, 1024, 1025, 2047, 2048)  # around those where numerators lose a bit


def heads_of(rng, heads, dim, tokens):
    rows = []
    for _ in range(heads):
        most = int_attention.largest_score_step(dim)
        step = most * 10 ** rng.uniform(-4, -0.01)
        rows.append(int_attention.lower_head(step, 1.0, 2.0 ** rng.uniform(-3, 6), 1.0, dim, tokens))
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
    spec = importlib.util.spec_from_file_location("make_softmax_table", ROOT / "tools/make_softmax_table.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
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
