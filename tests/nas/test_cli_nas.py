# SPDX-License-Identifier: Apache-2.0
"""train --space, evolve, search and finetune as a user calls them."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from spaces import CONV, DENSE, digits

from mcuformer.board_file import with_time, write_board
from mcuformer.boards import BOARDS, Measurement, get_board
from mcuformer.cli import app
from mcuformer.cli.budget import network_words
from mcuformer.cli.fitting import space_for
from mcuformer.converter.estimate import feasibility
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.cores import CORES
from mcuformer.data.loading import Outline
from mcuformer.errors import McuformerError, McuformerWarning
from mcuformer.nas import build_subnet, load_space, load_subnet, load_supernet, save_subnet, save_supernet
from mcuformer.nas.cost import Budget, Cost, cost_of
from mcuformer.nas.plots import front_axis, plot_budgets, plot_front
from mcuformer.nas.record import space_id
from mcuformer.nas.search import Found, SearchResult
from mcuformer.nas.search_space import EvolutionRange, space_yaml
from mcuformer.nas.subnet import ARENA_LIMIT

EVOLUTION = EvolutionRange((0.25, 0.5, 1.0), (2, 4), (2, 1), (0.01, 0.001), ((0, 0), (0, 1), (1, 0)))
SPACE = dataclasses.replace(CONV, rank_ratio=(0.25, 0.5), depth=(1, 2), evolution=EVOLUTION)


def mcuformer(*arguments, status: int = 0, processes: int = 1) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mcuformer"]
    if processes > 1:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += ["-m", "mcuformer"]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    if processes == 1:
        assert "Traceback" not in done.stderr
    return done


def mistake(*arguments) -> str:
    """What the command line tells of a user's mistake; tests/test_cli.py sees that it is printed as one line."""
    with pytest.raises(McuformerError) as caught:
        app([*map(str, arguments)], standalone_mode=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A data set, its space, and a supernet of it."""
    folder = tmp_path_factory.mktemp("nas")
    train, test = digits(0, 600), digits(600, 800)
    np.savez(folder / "data.npz", x_train=train.images, y_train=train.labels, x_test=test.images, y_test=test.labels)
    (folder / "space.yaml").write_text(space_yaml(SPACE))
    mcuformer(
        "train", "--space", folder / "space.yaml", "--data", folder / "data.npz", "--epochs", 3, "--held-out", 100,
        "--option", "learning_rate=0.01", "-o", folder / "supernet.pt", "--json", folder / "train.json",
    )  # fmt: skip
    return folder


def test_train_writes_a_supernet_of_the_space(files):
    supernet, result = load_supernet(files / "supernet.pt", SPACE), json.loads((files / "train.json").read_text())
    assert supernet.notes["held_out"] == 100 and supernet.notes["scores"] == result["held_out_top1"]
    assert len(result["losses"]) == 3 and 0 < result["held_out_top1"]["largest"] <= 1


def test_search_finetune_convert_run(files, tmp_path):
    arguments = ("search", files / "supernet.pt", "--sram", "16KB", "--flash", "30KB", "--instructions", "1M")
    arguments += (
        "--population",
        8,
        "--generations",
        2,
        "--children",
        6,
        "--log-file",
        tmp_path / "log.jsonl",
        "--json",
    )
    arguments += (tmp_path / "search.json", "-o", tmp_path / "subnet.pt", "--plot", tmp_path / "front.png")
    mcuformer(*arguments)
    result = json.loads((tmp_path / "search.json").read_text())
    best = result["best"]
    assert best["sram"] <= 16384 and best["flash"] <= 30720 and best["instructions"] <= 10**6
    chosen = load_subnet(tmp_path / "subnet.pt")
    assert chosen.config.to_dict() == best["config"] and chosen.notes[ARENA_LIMIT] == 16384
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "log.jsonl").read_bytes()
    mcuformer(*arguments, processes=2)  # from the log, shared out
    assert json.loads((tmp_path / "search.json").read_text()) == result
    assert (tmp_path / "log.jsonl").read_bytes() == lines

    tuned = tmp_path / "tuned.pt"
    mcuformer(
        "finetune", tmp_path / "subnet.pt", "--epochs", 1, "--quantised", "-o", tuned, "--json", tmp_path / "t.json"
    )
    result = json.loads((tmp_path / "t.json").read_text())
    assert len(result["losses"]) == 1 and result["float_top1"] is None
    looked = mcuformer("finetune", tmp_path / "subnet.pt", "--epochs", 1, "--test", "-o", tmp_path / "looked.pt")
    assert "on 200 test images" in looked.stdout
    model = tmp_path / "model.tflite"
    mcuformer(
        "convert", tuned, "--data", files / "data.npz", "--board", "nano33ble", "--schedule", "streamed", "-o", model
    )
    mcuformer("run", model, "--data", files / "data.npz", "--reference", "--json", tmp_path / "run.json")
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["exact"] and run["arena_bytes"] <= best["sram"] and model.stat().st_size <= best["flash"]


def test_what_the_search_allowed_is_what_convert_may_use(tmp_path, files):
    """The limit stays with the subnet, through fine-tuning; --sram says otherwise."""
    net = build_subnet(SPACE.largest())
    arenas = {name: feasibility.board_arena_bytes(net.config, name) for name in ("streamed", "overwrite")}
    save_subnet(net, tmp_path / "subnet.pt", {ARENA_LIMIT: arenas["overwrite"] - 1})
    common = ("--data", files / "data.npz", "--board", "nano33ble", "-o", tmp_path / "model.tflite")
    mcuformer("finetune", tmp_path / "subnet.pt", "--data", files / "data.npz", "--epochs", 1, "-o", tmp_path / "t.pt")
    found = []
    for more in ((), ("--sram", arenas["overwrite"])):
        mcuformer("convert", tmp_path / "t.pt", *common, *more, "--json", tmp_path / "convert.json")
        result = json.loads((tmp_path / "convert.json").read_text())
        assert {cost["schedule"]: cost["arena_bytes"] for cost in result["costs"]} == arenas
        found.append(result["schedule"])
    assert found == ["streamed", "overwrite"]


def test_the_front_is_listed(files, tmp_path):
    done = mcuformer(
        "search", files / "supernet.pt", "--board", "nano33ble", "--objective", "front", "--population", 10,
        "--generations", 1, "-o", tmp_path / "subnet.pt", "--json", tmp_path / "search.json",
    )  # fmt: skip
    front = json.loads((tmp_path / "search.json").read_text())["front"]
    assert front and all(f"{found['sram']:,}" in done.stdout for found in front)
    assert all(f" {found['latency']:.1f} " in done.stdout for found in front)
    assert "ms are estimates: cycles at the 64 MHz of nano33ble; cycles are those that Arm publishes" in done.stdout


def test_every_row_of_the_front_is_written(files, tmp_path):
    """Each a subnet that says what it is; no two equal; over an earlier front, never over anything else."""
    folder, best = tmp_path / "front", tmp_path / "subnet.pt"
    board = write_board(tmp_path / "b.yaml", BOARDS["nano33ble"])
    board.write_text(with_time(board, Measurement("a.tflite", "", 1_000_000, 40.0, 20, "0.1.0", "2026-11-27")))
    arguments = ("search", files / "supernet.pt", "--board", board, "--sram", "16KB", "--objective", "front")
    arguments += ("--population", 10, "--generations", 1, "--front-dir", folder, "-o", best, "--json")
    arguments += (tmp_path / "search.json", "--log-file", tmp_path / "search.jsonl")
    app([*map(str, arguments)], standalone_mode=False)
    result, told = json.loads((tmp_path / "search.json").read_text()), json.loads((folder / "front.json").read_text())
    rows = told["rows"]
    assert told["bytes_of"] == "nano33ble" and told["budget"]["sram"] == 16384 and len(rows) == len(result["front"])
    assert len({(row["held_out_top1"], row["arena_bytes"], row["instructions"]) for row in rows}) == len(rows) > 1
    assert {path.name for path in folder.iterdir()} == {"front.json", *(row["file"] for row in rows)}
    for row, found in zip(rows, result["front"], strict=True):
        net = load_subnet(folder / row["file"])
        assert net.config.to_dict() == row["config"] == found["config"]
        said = {name: net.notes[name] for name in row if name not in ("file", "config")}
        assert said == {name: row[name] for name in said} and net.notes["bytes_of"] == "nano33ble"
        assert row["arena_bytes"] == cost_of(net.config, get_board("nano33ble")).sram <= 16384
        assert row["estimated_ms"] == pytest.approx(40.0 * row["instructions"] / 1_000_000)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    app([*map(str, arguments)], standalone_mode=False)  # from the log
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    (folder / "mine.txt").write_text("mine")
    assert "holds mine.txt, which is not of a front" in mistake(*arguments)
    assert "in the folder of the front" in mistake(*arguments, "-o", folder / "subnet.pt")
    assert "a file; give a folder" in mistake(*arguments, "--front-dir", files / "supernet.pt")
    assert (folder / "mine.txt").exists()


def test_rows_of_a_front_that_are_equal_are_one():
    from mcuformer.nas.front import different

    config = SPACE.smallest()
    points = [(0.8, 90, 70, 60), (0.9, 100, 80, 50), (0.9, 100, 70, 50), (0.9, 100, 75, 50)]
    front = different([Found(config, a, Cost(s, f, i)) for a, s, f, i in points])
    assert [(f.cost.sram, f.cost.flash) for f in front] == [(90, 70), (100, 70)]


@pytest.mark.parametrize("ending", ["svg", "pdf"])
def test_a_picture_of_the_front_says_the_budget_in_any_form(tmp_path, ending):
    found = tuple(Found(SPACE.smallest(), 0.5 + i / 10, Cost(1000 * (i + 1), 1, 5)) for i in range(4))
    result, path = SearchResult(found[-1], found, found, 4), tmp_path / f"front.{ending}"
    plot_front(result, path, "test", Budget(sram=3500))
    first = path.read_bytes()
    plot_front(result, path, "test", Budget(sram=3500))
    assert path.read_bytes() == first and first.startswith(b"%PDF" if ending == "pdf" else b"<?xml")


def test_a_picture_of_several_budgets_has_a_line_for_each(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    lines, circles = [], []
    monkeypatch.setattr(Axes, "axvline", lambda axes, x, **style: lines.append((x, style["label"])))
    scatter = Axes.scatter
    monkeypatch.setattr(Axes, "scatter", lambda axes, x, y, **style: circles.append(x) or scatter(axes, x, y, **style))
    found = tuple(Found(SPACE.smallest(), 0.5 + i / 10, Cost(1000 * (i + 1), 1, 5)) for i in range(4))
    plot_budgets(found, {1500: found[0], 3500: found[2]}, tmp_path / "budgets.png", "test")
    assert lines == [(1500, "budget"), (3500, None)] and circles[-1] == [1000, 3000]  # the legend names lines once


def test_accuracy_is_drawn_against_what_varies():
    def found(*costs):
        return tuple(Found(SPACE.smallest(), 0.5, Cost(sram, 1, count)) for sram, count in costs)

    assert front_axis(found((1000, 5), (2000, 5))) == "sram"
    assert front_axis(found((1000, 5), (1000, 7))) == front_axis(found((1000, 5), (1010, 7))) == "instructions"
    assert front_axis(found((1000, None), (1000, None))) == "sram"


def test_a_core_whose_instructions_are_unknown(files, tmp_path, monkeypatch, capsys):
    """Searched as any other; only a budget of instructions is a mistake, told before the supernet is read."""
    board = dataclasses.replace(BOARDS["nano33ble"], name="my-m85", core=CORES["m85"])
    monkeypatch.setitem(BOARDS, board.name, board)
    options = ("--board", board.name, "-o", tmp_path / "subnet.pt", "--json", tmp_path / "search.json", "--plot")
    options += (tmp_path / "front.png", "--objective", "front", "--population", 10, "--generations", 1)
    app([*map(str, ("search", files / "supernet.pt", *options))], standalone_mode=False)
    result = json.loads((tmp_path / "search.json").read_text())
    assert result["best"]["instructions"] is None and (tmp_path / "front.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "instructions unknown" in printed and printed.count("unknown") == 1 + 2 * len(result["front"])  # and ms
    assert "the instructions of its Cortex-M85 are unknown" in mistake(
        "search", tmp_path / "none.pt", "--board", board.name, "--instructions", "1M"
    )
    line = "the cycles of its Cortex-M85 are unknown (known: Cortex-M4); leave it out"
    for command in (
        ("search", tmp_path / "none.pt"),
        ("evolve", "--space", files / "space.yaml", "--data", files / "data.npz"),
    ):
        assert line in mistake(*command, "--board", board.name, "--latency", "20")
    assert "--latency '20s': not a time above 0" in mistake(*command, "--board", board.name, "--latency", "20s")


def test_evolve_writes_a_space_that_trains_on(files, tmp_path):
    arguments = ("evolve", "--space", files / "space.yaml", "--data", files / "data.npz", "--sram", "3000")
    arguments += ("--epochs", 1, "--visits", 6, "--neighbours", 3, "--folder", tmp_path / "evolution", "-o")
    arguments += (tmp_path / "best.yaml", "--plot", tmp_path / "path.png", "--json", tmp_path / "evolve.json")
    first = mcuformer(*arguments).stdout
    result = json.loads((tmp_path / "evolve.json").read_text())
    assert 3 <= len(result["visits"]) <= 6
    assert all(v["score"] == pytest.approx(v["accuracy"] + 0.5 * v["share"]) for v in result["visits"])
    assert len({visit["share"] for visit in result["visits"]}) > 1  # the budget cuts through the spaces
    best = load_space(tmp_path / "best.yaml")
    assert best.rank_ratio in ((0.25, 0.5), (0.5, 1.0)) and best.patch_size in ((2,), (4,))
    assert (tmp_path / "path.png").exists()
    assert mcuformer(*arguments).stdout == first  # from the log and the restore points
    mcuformer(
        "train", "--space", tmp_path / "best.yaml", "--init", tmp_path / "best.pt", "--data", files / "data.npz",
        "--epochs", 1, "-o", tmp_path / "supernet.pt",
    )  # fmt: skip


def test_a_supernet_starts_from_a_network_and_rectangles_are_never_mirrored(files, tmp_path):
    """Its first weights are the network's; what was trained without mirrored images is fine-tuned without."""
    content = np.load(files / "data.npz")
    cut = {name: value[:, :7, :5] if name.startswith("x") else value for name, value in content.items()}
    np.savez(tmp_path / "cut.npz", **cut)
    path, data = tmp_path / "space.yaml", ("--data", tmp_path / "cut.npz")
    space = dataclasses.replace(
        DENSE, image_size=(7, 5), patch_size=((1, 5), (2, 3)), prefix_tokens=1, pool="token+mean", norm_pre=True,
        activation="silu", flip=False, depth=(1, 2),
    )  # fmt: skip
    path.write_text(space_yaml(space))
    given = build_subnet(dataclasses.replace(space.largest(), depth=2, mlp_ratio=3.0), 3)
    save_subnet(given, tmp_path / "given.pt")
    train = ("train", "--space", path, *data, "--init-vit", tmp_path / "given.pt", "--keep-head", "--epochs", 1)
    app([*map(str, (*train, "--option", "learning_rate=1e-9", "-o", tmp_path / "s.pt"))], standalone_mode=False)
    supernet = load_supernet(tmp_path / "s.pt", space)
    assert supernet.notes["flip"] is False
    whole = supernet.whole
    torch.testing.assert_close(whole.layers[1].mlp.fc1.weight, given.layers[1].mlp.fc1.weight[:48], rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.head.weight, given.head.weight, rtol=0, atol=1e-5)

    search = ("search", tmp_path / "s.pt", "--sram", "64KB", "--population", 4, "--generations", 1, "--children", 2)
    app([*map(str, (*search, "-o", tmp_path / "subnet.pt"))], standalone_mode=False)
    subnet = load_subnet(tmp_path / "subnet.pt")
    assert space.holds(subnet.config) and subnet.notes["flip"] is False
    for more in ((), ("--quantised",)):
        tune = ("finetune", tmp_path / "subnet.pt", "--epochs", 1, *more, "-o", tmp_path / "tuned.pt")
        app([*map(str, tune)], standalone_mode=False)
        assert load_subnet(tmp_path / "tuned.pt").notes["flip"] is False


def test_what_a_supernet_cannot_start_from(files, tmp_path):
    train = ("train", "--space", files / "space.yaml", "--data", files / "data.npz")
    small = build_subnet(dataclasses.replace(SPACE.largest(), embed_dim=20, kv_heads=2, num_heads=2, rank_ratio=None))
    save_subnet(small, tmp_path / "small.pt")
    words = mistake(*train, "--init-vit", tmp_path / "small.pt")
    assert words.startswith(f"{tmp_path / 'small.pt'}: has embed_dim = 20, the space up to 24")
    assert "not an MCUFormer subnet" in mistake(*train, "--init-vit", files / "supernet.pt")
    assert "a supernet starts from one of them" in mistake(*train, "--init-vit", "a.pt", "--init", "b.pt")
    assert "--keep-head is for the head of --init-vit" in mistake(*train, "--keep-head")
    assert "--init-vit needs a supernet" in mistake("train", "--init-vit", "a.pt")


def test_a_network_without_head_is_not_trained(files, tmp_path):
    data = ("--data", files / "data.npz")
    save_subnet(build_subnet(dataclasses.replace(SPACE.largest(), num_classes=0)), tmp_path / "headless.pt")
    words = mistake("finetune", tmp_path / "headless.pt", *data)
    assert words.startswith(f"{tmp_path / 'headless.pt'}: num_classes = 0: a network without a head")
    assert "num_classes = 0: a network without a head" in mistake("train", *data, "--set", "num_classes=0")


def test_mistakes_are_one_line(files, tmp_path):
    data, supernet = ("--data", files / "data.npz"), files / "supernet.pt"
    bad = tmp_path / "bad.yaml"
    bad.write_text("embed_dims: [1]")
    assert "unknown key embed_dims" in mistake("train", "--space", bad, *data)
    assert "leave one out" in mistake("train", "--space", files / "space.yaml", "--config", "c.json")
    assert "unknown option 'epoch'" in mistake("train", "--space", files / "space.yaml", *data, "--option", "epoch=1")
    assert "no budget" in mistake("search", supernet)
    words = mistake("search", supernet, "--sram", "64KB", "--plot", tmp_path / "front.gif")
    assert "front.gif: a picture's name ends in .png, .svg or .pdf" in words
    assert "--sram '64 cows': not an amount above 0; write it in B, KB or MB" in mistake(
        "search", supernet, "--sram", "64 cows"
    )
    assert "the smallest has" in mistake("search", supernet, "--sram", "1KB")
    assert "not an MCUFormer supernet" in mistake("search", _subnet(files, tmp_path), "--board", "nano33ble")
    assert "instead of" in mistake("train", "--space", "tiny", "--init", supernet)
    assert "no key evolution" in mistake("evolve", "--space", "fashion-mnist", "--board", "nano33ble")
    train = ("train", "--space", "tiny", *data)
    assert "the network 3; build it with num_classes=10" in mistake(*train, "--set", "num_classes=3")
    assert "unknown key dept" in mistake(*train, "--set", "dept=[1, 2]")
    assert "'depth=[2]': unexpected; write fields as --set field=value" in mistake(*train, "depth=[2]")
    assert "class_weights has 2 numbers for 10 classes" in mistake(*train, "--class-weights", "1,2")
    assert "class_weights = 'equal': must be balanced" in mistake(*train, "--class-weights", "equal")
    assert "--held-out 600: there are 600 training images; give 1 to 599" in mistake(*train, "--held-out", 600)
    assert "need a supernet" in mistake("train", "--held-out", 5)
    assert "no budget: give --board, or --sram" in mistake("evolve", "--space", "tiny")
    evolve = ("evolve", "--space", files / "space.yaml", *data, "--sram", "3000")
    assert "no subnet of the space" in mistake(*evolve[:-1], "100")
    assert "schedule: always constant here" in mistake(*evolve, "--option", "schedule=cosine")
    assert "--option epochs: give it as --epochs" in mistake(*evolve, "--option", "epochs=3")
    train = ("train", "--space", files / "space.yaml", *data)
    assert "flip = 'no': must be true or false" in mistake(*train, "--option", "flip=no")
    assert "two outputs" in mistake(*train, "-o", tmp_path / "a.pt", "--checkpoint", tmp_path / "a.pt")
    assert "two outputs" in mistake(*evolve, "-o", tmp_path / "best.pt")


def test_images_that_were_trained_on_never_select(files, tmp_path):
    """Commands that continue from a supernet get its split, or an error."""
    train = ("train", "--space", files / "space.yaml", "--data", files / "data.npz", "--init", files / "supernet.pt")
    for other in (("--held-out", 50), ("--limit", 300)):
        words = mistake(*train, *other)
        assert "was trained with" in words and "images it was trained on" in words
    mcuformer(*train, "--epochs", 1, "-o", tmp_path / "supernet.pt")
    before, after = (load_supernet(path).notes for path in (files / "supernet.pt", tmp_path / "supernet.pt"))
    assert after["held_out"] == 100 and after["labels_crc32"] == before["labels_crc32"]
    content = np.load(files / "data.npz")
    np.savez(tmp_path / "other.npz", **{**content, "y_train": content["y_train"][::-1]})
    search = ("search", files / "supernet.pt", "--board", "nano33ble", "--data", tmp_path / "other.npz")
    assert "labels of checksum" in mistake(*search)


def test_inverted_pixels_of_equal_labels_are_refused(files, tmp_path):
    content = np.load(files / "data.npz")
    np.savez(tmp_path / "inverted.npz", **{**content, "x_train": 255 - content["x_train"]})
    data = ("--data", tmp_path / "inverted.npz")
    words = mistake("search", files / "supernet.pt", "--board", "nano33ble", *data)
    assert "was trained with pixels of hash" in words and "give the same --data" in words
    train = ("train", "--space", files / "space.yaml", "--epochs", 1, "--checkpoint", tmp_path / "training.pt")
    train += ("-o", tmp_path / "supernet.pt")
    app([*map(str, (*train, "--data", files / "data.npz"))], standalone_mode=False)
    assert "with data pixels_sha256 = " in mistake(*train, *data)


def test_what_made_a_file_is_kept_in_it(files, tmp_path):
    notes = load_supernet(files / "supernet.pt").notes
    record = json.loads((files / "train.json").read_text())["record"]
    assert record == notes["record"] and torch.__version__.startswith(record["versions"]["torch"][:4])
    assert record["seed"] == 0 and record["options"]["epochs"] == 3 and record["space"] == space_id(SPACE)
    assert record["data"] == {name: notes[name] for name in ("images", "labels_crc32", "pixels_sha256")}
    search = ("search", files / "supernet.pt", "--board", "nano33ble", "--population", 2, "--generations", 0)
    search += ("-o", tmp_path / "subnet.pt", "--json", tmp_path / "search.json")
    app([*map(str, search)], standalone_mode=False)
    found = load_subnet(tmp_path / "subnet.pt").notes["record"]
    assert found == json.loads((tmp_path / "search.json").read_text())["record"]
    assert found["options"]["population"] == 2 and found["space"] == record["space"]


def test_a_supernet_of_an_earlier_version_is_believed_with_a_warning(files, tmp_path):
    supernet = load_supernet(files / "supernet.pt")
    later = ("pixels_sha256", "record")
    save_supernet(supernet, tmp_path / "old.pt", {n: v for n, v in supernet.notes.items() if n not in later})
    search = ("search", tmp_path / "old.pt", "--board", "nano33ble", "--population", 2, "--generations", 0)
    with pytest.warns(McuformerWarning, match="old.pt: of an earlier version, it does not say which pixels"):
        app([*map(str, (*search, "-o", tmp_path / "subnet.pt"))], standalone_mode=False)


def test_a_space_of_the_package_takes_what_the_data_say(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (40, 24, 20, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(40) % 4)
    train = ("train", "--space", "tiny", "--data", tmp_path / "set.npz", "--epochs", 1)
    train = (*train, "-o", tmp_path / "s.pt", "--set", "depth=[1]", "embed_dim=[16]")
    app([*map(str, train)], standalone_mode=False)
    space = load_supernet(tmp_path / "s.pt").space
    assert (space.image_size, space.in_channels, space.num_classes, space.depth) == ((24, 20), 3, 4, (1,))
    said = capsys.readouterr().err
    assert "space tiny: num_classes = 4 instead of 10, in_channels = 3 instead of 1, image_size = [24, 20]" in said
    assert "resized" not in said
    app([*map(str, (*train, "image_size=16"))], standalone_mode=False)
    assert "images of 24x20x3 are resized to 16" in capsys.readouterr().err


def test_a_network_in_words_says_its_image_and_stem():
    config = SubnetConfig(
        image_size=(16, 24), in_channels=1, num_classes=2, patch_size=8, embed_dim=32, depth=1, num_heads=1
    )
    assert network_words(config) == "16x24 pixels, patches of 8; 6 tokens of width 32, 1 layers (1/1x128)"
    config = dataclasses.replace(config, stem="conv", stem_channels=(8, 16))
    assert network_words(config).startswith("16x24 pixels, convolutions 8, 16, 32; 6 tokens")
    config = dataclasses.replace(config, stem_blocks=(0, 4))
    assert network_words(config).startswith("16x24 pixels, convolutions 8, 16 and a block of 64, 32; 6 tokens")


def test_image_sizes_are_the_same_parts_of_other_images():
    """Of 32 pixels tiny takes 32, 24 and 16; patches are of 8."""

    def sizes(side: int, **given) -> tuple:
        data = Outline("set", tuple("0123456789"), np.arange(10), (side, side, 1))
        space = space_for("tiny", given, data)
        return space.image_size, space.image_sizes

    assert sizes(32) == (32, (16, 24, 32)) and sizes(64) == (64, (32, 48, 64))
    assert sizes(28) == (28, (14, 21, 28)) and sizes(16) == (16, (12, 16))  # 8 makes one token
    assert sizes(30) == (30, (15, 30))  # 22.5 are no pixels
    assert sizes(32, image_size=48) == (48, (24, 36, 48)) and sizes(32, image_size=16) == (16, (12, 16))
    assert sizes(28, image_sizes=[32]) == (32, (32,)) and sizes(28, image_size=32) == (32, (16, 24, 32))
    assert sizes(32, image_size=20, image_sizes=[20]) == (20, (20,))


def test_a_set_that_moved_is_asked_for_by_name(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(files / "data.npz", "here.npz")
    train = ("train", "--space", files / "space.yaml", "--data", "here.npz", "--epochs", 1, "--held-out", 100)
    app([*map(str, (*train, "-o", "s.pt"))], standalone_mode=False)
    assert load_supernet("s.pt").notes["data"] == str(tmp_path / "here.npz")
    os.rename("here.npz", "there.npz")
    search = ("search", "s.pt", "--board", "nano33ble", "--population", 2, "--generations", 0, "-o", "subnet.pt")
    assert mistake(*search) == (
        f"s.pt: was trained on {tmp_path / 'here.npz'}, which is not there; give the place of these data as --data"
    )
    app([*map(str, (*search, "--data", "there.npz"))], standalone_mode=False)
    assert load_subnet("subnet.pt").notes["data"] == str(tmp_path / "there.npz")
    os.rename("there.npz", "here.npz")
    assert mistake("finetune", "subnet.pt").startswith(f"subnet.pt: was trained on {tmp_path / 'there.npz'}, which is")


def test_options_are_those_that_are_given(files, tmp_path):
    train = ("train", "--space", files / "space.yaml", "--data", files / "data.npz", "--option")
    mcuformer(*train, "epochs=2", "--option", "ema_decay=null", "-o", tmp_path / "a.pt", "--json", tmp_path / "a.json")
    assert len(json.loads((tmp_path / "a.json").read_text())["losses"]) == 2


def _subnet(files, tmp_path):
    save_subnet(load_supernet(files / "supernet.pt").extract(SPACE.smallest()), tmp_path / "subnet.pt")
    return tmp_path / "subnet.pt"
