# SPDX-License-Identifier: Apache-2.0
import core_calls
import numpy as np
import pytest
import random_values as rv

from mcuformer.converter.ops import stem_conv
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS, pack

SIZES = ((1, 1), (1, 9), (8, 1), (5, 4), (2, 2), (3, 3))  # of the image, pixels; others at random


def random_case(seed: int) -> dict:
    """Arguments of core_calls.stem_conv but the packing; each has all weights and sums that occur."""
    rng = np.random.default_rng(seed)
    height, width = SIZES[seed] if seed < len(SIZES) else (int(rng.integers(1, most)) for most in (14, 27))
    channels, out = int(rng.choice([1, 2, 3, 5, 8, 17, 60])), int(rng.choice([2, *rv.WIDTHS]))
    bias, multiplier = rv.requantisation(rng, out, 9 * channels)
    pixels = ((height + 1) // 2) * ((width + 1) // 2)
    position = rv.int8(rng, 1, pixels, out) if rng.random() < 0.5 else None
    zero_point = rv.zero_point(rng)
    prefix_tokens = int(rng.choice([0, 0, 1, 5, 60]))
    return {
        "x": rv.int8(rng, height, width, channels), "weights": rv.weights(rng, out, 3, 3, channels), "bias": bias,
        "multiplier": multiplier, "zero_point": zero_point, "pad_value": rv.zero_point(rng),
        "act_min": int(rng.choice([-128, zero_point, 127])) if rng.random() < 0.5 else -128, "position": position,
        "position_scale": None if position is None else rng.integers(1, 32768, out).astype(np.int16),
        "prefix": rv.int8(rng, prefix_tokens, out) if prefix_tokens else None,
    }  # fmt: skip


def reference(x, weights, bias, multiplier, zero_point, pad_value, act_min, position, position_scale, prefix,
              packing=ROWS):  # fmt: skip
    options = stem_conv.Options(zero_point, pad_value, act_min, packing)
    return stem_conv.reference(options, x[None], weights, bias, multiplier, position, position_scale, prefix)[0]


@pytest.mark.parametrize("seed", range(100))
def test_core_equals_reference(seed):
    case = random_case(seed)
    want = reference(**case)
    for packing in (ROWS, PAIRS):
        got = core_calls.stem_conv(**case, packing=packing)
        np.testing.assert_array_equal(got, want, err_msg=f"packing {packing}")


@pytest.mark.parametrize("seed", range(0, 100, 9))
def test_reference_reads_every_packing(seed):
    case = random_case(seed)
    weights = case["weights"]
    pairs = pack(weights.reshape(len(weights), -1), PAIRS)
    inputs = weights[0].size
    assert pairs.shape == ((len(weights) + 1) // 2, inputs + inputs % 2, 2)
    np.testing.assert_array_equal(reference(**case | {"weights": pairs}, packing=PAIRS), reference(**case))


def test_a_prefix_is_copied_and_changes_nothing_else():
    """Not even by the ReLU."""
    case = random_case(3) | {"act_min": 5, "zero_point": 5, "position": None, "position_scale": None}
    out = len(case["weights"])
    prefix = np.random.default_rng(0).integers(-128, 5, (3, out)).astype(np.int8)
    with_prefix, without = (reference(**case | {"prefix": prefix}), reference(**case | {"prefix": None}))
    np.testing.assert_array_equal(with_prefix, np.concatenate([prefix, without]))
    np.testing.assert_array_equal(core_calls.stem_conv(**case | {"prefix": prefix}), with_prefix)


def test_the_output_is_an_image_or_tokens():
    shapes = [(1, 7, 6, 3), (5, 3, 3, 3), (5,), (5,), None, None, None]
    options = stem_conv.Options(0, 0, -128)
    assert stem_conv.output_shape(options, shapes) == (1, 4, 3, 5)
    assert stem_conv.output_shape(options, [*shapes[:4], (1, 12, 5), (5,), None]) == (1, 12, 5)
    assert stem_conv.output_shape(options, [*shapes[:4], (1, 12, 5), (5,), (2, 5)]) == (1, 14, 5)
    assert stem_conv.output_shape(options, [*shapes[:6], (2, 5)]) == (1, 14, 5)


def test_reference_is_the_convolution():
    import torch

    rng = np.random.default_rng(0)
    weight, x = rv.weights(rng, 5, 3, 3, 4), rv.int8(rng, 1, 9, 8, 4)
    real = torch.nn.functional.conv2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64)),
        torch.from_numpy(weight.transpose(0, 3, 1, 2).astype(np.float64)), stride=2, padding=1,
    ).flatten(2).transpose(1, 2).numpy()  # fmt: skip
    got = stem_conv.reference(
        stem_conv.Options(0, 0, -128), x, weight, np.zeros(5, np.int32), np.full(5, 1 << 21, np.int32)
    )
    np.testing.assert_array_equal(got, np.clip(np.floor(real * 2.0**-11 + 0.5), -128, 127))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"height": 0}, core_calls.SIZE),
        ({"in_channels": 1025}, core_calls.SIZE),
        ({"pad_value": 128}, core_calls.VALUE),
        ({"act_min": -129}, core_calls.VALUE),
        ({"weights": None}, core_calls.NULL),
        ({"prefix_tokens": 1}, core_calls.NULL),
        ({"prefix_tokens": -1, "prefix": np.zeros((1, 4), np.int8)}, core_calls.SIZE),
        ({"prefix_tokens": 1, "prefix": np.zeros((1, 4), np.int8)}, core_calls.OK),
        ({"height": 4096, "width": 4096}, core_calls.OK),
        ({"height": 4096, "width": 4096, "prefix_tokens": 1, "prefix": np.zeros((1, 4), np.int8)}, core_calls.SIZE),
        ({"height": 4096, "width": 4096, "position": np.zeros(4, np.int8), "position_scale": np.ones(4, np.int16)},
         core_calls.SIZE),
        ({"packing": 2}, core_calls.VALUE),
        ({"packing": -1}, core_calls.VALUE),
    ],
)  # fmt: skip
def test_check_refuses(change, status):
    values = dict(
        height=8, width=8, in_channels=1, out_channels=4, pad_value=0, zero_point=0, act_min=-128,
        weights=np.zeros((4, 3, 3, 1), np.int8), bias=np.zeros(4, np.int32), multiplier=np.zeros(4, np.int32),
        position=None, position_scale=None,
    )  # fmt: skip
    keep: list = []
    params = core_calls.filled(core_calls.StemConvParams, keep, **(values | change))
    assert core_calls.check("mcuf_stem_conv_s8", params) == status


