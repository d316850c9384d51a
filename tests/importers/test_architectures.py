# SPDX-License-Identifier: Apache-2.0
"""The table of timm's architectures in docs/import.md is what its command prints."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import load_script
from test_fixtures import load, run

import mcuformer
from mcuformer import SubnetConfig
from mcuformer.converter.importers import timm
from mcuformer.errors import McuformerError

ROOT = Path(__file__).parents[2]


def test_the_documents_table_is_what_the_command_prints():
    printed = subprocess.run(
        [sys.executable, "tools/timm_architectures.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert printed in (ROOT / "docs" / "import.md").read_text(encoding="utf-8")


def test_deit_tiny_with_its_class_token_is_among_them():
    content = json.loads((ROOT / "tools" / "timm_architectures.json").read_text())["architectures"]
    assert len(content) > 150 and sum("config" in entry for entry in content.values()) > 100
    config = SubnetConfig.from_dict(content["deit_tiny_patch16_224"]["config"])
    assert (config.tokens, config.pool, config.embed_dim, config.depth) == (197, "token", 192, 12)


def test_the_importers_file_is_made_of_the_tools():
    tool = load_script("tools/timm_architectures.py")
    packed = tool.pack(json.loads(tool.FILE.read_text(encoding="utf-8")))
    assert packed == tool.PACKED.read_text(encoding="utf-8")
    assert tool.PACKED.resolve() == timm.ARCHITECTURES.resolve()


def bare(width: int = 64, depth: int = 6) -> dict[str, torch.Tensor]:
    """A checkpoint with the sizes of timm's test_vit, of the fixture's layers: what no setting says."""
    given = torch.Generator().manual_seed(0)
    state = {}
    for name, value in load("timm-class-token").state.items():
        shape = [{32: width, 96: 3 * width, 128: 4 * width}.get(n, n) for n in value.shape]
        at, count = (name.split(".")[1], depth) if name.startswith("blocks.") else ("", 1)
        if at in ("", "0"):
            for i in range(count):
                state[name.replace("blocks.0", f"blocks.{i}")] = 0.1 * torch.randn(shape, generator=given)
    return state


def test_a_name_says_what_a_bare_checkpoint_does_not():
    state, image = bare(), load("timm-class-token").arrays["image"]
    net = mcuformer.import_vit(state, "timm", arch="test_vit")
    spelt = mcuformer.import_vit(
        state, "timm", num_heads=2, activation="gelu", norm_epsilon=1e-6, mean=0.5, std=0.5, pool="token"
    )
    np.testing.assert_array_equal(run(net, image), run(spelt, image))
    used = net.notes["imported"]["settings"]
    assert used["arch"] == "test_vit" and used["num_heads"] == 2 and used["mean"] == [0.5] * 3
    other = mcuformer.import_vit(state, "timm", arch="test_vit", pool="mean", std=1.0)  # trained further
    assert other.config.pool == "mean" and other.notes["imported"]["settings"]["std"] == 1.0
    tagged = mcuformer.import_vit(state, "timm", arch="test_vit.r160_in1k")
    np.testing.assert_array_equal(run(tagged, image), run(net, image))


CONFIG = {  # as timm's save_for_hf writes it
    "architecture": "test_vit", "num_classes": 10, "num_features": 64, "global_pool": "avg",
    "model_args": {"num_classes": 10, "global_pool": "avg", "img_size": [16, 16]},
    "pretrained_cfg": {"tag": "r160_in1k", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3], "num_classes": 10},
}  # fmt: skip


def hub_folder(folder: Path, **changes) -> Path:
    folder.mkdir()
    torch.save(bare(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder


def test_a_folder_of_timms_hub_says_all(tmp_path):
    folder, image = hub_folder(tmp_path / "net"), load("timm-class-token").arrays["image"]
    net = mcuformer.import_vit(folder, "timm")
    pixels = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3]}
    want = run(mcuformer.import_vit(bare(), "timm", arch="test_vit", pool="mean", **pixels), image)
    np.testing.assert_array_equal(run(net, image), want)
    given = mcuformer.import_vit(bare(), "timm", config=folder / "config.json", pool="token")  # counts more
    assert (net.config.pool, given.config.pool) == ("mean", "token")
    named = mcuformer.import_vit(folder, "timm", arch="test_vit.r160_in1k")  # so does a name: the file is not read
    assert (named.config.pool, named.notes["imported"]["settings"]["mean"]) == ("token", [0.5] * 3)
    (folder / "config.json").write_text('{"model_type": "vit"}')  # of another library
    with pytest.raises(McuformerError, match="num_heads, activation, norm_epsilon, mean, std are not in"):
        mcuformer.import_vit(folder, "timm")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "vit_small_patch16_rope_ape_224"}, "no plain ViT, DeiT or BEiT of timm's"),
        ({"architecture": "aimv2_1b_patch14_224"}, "a SwiGLU"),
        ({"architecture": ["test_vit"]}, "not a name"),
        ({"model_args": {"num_heads": 4}}, "model_args has num_heads: not the plain test_vit"),
        ({"global_pool": "map"}, "global_pool = 'map'"),
    ],
)
def test_a_config_of_timms_that_does_not_fit_is_one_line(changes, words, tmp_path):
    with pytest.raises(McuformerError) as caught:
        mcuformer.import_vit(hub_folder(tmp_path / "net", **changes), "timm")
    assert words in str(caught.value) and "config.json: " in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("vit_tiny_patch16_244", "near: vit_tiny_patch16_224"),
        ("resnet50", "no plain ViT, DeiT or BEiT of timm's"),
        ("aimv2_1b_patch14_224", "a SwiGLU"),
        ("vit_tiny_patch16_224.in1k", "its tags are augreg_in21k, augreg_in21k_ft_in1k"),
        ("deit_tiny_patch16_224", "width 64, and arch = 'deit_tiny_patch16_224' has 192"),
        (3, "arch = 3"),
    ],
)
def test_a_name_that_does_not_fit_is_one_line(arch, words):
    with pytest.raises(McuformerError) as caught:
        mcuformer.import_vit(bare(), "timm", arch=arch)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_name_leaves_open_is_asked_for():
    """Weights of one architecture were trained with several means; and a checkpoint may be cut short."""
    known = json.loads(timm.ARCHITECTURES.read_text())
    several = timm.architecture("vit_small_patch16_224")
    assert "mean" not in several and several["num_heads"] == 6
    for tag, (mean, std) in known["vit_small_patch16_224"]["pixels"].items():
        said = timm.architecture(f"vit_small_patch16_224.{tag}")
        assert (said["mean"], said["std"]) == (mean, std)
    with pytest.raises(
        McuformerError, match="layers 5, and arch = 'test_vit' has 6: another architecture, or cut short"
    ):
        mcuformer.import_vit(bare(depth=5), "timm", arch="test_vit")
