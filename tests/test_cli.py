# SPDX-License-Identifier: Apache-2.0
"""The command line as a user calls it: processes, exit status, one line for a mistake."""

import json
import re

import numpy as np
import pytest
from command_line import error_line, forked, mcuformer, mistake
from conftest import TINY, structured_images

from mcuformer.nas import save_subnet


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_net):
    """A subnet, a data set of its size, and the model the command line makes of them."""
    folder = tmp_path_factory.mktemp("cli")
    save_subnet(tiny_net, folder / "subnet.pt", {"class_names": list("abcde")})
    images = structured_images(TINY, 60)
    labels = np.arange(60) % TINY.num_classes
    np.savez(folder / "data.npz", x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:])
    mcuformer(
        "convert", folder / "subnet.pt", "--data", folder / "data.npz", "--board", "nano33ble", "--report",
        "--schedule", "streamed", "-o", folder / "model.tflite", "--json", folder / "convert.json",
    )  # fmt: skip
    return folder


def test_convert_writes_model_and_json(files):
    result = json.loads((files / "convert.json").read_text())
    assert result["model_bytes"] == (files / "model.tflite").stat().st_size
    assert result["board"] == "nano33ble" and result["arena_bytes"] > result["head_bytes"] > 0
    assert {row["name"] for row in result["report"]} >= {"embed", "layers.1.fc2", "head"}


def test_run_compares_with_the_reference(files):
    done = mcuformer(
        "run", files / "model.tflite", "--data", files / "data.npz", "--reference", "--json", files / "run.json"
    )
    result = json.loads((files / "run.json").read_text())
    assert result["exact"] is True and result["images"] == 20 and 0 <= result["top1"] <= 1
    assert "every logit equals the integer reference" in done.stdout
    assert result["arena_bytes"] == json.loads((files / "convert.json").read_text())["arena_bytes"]


def test_inspect_lists_ops_and_draws(files):
    done = mcuformer(
        "inspect", files / "model.tflite", "--tensors", "--plot", files / "plan.png", "--json", files / "inspect.json"
    )
    result = json.loads((files / "inspect.json").read_text())
    assert [op["op"] for op in result["ops"]][:3] == ["DecomposedPatchEmbed", "StreamedAttention", "StreamedMLP"]
    assert result["ops"][0]["overwrites"] == "image"
    assert "layers.1.fc2" in done.stdout and "layers.0.proj/params" in done.stdout
    assert (files / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_train_is_resumable_and_feeds_convert(files, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY.to_dict()))
    arguments = ("train", "--data", files / "data.npz", "--config", config, "--set", "depth=1", "--epochs", 1)
    arguments += ("--checkpoint", tmp_path / "state.pt", "-o", tmp_path / "s.pt", "--json", tmp_path / "train.json")
    mcuformer(*arguments)
    first = json.loads((tmp_path / "train.json").read_text())
    assert first["config"]["depth"] == 1 and len(first["losses"]) == 1
    forked(*arguments)
    assert json.loads((tmp_path / "train.json").read_text())["losses"] == first["losses"]
    forked("convert", tmp_path / "s.pt", "--data", files / "data.npz", "-o", tmp_path / "m.tflite")


def test_staged_weights(files, tmp_path):
    model = tmp_path / "staged.tflite"
    done = forked(
        "convert", files / "subnet.pt", "--data", files / "data.npz", "--weights", "staged", "--scratch", 4000, "-o",
        model, "--json", tmp_path / "convert.json",
    )  # fmt: skip
    size = json.loads((tmp_path / "convert.json").read_text())["weights_bytes"]
    assert (tmp_path / "staged.weights").stat().st_size == size and f"{size:,} bytes of weights" in done.stdout
    arguments = ("run", model, "--data", files / "data.npz", "--reference", "--json", tmp_path / "run.json")
    forked(*arguments)
    result = json.loads((tmp_path / "run.json").read_text())
    forked("inspect", model, "--tensors", "--json", tmp_path / "inspect.json")
    ops = json.loads((tmp_path / "inspect.json").read_text())["ops"]
    assert result["exact"] and result["weights_read_bytes"] == sum(op["weights_read_bytes"] for op in ops) > 0
    (tmp_path / "staged.weights").rename(tmp_path / "w.bin")
    assert "keep the two files together" in mistake(*arguments)
    forked(*arguments, "--weights", tmp_path / "w.bin")
    assert "needs at least" in mistake("convert", files / "subnet.pt", "--data", files / "data.npz", "--scratch", 10)


