# SPDX-License-Identifier: Apache-2.0
"""Commands called from Python: by their name, with a result, without a word on the consoles."""

import dataclasses
import importlib
import json
import random

import numpy as np
import pytest
from conftest import TINY, structured_images

from mcuformer.boards import get_board
from mcuformer.cli import COMMANDS
from mcuformer.cli import run as run_module
from mcuformer.cli.boards import boards
from mcuformer.cli.convert import convert
from mcuformer.cli.evolve import evolve
from mcuformer.cli.finetune import finetune
from mcuformer.cli.inspect import inspect
from mcuformer.cli.progress import Progress
from mcuformer.cli.run import run
from mcuformer.cli.search import search
from mcuformer.cli.train import train
from mcuformer.errors import ConfigError, McuformerWarning, PlanError
from mcuformer.interpreter import Interpreter
from mcuformer.nas import SearchSpace, TrainOptions, load_subnet, save_subnet
from mcuformer.nas.cost import cost_of
from mcuformer.nas.evolve_space import EvolutionOptions
from mcuformer.nas.paper_memory import paper_sram
from mcuformer.nas.search import SearchOptions
from mcuformer.nas.search_space import EvolutionRange

SPACE = SearchSpace(
    image_size=16, in_channels=1, num_classes=5, patch_size=(4,), embed_dim=(16,), depth=(1, 2), head_dim=8,
    num_heads=(1, 2), mlp_ratio=(1.0, 2.0),
)  # fmt: skip
ONE_EPOCH = TrainOptions(epochs=1, batch_size=20, threads=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_net):
    folder = tmp_path_factory.mktemp("python")
    images, labels = structured_images(TINY, 60), np.arange(60) % TINY.num_classes
    np.savez(folder / "data.npz", x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:])
    save_subnet(tiny_net, folder / "subnet.pt", {"class_names": list("abcde")})
    convert(folder / "subnet.pt", data=str(folder / "data.npz"), output=folder / "model.tflite")
    return folder


@pytest.fixture
def data(files):
    return str(files / "data.npz")


@pytest.fixture(autouse=True)
def silence(capfd):
    """No command says anything."""
    yield
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_each_command_is_a_function_of_its_name():
    for name in COMMANDS:
        module = importlib.import_module(f"mcuformer.cli.{name}")
        assert callable(getattr(module, name)) and callable(module.command)


def test_results_become_json_and_cannot_be_changed(files, data):
    made = convert(files / "subnet.pt", data=data, images=20, report=True, output=files / "other.tflite")
    ran = run(files / "model.tflite", data=data, limit=3)
    for result in (boards(), made, ran, inspect(files / "model.tflite")):
        assert json.loads(json.dumps(result.to_dict()))
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, dataclasses.fields(result)[0].name, None)


def test_convert_and_inspect_tell_the_same(files, data):
    made = convert(files / "subnet.pt", data=data, images=20, schedule="overwrite", output=files / "over.tflite")
    found = inspect(str(made.path), board="nano33ble", plot=files / "plan.png")
    assert found.arena_bytes == made.model.plan.arena_bytes and found.model_bytes == made.path.stat().st_size
    assert found.config == TINY.to_dict() and sum(row.macs for row in found.ops) == TINY.macs
    assert {row["instructions"] for row in found.to_dict()["ops"]} == {row.instructions for row in found.ops}
    assert "instructions" not in inspect(made.path).to_dict()["ops"][0]
    assert (files / "plan.png").exists() and made.report == ()


def test_run_compares_and_tells_of_the_host_first(files, data):
    told = []
    done = run(files / "model.tflite", data=data, reference=True, on_host=told.append)
    assert told == [done.host] and done.exact is True and done.to_dict()["exact"] is True
    logits = Interpreter(files / "model.tflite")(structured_images(TINY, 60)[40:])
    assert np.array_equal(done.host.logits, logits) and done.simulated is None
    alone = run(files / "model.tflite", data=data, limit=2)
    assert alone.exact is None and "exact" not in alone.to_dict() and len(alone.host.logits) == 2


def test_a_logit_that_differs_is_counted(files, data, monkeypatch):
    true = Interpreter.reference

    def wrong(self, images):
        logits = true(self, images).copy()
        logits[0, 0] += 1
        return logits

    monkeypatch.setattr(Interpreter, "reference", wrong)
    done = run(files / "model.tflite", data=data, limit=2, reference=True)
    assert done.differing == {"the integer reference": 1} and done.exact is False and done.to_dict()["exact"] is False


