# SPDX-License-Identifier: Apache-2.0
"""Subnets: built from any config, saved, loaded, and refused where the file is not one."""

import os
import pickle

import pytest
import torch

from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ModelError
from mcuformer.nas import build_subnet, load_subnet, save_subnet, saved_network

SMALL = dict(image_size=16, in_channels=2, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5)
CONFIGS = {
    "plain": SubnetConfig(**SMALL),
    "per-layer": SubnetConfig(
        **SMALL | dict(num_heads=(2, 5), head_dim=(8, 4), mlp_ratio=(1.5, 4.0), rank_ratio=(None, 0.5))
    ),
    "kv-heads": SubnetConfig(**SMALL | dict(num_heads=(4, 6), head_dim=4, kv_heads=(1, 2))),
    "rank": SubnetConfig(**SMALL | dict(rank_ratio=0.25)),
    "conv-stem": SubnetConfig(**SMALL | dict(stem="conv")),
    "conv-stem-channels": SubnetConfig(**SMALL | dict(stem="conv", stem_channels=(12,), image_size=17)),
    "cropped": SubnetConfig(**SMALL | dict(image_size=19)),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def images_for(config: SubnetConfig, n: int = 3) -> torch.Tensor:
    shape = (n, config.in_channels, config.image_size, config.image_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "subnet.pt"
    save_subnet(build_subnet(CONFIGS["plain"]), path)
    return path


@each_config
def test_forward_gives_one_row_of_logits_an_image(config):
    seen = {}
    net = build_subnet(config).eval()
    with torch.inference_mode():
        logits = net(images_for(config), lambda name, value: seen.update({name: value.shape}))
    assert logits.shape == (3, config.num_classes) and torch.isfinite(logits).all()
    assert seen["embed"] == (3, config.tokens, config.embed_dim)
    for i, layer in enumerate(config.layers):
        assert seen[f"layers.{i}.qkv"] == (3, config.tokens, layer.qkv_dim)
        assert seen[f"layers.{i}.attention"] == (3, config.tokens, layer.q_dim)
        assert seen[f"layers.{i}.fc1"] == (3, config.tokens, layer.mlp_dim)
        assert (f"layers.{i}.fc1.rank" in seen) == (layer.rank is not None)
        if layer.rank is not None:
            assert seen[f"layers.{i}.fc1.rank"] == seen[f"layers.{i}.fc2.rank"] == (3, config.tokens, layer.rank)


@each_config
def test_parameters_follow_the_config(config):
    d = config.embed_dim
    net = build_subnet(config)
    for module, layer in zip(net.layers, config.layers, strict=True):
        assert module.attention.qkv.weight.shape == (layer.qkv_dim, d)
        assert module.attention.proj.weight.shape == (d, layer.q_dim)
        if layer.rank is None:
            assert module.mlp.fc1.weight.shape == (layer.mlp_dim, d)
        else:
            assert module.mlp.fc1.down.weight.shape == (layer.rank, d)
            assert module.mlp.fc2.up.weight.shape == (d, layer.rank)


def test_cropped_pixels_do_not_matter():
    config = CONFIGS["cropped"]
    net = build_subnet(config).eval()
    images = images_for(config)
    changed = images.clone()
    changed[:, :, 16:], changed[:, :, :, 16:] = 1.0, -1.0
    assert torch.equal(net(images), net(changed))


def test_the_seed_decides_the_weights():
    first, second, other = (build_subnet(CONFIGS["conv-stem"], seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@each_config
def test_saved_and_loaded_gives_the_same_logits(config, tmp_path):
    net = build_subnet(config)
    images = images_for(config, 8)
    net.train()(images)  # batch norm has seen something
    net.eval()
    save_subnet(net, tmp_path / "subnet.pt", notes={"top1": 0.5})
    loaded = load_subnet(tmp_path / "subnet.pt")
    assert loaded.config == config
    assert not loaded.training
    assert torch.equal(net(images), loaded(images))
    assert os.listdir(tmp_path) == ["subnet.pt"]


@pytest.mark.parametrize("keep", [0, 1, 100, 2000, -1])
def test_a_cut_file_is_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ModelError, match="subnet.pt: not a readable subnet.pt") as caught:
        load_subnet(saved)
    assert "\n" not in str(caught.value)


def test_a_foreign_file_is_refused(saved):
    saved.write_bytes(b"TFL3 is something else" * 100)
    with pytest.raises(ModelError, match="not a readable"):
        load_subnet(saved)
    for foreign in ({"state_dict": {}}, [1, 2], {"format": "mcuformer.subnet/99"}):
        torch.save(foreign, saved)
        with pytest.raises(ModelError, match="not an MCUFormer subnet.* `mcuformer import` another"):
            load_subnet(saved)


class Payload:
    """Makes a folder as soon as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))])
def test_code_in_a_file_is_not_run(saved, tmp_path, save):
    trap = tmp_path / "trap"
    save({"format": "mcuformer.subnet/1", "config": Payload(trap)}, saved)
    with pytest.raises(ModelError, match="not a readable"):
        load_subnet(saved)
    assert not trap.exists()


def change(path, **parts):
    content = torch.load(path, weights_only=True)
    content.update(parts)
    torch.save(saved_network.sealed(content), path)


@pytest.mark.parametrize("config", [{"embed_dim": 0}, {"unknown": 1}, None, "A"])
def test_a_config_that_makes_no_sense_is_refused(saved, config):
    change(saved, config=config)
    with pytest.raises(ModelError) as caught:
        load_subnet(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fields", [{"embed_dim": 48}, {"depth": 3}, {"rank_ratio": 0.5}, {"stem": "conv"}])
def test_weights_of_another_config_are_refused(saved, fields):
    change(saved, config={**CONFIGS["plain"].to_dict(), **fields})
    with pytest.raises(ModelError, match="weights do not fit the config") as caught:
        load_subnet(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("state", [None, {}, {"head.weight": 3}, "weights"])
def test_missing_weights_are_refused(saved, state):
    change(saved, state=state)
    with pytest.raises(ModelError, match="weights do not fit the config"):
        load_subnet(saved)


def test_no_file_is_named(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(ModelError, match="no such file|a folder"):
            load_subnet(path)