def test_boards(tmp_path):
    done = mcuformer("boards", "--json", tmp_path / "boards.json")
    names = [board["name"] for board in json.loads((tmp_path / "boards.json").read_text())["boards"]]
    assert "nano33ble" in names and all(name in done.stdout for name in names)


@pytest.mark.slow
def test_demo_of_one_epoch(tmp_path):
    """All of the demo but the length of its trainings: real images, real interpreter, every figure in the JSON."""
    mcuformer("demo", "--epochs", 1, "-o", tmp_path / "demo", "--json", tmp_path / "demo.json")
    result = json.loads((tmp_path / "demo.json").read_text())
    keys = {"float_top1", "int8_top1", "arena_bytes", "model_bytes", "stock_arena_bytes", "board", "seconds"}
    assert keys <= set(result) and result["exact"] is True
    assert result["float_top1"] > 0.4
    assert abs(result["float_top1"] - result["int8_top1"]) <= 0.02
    assert result["arena_bytes"] < result["stock_arena_bytes"]
    assert result["board_arena_bytes"] <= result["predicted"]["sram"] and result["evaluated"] > 50
    rows = result["budgets"]
    assert len(rows) == 3 and all(row["predicted"]["sram"] <= row["sram"] for row in rows)
    assert rows[0]["predicted"]["sram"] <= 8000 and rows[-1]["held_out_top1"] == result["held_out_top1"]
    assert [row["held_out_top1"] for row in rows] == sorted(row["held_out_top1"] for row in rows)
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [
        "evolution.png", "memory_plan.png", "model.tflite", "search.png", "space.yaml", "subnet.pt", "supernet.pt",
    ]  # fmt: skip


def test_a_copy_of_this_process_says_what_a_process_of_its_own_does(files, tmp_path):
    arguments = ("run", files / "model.tflite", "--data", files / "data.npz", "--reference")
    own, copy = mcuformer(*arguments), forked(*arguments)
    assert _without_time(own.stdout) == _without_time(copy.stdout) and own.stderr == copy.stderr
    wrong = ("run", tmp_path / "none.tflite", "--data", files / "data.npz")
    assert error_line(mcuformer(*wrong, status=2)) == mistake(*wrong)


def _without_time(text: str) -> str:
    return re.sub(r"[0-9.]+\s+ms", "ms", text)


def test_mistakes_are_one_line(files, tmp_path):
    model, data = files / "model.tflite", files / "data.npz"
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(model.read_bytes()[:-100])
    assert "no such file" in mistake("convert", tmp_path / "none.pt")
    assert "not a readable subnet.pt" in mistake("convert", data)
    assert "nano33ble" in mistake("convert", files / "subnet.pt", "--data", data, "--board", "uno")
    assert "schedule" in mistake("convert", files / "subnet.pt", "--data", data, "--schedule", "fast")
    assert "damaged" in mistake("run", damaged, "--data", data)
    assert "cannot be read" in mistake("inspect", tmp_path)
    assert "depth" in mistake("train", "--set", "depth=0")
    assert "field=value" in mistake("train", "--set", "depth")
    assert "unknown config field 'dept'" in mistake("train", "--set", "dept=3")
    assert "embed_dim = 64 is not divisible by num_heads = 5" in mistake("train", "--set", "num_heads=5")
    assert "not JSON" in mistake("train", "--config", data)
    assert "a folder" in mistake("inspect", model, "--plot", files)
    assert "a folder" in mistake("train", "-o", files)
    assert "a folder" in mistake("convert", files)
    assert "not a writable folder" in mistake("demo", "-o", model)
    assert "--images 0" in mistake("convert", files / "subnet.pt", "--data", data, "--images", 0)
    (tmp_path / "list.json").write_text("[1]")
    assert "holds a list" in mistake("train", "--config", tmp_path / "list.json", "--set", "depth=1")
    images, labels = np.zeros((10, 16, 16, 1), np.uint8), np.arange(10)
    np.savez(tmp_path / "more.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert "classes" in mistake("run", model, "--data", tmp_path / "more.npz")
    assert not (tmp_path / "subnet.pt").exists()


def test_images_of_another_size_are_resized_and_a_line_says_so(files, tmp_path):
    images, labels = np.zeros((5, 8, 8, 1), np.uint8), np.arange(5)
    np.savez(tmp_path / "small.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    done = forked("run", files / "model.tflite", "--data", tmp_path / "small.npz")
    assert "small.npz: images of 8x8x1 are resized to 16" in done.stderr
