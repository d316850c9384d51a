# SPDX-License-Identifier: Apache-2.0
import core_calls
import numpy as np
import pytest
import random_values as rv

from mcuformer.converter.ops import int_layer_norm
from mcuformer.converter.quantise import Quantisation, per_channel


def lowered(rng, d, per_channel):
    factor = rng.integers(1, 128, d) if per_channel else np.ones(d, int)
    source = Quantisation(10 ** rng.uniform(-3, 0) * factor, rv.zero_point(rng))
    gamma, beta = rng.normal(1, 0.3, d), rng.normal(0, 0.3, d)
    target = Quantisation(10 ** rng.uniform(-2, -0.5), int(rng.integers(-20, 20)))
    return gamma, beta, source, *int_layer_norm.lower(gamma, beta, 1e-6, source, target)


@pytest.mark.parametrize("seed", range(150))
def test_core_equals_reference(seed):
    rng = np.random.default_rng(seed)
    tokens, d = int(rng.choice(rv.TOKENS)), int(rng.choice((*rv.WIDTHS, 384, 1024, 4096)))
    _, _, _, options, constants, _ = lowered(rng, d, rng.random() < 0.5)
    x = rv.int8(rng, tokens, d)
    want = int_layer_norm.reference(options, x[None], **constants)[0]
    for alias in (None, "input"):
        got = core_calls.int_layer_norm(
            x, constants["gamma"], constants["beta"], constants["factor"], options.zero_point, options.epsilon, alias
        )
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("epsilon", [0, 1, 1 << 40, 1 << 60])
def test_core_equals_reference_at_any_epsilon(epsilon):
    rng = np.random.default_rng(3)
    x = rv.int8(rng, 9, 31)
    gamma, beta = np.full(31, 2000, np.int16), np.full(31, 32768, np.int32)
    want = int_layer_norm.reference(int_layer_norm.Options(0, epsilon), x[None], gamma, beta)[0]
    np.testing.assert_array_equal(core_calls.int_layer_norm(x, gamma, beta, None, 0, epsilon), want)


@pytest.mark.parametrize("seed", range(60))
def test_within_one_step_of_float64(seed):
    rng = np.random.default_rng(seed)
    d = int(rng.choice([8, 33, 96, 192, 384, 768]))
    gamma, beta, source, options, constants, target = lowered(rng, d, per_channel=seed % 2 == 0)
    x = rng.integers(-128, 128, (1, 50, d)).astype(np.int8)
    if seed % 3 == 0:
        x = np.clip(np.rint(rng.normal(20, 3, x.shape)), -128, 127).astype(np.int8)  # little variance
    real = source.dequantise(x)
    normal = (real - real.mean(-1, keepdims=True)) / np.sqrt(real.var(-1, keepdims=True) + 1e-6)
    want = target.quantise(normal * gamma + beta).astype(int)
    got = int_layer_norm.reference(options, x, **constants).astype(int)
    assert np.abs(got - want).max() <= 1
    assert (got != want).mean() < 0.08


@pytest.mark.parametrize("seed", range(20))
def test_tokens_side_by_side_are_tokens(seed):
    """[1, k * d] with gamma [d], as the means of two ranges lie: each d channels are normalised alone."""
    rng = np.random.default_rng(seed)
    k, d = int(rng.integers(1, 4)), int(rng.choice(rv.WIDTHS))
    _, _, _, options, constants, _ = lowered(rng, d, per_channel=seed % 2 == 0)
    x = rv.int8(rng, k, d)
    want = int_layer_norm.reference(options, x[None], **constants)
    got = int_layer_norm.reference(options, x.reshape(1, k * d), **constants)
    np.testing.assert_array_equal(got, want.reshape(1, k * d))
    factor = constants["factor"]
    shapes = [(1, k * d), (d,), (d,), None if factor is None else (d,)]
    assert int_layer_norm.dims(options, shapes) == (k, d, factor is not None, 0)


