# SPDX-License-Identifier: Apache-2.0
"""Overlaps that are no overwriting: every op refuses them, and writes nothing."""

import ctypes

import core_calls
import numpy as np
import pytest

from mcuformer import kernel_library


def params(struct, **values):
    keep: list = []
    return core_calls.filled(struct, keep, **values), keep


INT32 = np.ones(8, np.int32)
CASES = {
    "mcuf_int_layer_norm_s8": (
        core_calls.LayerNormParams,
        dict(tokens=4, features=8, zero_point=0, epsilon=1, gamma=np.ones(8, np.int16), beta=INT32, factor=None),
        False,
    ),
    "mcuf_token_mean_s8": (
        core_calls.TokenMeanParams,
        dict(tokens=4, features=8, in_zero_point=0, zero_point=0, multiplier=1),
        False,
    ),
    "mcuf_int_attention_s8": (
        core_calls.AttentionParams,
        dict(
            tokens=2, num_heads=1, kv_heads=1, head_dim=4, in_stride=12, out_stride=12, zero_point=0,
            head_params=np.array([1, 1 << 30, 0, 0], np.int32),
        ),
        True,
    ),
    "mcuf_decomposed_patch_embed_s8": (
        core_calls.PatchEmbedParams,
        dict(
            image_height=8, image_width=4, channels=1, patch_height=4, patch_width=4, embed_dim=8, zero_point=0,
            weights=np.ones((1, 8, 16), np.int8), bias=INT32, multiplier=INT32, position=None, position_scale=None,
            blocks=1,
        ),
        True,
    ),
    "mcuf_stem_conv_s8": (
        core_calls.StemConvParams,
        dict(
            height=4, width=4, in_channels=2, out_channels=8, pad_value=0, zero_point=0, act_min=-128,
            weights=np.ones((8, 3, 3, 2), np.int8), bias=INT32, multiplier=INT32, position=None, position_scale=None,
        ),
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("function", CASES)
@pytest.mark.parametrize("distance", [-4, 4])
def test_partial_overlap_is_refused(function, distance):
    struct, values, has_scratch = CASES[function]
    filled, _keep = params(struct, **values)
    memory = np.arange(256, dtype=np.uint8).view(np.int8)
    before = memory.copy()
    scratch = np.zeros(4096, np.int32)
    start = memory.ctypes.data + 64
    arguments = [ctypes.c_void_p(start), ctypes.c_void_p(start + distance)]
    arguments += [ctypes.c_void_p(scratch.ctypes.data)] if has_scratch else []
    status = getattr(kernel_library.load(), function)(ctypes.byref(filled), *arguments)
    assert status == core_calls.OVERLAP
    np.testing.assert_array_equal(memory, before)


def test_gelu_refuses_a_partial_overlap():
    memory, table = np.zeros(64, np.int8), np.zeros(256, np.int8)
    start = memory.ctypes.data
    status = kernel_library.load().mcuf_int_gelu_s8(
        ctypes.c_void_p(table.ctypes.data), ctypes.c_void_p(start), ctypes.c_void_p(start + 1), 16
    )
    assert status == core_calls.OVERLAP


def test_attention_in_place_needs_equal_strides():
    struct, values, _ = CASES["mcuf_int_attention_s8"]
    filled, _keep = params(struct, **(values | {"out_stride": 4}))
    memory, scratch = np.zeros(64, np.int8), np.zeros(4096, np.int32)
    start = ctypes.c_void_p(memory.ctypes.data)
    library = kernel_library.load()
    status = library.mcuf_int_attention_s8(ctypes.byref(filled), start, start, ctypes.c_void_p(scratch.ctypes.data))
    assert status == core_calls.OVERLAP
