# SPDX-License-Identifier: Apache-2.0
"""Networks with dead, tiny or one-sided channels: the int8 network still follows the float one."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import TINY, lively_subnet, structured_images

from mcuformer import SubnetConfig, convert
from mcuformer.converter.calibrate import to_float
from mcuformer.errors import ConfigError

CONV = dataclasses.replace(TINY, stem="conv")


def zero(*names, share=1.0):
    def change(net):
        state = net.state_dict()
        for name in names:
            value = state[name]
            value[: max(1, int(share * len(value)))] = 0

    return change


def tiny_head(net):
    net.head.weight[1] *= 1e-6
    net.head.bias[1] = 3.0


def scaled(name, factor):
    def change(net):
        net.state_dict()[name].mul_(factor)

    return change


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (TINY, zero("head.weight")),
        (TINY, tiny_head),
        (TINY, zero("layers.0.mlp.fc1.weight", share=0.5)),
        (TINY, zero("layers.0.attention.qkv.weight")),
        (TINY, zero("layers.1.norm2.weight", "layers.1.norm2.bias")),
        (TINY, zero("stem.weight", share=0.5)),
        (TINY, zero("stem.weight", "stem.bias")),
        (TINY, zero("position")),
        (TINY, scaled("layers.0.attention.proj.weight", 1e-7)),
        (TINY, scaled("layers.0.mlp.fc2.weight", 30.0)),
        (TINY, scaled("layers.0.norm1.weight", 20.0)),
        (CONV, zero("stem.norms.0.weight", share=0.5)),
        (CONV, zero("stem.norms.1.weight")),
    ],
)
def test_logits_follow_the_float_network(config, change):
    net = lively_subnet(config, 4)
    with torch.no_grad():
        change(net)
    images = structured_images(config, 32)
    with torch.inference_mode():
        real = net(to_float(images)).numpy()
    got = convert(net, images).reference(images)
    assert np.sqrt(np.mean((got - real) ** 2) / np.mean(real**2)) < 0.08


def test_a_stream_of_tiny_values():
    net, images = lively_subnet(TINY, 4), structured_images(TINY, 32)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.startswith(("stem", "position")) or ".proj." in name or ".fc2." in name:
                value.mul_(1e-4)
    with torch.inference_mode():
        real = net(to_float(images)).numpy()
    got = convert(net, images).reference(images)
    assert np.sqrt(np.mean((got - real) ** 2) / np.mean(real**2)) < 0.08


@pytest.mark.parametrize(
    "fields",
    [
        dict(num_heads=6, head_dim=1024),
        dict(image_size=256, patch_size=256, in_channels=3),
        dict(num_heads=1, head_dim=1025),
    ],
)
def test_what_no_kernel_takes_is_no_config(fields):
    with pytest.raises(ConfigError):
        dataclasses.replace(TINY, **fields)


def test_a_wide_stem_stays_within_the_kernels_limit():
    config = SubnetConfig(image_size=8, in_channels=1, stem="conv", patch_size=4, embed_dim=4096, num_heads=4, depth=1)
    assert config.conv_channels == (1024, 4096)
