# SPDX-License-Identifier: Apache-2.0
import core_calls
import numpy as np
import pytest
import random_values as rv

from mcuformer.converter.ops import token_mean
from mcuformer.converter.quantise import Quantisation


def whole(tokens, features):
    """The mean of all tokens."""
    return token_mean.Dims(tokens, features, ((0, tokens),))


def some_range(rng, tokens):
    first = int(rng.integers(tokens))
    return first, int(rng.choice([1, tokens - first, rng.integers(1, tokens - first + 1)]))


@pytest.mark.parametrize("seed", range(40))
def test_core_equals_reference(seed):
    rng = np.random.default_rng(seed)
    tokens, d = int(rng.choice((*rv.TOKENS, 2000))), int(rng.choice(rv.WIDTHS))
    x = rv.int8(rng, tokens, d)
    source = Quantisation(0.1, rv.zero_point(rng))
    target = Quantisation(10 ** rng.uniform(-3, 0), rv.zero_point(rng))
    options, _ = token_mean.lower(whole(tokens, d), source, [target])
    want = token_mean.reference(options, x[None])[0]
    for alias in (None, "input"):
        np.testing.assert_array_equal(core_calls.token_mean(x, options, alias), want)


@pytest.mark.parametrize("seed", range(80))
def test_ranges_equal_the_reference_and_means_of_their_own(seed):
    """One or two ranges, also overlapping ones, ones that end before the last token, and more output than input."""
    rng = np.random.default_rng(seed)
    tokens, d = int(rng.choice((*rv.TOKENS, 2048))), int(rng.choice(rv.WIDTHS))
    parts = tuple(some_range(rng, tokens) for _ in range(1 + seed % 2))
    x, zero_point = rv.int8(rng, tokens, d), rv.zero_point(rng)
    source, targets = Quantisation(0.1, rv.zero_point(rng)), []
    if seed % 3 == 0:
        source, zero_point = Quantisation(10 ** rng.uniform(-3, 0, d)), 0
    for _ in parts:
        targets.append(Quantisation(source.scale * 10 ** rng.uniform(-2, 1), zero_point))
    dims = token_mean.Dims(tokens, d, parts)
    options, target = token_mean.lower(dims, source, targets)
    assert token_mean.dims(options, [(1, tokens, d)]) == dims
    assert token_mean.output_shape(options, [(1, tokens, d)]) == (1, len(parts) * d)
    assert token_mean.output_elements(dims) == len(parts) * d
    want = token_mean.reference(options, x[None])[0]
    for alias in (None, "input"):
        np.testing.assert_array_equal(core_calls.token_mean(x, options, alias), want)
    for i, (first, count) in enumerate(parts):
        alone, its_target = token_mean.lower(whole(count, d), source, [targets[i]])
        one = token_mean.reference(alone, x[None, first : first + count])[0]
        np.testing.assert_array_equal(want[i * d : (i + 1) * d], one)
        assert np.broadcast_to(target.scale, len(want))[i * d] == np.broadcast_to(its_target.scale, d)[0]


def test_exact_to_rounding():
    rng = np.random.default_rng(0)
    source, x = Quantisation(0.05, 4), rng.integers(-128, 128, (1, 37, 50)).astype(np.int8)
    real = source.dequantise(x).mean(axis=1)
    options, target = token_mean.lower(whole(37, 50), source, [Quantisation(np.abs(real).max() / 127, 0)])
    error = target.dequantise(token_mean.reference(options, x)) - real
    assert np.abs(error).max() <= 0.501 * target.scale


@pytest.mark.parametrize("per_channel", [False, True])
def test_two_parts_are_exact_to_rounding(per_channel):
    """The first token, and the mean of those after two more: each in a scale of its own, in every channel."""
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (1, 37, 50)).astype(np.int8)
    source = Quantisation(rng.uniform(0.01, 0.5, 50) if per_channel else 0.05, 0)
    real = [source.dequantise(x)[:, 0], source.dequantise(x)[:, 3:].mean(axis=1)]
    wanted = [Quantisation(np.abs(part).max(axis=0 if per_channel else None) / 127) for part in real]
    options, target = token_mean.lower(token_mean.Dims(37, 50, ((0, 1), (3, 34))), source, wanted)
    assert np.shape(target.scale) == (100,) and target.zero_point == 0
    error = np.abs(target.dequantise(token_mean.reference(options, x)) - np.concatenate(real, axis=1))
    assert (error <= 0.501 * target.scale).all()
    ratio = (target.scale.reshape(2, 50) / source.scale).round(12)
    assert (ratio == ratio[:, :1]).all() and ratio[0, 0] > 2 * ratio[1, 0]  # the mean's range is smaller


