# SPDX-License-Identifier: Apache-2.0
"""Files of earlier versions, one folder a version: they load, and give what they gave (make.py made them).

Nothing here makes a file of a folder again. A change that fails one of these tests breaks what users have on their
disks: fix the reader.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mcuformer
from mcuformer import Interpreter, SubnetConfig
from mcuformer.data import Dataset, load
from mcuformer.nas import TrainOptions, build_subnet, load_space, load_subnet, load_supernet, train
from mcuformer.nas.cost import Budget, Cost
from mcuformer.nas.evolve_space import EvolutionOptions, evolve
from mcuformer.nas.search import SearchOptions, search
from mcuformer.nas.search_space import EvolutionRange

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/golden.json"))
FLOAT = {"rtol": 1e-5, "atol": 1e-5}


@functools.cache
def facts_of(folder: Path) -> dict:
    return json.loads((folder / "golden.json").read_text())


@functools.cache
def values_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "values.npz") as values:
        return dict(values)


def each(kind: str):
    """(folder, name) of every file of a kind in every folder."""
    return pytest.mark.parametrize(
        ("folder", "name"),
        [pytest.param(f, name, id=f"{f.name}-{name}") for f in FOLDERS for name in facts_of(f)[kind]],
    )


every_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def float_input(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def tuples(value):
    """Lists as tuples, all the way down: what JSON made of a frozen dataclass."""
    if isinstance(value, dict):
        return {name: tuples(v) for name, v in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def not_asked(*_):
    raise AssertionError("the log has it")


def test_the_first_version_is_there():
    assert FOLDERS and FOLDERS[0].name == "0.1.0"
    assert facts_of(FOLDERS[0])["version"]["commit"] == "c234ded"
    assert len(facts_of(FOLDERS[0])["models"]) == 14


@each("models")
def test_model(folder, name):
    facts, values = facts_of(folder)["models"][name], values_of(folder)
    interpreter = Interpreter(folder / f"{name}.tflite")
    images, logits = values[f"{facts['network']}.images"], values[f"{name}.logits"]
    assert np.array_equal(interpreter(images), logits)
    assert np.array_equal(Interpreter(folder / f"{name}.tflite", engine="c")(images), logits)
    assert np.array_equal(interpreter.reference(images), logits)
    assert interpreter.arena_used_bytes == facts["arena_bytes"] == interpreter.info["arena_bytes"]
    assert interpreter.allocations == facts["allocations"]
    (read, times), (read_then, times_then) = interpreter.weights_read, facts["weights_read"]
    assert read == read_then and times <= times_then  # in no more pieces than the version that made it
    assert SubnetConfig.from_dict(interpreter.info["config"]) == SubnetConfig.from_dict(facts["config"])
    assert {key: interpreter.info[key] for key in facts["info"]} == facts["info"]
    assert len(interpreter.layer_outputs(images[0])) == len(facts["ops"])


@each("subnets")
def test_subnet(folder, name):
    facts, values = facts_of(folder)["subnets"][name], values_of(folder)
    net = load_subnet(folder / f"{name}.pt")
    assert net.config == SubnetConfig.from_dict(facts["config"])
    assert net.notes == {"class_names": list("vwxyz"), "float_top1": 0.5}
    with torch.no_grad():
        logits = net(float_input(values[facts["images"]])).numpy()
    np.testing.assert_allclose(logits, values[f"{name}.logits"], **FLOAT)


@each("supernets")
def test_supernet(folder, name):
    facts, values = facts_of(folder)["supernets"][name], values_of(folder)
    net, images = load_supernet(folder / f"{name}.pt"), float_input(load(str(folder / "data.npz"), "test").images[:4])
    assert net.notes == facts["notes"]
    for values_of_config, logits in zip(facts["configs"], values[f"{name}.logits"], strict=True):
        config = SubnetConfig.from_dict(values_of_config)
        assert net.space.holds(config)
        with torch.no_grad():
            np.testing.assert_allclose(net(images, config).numpy(), logits, **FLOAT)
            np.testing.assert_allclose(net.extract(config)(images).numpy(), logits, **FLOAT)


@every_folder
def test_space(folder):
    assert load_supernet(folder / "supernet.pt", load_space(folder / "space.yaml")).space.subnets == 624


@every_folder
def test_training_goes_on_from_its_checkpoint(folder, tmp_path):
    """It holds the first of two epochs: the second gives the same loss, and the same weights."""
    facts, values = facts_of(folder)["training"], values_of(folder)
    stored = load(str(folder / "data.npz"), "train")
    data = Dataset(stored.images, stored.labels, tuple(facts["class_names"]), "golden", "train")
    shutil.copy(folder / "training.pt", tmp_path)
    net, epochs = build_subnet(SubnetConfig.from_dict(facts["config"]), seed=5), set()
    options = TrainOptions(**facts["options"])
    result = train(
        net, data, options, checkpoint=tmp_path / "training.pt", progress=lambda progress: epochs.add(progress.epoch)
    )
    assert epochs == {2} and result.losses[0] == facts["losses"][0]
    np.testing.assert_allclose(result.losses, facts["losses"], **FLOAT)
    with torch.no_grad():
        logits = net(float_input(data.images[:4])).numpy()
    np.testing.assert_allclose(logits, values["training.logits"], rtol=1e-4, atol=1e-4)


@every_folder
def test_search_of_the_command_line_replays(folder, tmp_path):
    """Nothing is evaluated again: the log stays as it is. The supernet's checksum is in it."""
    facts = facts_of(folder)["search"]
    for name in ("supernet.pt", "data.npz", "search.jsonl"):
        shutil.copy(folder / name, tmp_path)
    command = "search supernet.pt --log-file search.jsonl -o subnet.pt --json search.json".split()
    done = subprocess.run(
        [sys.executable, "-m", "mcuformer", *command, *facts["arguments"]],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(mcuformer.__file__).resolve().parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "search.json").read_text())
    assert found["evaluated"] == facts["evaluated"]
    assert found["best"]["accuracy"] == facts["best"]["accuracy"]
    assert SubnetConfig.from_dict(found["best"]["config"]) == SubnetConfig.from_dict(facts["best"]["config"])
    assert (tmp_path / "search.jsonl").read_bytes() == (folder / "search.jsonl").read_bytes()


