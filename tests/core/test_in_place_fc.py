# SPDX-License-Identifier: Apache-2.0
import itertools

import core_calls
import numpy as np
import pytest
import random_values as rv

from mcuformer.converter.ops import in_place_fc
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS, pack, row_bytes_and_rows, unpack
from mcuformer.converter.quantise import Quantisation


@pytest.mark.parametrize("seed", range(150))
def test_core_equals_reference(seed):
    rng = np.random.default_rng(seed)
    tokens, features, out = (int(rng.choice(c)) for c in (rv.TOKENS, rv.WIDTHS, rv.WIDTHS))
    stride = features + int(rng.choice([0, 0, 5, 200]))  # 200: outputs wider than the input's use, not than its row
    x, weights = rv.int8(rng, tokens, stride), rv.weights(rng, out, features)
    bias, multiplier = rv.requantisation(rng, out, features)
    table = rv.int8(rng, 256) if rng.random() < 0.3 else None
    residual = rv.int8(rng, tokens, out) if rng.random() < 0.5 else None
    factor = None if residual is None else rng.integers(0, 32768, out).astype(np.int16)
    zero_point = rv.zero_point(rng)
    want = in_place_fc.reference(
        in_place_fc.Options(zero_point), x[None], weights, bias, multiplier, table,
        None if residual is None else residual[None], factor,
    )[0]  # fmt: skip
    aliases = (None, "input", "residual") if residual is not None else (None, "input")
    for packing, alias in itertools.product((ROWS, PAIRS), aliases):
        row, rows = row_bytes_and_rows(features, out, packing)
        tile = -(-row * min(rows, int(rng.integers(2, rows + 3))) // 4) * 4
        for staged in (None, (tile, int(rng.integers(1, tokens + 3)))):
            got = core_calls.in_place_fc(
                x, weights, bias, multiplier, zero_point, table, residual, factor, alias, staged, packing
            )
            np.testing.assert_array_equal(got, want, err_msg=f"output over {alias}, {staged}, packing {packing}")


@pytest.mark.parametrize("seed", range(20))
def test_packing_is_undone(seed):
    """pack() and unpack() are inverse, for all weights that occur; padding is zero."""
    rng = np.random.default_rng(seed)
    out, features = (int(rng.choice(rv.WIDTHS)) for _ in range(2))
    weights = rv.weights(rng, 3, out, features)
    packed = pack(weights, PAIRS)
    assert packed.shape == (3, (out + 1) // 2, features + features % 2, 2)
    unpacked = unpack(packed, out, PAIRS)
    np.testing.assert_array_equal(unpacked[..., :features], weights)
    assert not unpacked[..., features:].any()
    x = rv.int8(rng, 1, 4, features)
    bias, multiplier = rv.requantisation(rng, out, features)
    options = in_place_fc.Options(3), in_place_fc.Options(3, PAIRS)
    want, got = (
        in_place_fc.reference(o, x, w, bias, multiplier) for o, w in zip(options, (weights[0], packed[0]), strict=True)
    )
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("tokens", [1, 3, 7, 20])
@pytest.mark.parametrize("alias", [None, "input"])
def test_packed_weights_of_a_damaged_model_equal_the_reference(tokens, alias):
    """A pair can stand for 128, which no byte holds."""
    rng = np.random.default_rng(tokens)
    x, weights = rv.int8(rng, tokens, 40), rv.weights(rng, 9, 40).astype(np.int64)
    weights[4, 3], weights[5, 3] = -1, 128
    bias, multiplier = rv.requantisation(rng, 9, 40)
    want = in_place_fc.reference(in_place_fc.Options(3), x[None], weights, bias, multiplier)[0]
    assert np.array_equal(unpack(pack(weights, PAIRS)[None], 9, PAIRS)[0], weights)
    got = core_calls.in_place_fc(x, weights, bias, multiplier, 3, None, None, None, alias, None, PAIRS)
    np.testing.assert_array_equal(got, want)


def test_overlap_that_is_not_overwriting_is_refused():
    weights, bias, multiplier = np.ones((4, 8), np.int8), np.zeros(4, np.int32), np.ones(4, np.int32)
    keep: list = []
    params = core_calls.filled(
        core_calls.FcParams, keep, tokens=3, in_features=8, in_stride=8, out_features=4, zero_point=0, weights=weights,
        bias=bias, multiplier=multiplier, gelu_table=None, residual_scale=None,
    )  # fmt: skip
    memory = core_calls.Buffer(64)
    inside = core_calls.Buffer(8)
    inside.memory = memory.memory[8:]
    inside.size = 56
    for first, residual, output in ((memory, None, inside), (core_calls.Buffer(64), memory, inside)):
        status = core_calls.call("mcuf_in_place_fc_s8", params, first, residual, output, scratch_bytes=64)
        assert status == core_calls.OVERLAP


STAGED = dict(weights=None, tile_bytes=16, weights_offset=0, tokens_per_read=4)


def small_params(**change):
    values = dict(
        tokens=3, in_features=8, in_stride=8, out_features=4, zero_point=0, weights=np.ones((4, 8), np.int8),
        bias=np.zeros(4, np.int32), multiplier=np.ones(4, np.int32), gelu_table=None, residual_scale=None,
    )  # fmt: skip
    keep: list = []
    return core_calls.filled(core_calls.FcParams, keep, **(values | change)), keep


@pytest.mark.parametrize("fails_after", [0, 1])
def test_a_source_that_fails_is_an_error(fails_after):
    source = core_calls.WeightSource(np.ones((4, 8), np.int8), fails_after)
    params, _keep = small_params(**source.fields(16), tokens_per_read=4)
    x, out = core_calls.Buffer(24, np.ones((3, 8), np.int8)), core_calls.Buffer(12)
    status = core_calls.call("mcuf_in_place_fc_s8", params, x, None, out, scratch_bytes=128)
    assert status == core_calls.SOURCE and source.reads == fails_after + 1


def test_staged_without_a_source_is_an_error():
    params, _keep = small_params(**STAGED)
    x, out = core_calls.Buffer(24), core_calls.Buffer(12)
    assert core_calls.call("mcuf_in_place_fc_s8", params, x, None, out, scratch_bytes=128) == core_calls.SOURCE


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"tokens": 0}, core_calls.SIZE),
        ({"tokens": 16385}, core_calls.SIZE),
        ({"in_features": 0}, core_calls.SIZE),
        ({"in_stride": 7}, core_calls.SIZE),
        ({"out_features": -1}, core_calls.SIZE),
        ({"zero_point": 128}, core_calls.VALUE),
        ({"weights": None}, core_calls.NULL),
        ({"bias": None}, core_calls.NULL),
        ({"bias": np.full(4, (1 << 30) + 1, np.int32)}, core_calls.VALUE),
        ({"multiplier": np.full(4, -1, np.int32)}, core_calls.VALUE),
        (STAGED, core_calls.OK),
        (STAGED | {"tile_bytes": 12}, core_calls.SIZE),
        (STAGED | {"tile_bytes": 18}, core_calls.SIZE),
        (STAGED | {"tile_bytes": -16}, core_calls.SIZE),
        (STAGED | {"tile_bytes": (1 << 20) + 4}, core_calls.SIZE),
        (STAGED | {"tokens_per_read": 0}, core_calls.SIZE),
        (STAGED | {"tokens_per_read": 16385}, core_calls.SIZE),
        (STAGED | {"weights_offset": -1}, core_calls.SIZE),
        (STAGED | {"weights_offset": (1 << 31) - 32}, core_calls.SIZE),
        (STAGED | {"weights_offset": (1 << 31) - 33}, core_calls.OK),
    ],
)
def test_check_refuses(change, status):
    params, _keep = small_params(**change)
    assert core_calls.check("mcuf_in_place_fc_s8", params, 0) == status


