# SPDX-License-Identifier: Apache-2.0
"""Every op on an int16 residual stream: C and glue against the reference, on the extremes too; what they refuse."""

import numpy as np
import pytest
import wide_cases
from op_cases import run

from mcuformer import run_op
from mcuformer.converter.ops import in_place_fc
from mcuformer.converter.quantise import Quantisation, wide
from mcuformer.errors import DataError, ModelError

KINDS = tuple(dict.fromkeys(wide_cases.KINDS))
ENGINES = ("c", "tflm")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("engine", ENGINES)
def test_c_equals_the_reference(kind, engine):
    rng = np.random.default_rng(0)
    for _ in range(15):
        case = kind(rng)
        want, got = case.reference(), run(case, engine)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want, err_msg=str(case.graph.ops[0]))


def streamed(kind):
    """A StreamedMLP or StreamedAttention."""
    rng = np.random.default_rng(1)
    return next(case for case in iter(lambda: wide_cases.half_layer(rng), None) if case.graph.ops[0].kind == kind)


MLP, ATTENTION = streamed("StreamedMLP"), streamed("StreamedAttention")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("case", "change"),
    [
        (MLP, {"norm_zero_point": 1}),
        (MLP, {"factor": np.ones(MLP.inputs[0].shape[-1], np.uint8)}),
        (MLP, {"zero_points": (0,) * (len(MLP.graph.ops[0].options.zero_points) - 1) + (1,)}),
        (MLP, {"without": ("gamma", "beta"), "epsilon": 0}),
        (ATTENTION, {"proj_zero_point": 1}),
        (ATTENTION, {"without": ("gamma", "beta"), "epsilon": 0}),
    ],
)
def test_what_a_wide_stream_does_not_take(engine, case, change):
    with pytest.raises(ModelError, match="constant is out of its legal range|a needed tensor is missing"):
        run(case, engine, **change)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_fc_alone_has_no_wide_kernel(engine):
    x, weights, ones = np.ones((1, 2, 3), np.int8), np.ones((4, 3), np.int8), np.ones(4, np.int32)
    constants = {"weights": weights, "bias": ones, "multiplier": ones, "residual_scale": ones.astype(np.int16)}
    activations = {"input": x, "residual": np.ones((1, 2, 4), np.int16)}
    with pytest.raises(ModelError, match="needs the schedule streamed|tensor .* has int16"):
        run_op("InPlaceFC", activations, constants, {"zero_point": 0, "wide": 1}, engine=engine)


def test_the_type_of_a_stream_is_that_of_its_option():
    with pytest.raises(DataError, match="'input' of TokenMean has dtype int16: activations are int8"):
        run_op(
            "TokenMean",
            {"input": np.ones((1, 2, 3), np.int16)},
            {},
            dict.fromkeys(("in_zero_point", "zero_point", "multiplier"), 0),
        )


def test_sums_are_exact_to_rounding():
    """A layer onto the stream: the residual at another scale, outliers in one channel, accumulators finer than the
    stream and coarser."""
    rng = np.random.default_rng(0)
    source, before, after = Quantisation(0.02), wide(90.0), wide(110.0)
    x = rng.integers(-127, 128, (9, 64)).astype(np.int8)
    weight = rng.normal(0, 0.01, (5, 64)) * np.array([1, 100, 1e-3, 1, 0])[:, None]
    stream = before.quantise(rng.normal(0, [0.5, 30, 0.01, 5, 1], (9, 5)))
    options, constants, target = in_place_fc.lower(weight, rng.normal(size=5), source, after, before)
    assert options.wide and target.scale == after.scale
    constants = {name: constants[name] for name in ("weights", "bias", "multiplier", "residual_scale")}
    got = in_place_fc.reference(options, x, residual=stream, **constants)
    acc = constants["multiplier"] * target.scale / 2.0**24
    real = (x.astype(float) @ constants["weights"].T + constants["bias"]) * acc + before.dequantise(stream)
    assert got.dtype == np.int16
    step = np.abs(before.dequantise(stream)) * 2.0**-14  # of residual_scale
    assert (np.abs(target.dequantise(got) - real) <= 0.501 * target.scale + step).all()


def test_a_stream_that_shrinks_keeps_a_scale_that_its_residual_scale_can_hold():
    _, constants, target = in_place_fc.lower(np.eye(2), None, Quantisation(1e-6), wide(1.0), wide(10.0))
    assert constants["residual_scale"].max() == 32767 and target.scale > wide(1.0).scale
