# SPDX-License-Identifier: Apache-2.0
"""Live modules of the libraries that are installed, imported without a file; the others are skipped by name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mcuformer
from mcuformer.errors import McuformerError, ModelError

sys.path.insert(0, str(Path(__file__).parent))

from originals import ORIGINALS, fill, image_of, pixels_of
from test_fixtures import TOLERANCE, run

BY_HAND = ("kwt", "kwt-columns")  # of no library
LIVE = [name for name in ORIGINALS if not name.endswith("-4") and name not in BY_HAND]


def built(name: str):
    """The module with random weights; skips where its library is not installed."""
    try:
        return fill(ORIGINALS[name].build(), 1)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")


@pytest.mark.parametrize("name", LIVE)
def test_a_live_module(name):
    original, module = ORIGINALS[name], built(name)
    if original.family == "vit-pytorch" and not isinstance(module.to_patch_embedding[1], torch.nn.Linear):
        with pytest.raises(ModelError, match="LayerNorm within the patch embedding"):
            mcuformer.import_vit(module, **original.live)
        return
    pixels = original.pixels if original.family == "timm" else {}  # this one has no pretrained_cfg
    image = image_of(original.image_shape, 2)
    with torch.no_grad():
        want = original.run(module, pixels_of(image, original.pixels)).numpy()
    net = mcuformer.import_vit(module, **{**original.live, **pixels, **pool_of(name)})
    np.testing.assert_allclose(run(net, image), want, rtol=0, atol=TOLERANCE)


def pool_of(name: str) -> dict:
    """ViTModel returns all its tokens."""
    return {"pool": "token"} if name == "hf-vit-no-head" else {}


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_an_architecture_of_timm_says_all_of_itself(name):
    timm = pytest.importorskip("timm")
    module = fill(timm.create_model(name), 3)
    image = image_of((224, 224, 3), 3)
    config = module.pretrained_cfg
    with torch.no_grad():
        want = module(pixels_of(image, {"mean": config["mean"], "std": config["std"]})).numpy()
    np.testing.assert_allclose(run(mcuformer.import_vit(module), image), want, rtol=0, atol=3e-5)


def small_of_timm(**options):
    timm = pytest.importorskip("timm")
    given = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 10}
    return fill(timm.create_model("deit_tiny_patch16_224", **{**given, **options}).eval(), 4)


@pytest.mark.parametrize(
    "channels, pixels", [(1, {"mean": 0.3, "std": 0.2}), (3, {"mean": [0.1, 0.2, 0.3], "std": 0.5})]
)
def test_pixels_of_a_network_that_was_trained_further(channels, pixels):
    """Grey, or normalised in another way than the pretrained weights of the architecture."""
    module, image = small_of_timm(in_chans=channels), image_of((16, 16, channels), 3)
    mean, std = (torch.tensor(pixels[name]).expand(channels)[None, :, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        want = module((torch.tensor(image.transpose(2, 0, 1)[None] / 255) - mean).div(std).float()).numpy()
    for given in (module, torch.nn.DataParallel(module)):
        np.testing.assert_allclose(run(mcuformer.import_vit(given, **pixels), image), want, rtol=0, atol=TOLERANCE)
    if channels == 1:
        with pytest.raises(McuformerError, match="mean, std are not in the module"):
            mcuformer.import_vit(module)


def test_a_module_that_was_changed_is_refused():
    changed = small_of_timm()
    changed.blocks[1].mlp = torch.nn.Sequential(changed.blocks[1].mlp, torch.nn.Tanh())
    with pytest.raises(ModelError, match=r"blocks.1.mlp is a Sequential, not a plain Mlp"):
        mcuformer.import_vit(changed)
    changed = small_of_timm()
    changed.blocks[1].attn.scale = 0.3
    with pytest.raises(ModelError, match=r"blocks.1.attn.scale = 0.3, not 1 / sqrt\(16\)"):
        mcuformer.import_vit(changed)
