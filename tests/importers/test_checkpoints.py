# SPDX-License-Identifier: Apache-2.0
"""Files as training scripts and libraries write them, and what else a source says of its network."""

from __future__ import annotations

import argparse
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_fixtures import NAMES, load, run

import mcuformer
from mcuformer.converter.importers import assemble
from mcuformer.errors import ConfigError, McuformerError, ModelError
from mcuformer.nas import build_subnet

NAME = "timm-class-token"
PIXELS = load("hf-dinov2").facts["pixels"]


def timm(source, **options):
    return mcuformer.import_vit(source, "timm", **{**load(NAME).settings, **options})


def same(net, name: str = NAME) -> None:
    arrays = load(name).arrays
    np.testing.assert_allclose(run(net, arrays["image"]), arrays["output"], rtol=0, atol=1e-5)


def refusal(*arguments, **options) -> str:
    """The one line."""
    with pytest.raises(McuformerError) as caught:
        mcuformer.import_vit(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hf_folder(folder, name="hf-dinov2", **changes):
    """As save_pretrained writes it."""
    fixture = load(name)
    folder.mkdir()
    save_file(fixture.state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**fixture.facts["config"], **changes}))
    return folder


@pytest.mark.parametrize("wrappers", ["module.", "model.", "module._orig_mod.", "backbone."])
def test_names_with_wrappers(wrappers):
    same(timm({f"{wrappers}{name}": value for name, value in load(NAME).state.items()}))


def test_a_training_scripts_checkpoint(tmp_path):
    state = load(NAME).state
    average = {"module.n_averaged": torch.tensor(7), **{f"module.{name}": value for name, value in state.items()}}
    other = {name: value + 1 for name, value in state.items()}
    optimiser = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    content = {"model": other, "model_ema": average, "optimizer": optimiser, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "state.pth")
    same(timm(tmp_path / "state.pth", weights="model_ema"))
    with pytest.raises(ModelError, match=r"state.pth: holds 2 state dicts \(model, model_ema\): choose one"):
        timm(tmp_path / "state.pth")
    with pytest.raises(ModelError, match="weights = 'ema' is no state dict in it; it holds: model, model_ema"):
        timm(tmp_path / "state.pth", weights="ema")


