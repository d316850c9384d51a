# SPDX-License-Identifier: Apache-2.0
"""Spaces whose networks have prefix tokens, other poolings, norms, activations and rectangles."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from spaces import PATCH

from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.ops.int_gelu import ACTIVATIONS
from mcuformer.converter.subnet_config import FINAL_NORMS, NORMS, POOLS
from mcuformer.errors import ConfigError
from mcuformer.nas import SearchSpace, SuperNet, build_subnet
from mcuformer.nas.init_vit import init_from_vit
from mcuformer.nas.qat import fake_quantised


def options(seed: int) -> dict:
    rng = random.Random(seed)
    prefix = rng.randrange(4)
    return {
        "prefix_tokens": prefix,
        "pool": rng.choice([pool for pool in POOLS if pool.split("+").count("token") <= prefix]),
        "final_norm": rng.choice(FINAL_NORMS),
        "norm_pre": rng.random() < 0.5,
        "norm": rng.choice(NORMS),
        "norm_epsilon": rng.choice([1e-6, 1e-5]),
        "activation": rng.choice(list(ACTIVATIONS)),
    }


def space(seed: int, **more) -> SearchSpace:
    values = {**PATCH.to_dict(), "image_size": [12, 20], "patch_size": [[4, 5], [3, 4]], **options(seed), **more}
    return SearchSpace.from_dict({name: value for name, value in values.items() if value is not None})


def lively(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))


def images_for(config, count: int = 3) -> torch.Tensor:
    height, width, channels = config.image_shape
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("seed", range(12))
def test_an_extracted_subnet_has_the_supernets_logits(seed):
    made = space(seed)
    assert SearchSpace.from_dict(made.to_dict()) == made
    supernet = SuperNet(made, seed).eval()
    lively(supernet.whole, seed)
    rng = random.Random(seed)
    for config in (made.smallest(), made.largest(), made.sample(rng), made.sample(rng)):
        images = images_for(config)
        with torch.no_grad():
            want = supernet(images, config)
            np.testing.assert_allclose(supernet.extract(config)(images), want, atol=1e-5)
        assert want.shape == (3, config.num_classes) and want.std() > 0


@pytest.mark.parametrize("seed", range(6))
def test_a_supernet_starts_from_a_network_with_its_logits(seed):
    made = space(seed, rank_ratio=None, patch_size=[[4, 5]])
    net = build_subnet(made.largest(), seed).eval()
    lively(net, seed)
    supernet = SuperNet(made, seed + 1).eval()
    init_from_vit(supernet, net, keep_head=True)
    images = images_for(net.config)
    with torch.no_grad():
        np.testing.assert_allclose(supernet(images, net.config), net(images), atol=1e-5)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"activation": "silu"}, "has activation = 'silu', the space 'gelu'"),
        ({"prefix_tokens": 1}, "has prefix_tokens = 1, the space 0"),
        ({"embed_dim": 16}, "embed_dim = 16, the space up to"),
        ({"depth": 1}, "depth = 1, the space up to"),
        ({"num_classes": 3}, "has num_classes = 3, the space"),
    ],
)
def test_a_network_that_does_not_fit_the_space_is_refused(change, words):
    made = PATCH
    largest = made.largest()
    layers = ("num_heads", "kv_heads", "mlp_ratio", "rank_ratio")
    first = {name: value[0] for name in layers if isinstance(value := getattr(largest, name), tuple)}
    net = FloatViT(dataclasses.replace(largest, **{**first, **change}))
    with pytest.raises(ConfigError) as caught:
        init_from_vit(SuperNet(made), net, "subnet.pt", keep_head=True)
    assert words in str(caught.value) and str(caught.value).startswith("subnet.pt: ")


@pytest.mark.parametrize("seed", range(12))
def test_quantisation_aware_training_rounds_every_kind(seed):
    """Rounded, but near; every parameter has a gradient; afterwards the network is as it was."""
    net = build_subnet(space(seed).largest(), seed)
    lively(net, seed)
    images = images_for(net.config, 8)
    with torch.no_grad():
        before = net.eval()(images)
    with fake_quantised(net, images):
        rounded = net.train()(images)
        rounded.square().sum().backward()
    assert 0 < (rounded.detach() - before).abs().max() < 0.2 * before.abs().max() + 0.1
    assert all(value.grad is not None for value in net.parameters())
    with torch.no_grad():
        np.testing.assert_array_equal(net.eval()(images), before)
