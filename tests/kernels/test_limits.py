# SPDX-License-Identifier: Apache-2.0
"""The limits of the C headers are those that a SubnetConfig is held to: nothing that is accepted fails in a kernel."""

from __future__ import annotations

import dataclasses
import re

import pytest

from mcuformer import SubnetConfig, sources
from mcuformer.converter import model_check
from mcuformer.converter.ops import OPS
from mcuformer.errors import ConfigError

FITS = dict(image_size=64, in_channels=1, patch_size=32, embed_dim=8, depth=1, num_heads=2, head_dim=4, num_classes=3)


def limit(header: str, name: str) -> int:
    """The value of a #define of a header of the C kernels."""
    text = (sources.c_kernel_folder() / header).read_text()
    value = re.search(rf"#define {name} (?:\((\d+) << (\d+)\)|(\d+)\b)", text)
    return int(value[3]) if value[3] else int(value[1]) << int(value[2])


@pytest.mark.parametrize(
    ("header", "name", "config"),
    [
        ("mcuf_types.h", "MCUF_MAX_IMAGE_SIDE", lambda n: dict(image_size=n, patch_size=254)),
        ("mcuf_decomposed_patch_embed_s8.h", "MCUF_MAX_IMAGE_CHANNELS", lambda n: dict(in_channels=n, patch_size=8)),
        ("mcuf_int_layer_norm_s8.h", "MCUF_LAYER_NORM_MAX_FEATURES", lambda n: dict(embed_dim=n)),
        ("mcuf_int_attention_s8.h", "MCUF_ATTENTION_MAX_HEAD_DIM", lambda n: dict(head_dim=n)),
        ("mcuf_stem_conv_s8.h", "MCUF_STEM_MAX_CHANNELS",
         lambda n: dict(image_size=16, patch_size=4, stem="conv", stem_channels=(n,))),
    ],
)  # fmt: skip
def test_a_config_takes_what_the_kernel_takes_and_no_more(header, name, config):
    most = limit(header, name)
    SubnetConfig(**{**FITS, **config(most)})
    with pytest.raises(ConfigError, match=str(most)):
        SubnetConfig(**{**FITS, **config(most + 1)})


@pytest.mark.parametrize(
    ("header", "name", "most"),
    [
        ("mcuf_types.h", "MCUF_MAX_TOKENS", model_check.MOST_TOKENS),
        ("mcuf_types.h", "MCUF_MAX_FEATURES", model_check.MOST_FEATURES),
        ("mcuf_types.h", "MCUF_MAX_IMAGE_SIDE", model_check.MOST_IMAGE_SIDE),
        ("mcuf_weight_source.h", "MCUF_MAX_TILE_BYTES", model_check.MOST_TILE_BYTES),
    ],
)
def test_a_model_is_held_to_the_limits_of_the_kernels(header, name, most):
    assert most == limit(header, name)


def test_the_sizes_that_are_checked_are_options_of_ops():
    options = {field.name for module in OPS.values() for field in dataclasses.fields(module.Options)}
    assert set(model_check.SIZES) <= options
