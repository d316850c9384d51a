# SPDX-License-Identifier: Apache-2.0
"""The inverted residual of a stem: its reference against plain loops, and its lowering against float."""

import numpy as np
import pytest

from mcuformer.converter.ops import in_place_fc, stem_block, streamed_stem
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS, pack
from mcuformer.converter.quantise import affine


def requantised(acc: int, multiplier: int, zero_point: int) -> int:
    return int(np.clip(zero_point + ((int(acc) * int(multiplier) + (1 << 31)) >> 32), -128, 127))


def block_of(rng, channels, hidden):
    def weights(*shape):
        return rng.integers(-127, 128, shape).astype(np.int8)

    def requantisation(outputs):
        bias = rng.integers(-5000, 5000, outputs).astype(np.int32)
        return bias, rng.integers(1 << 18, 1 << 24, outputs).astype(np.int32)

    return stem_block.Constants(
        weights(hidden, channels), *requantisation(hidden), weights(9, hidden), *requantisation(hidden),
        weights(channels, hidden), *requantisation(channels), rng.integers(0, 3000, channels).astype(np.int16),
    )  # fmt: skip


def by_loops(zero_points, x, b):
    """One image [H, W, c], value by value."""
    height, width, channels = x.shape
    hidden = len(b.expand_bias)
    h = np.full((height + 2, width + 2, hidden), zero_points.expanded, np.int64)
    for y, z, i in np.ndindex(height, width, hidden):
        acc = int(b.expand_bias[i]) + sum(int(b.expand_weights[i, k]) * int(x[y, z, k]) for k in range(channels))
        h[y + 1, z + 1, i] = max(zero_points.expanded, requantised(acc, b.expand_multiplier[i], zero_points.expanded))
    out = np.zeros(x.shape, np.int8)
    for y, z in np.ndindex(height, width):
        g = []
        for i in range(hidden):
            acc = int(b.depthwise_bias[i])
            for tap in range(9):
                acc += int(b.depthwise_weights[tap, i]) * int(h[y + tap // 3, z + tap % 3, i])
            made = requantised(acc, b.depthwise_multiplier[i], zero_points.depthwise)
            g.append(max(zero_points.depthwise, made))
        for o in range(channels):
            acc = int(b.project_bias[o]) + sum(int(b.project_weights[o, i]) * g[i] for i in range(hidden))
            acc += int(b.residual_scale[o]) * int(x[y, z, o])
            out[y, z, o] = requantised(acc, b.project_multiplier[o], zero_points.output)
    return out


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 4, 2, 3), (2, 1, 3, 5), (3, 3, 1, 4), (4, 5, 3, 7)])
def test_reference_equals_plain_loops(shape):
    height, width, channels, hidden = shape
    rng = np.random.default_rng(shape)
    for zero_points in (stem_block.ZeroPoints(-128, -128, 3), stem_block.ZeroPoints(-100, 7, -4)):
        block, x = block_of(rng, channels, hidden), rng.integers(-128, 128, (2, *shape[:3])).astype(np.int8)
        want = np.stack([by_loops(zero_points, one, block) for one in x])
        np.testing.assert_array_equal(stem_block.reference(zero_points, ROWS, x, block), want)
        packed = block._replace(
            expand_weights=pack(block.expand_weights, PAIRS), project_weights=pack(block.project_weights, PAIRS)
        )
        np.testing.assert_array_equal(stem_block.reference(zero_points, PAIRS, x, packed), want)


def test_lowering_is_close_to_float():
    """All three steps and the residual, by the quantisations that a network's ranges give."""
    rng = np.random.default_rng(0)
    channels, hidden = 6, 20
    x_of, h_of, g_of, y_of = affine(0, 4), affine(0, 3), affine(0, 5), affine(-6, 8)
    x = x_of.quantise(rng.uniform(0, 4, (1, 7, 5, channels)))
    real = x_of.dequantise(x)
    expand, project = rng.normal(0, 0.3, (hidden, channels)), rng.normal(0, 0.2, (channels, hidden))
    depthwise, biases = rng.normal(0, 0.4, (hidden, 3, 3)), [rng.normal(0, 0.3, n) for n in (hidden, hidden, channels)]
    h = np.clip(real @ expand.T + biases[0], 0, 3)
    padded = np.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)))
    g = sum(padded[:, y : y + 7, z : z + 5] * depthwise[:, y, z] for y in range(3) for z in range(3)) + biases[1]
    y = real + np.clip(g, 0, 5) @ project.T + biases[2]
    first, made, h_of = in_place_fc.lower(expand, biases[0], x_of, h_of)
    middle, g_of = stem_block.lower_depthwise(depthwise, biases[1], h_of, g_of)
    last, added, y_of = in_place_fc.lower(project, biases[2], g_of, y_of, x_of)
    block = stem_block.Constants(
        made["weights"], made["bias"], made["multiplier"], *middle.values(), added["weights"], added["bias"],
        added["multiplier"], added["residual_scale"],
    )  # fmt: skip
    zero_points = stem_block.ZeroPoints(first.zero_point, g_of.zero_point, last.zero_point)
    error = y_of.dequantise(stem_block.reference(zero_points, ROWS, x, block)) - np.clip(y, -6, 8)
    assert np.sqrt(np.mean(error**2)) < 1.5 * y_of.scale and np.abs(error).max() < 6 * y_of.scale


def test_a_target_too_fine_for_the_depthwise_convolution_is_widened():
    constants, target = stem_block.lower_depthwise(np.ones((2, 3, 3)), np.zeros(2), affine(0, 1000), affine(0, 1e-3))
    assert target.scale > affine(0, 1e-3).scale and constants["multiplier"].max() < 1 << 31
    assert constants["weights"].shape == (9, 2)


def test_costs():
    d = streamed_stem.Dims(9, 6, 3, (4, 5, 6), hidden=(8, 0))
    assert d.blocks == [(0, stem_block.Dims(5, 3, 4, 8))]
    assert streamed_stem.matrices(d) == [(27, 4), (36, 5), (45, 6), (4, 8), (8, 4)]
    without = d._replace(hidden=())
    assert streamed_stem.macs(d) - streamed_stem.macs(without) == 15 * (2 * 32 + 72)
    assert streamed_stem.weight_elements(d) - streamed_stem.weight_elements(without) == 2 * 32 + 72
    sizes = streamed_stem.section_bytes(d)
    assert sizes[streamed_stem.FIRST_BLOCK :] == (32, 32, 32, 72, 32, 32, 32, 16, 16, 8)
    assert sizes[streamed_stem.FIRST_CONV + 9 : streamed_stem.FIRST_BLOCK] == (0,) * 15


@pytest.mark.parametrize("inner", range(8))
def test_options_survive_the_file(inner):
    zero_points = tuple(range(-3, inner - 2))
    for blocks in ((), tuple((i, -i, 5) for i in range(inner))):
        options = streamed_stem.Options(4, -1, zero_points, PAIRS, 2, 9, 8, 3, blocks)
        scalars = streamed_stem.LAYOUT.to_scalars(options)
        assert streamed_stem.LAYOUT.from_scalars(scalars) == options
        assert len(scalars) == (15 + 3 * inner if blocks else 8 + inner)
