# SPDX-License-Identifier: Apache-2.0
"""What makes the tokens, lowered from floats: patches of any shape, convolutions, a prefix; and what they cost."""

import numpy as np
import pytest
import torch

from mcuformer.converter.graph import Graph
from mcuformer.converter.ops import decomposed_patch_embed, stem_conv
from mcuformer.converter.quantise import Quantisation

SOURCE = Quantisation(1 / 127.5, 3)
PATCHES = ((8, 8), (1, 40), (40, 1), (2, 7), (3, 5))
SCALES = (0.05, np.linspace(0.02, 0.1, 6))


def convolved(real, weight, bias, **how):
    """[1, H, W, C] -> [tokens, out]."""
    image, kernel = real.transpose(0, 3, 1, 2), weight.transpose(0, 3, 1, 2)
    result = torch.nn.functional.conv2d(*map(torch.from_numpy, (image, kernel, bias)), **how)
    return result.numpy()[0].reshape(len(weight), -1).T


def check_op(kind, module, options, constants, target, image, want):
    """That the op's tokens are those of the floats to about a step, and that its dimensions say what it has."""
    graph = Graph()
    index = graph.add_input("image", image.shape, SOURCE)
    graph.output = graph.add_op(kind, "embed", options, {module.INPUTS[0]: index}, constants, target)
    output, (op,) = graph.tensors[graph.output], graph.ops
    got = graph.run(image)
    assert got.shape == output.shape == (1, *want.shape)
    steps = np.abs(target.dequantise(got[0]) - want) / target.scale
    inside = np.abs(want / target.scale + target.zero_point) < 127
    assert inside.mean() > 0.8 and steps[inside].max() < 1.5

    dims = graph.dims(op)
    assert (module.input_elements(dims), module.output_elements(dims)) == (image.size, output.bytes)
    held = [graph.tensors[i].bytes for i in op.inputs if i >= 0 and graph.tensors[i].is_constant]
    assert list(module.constant_bytes(dims)) == held and module.constants(dims) == len(held)
    return dims


@pytest.mark.parametrize("with_position", [False, True])
@pytest.mark.parametrize("prefix_tokens", [0, 1, 5])
@pytest.mark.parametrize("scale", SCALES, ids=["a tensor", "a channel"])
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: "x".join(map(str, patch)))
def test_patches(patch, scale, prefix_tokens, with_position):
    rng = np.random.default_rng([*patch, prefix_tokens])
    height, width = patch
    image = rng.integers(-128, 128, (1, 3 * height + height // 2, 2 * width + width // 2, 2)).astype(np.int8)
    weight = rng.normal(0, 2 / np.sqrt(height * width * 2), (6, *patch, 2))
    bias, position = rng.normal(0, 0.3, 6), rng.normal(0, 0.5, (6, 6))
    prefix = rng.normal(0, 1, (prefix_tokens, 6)) if prefix_tokens else None
    options, constants, target = decomposed_patch_embed.lower(
        weight, bias, position, SOURCE.scale, SOURCE.zero_point, Quantisation(scale, -2), prefix
    )
    want = convolved(SOURCE.dequantise(image), weight, bias, stride=patch)
    if with_position:
        want = want + position
    else:
        constants |= {"position": None, "position_scale": None}
    want = want if prefix is None else np.concatenate([prefix, want])
    dims = check_op("DecomposedPatchEmbed", decomposed_patch_embed, options, constants, target, image, want)
    assert (dims.patch_height, dims.patch_width, dims.prefix, dims.tokens) == (*patch, prefix_tokens, 6)
    assert options.patch_width == (0 if height == width else width)
    assert decomposed_patch_embed.macs(dims) == 6 * weight.size


@pytest.mark.parametrize("scale", SCALES, ids=["a tensor", "a channel"])
@pytest.mark.parametrize(("patch", "padding"), [((4, 4), 3), ((7, 5), 2), ((28, 28), 6)])
def test_patches_with_padding(patch, padding, scale):
    """Zeros around the float image; the int8 image's zero point is none, and the position table makes up for it."""
    rng = np.random.default_rng([*patch, padding])
    height, width = patch
    image = rng.integers(-128, 128, (1, 3 * height - 2 * padding, 2 * width - padding, 2)).astype(np.int8)
    weight = rng.normal(0.3, 2, (6, *patch, 2)) / np.sqrt(height * width * 2)
    bias, position = rng.normal(0, 0.3, 6), rng.normal(0, 0.5, (6, 6))
    options, constants, target = decomposed_patch_embed.lower(
        weight, bias, position, SOURCE.scale, SOURCE.zero_point, Quantisation(scale, -2), padding=padding,
        image_shape=image.shape[1:3],
    )  # fmt: skip
    want = convolved(SOURCE.dequantise(image), weight, bias, stride=patch, padding=padding) + position
    dims = check_op("DecomposedPatchEmbed", decomposed_patch_embed, options, constants, target, image, want)
    assert (dims.padding, dims.tokens) == (padding, 6)


@pytest.mark.parametrize("prefix_tokens", [0, 1, 5])
@pytest.mark.parametrize("scale", SCALES, ids=["a tensor", "a channel"])
def test_stem(scale, prefix_tokens):
    """The last convolution of a stem."""
    rng = np.random.default_rng(prefix_tokens)
    image = rng.integers(-128, 128, (1, 7, 4, 2)).astype(np.int8)
    weight, bias, position = rng.normal(0, 0.3, (6, 3, 3, 2)), rng.normal(0, 0.3, 6), rng.normal(0, 0.5, (8, 6))
    prefix = rng.normal(0, 1, (prefix_tokens, 6)) if prefix_tokens else None
    options, constants, target = stem_conv.lower(
        weight, bias, position, SOURCE.scale, SOURCE.zero_point, Quantisation(scale, -2), False, prefix
    )
    want = convolved(SOURCE.dequantise(image), weight, bias, stride=2, padding=1) + position
    want = want if prefix is None else np.concatenate([prefix, want])
    dims = check_op("StemConv", stem_conv, options, constants, target, image, want)
    assert (dims.prefix, dims.pixels) == (prefix_tokens, 8)
    assert stem_conv.macs(dims) == 8 * weight.size


def test_a_prefix_takes_the_scale_that_the_tokens_have():
    """Which is wider than the wanted one if the accumulator needs it."""
    rng = np.random.default_rng(0)
    weight, prefix = rng.normal(0, 60, (6, 4, 4, 1)), rng.normal(0, 1, (2, 6))
    wanted = Quantisation(1e-4, 0)
    _, constants, target = decomposed_patch_embed.lower(
        weight, np.zeros(6), np.zeros((4, 6)), SOURCE.scale, SOURCE.zero_point, wanted, prefix
    )
    assert np.all(np.asarray(target.scale) > 100 * np.asarray(wanted.scale))
    np.testing.assert_array_equal(constants["prefix"], target.quantise(prefix))
    assert constants["prefix"].dtype == np.int8
