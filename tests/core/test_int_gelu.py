# SPDX-License-Identifier: Apache-2.0
import core_calls
import numpy as np
import pytest
import random_values as rv
import torch

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
    assert (int_gelu.table(source, target, "sigmoid") != int_gelu.table(source, target, "erf")).any()


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("gelu", torch.nn.functional.gelu),
        ("gelu-tanh", lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
        ("quick-gelu", lambda x: x * torch.sigmoid(1.702 * x)),
        ("silu", torch.nn.functional.silu),
        ("relu", torch.nn.functional.relu),
        ("hardswish", torch.nn.functional.hardswish),
    ],
)
def test_activations_are_those_of_torch(name, function):
    x = np.concatenate([np.linspace(-12, 12, 2001), [-1e4, -800.0, 800.0, 1e4]])
    want = function(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(int_gelu.ACTIVATIONS[name].function(x), want, rtol=1e-9, atol=1e-12)


def test_every_activation_is_tested():
    mark = test_activations_are_those_of_torch.pytestmark[0]
    assert [name for name, _ in mark.args[1]] == list(int_gelu.ACTIVATIONS)


@pytest.mark.parametrize("name", int_gelu.ACTIVATIONS)
def test_little_is_lost_below_the_floor(name):
    """Next to nothing below the floor, but more a unit above it."""
    function, floor = int_gelu.ACTIVATIONS[name]
    assert np.abs(function(np.linspace(floor - 60, floor, 4001))).max() < 2.3e-4
    assert np.abs(function(np.array(floor + 1.0))) > 2.3e-4


@pytest.mark.parametrize("name", int_gelu.ACTIVATIONS)
@pytest.mark.parametrize("low", [-40.0, -2.0])
def test_tables_of_all_activations_are_exact_to_rounding(name, low):
    """Also where the source's range is cut at the floor: inputs below it share the code of the floor."""
    function, floor = int_gelu.ACTIVATIONS[name]
    source = affine(max(low, floor), 7.0)
    codes = source.dequantise(np.arange(-128, 128))
    target = affine(function(codes).min(), function(codes).max())
    table = int_gelu.table(source, target, name)
    x = np.linspace(low, 7.0, 3001)
    got = target.dequantise(int_gelu.reference(int_gelu.Options(), source.quantise(x), table))
    steepest = 1.5  # of any of them, hardswish
    assert np.abs(got - function(x)).max() <= 0.5 * target.scale + 0.5 * steepest * source.scale + 5e-4


def test_forms_of_gelu_are_activations():
    """What QuantisationOptions.gelu names keeps its table, whatever the activations are called."""
    source, target = Quantisation(0.05, 20), Quantisation(0.03, -100)
    for form, name in (("erf", "gelu"), ("sigmoid", "quick-gelu")):
        np.testing.assert_array_equal(int_gelu.table(source, target, form), int_gelu.table(source, target, name))
    np.testing.assert_array_equal(int_gelu.table(source, target), int_gelu.table(source, target, "erf"))
