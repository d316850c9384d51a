# SPDX-License-Identifier: Apache-2.0
"""docs/imagenet.md: every command runs, on a made-up ImageNet folder, shortened where it would take days.

All in this process, where the images are too many for memory, as ImageNet's are.
"""

import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mcuformer.cli import main
from mcuformer.data import image_folder
from mcuformer.nas import space_trainer

DOC = Path(__file__).parents[2] / "docs" / "imagenet.md"
CLASSES = 1000
SHORTER = {
    "--epochs": "1", "--visits": "3", "--population": "2", "--generations": "1", "--images": "2",
    "batch_size": "2", "warmup_epochs": "1",
}  # fmt: skip
LIMITED = {"evolve": 4, "train": 4, "finetune": 2}  # commands that take --limit, and training images for them


def commands() -> list[list[str]]:
    """The commands of the page, as words."""
    block = re.search(r"```\n(export DATA.*?)```", DOC.read_text(), re.DOTALL)[1]
    lines = [line for line in block.splitlines() if line and not line.startswith(("#", "export"))]
    return [shlex.split(line) for line in lines]


def shortened(words: list[str], data: Path) -> list[str]:
    """mcuformer's own words in one process, with small numbers for large ones."""
    words = words[words.index("mcuformer") + 1 :]
    words = [str(data) if word == "$DATA" else word for word in words]
    for i, word in enumerate(words[:-1]):
        if word in SHORTER:
            words[i + 1] = SHORTER[word]
        if word == "--option" and (name := words[i + 1].split("=")[0]) in SHORTER:
            words[i + 1] = f"{name}={SHORTER[name]}"
    if (limit := LIMITED.get(words[0])) is not None:
        words += ["--limit", str(limit)]
    if words[0] in ("evolve", "train"):
        words += ["--held-out", "2", "--no-stratified"]  # of classes that have one image each here
    return words


@pytest.fixture
def imagenet(tmp_path):
    """A folder a class in train/, of one image each, and few images in val/."""
    rng = np.random.default_rng(0)
    for i in range(CLASSES):
        for split in ("train", "val") if i < 2 else ("train",):
            folder = tmp_path / "imagenet" / split / f"n{i:08d}"
            folder.mkdir(parents=True)
            pixels = rng.integers(0, 256, (40, 52, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{split}_{i}.JPEG")
    return tmp_path / "imagenet"


def test_every_command_of_the_page_runs(imagenet, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(image_folder, "MAX_BYTES", 1)
    monkeypatch.setattr(space_trainer, "ACCURACY_SUBNETS", 2)
    monkeypatch.setattr(space_trainer, "SHARE_SUBNETS", 20)
    found = commands()
    assert [words[words.index("mcuformer") + 1] for words in found] == [
        "evolve", "train", "search", "finetune", "convert", "run",
    ]  # fmt: skip
    for words in found:
        monkeypatch.setattr(sys, "argv", ["mcuformer", *shortened(words, imagenet)])
        main()  # ends the process, and so this test, if the command fails
    assert "top-1" in capsys.readouterr().out.splitlines()[-1]
    assert {"space.yaml", "supernet.pt", "subnet.pt", "finetuned.pt", "model.tflite"} <= set(os.listdir(tmp_path))
