# SPDX-License-Identifier: Apache-2.0
"""Every fixture, imported, computes what the original did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from originals import ORIGINALS

import mcuformer
from mcuformer.converter.importers import FAMILIES
from mcuformer.nas import load_subnet, save_subnet

ROOT = Path(__file__).parents[2]
FIXTURES = Path(__file__).parent / "fixtures"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.json"))
TOLERANCE = 1e-5


class Fixture(NamedTuple):
    """facts: of its .json. arrays: image, input and output of the original, perhaps resized ones."""

    facts: dict[str, Any]
    state: dict[str, torch.Tensor]
    arrays: dict[str, np.ndarray]

    @property
    def family(self) -> str:
        return self.facts["family"]

    @property
    def settings(self) -> dict[str, Any]:
        """All that the importer cannot see in the state dict."""
        return {**self.facts["settings"], **self.facts["pixels"]}


def load(name: str) -> Fixture:
    with np.load(FIXTURES / f"{name}.npz") as stored:
        arrays = dict(stored)
    state = {key.removeprefix("weights/"): torch.tensor(arrays.pop(key)) for key in list(arrays) if "weights/" in key}
    return Fixture(json.loads((FIXTURES / f"{name}.json").read_text()), state, arrays)


def imported(name: str, **options) -> Any:
    fixture = load(name)
    return mcuformer.import_vit(fixture.state, fixture.family, **{**fixture.settings, **options})


def run(net, image: np.ndarray) -> np.ndarray:
    """The float network on one uint8 image."""
    x = torch.tensor(image[None].transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1, dtype=torch.float32)
    with torch.no_grad():
        return net(x).numpy()


def test_every_original_has_a_fixture_and_every_family_has_some():
    assert sorted(ORIGINALS) == NAMES and {load(name).family for name in NAMES} == set(FAMILIES)
    assert f"compares {len(NAMES)} fixtures" in (ROOT / "docs" / "import.md").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in FIXTURES.iterdir()) <= 2_000_000
    for name in NAMES:
        fixture = load(name)
        assert all(value.dtype == torch.float16 for value in fixture.state.values()) and fixture.facts["versions"]
        want = (fixture.arrays["image"] / 255 - fixture.facts["pixels"]["mean"]) / fixture.facts["pixels"]["std"]
        np.testing.assert_allclose(fixture.arrays["input"][0].transpose(1, 2, 0), want, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_original(name, tmp_path):
    fixture = load(name)
    net = imported(name)
    output = fixture.arrays["output"]
    assert output.std() > 0.1, "an output that says something"
    got = run(net, fixture.arrays["image"])
    np.testing.assert_allclose(got, output, rtol=0, atol=TOLERANCE)
    save_subnet(net, tmp_path / "subnet.pt", net.notes)
    loaded = load_subnet(tmp_path / "subnet.pt")
    np.testing.assert_array_equal(run(loaded, fixture.arrays["image"]), got)
    assert loaded.notes["imported"]["family"] == fixture.family


@pytest.mark.parametrize("name", [name for name in NAMES if "resized_image" in load(name).arrays])
def test_resized_as_its_library_resizes(name):
    arrays, more = load(name).arrays, load(name).facts.get("resized_settings", {})
    image = arrays["resized_image"]
    got = run(imported(name, image_size=image.shape[:2], **more), image)
    np.testing.assert_allclose(got, arrays["resized_output"], rtol=0, atol=TOLERANCE)
