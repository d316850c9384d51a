# SPDX-License-Identifier: Apache-2.0
"""The oldest versions that setup.cfg allows: installed in a virtual environment, they train, convert, run and search.

A floor that pip cannot have any more is one to raise. Some 3 minutes and 5 GB, of which PyTorch with what it needs of
CUDA is the most.

    make test-slow PYTEST_ARGS="tests/project/test_floors.py -s"
"""

import configparser
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from test_clean_root import project_files

ROOT = Path(__file__).resolve().parents[2]
NETWORK = ("stem=patch", "image_size=16", "in_channels=3", "patch_size=4", "embed_dim=16", "depth=1", "num_heads=2",
           "num_classes=2")  # fmt: skip
SPACE = """
{image_size: 16, in_channels: 3, num_classes: 2, patch_size: [4], embed_dim: [8, 16], depth: [1, 2], num_heads: [2],
 head_dim: 4, mlp_ratio: [1.0, 2.0]}
"""


def setup_cfg() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg", encoding="utf-8")
    return found


def requirements(text: str) -> list[Requirement]:
    """Of a list in setup.cfg, those for this machine."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [Requirement(line) for line in lines]
    return [one for one in found if one.marker is None or one.marker.evaluate()]


def floor(requirement: Requirement) -> str:
    """The one version that it begins with."""
    (bound,) = requirement.specifier
    assert bound.operator == ">=", requirement
    return bound.version


REQUIRED = requirements(setup_cfg()["options"]["install_requires"])
BUILT_WITH = [one for one in requirements(setup_cfg()["options.extras_require"]["dev"]) if one.name == "setuptools"]


@pytest.mark.parametrize("requirement", REQUIRED, ids=lambda one: one.name)
def test_every_requirement_has_a_floor_below_what_is_tested(requirement):
    pinned = re.search(rf"^{requirement.name}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned and requirement.specifier.contains(pinned[1], prereleases=True), requirement
    assert floor(requirement) != pinned[1], "the floor is tried by other tests"


def test_the_floors_of_python_and_setuptools_are_said_once_the_same():
    (setuptools,) = BUILT_WITH
    assert f'requires = ["{setuptools}"]' in (ROOT / "pyproject.toml").read_text()
    wanted = setup_cfg()["options"]["python_requires"].removeprefix(">=")
    for document in ("README.md", "CONTRIBUTING.md"):
        assert f"Python {wanted} or newer" in (ROOT / document).read_text(), document


class Oldest:
    """A virtual environment with the oldest of everything, and the package."""

    def __init__(self, folder: Path):
        self.folder, self.python = folder, folder / "venv" / "bin" / "python"
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PIP_CONSTRAINT")}
        self.environment = {**kept, "OMP_NUM_THREADS": "1"}
        self.run(sys.executable, "-m", "venv", folder / "venv")
        floors = [f"{one.name}=={floor(one)}" for one in (*REQUIRED, *BUILT_WITH)]
        self.pip(*floors)
        for name in project_files():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
        self.pip("--no-build-isolation", "--no-deps", folder / "source")
        shutil.rmtree(folder / "source")
        print(self.run(self.python, "-m", "pip", "check"))

    def pip(self, *arguments: str | Path) -> None:
        """Installs. Skips where pip finds no such version, or no index at all."""
        command = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        done = self._done(*command, *arguments)
        if found := re.search(r"^ERROR: (No matching distribution found .*)$", done.stderr, re.MULTILINE):
            pytest.skip(found[1])
        assert done.returncode == 0, done.stderr

    def mcuformer(self, *arguments: str | Path) -> str:
        """What it prints, which holds no warning of Python's, as for a name that a library does not know yet."""
        printed = self.run(self.python, "-m", "mcuformer", *arguments)
        assert "Warning" not in printed, printed
        return printed

    def run(self, *command: str | Path) -> str:
        done = self._done(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _done(self, *command: str | Path) -> subprocess.CompletedProcess:
        start = time.monotonic()
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        print(f"$ {' '.join(map(str, command))}    # {time.monotonic() - start:.0f} s", flush=True)
        return done


@pytest.fixture(scope="module")
def oldest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oldest")
    try:
        made = Oldest(folder)
        write_pictures(folder / "pictures")
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_pictures(folder: Path) -> None:
    """Two classes, dark and light."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for label, name in enumerate(("dark", "light")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(120 * label, 120 * label + 100, (20, 20, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


@pytest.mark.slow
def test_a_network_is_trained_converted_run_and_exported(oldest):
    settings = [word for setting in NETWORK for word in ("--set", setting)]
    oldest.mcuformer("train", "--data", "pictures", *settings, "--epochs", "2", "-o", "subnet.pt")
    oldest.mcuformer("convert", "subnet.pt", "--data", "pictures", "-o", "model.tflite")
    engines = ["c", "tflm"] if any(one.name == "tflite-micro" for one in REQUIRED) else ["c"]
    for engine in engines:
        printed = oldest.mcuformer("run", "model.tflite", "--data", "pictures", "--engine", engine, "--reference")
        assert "every logit equals the integer reference" in printed and "top-1 100.00 % on 16 images" in printed
    oldest.mcuformer("inspect", "model.tflite", "--plot", "plan.png")
    assert Image.open(oldest.folder / "plan.png").size > (100, 100)
    oldest.mcuformer("export", "model.tflite", "--to", "c", "-o", "exported")
    assert (oldest.folder / "exported" / "models" / "model" / "model.h").is_file()


@pytest.mark.slow
def test_a_supernet_is_trained_and_searched(oldest):
    (oldest.folder / "space.yaml").write_text(SPACE)
    oldest.mcuformer("train", "--space", "space.yaml", "--data", "pictures", "--epochs", "1", "-o", "supernet.pt")
    few = ["--population", "4", "--generations", "1", "--children", "2"]
    oldest.mcuformer("search", "supernet.pt", "--board", "nano33ble", *few, "-o", "best.pt")
    oldest.mcuformer("convert", "best.pt", "--data", "pictures", "--board", "nano33ble", "-o", "best.tflite")
    printed = oldest.mcuformer("run", "best.tflite", "--data", "pictures", "--reference")
    assert "every logit equals the integer reference" in printed