def test_of_many_images_numpy_computes_some_and_engine_c_all(files, data, monkeypatch, capfd):
    monkeypatch.setattr(run_module, "REFERENCE_IMAGES", 7)
    seen = []
    true = Interpreter.reference
    monkeypatch.setattr(Interpreter, "reference", lambda self, images: seen.extend(images) or true(self, images))
    done = run(files / "model.tflite", data=data, reference=True)
    assert done.exact and done.compared == {"the integer reference": 7, "engine c": 20}
    assert done.to_dict()["compared"] == done.compared
    images = structured_images(TINY, 60)[40:]
    assert np.array_equal(seen, images[[0, 3, 6, 9, 12, 15, 19]])
    run_module.show(done)
    assert capfd.readouterr().out.splitlines() == [
        "every logit of 7 of the 20 images equals the integer reference", "every logit equals engine c",
    ]  # fmt: skip
    done = run(files / "model.tflite", data=data, reference=True, engine="c")
    assert done.exact and done.compared == {"the integer reference": 7}


@pytest.mark.parametrize("kind, differ", [("reference", "the integer reference"), ("__call__", "engine c")])
def test_a_logit_of_a_sample_that_differs_is_counted(files, data, monkeypatch, capfd, kind, differ):
    monkeypatch.setattr(run_module, "REFERENCE_IMAGES", 7)
    true = getattr(Interpreter, kind)

    def wrong(self, images, *progress):
        logits = true(self, images, *progress)
        if kind == "reference" or self.engine == "c":
            logits[-1, 0] += 1
        return logits

    monkeypatch.setattr(Interpreter, kind, wrong)
    done = run(files / "model.tflite", data=data, reference=True)
    assert not done.exact and [name for name, count in done.differing.items() if count] == [differ]
    run_module.show(done)
    some = " of 7 of the 20 images" if kind == "reference" else ""
    assert f" logits{some} differ from {differ}" in capfd.readouterr().out


def test_train_search_finetune(files, data, tmp_path):
    said = []
    trained = train(
        data, space=SPACE, options=ONE_EPOCH, held_out=10, output=tmp_path / "supernet.pt",
        progress=Progress(say=said.append),
    )  # fmt: skip
    assert said == [f"{SPACE.subnets:,} subnets; 30 training images, 10 held out for selection"]
    assert set(trained.held_out_top1) == {"largest", "smallest"} and len(trained.losses) == 1
    options = SearchOptions(population=4, generations=1, parents=2, children=2)
    chosen = search(trained.path, sram=16384, instructions="10M", options=options, output=tmp_path / "subnet.pt")
    assert chosen.budget.sram == 16384 and chosen.found.best.cost.sram <= 16384 and chosen.held_out == 10
    assert load_subnet(chosen.path).config == chosen.found.best.config
    tuned = finetune(chosen.path, options=ONE_EPOCH, test=True, output=tmp_path / "tuned.pt")
    assert tuned.test_images == 20 and tuned.float_top1 == load_subnet(tuned.path).notes["float_top1"]


def test_train_of_one_network(data, tmp_path):
    trained = train(data, config=TINY, options=ONE_EPOCH, limit=20, output=tmp_path / "subnet.pt")
    assert trained.config == TINY == load_subnet(trained.path).config and trained.test_images == 20
    with pytest.raises(ConfigError, match="a supernet holds all configs"):
        train(data, config=TINY, space=SPACE)
    with pytest.raises(ConfigError, match="a folder"):
        train(data, config=TINY, output=tmp_path)


EVOLUTION = EvolutionRange((0.25, 0.5, 1.0), (4, 8), (2, 1), (0.01, 0.001), ((0, 0), (0, 1), (1, 0)))
MOVING = dataclasses.replace(SPACE, rank_ratio=(0.25, 0.5), evolution=EVOLUTION)


def evolved_in(folder, data: str, **limits):
    """Three visits of an epoch each, and what they say."""
    said: list[str] = []
    evolved = evolve(
        MOVING, data=data, options=EvolutionOptions(epochs=1, visits=3, neighbours=3),
        training=dataclasses.replace(ONE_EPOCH, warmup_epochs=0.5), folder=folder / "evolution",
        output=folder / "best.yaml", progress=Progress(say=said.append), **limits,
    )  # fmt: skip
    return evolved, said


