# SPDX-License-Identifier: Apache-2.0
import itertools

import core_calls
import numpy as np
import pytest
import random_values as rv

from mcuformer.converter.ops import decomposed_patch_embed
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS


@pytest.mark.parametrize("seed", range(120))
def test_core_equals_reference(seed):
    """Patches of any size, not only multiples of 4; image rows smaller and larger than rows of tokens."""
    rng = np.random.default_rng(seed)
    size, channels, d = (
        int(rng.choice([1, 2, 3, 4, 5, 7, 8, 14, 16])),
        int(rng.choice([1, 3])),
        int(rng.choice(rv.WIDTHS)),
    )
    rows, columns = (int(rng.integers(1, 10)) for _ in range(2))
    image = rv.int8(rng, rows * size + int(rng.integers(size)), columns * size + int(rng.integers(size)), channels)
    weights = decomposed_patch_embed.split_fields(rv.weights(rng, d, size, size, channels))
    bias, multiplier = rv.requantisation(rng, d, size * size * channels)
    position = rv.int8(rng, 1, rows * columns, d) if rng.random() < 0.8 else None
    factor = None if position is None else rng.integers(1, 32768, d).astype(np.int16)
    zero_point = rv.zero_point(rng)
    want = decomposed_patch_embed.reference(
        decomposed_patch_embed.Options(size, zero_point), image[None], weights, bias, multiplier, position, factor
    )[0]
    rows_in_tile = max(2, min(d * len(weights), int(rng.integers(2, d + 3))))
    tiled = (16 * channels * rows_in_tile, int(rng.integers(1, -(-columns // 4) + 1)))  # tile_bytes, blocks_per_read
    for staged, packing in itertools.product((None, tiled), (ROWS, PAIRS)):
        for alias in (None, "input"):
            got = core_calls.decomposed_patch_embed(
                image, size, zero_point, weights, bias, multiplier, position, factor, alias, staged, packing
            )
            np.testing.assert_array_equal(got, want, err_msg=f"output over {alias}, {staged}, packing {packing}")

        for strip_rows in {size, decomposed_patch_embed.FIELD}:
            got = core_calls.decomposed_patch_embed_strips(
                image, size, zero_point, weights, bias, multiplier, position, factor, strip_rows, staged, packing
            )
            np.testing.assert_array_equal(got, want, err_msg=f"strips of {strip_rows}, {staged}, packing {packing}")


@pytest.mark.parametrize(("size", "channels", "d"), [(16, 3, 24), (4, 1, 64), (5, 2, 9)])
def test_reference_is_the_convolution(size, channels, d):
    """Split into fields and put together again, it is torch's convolution with kernel = stride = patch."""
    import torch

    rng = np.random.default_rng(size)
    weight, image = rv.weights(rng, d, size, size, channels), rv.int8(rng, 1, 3 * size + 1, 3 * size + 1, channels)
    real = torch.nn.functional.conv2d(
        torch.from_numpy(image.transpose(0, 3, 1, 2).astype(np.float64)),
        torch.from_numpy(weight.transpose(0, 3, 1, 2).astype(np.float64)), stride=size,
    ).flatten(2).transpose(1, 2).numpy()  # fmt: skip
    multiplier = np.full(d, 1 << 20, np.int32)
    got = decomposed_patch_embed.reference(
        decomposed_patch_embed.Options(size, 0), image, decomposed_patch_embed.split_fields(weight),
        np.zeros(d, np.int32), multiplier,
    )  # fmt: skip
    np.testing.assert_array_equal(got, np.clip(np.floor(real * 2.0**-12 + 0.5), -128, 127))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"patch_size": 0}, core_calls.SIZE),
        ({"patch_size": 9}, core_calls.SIZE),
        ({"channels": 65}, core_calls.SIZE),
        ({"embed_dim": 0}, core_calls.SIZE),
        ({"zero_point": 200}, core_calls.VALUE),
        ({"weights": None}, core_calls.NULL),
        ({"position": np.zeros((4, 4), np.int8)}, core_calls.NULL),
        ({"multiplier": np.full(4, -5, np.int32)}, core_calls.VALUE),
        ({"blocks_per_read": 0}, core_calls.SIZE),
        ({"blocks_per_read": 2}, core_calls.SIZE),
        ({"weights": None, "tile_bytes": 32}, core_calls.OK),
        ({"weights": None, "tile_bytes": 28}, core_calls.SIZE),
        ({"weights": None, "tile_bytes": 32, "weights_offset": -1}, core_calls.SIZE),
        ({"weights": None, "tile_bytes": 32, "weights_offset": (1 << 31) - 64}, core_calls.SIZE),
    ],
)
def test_check_refuses(change, status):
    values = dict(
        image_height=8, image_width=8, channels=1, patch_size=4, embed_dim=4, zero_point=0,
        weights=np.zeros((1, 4, 16), np.int8), bias=np.zeros(4, np.int32), multiplier=np.zeros(4, np.int32),
        position=None, position_scale=None, blocks_per_read=1,
    )  # fmt: skip
    keep: list = []
    params = core_calls.filled(core_calls.PatchEmbedParams, keep, **(values | change))
    assert core_calls.check("mcuf_decomposed_patch_embed_s8", params) == status