def test_prefix_and_pixels_together_have_a_limit():
    most = core_calls.limit("mcuf_types.h", "MCUF_MAX_TOKENS")
    constants = dict(bias=np.zeros(4, np.int32), multiplier=np.zeros(4, np.int32), weights=np.zeros((4, 9), np.int8))
    for prefix_tokens, status in ((most - 16, core_calls.OK), (most - 15, core_calls.SIZE)):
        keep: list = []
        params = core_calls.filled(
            core_calls.StemConvParams, keep, height=8, width=8, in_channels=1, out_channels=4, act_min=-128,
            prefix_tokens=prefix_tokens, prefix=np.zeros((prefix_tokens, 4), np.int8), **constants,
        )  # fmt: skip
        assert core_calls.check("mcuf_stem_conv_s8", params) == status


def test_check_refuses_pairs_that_are_not_aligned():
    memory = np.zeros(4 + 2 * 10 * 2, np.int8)
    keep: list = []
    values = dict(height=8, width=8, in_channels=1, out_channels=4, act_min=-128, packing=PAIRS)
    constants = dict(bias=np.zeros(4, np.int32), multiplier=np.zeros(4, np.int32))
    params = core_calls.filled(core_calls.StemConvParams, keep, **values, **constants)
    aligned = memory.ctypes.data + -memory.ctypes.data % 4
    for offset, status in ((0, core_calls.OK), (1, core_calls.VALUE), (2, core_calls.VALUE)):
        params.weights = aligned + offset
        assert core_calls.check("mcuf_stem_conv_s8", params) == status
