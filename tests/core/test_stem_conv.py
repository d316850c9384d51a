# SPDX-License-Identifier: Apache-2.0
import core_calls
import numpy as np
import pytest
import random_values as rv

from mcuformer.converter.ops import stem_conv


@pytest.mark.parametrize("seed", range(80))
def test_core_equals_reference(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(rng.integers(1, 14)) for _ in range(2))
    channels, out = int(rng.choice([1, 3, 8, 17])), int(rng.choice(rv.WIDTHS))
    x, weights = rv.int8(rng, height, width, channels), rv.weights(rng, out, 3, 3, channels)
    bias, multiplier = rv.requantisation(rng, out, 9 * channels)
    pixels = ((height + 1) // 2) * ((width + 1) // 2)
    position = rv.int8(rng, 1, pixels, out) if rng.random() < 0.5 else None
    factor = None if position is None else rng.integers(1, 32768, out).astype(np.int16)
    zero_point, pad = rv.zero_point(rng), rv.zero_point(rng)
    options = stem_conv.Options(zero_point, pad, zero_point if rng.random() < 0.5 else -128)
    want = stem_conv.reference(options, x[None], weights, bias, multiplier, position, factor)[0]
    got = core_calls.stem_conv(x, weights, bias, multiplier, zero_point, pad, options.act_min, position, factor)
    np.testing.assert_array_equal(got, want)


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
    ],
)
def test_check_refuses(change, status):
    values = dict(
        height=8, width=8, in_channels=1, out_channels=4, pad_value=0, zero_point=0, act_min=-128,
        weights=np.zeros((4, 3, 3, 1), np.int8), bias=np.zeros(4, np.int32), multiplier=np.zeros(4, np.int32),
        position=None, position_scale=None,
    )  # fmt: skip
    keep: list = []
    params = core_calls.filled(core_calls.StemConvParams, keep, **(values | change))
    assert core_calls.check("mcuf_stem_conv_s8", params) == status
