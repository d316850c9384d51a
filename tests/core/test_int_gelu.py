# SPDX-License-Identifier: Apache-2.0
import core_calls
import numpy as np
import pytest
import random_values as rv

from mcuformer.converter.ops import int_gelu
from mcuformer.converter.quantise import Quantisation, affine


@pytest.mark.parametrize("seed", range(20))
def test_core_equals_reference(seed):
    rng = np.random.default_rng(seed)
    x, table = rv.int8(rng, int(rng.integers(1, 300))), rv.int8(rng, 256)
    for alias in (None, "input"):
        np.testing.assert_array_equal(
            core_calls.int_gelu(table, x, alias), int_gelu.reference(int_gelu.Options(), x, table)
        )


@pytest.mark.parametrize("seed", range(10))
def test_exact_to_rounding(seed):
    """Against float64 GELU of the same int8 input: never more than half a step, saturation apart."""
    rng = np.random.default_rng(seed)
    source = affine(-rng.uniform(0.5, 8), rng.uniform(0.5, 8))
    real = int_gelu.gelu_erf(source.dequantise(np.arange(-128, 128)))
    target = affine(real.min(), real.max())
    got = target.dequantise(int_gelu.table(source, target))
    assert np.abs(got - real).max() <= 0.5 * target.scale * (1 + 1e-9)


def test_the_papers_form_is_selectable_and_its_error_known():
    """x * sigmoid(1.702 x) is off by at most 0.0204 from x * Phi(x)."""
    x = np.linspace(-8, 8, 4001)
    error = np.abs(int_gelu.gelu_sigmoid(x) - int_gelu.gelu_erf(x)).max()
    assert 0.019 < error < 0.0205
    source, target = Quantisation(0.05), Quantisation(0.05)
    assert (int_gelu.table(source, target, int_gelu.gelu_sigmoid) != int_gelu.table(source, target)).any()