def test_residual_enters_exactly():
    """With k = residual_scale, s_x / k = s_in * s_w: x * k in the accumulator is x itself, whatever the weights."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        weight = rng.normal(size=(24, 32)) * rng.uniform(0.01, 1)
        source, residual = Quantisation(rng.uniform(0.01, 0.1)), Quantisation(rng.uniform(0.01, 0.1, 24))
        _, acc_scale, factor = in_place_fc.quantise_weights(weight, None, source, Quantisation(0.5), residual)
        np.testing.assert_allclose(factor * acc_scale, residual.scale, rtol=1e-12)


def test_lowered_layer_is_close_to_float():
    rng = np.random.default_rng(1)
    weight, bias, x = rng.normal(size=(40, 50)), rng.normal(size=40), rng.normal(size=(1, 60, 50))
    source = Quantisation(np.abs(x).max() / 120, 3)
    real = source.dequantise(source.quantise(x)) @ weight.T + bias
    options, constants, target = in_place_fc.lower(weight, bias, source, Quantisation(np.abs(real).max() / 127, -4))
    got = in_place_fc.reference(
        options, source.quantise(x), *(constants[name] for name in ("weights", "bias", "multiplier"))
    )
    error = target.dequantise(got) - np.clip(real, *target.dequantise(np.array([-128, 127])))
    assert np.abs(error).max() < 1.5 * target.scale
