# SPDX-License-Identifier: Apache-2.0
"""Which classes are taken for which: the numbers, the commands' table and JSON, the pictures."""

import json

import numpy as np
import pytest
from command_line import forked, mistake
from conftest import HEADLESS, TINY, lively_subnet, structured_images
from PIL import Image

from mcuformer import Interpreter, convert
from mcuformer.confusion import confusion_of, worst

NAMES = ("a", "b", "c")
LOGITS = np.array([[5, 0, 0], [5, 0, 0], [0, 2, 0], [9, 0, 0], [0, 3, 0]], np.float32)
LABELS = np.array([0, 0, 1, 1, 0])


def test_counts_shares_and_rows():
    found = confusion_of(LOGITS, LABELS, NAMES)
    assert found.counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert found.shares[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0]) and not found.shares[2].any()
    a, b, c = found.rows()
    assert (a.images, a.accuracy, a.precision, a.mistaken_for, a.mistaken) == (3, 2 / 3, 2 / 3, "b", 1)
    assert (b.accuracy, b.precision, b.mistaken_for) == (0.5, 0.5, "a")
    assert (c.images, c.accuracy, c.precision, c.mistaken_for, c.mistaken) == (0, None, None, None, 0)


def test_the_surest_wrong_answers_come_first():
    first, second = worst(LOGITS, LABELS, NAMES, 10)
    assert (first.image, first.name, first.taken_for) == (3, "b", "a")
    assert (second.image, second.name, second.taken_for) == (4, "a", "b")
    assert first.probability == pytest.approx(np.exp(9) / (np.exp(9) + 2)) and first.probability > second.probability
    assert second.own_probability == pytest.approx(1 / (np.exp(3) + 2))
    assert [m.image for m in worst(LOGITS, LABELS, NAMES, 1)] == [3]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    images = structured_images(TINY, 40)
    labels = np.arange(40) % 5
    np.savez(folder / "data.npz", images=images, labels=labels)
    convert(lively_subnet(TINY, 0), images[:16], class_names=list("abcde")).save(folder / "model.tflite")
    return folder


def test_run_says_it_for_each_class_and_draws_it(files, tmp_path):
    model = files / "model.tflite"
    command = (
        "run",
        model,
        "--data",
        files / "data.npz",
        "--split",
        "all",
        "--per-class",
        "--json",
        tmp_path / "r.json",
    )
    said = forked(*command, "--confusion", tmp_path / "c.svg", "--worst", tmp_path / "w.png").stdout
    told = json.loads((tmp_path / "r.json").read_text())
    content = np.load(files / "data.npz")
    logits = Interpreter(model)(content["images"])
    expected = confusion_of(logits, content["labels"], tuple("abcde"))
    assert told["confusion"] == expected.counts.tolist() and told["class_names"] == list("abcde")
    assert sum(map(sum, told["confusion"])) == 40
    assert [row["accuracy"] for row in told["per_class"]] == [row.accuracy for row in expected.rows()]
    assert "surest wrong answers" in said and told["command"].startswith("mcuformer run ")
    assert {m["image"] for m in told["worst"]} <= set(np.flatnonzero(logits.argmax(1) != content["labels"]).tolist())
    assert b"<svg" in (tmp_path / "c.svg").read_bytes()
    assert Image.open(tmp_path / "w.png").size[0] > 500


def test_without_the_option_nothing_is_said_of_classes(files, tmp_path):
    forked("run", files / "model.tflite", "--data", files / "data.npz", "--json", tmp_path / "r.json")
    assert "confusion" not in json.loads((tmp_path / "r.json").read_text())


def test_mistakes_are_one_line(files, tmp_path):
    run = ("run", files / "model.tflite", "--data", files / "data.npz")
    assert "a picture's name ends in .png, .svg or .pdf" in mistake(*run, "--confusion", tmp_path / "c.jpg")
    assert "named for two outputs" in mistake(*run, "--confusion", tmp_path / "c.png", "--worst", tmp_path / "c.png")
    headless = tmp_path / "headless.tflite"
    convert(lively_subnet(HEADLESS, 0), structured_images(HEADLESS, 8)).save(headless)
    words = mistake("run", headless, "--data", files / "data.npz", "--per-class")
    assert "has no head and gives embeddings; --per-class, --confusion and --worst are for classes" in words