@pytest.mark.parametrize("seed", range(30))
def test_a_target_with_scales_per_channel(seed):
    """The residual stream of a post-norm network: within one step of float64, each channel's own."""
    rng = np.random.default_rng(seed)
    d = int(rng.choice([8, 33, 96, 384]))
    source = Quantisation(10 ** rng.uniform(-3, 0) * rng.integers(1, 128, d))
    gamma, beta = rng.normal(1, 0.5, d), rng.normal(0, 0.5, d)
    x = rng.integers(-128, 128, (1, 50, d)).astype(np.int8)
    real = source.dequantise(x)
    normal = (real - real.mean(-1, keepdims=True)) / np.sqrt(real.var(-1, keepdims=True) + 1e-6)
    real = normal * gamma + beta
    wanted = per_channel(np.abs(real).max(axis=(0, 1)), int_layer_norm.MAX_FACTOR)
    options, constants, target = int_layer_norm.lower(gamma, beta, 1e-6, source, wanted)
    target.integer_factors(int_layer_norm.MAX_FACTOR)  # the next LayerNorm can read it
    wider = target.scale > 1.001 * wanted.scale  # only where the output spans less than a quarter of gamma
    assert (np.abs(normal).max(axis=(0, 1))[wider] < 0.3).all() and wider.mean() < 0.4
    got = int_layer_norm.reference(options, x, **constants).astype(int)
    off = np.abs(got - target.quantise(real))
    assert off.max() <= 1 and (off > 0).mean() < 0.08
    np.testing.assert_array_equal(
        core_calls.int_layer_norm(
            x[0], constants["gamma"], constants["beta"], constants["factor"], options.zero_point, options.epsilon,
            "input",
        ), got[0],
    )  # fmt: skip


def test_a_channel_that_is_too_fine_is_widened_alone():
    gamma, beta, source = np.array([1.0, 1.0, -1.0]), np.zeros(3), Quantisation(0.1)
    wanted = Quantisation(1e-4 * np.array([1, 10, 100]))
    _, constants, target = int_layer_norm.lower(gamma, beta, 1e-6, source, wanted)
    np.testing.assert_allclose(target.scale, 1e-4 * np.array([20, 20, 100]))  # at least 1 / 512 of gamma
    assert np.abs(constants["gamma"].astype(int)).max() <= 32767
    _, _, target = int_layer_norm.lower(100 * gamma, beta, 1e-6, source, wanted)
    np.testing.assert_allclose(target.scale, np.full(3, 100 / 511.98), rtol=1e-4)  # beyond what factors hold


def test_a_source_of_two_tokens_side_by_side():
    """As TokenMean makes it: scales in the same proportions, finer for one token."""
    rng = np.random.default_rng(5)
    factor = rng.integers(1, 128, 16)
    source = Quantisation(np.concatenate([0.01 * factor, 0.0025 * factor]))
    gamma, beta, target = rng.normal(1, 0.3, 16), rng.normal(0, 0.3, 16), Quantisation(0.03)
    options, constants, target = int_layer_norm.lower(gamma, beta, 1e-6, source, target)
    np.testing.assert_array_equal(constants["factor"], factor)
    x = rng.integers(-128, 128, (1, 32)).astype(np.int8)
    real = source.dequantise(x).reshape(2, 16)
    normal = (real - real.mean(-1, keepdims=True)) / np.sqrt(real.var(-1, keepdims=True) + 1e-6)
    want = target.quantise(normal * gamma + beta).astype(int).reshape(1, 32)
    assert np.abs(int_layer_norm.reference(options, x, **constants) - want).max() <= 1
    with pytest.raises(ValueError, match="different proportions"):
        mixed = Quantisation(np.concatenate([0.01 * factor, 0.01 * factor[::-1]]))
        int_layer_norm.lower(gamma, beta, 1e-6, mixed, target)


def test_check_refuses_what_would_overflow():
    d = 64
    values = dict(tokens=1, features=d, zero_point=0, epsilon=1, beta=np.zeros(d, np.int32), factor=None)
    for change, status in (
        ({}, core_calls.OK),
        ({"features": 4097}, core_calls.SIZE),
        ({"epsilon": -1}, core_calls.VALUE),
        ({"beta": np.full(d, 2**31 - 1, np.int32)}, core_calls.VALUE),
        ({"factor": np.full(d, 128, np.uint8)}, core_calls.VALUE),
        ({"factor": np.zeros(d, np.uint8)}, core_calls.VALUE),
        ({"beta": None}, core_calls.NULL),
    ):
        keep: list = []
        gamma = np.full(4097, 1000, np.int16)
        params = core_calls.filled(core_calls.LayerNormParams, keep, gamma=gamma, **(values | change))
        assert core_calls.check("mcuf_int_layer_norm_s8", params) == status, change


def test_float_networks_with_huge_gamma_are_lowered_safely():
    """The target is widened until int16 gamma and the int32 accumulator hold."""
    gamma, beta = np.array([1e4, 1.0, -1e4]), np.zeros(3)
    _, constants, target = int_layer_norm.lower(gamma, beta, 1e-6, Quantisation(0.1), Quantisation(1e-3))
    assert np.abs(constants["gamma"].astype(int)).max() <= 32767 and target.scale > 1e-3