def test_other_files(tmp_path):
    fixture = load(NAME)
    torch.save(build_subnet(mcuformer.SubnetConfig(image_size=16, patch_size=8, depth=1)), tmp_path / "whole.pt")
    save_file(fixture.state, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(content[: len(content) // 2])
    torch.save(fixture.state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    same(timm(tmp_path / "old.pt"))
    torch.save(fixture.state, tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.pt").write_bytes(content)
    (tmp_path / "begun.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    (tmp_path / "empty").mkdir()
    for name, words in {
        "whole.pt": "code from a file is not run", "half.safetensors": "not a readable .safetensors file",
        "flipped.pt": "wrong checksum", "none.pt": "holds no state dict", "empty": "without model.safetensors",
        "begun.pt": "no checkpoint of torch, or not all of one", "pointer.pth": "no checkpoint of torch",
    }.items():  # fmt: skip
        message = refusal(tmp_path / name, "timm", **fixture.settings)
        assert name in message and words in message


def test_hugging_faces_folder_says_all(tmp_path):
    names = {str(i): f"animal {i}" for i in range(10)}
    folder = hf_folder(tmp_path / "net", id2label=names)
    assert refusal(folder, "hf").startswith("mean, std are not in ")
    processor = {"image_mean": PIXELS["mean"], "image_std": PIXELS["std"], "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    net = mcuformer.import_vit(folder, "hf")
    same(net, "hf-dinov2")
    assert net.notes["class_names"] == list(names.values())
    assert list(net.notes["imported"]["left_out"]) == ["dinov2.embeddings.mask_token"]
    assert "config.json says 2; leave it out" in refusal(folder, "hf", num_heads=4)
    assert "pixels are read from 0 to 1" in refusal(
        hf_with_processor(tmp_path / "other", {**processor, "rescale_factor": 1 / 127.5}), "hf"
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("hf-")])
def test_hugging_faces_config_says_all_but_what_a_model_without_a_head_returns(name):
    fixture = load(name)
    pool = {"pool": "token"} if name == "hf-vit-no-head" else {}
    same(mcuformer.import_vit(fixture.state, "hf", config=fixture.facts["config"], **PIXELS, **pool), name)


def hf_with_processor(folder, processor):
    (hf_folder(folder) / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"use_swiglu_ffn": True}, "SwiGLU"),
        ({"model_type": "swin"}, "model_type = 'swin'"),
        ({"model_type": "beit"}, "architecture Dinov2ForImageClassification"),
        ({"architectures": ["Dinov2Backbone"]}, "architecture Dinov2Backbone"),
        ({"hidden_act": "mish"}, "hidden_act = 'mish'"),
    ],
)
def test_a_config_of_another_network(changes, words, tmp_path):
    message = refusal(hf_folder(tmp_path / "net", **changes), "hf", **PIXELS)
    assert words in message and "config.json" in message


def test_a_config_that_is_none(tmp_path):
    folder = hf_folder(tmp_path / "net")
    (folder / "config.json").write_text("{")
    assert "not a readable config" in refusal(folder, "hf", **PIXELS)
    (folder / "config.json").write_text('{"model_type": "dinov2"}')
    assert "no 'image_size' in it" in refusal(folder, "hf", **PIXELS)
    shutil.copy(folder / "model.safetensors", tmp_path / "alone.safetensors")
    assert "num_heads, activation, norm_epsilon, mean, std are not in" in refusal(tmp_path / "alone.safetensors", "hf")


def test_names_of_deits_and_dinov2s_own_checkpoints():
    """LayerScale as DeiT III names it; registers as DINOv2 does, whose positions are the class token's and patches'."""
    arrays = load("timm-layer-scale").arrays
    state = {
        name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): value
        for name, value in load("timm-layer-scale").state.items()
    }
    net = mcuformer.import_vit(state, "timm", **load("timm-layer-scale").settings)
    np.testing.assert_allclose(run(net, arrays["image"]), arrays["output"], rtol=0, atol=1e-5)

    fixture = load("timm-registers")
    state = {name: value.float() for name, value in fixture.state.items()}
    state["register_tokens"] = state.pop("reg_token")
    own = torch.full((1, 1, 32), 0.25)
    state["pos_embed"] = torch.cat([own, state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - own
    same(mcuformer.import_vit({**state, "mask_token": torch.ones(1, 32)}, "timm", **fixture.settings), "timm-registers")


def test_positions_that_can_be_read_two_ways():
    fixture = load(NAME)
    wide = dict(fixture.settings)
    assert "16 positions are those of 2 x 8 or of 4 x 4" in refusal(fixture.state, "timm", image_size=(8, 32), **wide)
    net = mcuformer.import_vit(fixture.state, "timm", image_size=(8, 32), grid_shape=[2, 8], **wide)
    np.testing.assert_array_equal(net.position[0].detach(), fixture.state["pos_embed"][0, 1:])
    assert "for 16 or 15 patches, not the 4 x 5" in refusal(
        {**fixture.state, "pos_embed": fixture.state["pos_embed"][:, :16]}, "timm", grid_shape=[4, 5], **wide
    )
    odd = torch.cat([fixture.state["pos_embed"], torch.zeros(1, 3, 32)], dim=1)
    assert "set grid_shape" in refusal({**fixture.state, "pos_embed": odd}, "timm", **wide)


def test_padded_patches_leave_the_images_size_open():
    fixture = load("mcuformer-28")
    settings = {name: value for name, value in fixture.settings.items() if name != "image_size"}
    message = refusal(fixture.state, "autoformer", **settings)
    assert "6 pixels of padding leave it open: images 44 to 71 pixels high" in message
    shapes = [mcuformer.import_vit(fixture.state, "autoformer", image_size=size, **settings).config.image_shape
              for size in ((44, 44), (71, 71))]  # fmt: skip
    assert shapes == [(44, 44, 3), (71, 71, 3)]


def test_patches_of_another_size():
    """FlexiViT's resize to twice the size, undone by averaging: what a kernel says of images enlarged twice stays."""
    fixture = load("timm-mean")
    weight = fixture.state["patch_embed.proj.weight"].double()
    enlarged = assemble.pi_resize(weight, (8, 8))
    image = torch.randn(1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    twice = torch.nn.functional.interpolate(image, (8, 8), mode="bicubic", antialias=True)
    torch.testing.assert_close((enlarged * twice).sum((1, 2, 3)), (weight * image).sum((1, 2, 3)))
    net = mcuformer.import_vit(fixture.state, "timm", patch_size=8, **fixture.settings)
    assert (net.config.image_shape, net.config.patch_size, net.config.patch_tokens) == ((16, 16, 3), 8, 4)
    same = mcuformer.import_vit(fixture.state, "timm", patch_size=4, **fixture.settings)
    image = fixture.arrays["image"]
    np.testing.assert_array_equal(run(same, image), run(timm(fixture.state, **fixture.settings), image))
    assert "patch_size = 257: at most 256" in refusal(fixture.state, "timm", patch_size=257, **fixture.settings)
    assert "smaller than a patch" in refusal(fixture.state, "timm", patch_size=17, **fixture.settings)


def test_a_scale_of_attention_goes_into_q():
    state, settings = load(NAME).state, load(NAME).settings
    scaled = {name: value.clone().float() for name, value in state.items()}
    for name in ("blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias", "blocks.1.attn.qkv.weight",
                 "blocks.1.attn.qkv.bias"):  # fmt: skip
        scaled[name][:32] /= 3
    same(mcuformer.import_vit(scaled, "timm", attention_scale=3 / 16**0.5, **settings))


def test_more_that_is_refused():
    state, settings = load(NAME).state, load(NAME).settings
    many = {**state, "head.weight": torch.zeros(21843, 32), "head.bias": torch.zeros(21843)}
    assert "21,843 classes, more than 16,384: choose some with classes" in refusal(many, "timm", **settings)
    assert mcuformer.import_vit(many, "timm", classes=[7, 21842], **settings).config.num_classes == 2
    gated = {**state, "blocks.1.mlp.fc2.weight": torch.zeros(32, 64)}
    assert "a gated one (SwiGLU)" in refusal(gated, "timm", **settings)
    rms = {name: value for name, value in state.items() if name != "blocks.0.norm1.bias"}
    assert "an RMSNorm" in refusal(rms, "timm", **settings)
    both = {**state, "fc_norm.weight": torch.ones(32), "fc_norm.bias": torch.ones(32)}
    assert "a second LayerNorm" in refusal(both, "timm", **settings)
    whole = {**state, "cls_token": torch.ones(1, 1, 32, dtype=torch.int8)}
    assert "cls_token" in refusal(whole, "timm", **settings)
    mean = {**load("vit-pytorch").settings, "pool": "mean"}
    assert "set pool=mean-all" in refusal(load("vit-pytorch").state, "vit-pytorch", **mean)
    token = {**load("timm-distilled").settings, "pool": "token"}
    assert "pool = 'token'" in refusal(load("timm-distilled").state, "timm", **token)
    deeper = {**load("autoformer").settings, "depth": 4}
    assert "the supernet has 3 layers" in refusal(load("autoformer").state, "autoformer", **deeper)
    wider = {**load("autoformer").settings, "embed_dim": 129}
    assert "needs 129 of its 128" in refusal(load("autoformer").state, "autoformer", **wider)


@pytest.mark.parametrize(
    "lines, words", [("", "none"), ("cat\n", "'cat'"), ("3\n3\n", "twice"), ("10\n", "10 is not a class")]
)
def test_classes_that_make_no_sense(lines, words, tmp_path):
    (tmp_path / "keep.txt").write_text(lines)
    assert words in refusal(load(NAME).state, "timm", classes=tmp_path / "keep.txt", **load(NAME).settings)


@pytest.mark.parametrize("name", ["timm-layer-scale", "hf-dinov2", "torchvision", "vit-pytorch", "autoformer"])
@pytest.mark.parametrize("damage", ["gone", "shorter", "narrower", "a number"])
def test_every_damaged_tensor_is_named_in_one_line(name, damage):
    fixture = load(name)
    for key, value in fixture.state.items():
        if "blocks.2." in key or (name == "autoformer" and damage in ("shorter", "narrower")):
            continue  # of a supernet a subnet needs a part
        if damage == "narrower" and value.ndim == 4:
            continue  # a patch of other sides
        state = dict(fixture.state)
        state[key] = {"shorter": value[:-1], "narrower": value[..., :-1], "a number": torch.tensor(1.0)}.get(damage)
        if state[key] is None:
            del state[key]
        if damage == "gone" and key in ONCE:
            mcuformer.import_vit(state, fixture.family, **fixture.settings)  # such networks there are
            continue
        if key.endswith("mask_token"):
            continue
        message = refusal(state, fixture.family, **fixture.settings)
        assert len(message) < 400, message


# Biases that a network may lack: no other layer says that they should be there.
ONCE = (
    "patch_embed.proj.bias", "head.bias", "dinov2.embeddings.patch_embeddings.projection.bias", "classifier.bias",
    "conv_proj.bias", "heads.head.bias", "to_patch_embedding.1.bias", "mlp_head.1.bias", "norm_pre.weight",
)  # fmt: skip


def test_a_layer_that_lacks_what_another_has(tmp_path):
    fixture = load(NAME)
    state = {name: value for name, value in fixture.state.items() if name != "blocks.1.attn.qkv.bias"}
    message = refusal(state, "timm", **fixture.settings)
    assert "tensor 'blocks.1.attn.qkv.bias' is missing, and 'blocks.0.attn.qkv.bias' is there" in message
    folder = hf_folder(tmp_path / "net", num_hidden_layers=3)
    assert "holds 2 layers of 3" in refusal(folder, "hf", **PIXELS)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"mean": [0.5, 0.5]}, "mean has 2 values for images of 3 channels"),
        ({"mean": [float("nan")]}, "mean = [nan]"),
        ({"std": 1e-45}, "beyond float32"),
        ({"pool": "token+mean"}, 'the head reads 32 values, and pool = "token+mean" makes 64'),
        ({"prefix_positions": 5}, "there are 1 prefix tokens"),
        ({"image_size": "large"}, "image_size = 'large'"),
        ({"image_size": (16, 16, 3)}, "image_size = (16, 16, 3)"),
        ({"image_size": 2}, "smaller than a patch"),
        ({"classes": 3.5}, "classes = [3.5]"),
        ({"low_rank": 2}, "low_rank = 2"),
        ({"low_rank_attention": 0}, "low_rank_attention = 0: must be a number in (0, 1]"),
    ],
)
def test_an_option_that_makes_no_sense(options, words):
    assert words in refusal(load(NAME).state, "timm", **{**load(NAME).settings, **options})


def test_sources_that_are_none():
    assert "family is not given: one of timm, hf" in refusal(load(NAME).state)
    assert "no network that is known" in refusal(torch.nn.Linear(2, 2))
    with torch.device("meta"):
        module = torch.nn.Linear(2, 2)
    assert "without weights" in refusal(module)
    with pytest.raises(ConfigError, match="family torchvision has none; only hf and timm do"):
        mcuformer.import_vit(load("torchvision").state, "torchvision", config={}, **load("torchvision").settings)