def test_evolve_tells_of_every_visit(data, tmp_path):
    with pytest.warns(McuformerWarning, match="^R is 1.000 in all 3 visits: the limits decided nothing"):
        evolved, said = evolved_in(tmp_path, data, sram="64KB")
    assert len(said) == len(evolved.evolution.visits) == 3 and said[0].startswith("1/3  rank ratio")
    assert (tmp_path / "best.yaml").exists() and (tmp_path / "best.pt").exists()
    with pytest.raises(ConfigError, match="the space: has no key evolution"):
        evolve(SPACE, data=data, sram=65536)


def shares(evolved) -> list[float]:
    return [visit.share for visit in evolved.evolution.visits]


@pytest.mark.filterwarnings("ignore::mcuformer.errors.McuformerWarning")
def test_evolve_counts_every_limit_and_its_log_states_them(data, tmp_path):
    sram, _ = evolved_in(tmp_path / "sram", data, sram="64KB")
    assert shares(sram) == [1.0, 1.0, 1.0]
    costs = [cost_of(config) for config in MOVING.window((0, 0)).every()]
    flash, instructions = (
        sorted(cost.of(name) for cost in costs)[len(costs) // 2] for name in ("flash", "instructions")
    )
    for name, limit in (("flash", flash), ("instructions", instructions)):
        evolved, _ = evolved_in(tmp_path / name, data, sram="64KB", **{name: limit})
        assert 0 < shares(evolved)[0] < 1
    with pytest.raises(ConfigError, match=f"another run, with flash = {flash} instead of None"):
        evolved_in(tmp_path / "flash", data, sram="64KB")
    with pytest.raises(ConfigError, match="another run, with rule = None instead of paper"):
        evolved_in(tmp_path / "sram", data, sram="64KB", rule="paper")
    with pytest.raises(PlanError, match="at most 100 bytes of SRAM by the paper's rule: the smallest has"):
        evolved_in(tmp_path / "none", data, sram=100, rule="paper")
    with pytest.raises(ConfigError, match="--rule papers: unknown; use arena or paper"):
        evolved_in(tmp_path / "none", data, sram=100, rule="papers")
    with pytest.raises(ConfigError, match="--rule paper: it says what counts as SRAM; give --sram or --board too"):
        evolved_in(tmp_path / "none", data, flash="1MB", rule="paper")


def within(limit: int) -> float:
    """The share of many random subnets of the first place."""
    rng = random.Random(1)
    return sum(paper_sram(MOVING.window((0, 0)).sample(rng)) <= limit for _ in range(2000)) / 2000


@pytest.mark.filterwarnings("ignore::mcuformer.errors.McuformerWarning")
def test_by_the_paper_s_rule_r_is_the_share_within_m(data, tmp_path):
    sizes = sorted(map(paper_sram, MOVING.window((0, 0)).every()))
    limit = sizes[len(sizes) // 2] - 1
    evolved, _ = evolved_in(tmp_path, data, sram=limit, rule="paper")
    assert shares(evolved)[0] == pytest.approx(within(limit), abs=0.1) and 0 < shares(evolved)[0] < 1
    assert len(set(shares(evolved))) > 1  # more tokens, fewer that fit


def test_a_log_of_an_earlier_version_goes_on_counting_sram_alone(data, tmp_path):
    """It states no limit of flash, and its lines have no checksum."""
    log = tmp_path / "evolution" / "evolution.jsonl"
    with pytest.warns(McuformerWarning):
        first, _ = evolved_in(tmp_path, data, board="nano33ble")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["flash"] == get_board("nano33ble").flash_budget and "rule" not in lines[0]
    for name in ("flash", "instructions"):
        del lines[0][name]
    log.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "check"}) + "\n" for line in lines[:3]))
    with pytest.warns(McuformerWarning, match="so the flash of nano33ble does not count"):
        again, _ = evolved_in(tmp_path, data, board="nano33ble")
    assert again.evolution == first.evolution and again.space == first.space
    with pytest.raises(ConfigError, match="another run, with flash = None instead of 102400"):
        evolved_in(tmp_path, data, board="nano33ble", flash="100KB")
