# SPDX-License-Identifier: Apache-2.0
"""Patch embedding and stem in both engines against the reference: patches of any shape, a prefix, in place, in strips,
staged."""

from __future__ import annotations

import good_models
import numpy as np
import pytest
import tiny_model

from mcuformer import kernel_library
from mcuformer.converter.ops import decomposed_patch_embed, stem_conv
from mcuformer.engines.callbacks import rows_of, weights_from
from mcuformer.interpreter import run_op

ENGINES = ("c", "tflm")
PATCHES = ((1, 40), (40, 1), (2, 7), (3, 5), (8, 4), (16, 16), (7, 7))


def layer(rng, weights, terms: int) -> dict[str, np.ndarray]:
    out = weights.shape[0] if weights.ndim == 4 else weights.shape[1]
    return {
        "weights": weights, "bias": rng.integers(-9999, 9999, out).astype(np.int32),
        "multiplier": np.full(out, int((1 << 25) / np.sqrt(terms)), np.int32),
    }  # fmt: skip


def position_and_prefix(rng, patches: int, out: int, prefix_tokens: int, position: bool) -> dict[str, np.ndarray]:
    found = {}
    if position:
        found["position"] = rng.integers(-128, 128, (1, patches, out)).astype(np.int8)
        found["position_scale"] = rng.integers(1, 500, out).astype(np.int16)
    if prefix_tokens:
        found["prefix"] = rng.integers(-128, 128, (prefix_tokens, out)).astype(np.int8)
    return found


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("prefix_tokens", [0, 1, 5, 300])
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: "x".join(map(str, patch)))
def test_patch_embedding(patch, prefix_tokens, engine):
    rng = np.random.default_rng([*patch, prefix_tokens])
    (height, width), channels, d = patch, int(rng.choice([1, 3])), int(rng.choice([1, 6, 33]))
    image = rng.integers(-128, 128, (1, 3 * height + height // 2, 5 * width + width // 2, channels)).astype(np.int8)
    weights = rng.integers(-127, 128, (d, height, width, channels)).astype(np.int8)
    constants = layer(rng, decomposed_patch_embed.split_fields(weights), weights[0].size)
    constants |= position_and_prefix(rng, 15, d, prefix_tokens, bool(rng.integers(2)))
    options = {"patch_size": height, "zero_point": 3} | ({} if width == height else {"patch_width": width})
    got = run_op("DecomposedPatchEmbed", {"image": image}, constants, options, engine=engine)
    want = decomposed_patch_embed.reference(decomposed_patch_embed.Options(**options), image, **constants)
    assert want.shape == (1, prefix_tokens + 15, d)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("patch", "padding"), [((2, 2), 1), ((5, 7), 4), ((8, 4), 2), ((28, 28), 6)])
def test_patch_embedding_with_padding(patch, padding, engine):
    rng = np.random.default_rng([*patch, padding])
    (height, width), d = patch, 6
    image = rng.integers(-128, 128, (1, 3 * height - padding, 5 * width - 2 * padding, 3)).astype(np.int8)
    weights = rng.integers(-127, 128, (d, height, width, 3)).astype(np.int8)
    constants = layer(rng, decomposed_patch_embed.split_fields(weights), weights[0].size)
    constants |= position_and_prefix(rng, 15, d, 2, True)
    options = {"patch_size": height, "zero_point": 3, "padding": padding}
    options |= {} if width == height else {"patch_width": width}
    got = run_op("DecomposedPatchEmbed", {"image": image}, constants, options, engine=engine)
    want = decomposed_patch_embed.reference(decomposed_patch_embed.Options(**options), image, **constants)
    assert want.shape == (1, 17, d)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize("prefix_tokens", [0, 1, 5, 300])
def test_stem(prefix_tokens, position, engine):
    rng = np.random.default_rng([prefix_tokens, position])
    x = rng.integers(-128, 128, (1, 7, 9, 3)).astype(np.int8)
    constants = layer(rng, rng.integers(-127, 128, (6, 3, 3, 3)).astype(np.int8), 27)
    constants |= position_and_prefix(rng, 20, 6, prefix_tokens, position)
    options = {"zero_point": -3, "pad_value": 1, "act_min": -3}
    got = run_op("StemConv", {"input": x}, constants, options, engine=engine)
    want = stem_conv.reference(stem_conv.Options(**options), x, **constants)
    assert got.shape == ((1, prefix_tokens + 20, 6) if prefix_tokens or position else (1, 4, 5, 6))
    np.testing.assert_array_equal(got.reshape(want.shape), want)


@pytest.fixture
def thin():
    """The model good_models.thin_patch_embed, an image for it, and the reference's tokens."""
    model = good_models.thin_patch_embed()
    model.inputs["bias"] = np.array([-4000, 0, 9, 77, 5000, 123], np.int32)
    image = np.random.default_rng(5).integers(-128, 128, model.inputs["image"].shape).astype(np.int8)
    options = decomposed_patch_embed.Options(**model.options)
    constants = {name: value for name, value in model.inputs.items() if name != "image"}
    want = decomposed_patch_embed.reference(options, image, **constants)
    assert len(np.unique(want)) > 20
    return model, image, want


@pytest.mark.parametrize("offset", [0, 1024])
@pytest.mark.parametrize("prefix_tokens", [0, 3, 200])
def test_patches_over_their_image_in_the_interpreter(thin, prefix_tokens, offset):
    """A prefix larger than the image too; the tokens of patches are smaller than their image rows."""
    model, image, want = thin
    prefix = np.random.default_rng(1).integers(-128, 128, (prefix_tokens, 6)).astype(np.int8)
    model.inputs["prefix"] = prefix if prefix_tokens else None
    model.output = tiny_model.Activation((1, prefix_tokens + 6, 6))
    # Tensors: image, weights, bias, multiplier, position, position_scale, perhaps the prefix, output.
    offsets = [0, *[-1] * (5 + (prefix_tokens > 0)), offset]
    got = tiny_model.run(model, image, offsets=offsets)
    np.testing.assert_array_equal(got[0, prefix_tokens:], want[0, 3:])
    np.testing.assert_array_equal(got[0, :prefix_tokens], prefix)


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("strips", [False, True])
def test_strips_and_staged_weights_in_the_interpreter(thin, strips, staged):
    model, image, want = thin
    rows, reads = rows_of(image[0]), []
    weights = weights_from(bytes(16) + model.inputs["weights"].tobytes(), reads)
    if strips:
        model.inputs["image"] = None
        model.options |= {"image_height": 13, "image_width": 10, "channels": 3, "strip_rows": 2}
    if staged:
        model.inputs["weights"] = None
        model.options |= {"tile_bytes": 96, "weights_offset": 16, "blocks": 1}
    kernel_library.set_image_source(rows)
    kernel_library.set_weight_source(weights)
    try:
        got = tiny_model.run(model, *([] if strips else [image]))
    finally:
        kernel_library.set_image_source(None)
        kernel_library.set_weight_source(None)
    np.testing.assert_array_equal(got, want)
    assert len(reads) == (6 * 2 * 3 if staged else 0)  # rows of tokens, fields, tiles