@every_folder
def test_search_replays(folder, tmp_path):
    """All generations, without an evaluation. The cost is a pretended one: figures of real plans may improve."""
    facts, log = facts_of(folder)["generations"], tmp_path / "generations.jsonl"
    shutil.copy(folder / "generations.jsonl", log)

    def cost(config: SubnetConfig) -> Cost:
        return Cost(config.tokens * config.embed_dim, config.depth * config.embed_dim, config.tokens * config.depth)

    space, budget = load_space(folder / "space.yaml"), Budget(**facts["budget"])
    result = search(space, not_asked, cost, budget, SearchOptions(**facts["options"]), log=log)
    stored = SubnetConfig.from_dict
    assert [(f.config, f.accuracy) for f in result.evaluated] == [(stored(c), a) for c, a in facts["evaluated"]]
    assert result.best.config == stored(facts["best"])
    assert [f.config for f in result.front] == [stored(values) for values in facts["front"]]
    assert result.judged == facts["judged"]
    assert log.read_bytes() == (folder / "generations.jsonl").read_bytes()


@every_folder
def test_evolution_replays(folder, tmp_path):
    facts, log = facts_of(folder)["evolution"], tmp_path / "evolution.jsonl"
    shutil.copy(folder / "evolution.jsonl", log)
    evolution, options = EvolutionRange(**tuples(facts["range"])), EvolutionOptions(**facts["options"])
    result = evolve(evolution, lambda patch_size: (8 // patch_size) ** 2, not_asked, options, log=log)
    assert [(visit.place, visit.epochs) for visit in result.visits] == [
        (tuple(visit["place"]), visit["epochs"]) for visit in facts["visits"]
    ]
    np.testing.assert_allclose([v.score for v in result.visits], [v["score"] for v in facts["visits"]])
    assert [list(visit.place) for visit in result.path] == facts["path"]
    assert list(result.best.place) == facts["best"] and result.converged == facts["converged"]
    assert log.read_bytes() == (folder / "evolution.jsonl").read_bytes()