def test_per_channel_scales_follow_the_source_by_the_least_ratio():
    source = Quantisation(np.array([0.1, 0.2, 0.4]))
    wanted = Quantisation(np.array([0.01, 0.05, 0.02]))
    _, target = token_mean.lower(whole(9, 3), source, [wanted])
    np.testing.assert_allclose(target.scale, source.scale / 4)
    _, target = token_mean.lower(whole(9, 3), source, [Quantisation(np.full(3, 1e-9))])  # the arithmetic's limit
    np.testing.assert_allclose(target.scale, source.scale * 2.001 / (9 * 128))


@pytest.mark.parametrize("scale", [0.037, np.linspace(0.001, 0.3, 16)])
def test_a_single_token_in_its_own_scale_is_copied(scale):
    x = np.arange(-128, 128).astype(np.int8).reshape(1, 16, 16)
    source = Quantisation(scale, 0)
    options, target = token_mean.lower(token_mean.Dims(16, 16, ((5, 1), (9, 1))), source, [source, source])
    np.testing.assert_array_equal(token_mean.reference(options, x)[0], x[0, [5, 9]].reshape(-1))
    np.testing.assert_array_equal(target.scale, np.tile(np.broadcast_to(scale, 16), 2))
    shifted = Quantisation(0.02, -77)
    options, target = token_mean.lower(token_mean.Dims(16, 16, ((5, 1),)), shifted, [shifted])
    np.testing.assert_array_equal(token_mean.reference(options, x)[0], x[0, 5])
    assert target is shifted or (target.scale, target.zero_point) == (shifted.scale, shifted.zero_point)


def test_one_part_of_all_tokens_has_the_options_it_always_had():
    """So that its file is the same byte for byte."""
    options, target = token_mean.lower(whole(49, 8), Quantisation(0.02, 3), [Quantisation(0.004, -5)])
    assert vars(options) == {
        "in_zero_point": 3, "zero_point": -5, "multiplier": round(0.02 / (0.004 * 49 * 128) * 2**32),
        "first_token": 0, "token_count": 0, "second_token": 0, "second_count": 0, "second_multiplier": 0, "wide": 0,
    }  # fmt: skip
    assert (target.scale, target.zero_point) == (0.004, -5)


def test_targets_that_cannot_be_are_refused():
    dims, source = token_mean.Dims(4, 2, ((0, 1), (1, 3))), Quantisation(0.1, 3)
    for wanted in ([Quantisation(1.0)], [Quantisation(1.0), Quantisation(1.0, 1)]):
        with pytest.raises(ValueError, match="one target each"):
            token_mean.lower(dims, source, wanted)
    with pytest.raises(ValueError, match="zero point 0"):
        token_mean.lower(whole(4, 2), Quantisation(np.ones(2)), [Quantisation(1.0, 1)])


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, core_calls.OK),
        ({"tokens": 0}, core_calls.SIZE),
        ({"tokens": 16385}, core_calls.SIZE),
        ({"features": 16385}, core_calls.SIZE),
        ({"first_token": 1}, core_calls.SIZE),
        ({"token_count": 9}, core_calls.OK),
        ({"token_count": 10}, core_calls.SIZE),
        ({"token_count": -1}, core_calls.SIZE),
        ({"token_count": 2**31 - 1}, core_calls.SIZE),
        ({"first_token": 8, "token_count": 1}, core_calls.OK),
        ({"first_token": 8, "token_count": 2}, core_calls.SIZE),
        ({"first_token": -1, "token_count": 2}, core_calls.SIZE),
        ({"first_token": 9, "token_count": 1}, core_calls.SIZE),
        ({"first_token": 2**31 - 1, "token_count": 1}, core_calls.SIZE),
        ({"second_token": 1}, core_calls.SIZE),
        ({"second_token": 1, "second_count": 8}, core_calls.OK),
        ({"second_token": 1, "second_count": 9}, core_calls.SIZE),
        ({"second_token": -1, "second_count": 1}, core_calls.SIZE),
        ({"second_count": -1}, core_calls.SIZE),
        ({"second_count": 1, "second_multiplier": -1}, core_calls.VALUE),
        ({"multiplier": -1}, core_calls.VALUE),
        ({"in_zero_point": 128}, core_calls.VALUE),
        ({"zero_point": -129}, core_calls.VALUE),
    ],
)
def test_check_refuses(change, status):
    values = dict(tokens=9, features=5, multiplier=1)
    params = core_calls.filled(core_calls.TokenMeanParams, [], **(values | change))
    assert core_calls.check("mcuf_token_mean_s8", params) == status
