# SPDX-License-Identifier: Apache-2.0
"""A network of rectangular images and patches from a folder of pictures, by the commands alone."""

import json

import numpy as np
import pytest
from command_line import forked, mistake
from PIL import Image

SETTINGS = [
    "stem=patch", "image_size=12x20", "in_channels=3", "patch_size=3x10", "embed_dim=16", "depth=1", "num_classes=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures of two classes and of many sizes, and what training on them makes."""
    folder, rng = tmp_path_factory.mktemp("rectangles"), np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name, level in (("dark", 60), ("light", 190)):
            (folder / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                shape = (*rng.integers(10, 60, 2), 3)
                pixels = np.clip(rng.normal(level, 30, shape), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "data" / split / name / f"{i}.png")
    given = [part for setting in SETTINGS for part in ("--set", setting)]
    forked("train", "--data", folder / "data", *given, "--epochs", "1", "-o", folder / "subnet.pt")
    forked("convert", folder / "subnet.pt", "--data", folder / "data", "--strips", "-o", folder / "model.tflite")
    return folder


def test_the_whole_way(files):
    model, result = files / "model.tflite", files / "run.json"
    ran = forked("run", model, "--data", files / "data", "--reference", "--json", result)
    assert "every logit equals the integer reference" in ran.stdout
    assert json.loads(result.read_text())["images"] == 6


def test_inspect_writes_sizes_as_the_command_line_takes_them(files):
    shown = forked("inspect", files / "model.tflite", "--json", files / "inspect.json").stdout
    assert "image_size 12x20, " in shown and "patch_size 3x10, " in shown
    assert json.loads((files / "inspect.json").read_text())["config"]["image_size"] == [12, 20]


def test_patches_that_a_convolution_stem_cannot_make(files, tmp_path):
    """Of the recipe, whose stem that is; without it, its channels go too."""
    fix = "stem = 'patch' takes any"
    given = ["--set", "image_size=12x20", "--set", "patch_size=3x10"]
    assert fix in mistake("train", "--data", files / "data", *given, "-o", tmp_path / "none.pt")
    assert "leave it out" in mistake("train", "--set", "stem=patch", "--set", "stem_channels=[8]", "-o", "none.pt")
