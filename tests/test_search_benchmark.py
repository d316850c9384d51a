# SPDX-License-Identifier: Apache-2.0
"""benchmarks/search.py, the interval of search against random and what is right on test images; those beside it."""

import functools
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def search(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return load_script("benchmarks/search.py")


def test_the_interval_counts_images_and_seeds(search):
    rng = np.random.default_rng(0)
    images = rng.choice([-1.0, 0.0, 1.0], size=2000, p=[0.04, 0.9, 0.06])
    low, high = search.interval(np.tile(images, (5, 1)), samples=2000)
    error = images.std() / 2000**0.5
    assert low == pytest.approx(images.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(images.mean() + 1.96 * error, abs=0.2 * error)
    differing = np.stack([np.full(2000, value) for value in (-0.02, 0.0, 0.01, 0.03, 0.05)])
    low, high = search.interval(differing, samples=2000)
    spread = differing[:, 0].std() / 5**0.5
    assert differing.mean() - low == pytest.approx(1.96 * spread, rel=0.25)
    assert high - differing.mean() == pytest.approx(1.96 * spread, rel=0.25)


def test_search_and_random_select_on_one_set_and_are_measured_on_another(search, monkeypatch):
    """The score is the size, and so is what is right; test images see the choices alone."""
    space = search.nas.load_space(search.SMALL_SPACE)
    supernet = search.nas.SuperNet(space)
    measured = []

    def right(_supernet, config, images):
        measured.append(config)
        return np.arange(len(images)) < config.macs / space.largest().macs * len(images)

    monkeypatch.setattr(search, "right", right)
    options = search.SHORT_OPTIONS
    rows, differences = search.against_chance(supernet, lambda config: config.macs / 1e9, range(50), options)
    assert [row["seed"] for row in rows] == list(search.SEEDS)
    assert differences.shape == (len(rows), 50) and len(measured) == 2 * len(rows)
    for row, difference in zip(rows, differences, strict=True):
        assert row["evaluations"] <= 20
        assert difference.mean() == pytest.approx(row["search_test"] - row["random_test"])
        assert (row["search_test"] >= row["random_test"]) == (row["search"] >= row["random"])


def test_spaces_with_one_choice_more_hold_all_networks_that_are_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    choices = load_script("benchmarks/space_choices.py")
    spaces = choices.with_choices(choices.nas.load_space(choices.SPACE))
    configs = choices.within_budget(spaces["as it is"], 20)
    assert len(set(configs)) == 20 and all(choices.BUDGET.admits(choices.cost_of(config)) for config in configs)
    assert len(set(spaces.values())) == len(spaces) == 4
    before, *others = (space.subnets for space in spaces.values())
    assert all(count > before for count in others)
    assert all(space.holds(config) for space in spaces.values() for config in configs)


def test_every_way_of_an_evaluation_is_timed_in_a_process_of_its_own(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    evaluation = load_script("benchmarks/evaluation_time.py")
    seconds, timed = {"before": (4.0, 1.0), "both": (3.0, 0.0)}, {}

    def run(command, **_):
        way = command[command.index("--way") + 1]
        timed[way] = timed.get(way, 0) + 1
        return type("Done", (), {"stdout": evaluation.json.dumps(seconds.get(way, (3.5, 0.5)))})

    monkeypatch.setattr(evaluation.subprocess, "run", run)
    monkeypatch.setattr(evaluation.sys, "argv", ["evaluation_time.py"])
    assert evaluation.main() == 1 and "0.75" in capsys.readouterr().out  # above its bar
    assert timed == dict.fromkeys(evaluation.WAYS, evaluation.ROUNDS)
    monkeypatch.setattr(evaluation, "IMAGES", 8)
    monkeypatch.setattr(evaluation, "SUBNETS", 1)
    in_all, in_kernel = evaluation.spent(kept=False, channels_last=True)
    assert in_all >= in_kernel >= 0


def test_a_larger_budget_must_find_another_network_that_is_as_good(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    budgets = load_script("benchmarks/memory_budgets.py")
    rows = [{"held_out": 0.8, "arena": 7000, "config": {"depth": 1}}, {"held_out": 0.8, "arena": 9000, "config": {}}]
    assert budgets.grows(rows)
    for better in ({"held_out": 0.79}, {"arena": 7000}, {"config": {"depth": 1}}):
        assert not budgets.grows([rows[0], {**rows[1], **better}])


def test_budgets_of_memory_are_searched_in_a_supernet_of_a_file(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    budgets = load_script("benchmarks/memory_budgets.py")
    supernet = budgets.nas.SuperNet(budgets.nas.load_space("tiny"))
    split = budgets.split_images("fashion-mnist", 32, limit=120, held_out=40)
    supernet.calibrate(budgets.nas.evaluation.calibration_images(split.images))
    budgets.nas.save_supernet(supernet, tmp_path / "supernet.pt", split.notes)
    monkeypatch.setattr(budgets, "SearchOptions", functools.partial(budgets.SearchOptions, 4, 1, 2, 2))
    monkeypatch.setattr(budgets.sys, "argv", ["memory_budgets.py", str(tmp_path / "supernet.pt")])
    assert budgets.main() in (0, 1)  # of random weights
    lines = capsys.readouterr().out.splitlines()
    arenas = [int(line.split()[4].replace(",", "")) for line in lines[1:4]]
    assert [line.split()[1] for line in lines[1:4]] == ["8", "16", "32"]
    assert all(arena <= kib * 1024 for arena, kib in zip(arenas, (8, 16, 32), strict=True))
