# SPDX-License-Identifier: Apache-2.0
"""mcuformer report: a page of what is there, in a browser, without a request; what is missing or damaged is said."""

import html
import json
import random
import shutil

import numpy as np
import pytest
import torch
from command_line import mistake
from conftest import TINY, lively_subnet, structured_images
from report_browser import Browser

from mcuformer import convert
from mcuformer.cli.report import report
from mcuformer.cli.run import run
from mcuformer.cli.search import ChosenSubnet
from mcuformer.nas import SuperNet, save_subnet
from mcuformer.nas.cost import Budget, cost_of
from mcuformer.nas.search import SearchOptions, search
from mcuformer.nas.search_space import SearchSpace

SPACE = SearchSpace.from_dict(
    {
        "image_size": 16, "in_channels": 1, "num_classes": 5, "stem": "patch", "patch_size": [4, 8],
        "embed_dim": [16, 24], "depth": [1, 2], "head_dim": 8, "num_heads": [1, 2], "kv_heads": ["all"],
        "mlp_ratio": [1, 2],
    }
)  # fmt: skip
NAMES = ("<script>alert(1)</script>", "b&b", 'c"c', "d", "e")
BUDGET = Budget(sram=20_000)


def write_json(path, content, command):
    path.write_text(json.dumps({**content, "command": command}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a search, a training, a conversion and a run leave; class names that are no HTML."""
    folder = tmp_path_factory.mktemp("run")
    rng = random.Random(0)
    options = SearchOptions(population=8, generations=1, children=4, objective="front")
    found = search(
        SPACE, lambda config: 0.5 + config.embed_dim / 100 + 0.1 * rng.random(), cost_of, BUDGET, options,
        log=folder / "search.jsonl",
    )  # fmt: skip
    chosen = ChosenSubnet(folder / "subnet.pt", found, BUDGET, 100, record={})
    write_json(folder / "search.json", chosen.to_dict(), "mcuformer search <b>supernet.pt</b> --sram 20000")
    (folder / "train.csv").write_text("epoch,loss,accuracy,stage\n1,2.5,0.4,first\n2,1.5,0.6,second\n")
    images = structured_images(TINY, 40)
    net = lively_subnet(TINY, 0)
    save_subnet(net, folder / "subnet.pt", {"float_top1": 0.625, "class_names": list(NAMES)})
    convert(net, images[:16], class_names=NAMES).save(folder / "model.tflite")
    np.savez(folder.parent / "data.npz", images=images, labels=np.arange(40) % 5)
    ran = run(folder / "model.tflite", data=str(folder.parent / "data.npz"), split="all", per_class=True)
    write_json(folder / "run.json", ran.to_dict(), "mcuformer run model.tflite --per-class")
    return folder


def test_the_page_says_what_is_there_and_what_is_missing(folder, tmp_path):
    made = report(folder, output=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert [what for what, _ in made.missing] == ["Evolution of the space", "Pictures"]
    assert "mcuformer evolve" in dict(made.missing)["Evolution of the space"] and "mcuformer evolve" in page
    for word in (
        "Search",
        "Memory plan",
        "Instructions of each op",
        "62.50",
        "loss",
        "accuracy",
        "sram at most 20,000",
    ):
        assert word in page, word
    assert "stage" not in page  # a column of words is no curve
    result = json.loads((folder / "search.json").read_text())
    assert all(f"{row['sram']:,}" in page for row in result["front"])
    assert "the 64-bit interpreter" in page
    before = (tmp_path / "report.html").read_bytes()
    report(folder, output=tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == before


def test_no_text_becomes_html(folder, tmp_path):
    report(folder, output=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page and "<b>supernet" not in page
    assert html.escape(NAMES[0]) in page and "&lt;b&gt;supernet.pt" in page
    assert page.count("<script") == 1 and "http" not in page.replace("http-equiv", "")


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_nothing_is_asked_for_and_a_dot_says_its_network(folder, tmp_path, width):
    report(folder, output=tmp_path / "report.html")
    address = (tmp_path / "report.html").as_uri()
    (tmp_path / "profile").mkdir()
    with Browser(tmp_path / "profile", width, 800) as browser:
        browser.open(address)
        assert browser.value("document.getElementById('tip').hidden")
        browser.point("circle.front")
        assert not browser.value("document.getElementById('tip').hidden")
        said = browser.value("document.getElementById('tip').textContent")
        assert "on the front" in said and "tokens of width" in said and "held-out top-1" in said
        for side, most in (("left", width), ("right", width)):
            assert 0 <= browser.value(f"document.getElementById('tip').getBoundingClientRect().{side}") <= most
        browser.point("rect.cell")
        assert NAMES[0] in browser.value("document.getElementById('tip').textContent")
        browser.point("h1")
        assert browser.value("document.getElementById('tip').hidden")
        assert browser.value("document.documentElement.scrollWidth") <= width  # only charts and tables scroll aside
        assert [asked for asked in browser.requests if not asked.startswith("data:")] == [address]
        assert browser.errors == []


def test_damaged_and_foreign_files_are_named_and_the_rest_is_shown(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "broken.json").write_text('{"best": 1, "front": 2, "judged": 3}')
    (copy / "half.json").write_text("{")
    (copy / "list.json").write_text("[]")
    (copy / "other.csv").write_text("a,b\n1,2\n")
    (copy / "notes.txt").write_text("mine")
    (copy / "model.tflite").write_bytes((copy / "model.tflite").read_bytes()[:1000])
    torch.save({}, copy / "foreign.pt")
    lines = (copy / "search.jsonl").read_bytes()
    (copy / "search.jsonl").write_bytes(lines[:-20])  # being written, or cut short by a kill
    made = report(copy, output=tmp_path / "report.html")
    named = {name for name, _ in made.material.unused}
    assert named == {
        "broken.json", "half.json", "list.json", "other.csv", "notes.txt", "model.tflite", "foreign.pt"
    }  # fmt: skip
    assert "Memory plan" in dict(made.missing) and "Search" not in dict(made.missing)


def test_a_supernet_is_known(folder, tmp_path):
    from mcuformer.nas import save_supernet

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    save_supernet(SuperNet(SPACE, 0), copy / "supernet.pt", {})
    made = report(copy, output=tmp_path / "report.html")
    assert [name for name, _ in made.material.unused] == ["supernet.pt"]


def test_mistakes_are_one_line(folder, tmp_path):
    assert "no such folder" in mistake("report", tmp_path / "none", "-o", tmp_path / "a.html")
    (tmp_path / "empty").mkdir()
    assert "holds nothing that a report shows" in mistake("report", tmp_path / "empty", "-o", tmp_path / "a.html")
    assert "board 'none' is unknown" in mistake("report", folder, "--board", "none", "-o", tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()
