# SPDX-License-Identifier: Apache-2.0
import core_calls
import numpy as np
import pytest
import random_values as rv

from mcuformer.converter.ops import token_mean
from mcuformer.converter.quantise import Quantisation


@pytest.mark.parametrize("seed", range(40))
def test_core_equals_reference(seed):
    rng = np.random.default_rng(seed)
    tokens, d = int(rng.choice((*rv.TOKENS, 2000))), int(rng.choice(rv.WIDTHS))
    x = rv.int8(rng, tokens, d)
    source = Quantisation(0.1, rv.zero_point(rng))
    options, _ = token_mean.lower(tokens, source, Quantisation(10 ** rng.uniform(-3, 0), rv.zero_point(rng)))
    want = token_mean.reference(options, x[None])[0]
    for alias in (None, "input"):
        got = core_calls.token_mean(x, options.in_zero_point, options.zero_point, options.multiplier, alias)
        np.testing.assert_array_equal(got, want)


def test_exact_to_rounding():
    rng = np.random.default_rng(0)
    source, x = Quantisation(0.05, 4), rng.integers(-128, 128, (1, 37, 50)).astype(np.int8)
    real = source.dequantise(x).mean(axis=1)
    options, target = token_mean.lower(37, source, Quantisation(np.abs(real).max() / 127, 0))
    error = target.dequantise(token_mean.reference(options, x)) - real
    assert np.abs(error).max() <= 0.501 * target.scale
