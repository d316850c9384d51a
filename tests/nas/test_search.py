# SPDX-License-Identifier: Apache-2.0
"""The evolutionary search: hard limits, no repeats, the same result after any kill, a clear end where nothing fits."""

import dataclasses
import functools
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import lively_subnet, structured_images
from spaces import BIAS, PATCH, SMALL, TABLES

from mcuformer import Interpreter, convert
from mcuformer.boards import Measurement, get_board
from mcuformer.converter.estimate import cycles
from mcuformer.errors import ConfigError, ModelError, PlanError
from mcuformer.nas import SuperNet, load_space
from mcuformer.nas.cost import Budget, Cost, board_budget, check_reachable, cost_of, parse_bytes, parse_count, parse_ms
from mcuformer.nas.search import Found, SearchOptions, front_of, search

OPTIONS = SearchOptions(population=12, generations=4, parents=4, children=8)


def pretend_accuracy(config) -> float:
    """Rises with size, and prefers some layers."""
    layers = sum(layer.num_heads * (i + 1) + layer.mlp_dim / 40 for i, layer in enumerate(config.layers))
    return 1 - 1 / (1 + config.embed_dim / 16 + layers + config.tokens / 20)


class Counting:
    def __init__(self, function):
        self.function, self.asked = function, []

    def __call__(self, config):
        self.asked.append(config)
        return self.function(config)


def tight(space, share: float = 0.3) -> Budget:
    """A budget that about a share of the space meets."""
    rng = random.Random(9)
    costs = [cost_of(space.sample(rng)) for _ in range(300)]
    return Budget(*(sorted(getattr(c, n) for c in costs)[int(share**0.4 * 300)] for n in ("sram", "flash")))


def test_nothing_over_the_budget_is_evaluated_and_nothing_twice():
    budget, accuracy, cost = tight(PATCH), Counting(pretend_accuracy), Counting(cost_of)
    result = search(PATCH, accuracy, cost, budget, OPTIONS)
    assert all(budget.admits(cost_of(config)) for config in accuracy.asked)
    assert len(set(accuracy.asked)) == len(accuracy.asked) == len(result.evaluated) <= OPTIONS.evaluations
    assert not all(budget.admits(cost_of(config)) for config in cost.asked)  # some were rejected
    assert result.best.accuracy == max(map(pretend_accuracy, accuracy.asked))
    assert result.best.cost == cost_of(result.best.config) and PATCH.holds(result.best.config)


def test_it_finds_the_best_of_a_space_that_is_small_enough_to_exhaust():
    budget = Budget(sram=cost_of(SMALL.largest()).sram - 64)
    every = [config for config in SMALL.every() if budget.admits(cost_of(config))]
    best = max(map(pretend_accuracy, every))
    result = search(SMALL, pretend_accuracy, cost_of, budget, dataclasses.replace(OPTIONS, generations=6))
    assert result.best.accuracy == best and len(result.evaluated) <= len(every)


def test_it_beats_chance():
    """In a space of 893,760 subnets."""
    space, budget = load_space("fashion-mnist"), Budget(flash=180_000)
    space = dataclasses.replace(
        space,
        image_sizes=(24, 32),
        stem_channels=((16, 24), (24, 48), (32, 64), (48, 96)),
        stem_blocks=((0, 0), (0, 3)),
    )
    for seed in range(3):
        options = SearchOptions(population=20, generations=5, parents=6, children=12, seed=seed)
        result = search(space, pretend_accuracy, cost_of, budget, options)
        rng, drawn = random.Random(seed), []
        while len(drawn) < len(result.evaluated):
            config = space.sample(rng)
            if budget.admits(cost_of(config)):
                drawn.append(config)
        assert result.best.accuracy > max(map(pretend_accuracy, drawn))


def test_the_seed_decides():
    options = [dataclasses.replace(OPTIONS, seed=seed) for seed in (0, 0, 1)]
    results = [search(PATCH, pretend_accuracy, cost_of, tight(PATCH), each) for each in options]
    assert results[0] == results[1] != results[2]


def test_a_budget_nothing_meets_ends_at_once_with_the_smallest():
    accuracy = Counting(pretend_accuracy)
    for name in ("sram", "flash", "instructions"):
        least = min(getattr(cost_of(config), name) for config in SMALL.every())
        with pytest.raises(PlanError, match=f"at most {least - 1:,} .*: the smallest has {least:,} ") as caught:
            search(SMALL, accuracy, cost_of, Budget(**{name: least - 1}), OPTIONS)
        assert f"raise the {name} budget" in str(caught.value) and "\n" not in str(caught.value)
        result = search(SMALL, pretend_accuracy, cost_of, Budget(**{name: least}), OPTIONS)
        assert all(getattr(found.cost, name) == least for found in result.evaluated)
    assert accuracy.asked == []


def test_limits_that_no_subnet_meets_together_end_too():
    def opposed(config):
        return Cost(sram=config.embed_dim, flash=100 - config.embed_dim, instructions=1)

    with pytest.raises(PlanError, match="meets all limits at once"):
        search(SMALL, pretend_accuracy, opposed, Budget(sram=8, flash=84), OPTIONS)
    assert check_reachable(SMALL, opposed, Budget(sram=8, flash=92))


def test_layers_that_only_together_meet_two_limits_are_found():
    def mixed(config):
        wide = sum(layer.num_heads == 2 for layer in config.layers)
        return Cost(sram=1, flash=1 + wide, instructions=1 + config.depth - wide)

    space = dataclasses.replace(SMALL, depth=(2,))
    (found,) = check_reachable(space, mixed, Budget(flash=2, instructions=2))
    assert sorted(layer.num_heads for layer in found.layers) == [1, 2]


def test_the_front_is_what_no_other_beats():
    config = SMALL.smallest()
    points = [(0.9, 100, 50), (0.8, 90, 60), (0.8, 95, 60), (0.7, 80, 10), (0.6, 85, 20), (0.9, 100, 50)]
    found = [Found(config, a, Cost(s, 0, i)) for a, s, i in points]
    assert [(f.accuracy, f.cost.sram) for f in front_of(found)] == [(0.7, 80), (0.8, 90), (0.9, 100), (0.9, 100)]


def test_the_objective_front_covers_more_of_it():
    def covered(objective):
        options = SearchOptions(population=20, generations=6, parents=10, children=16, objective=objective)
        front = search(PATCH, pretend_accuracy, cost_of, Budget(), options).front
        assert [f.cost.sram for f in front] == sorted(f.cost.sram for f in front)
        return len({(f.accuracy, f.cost.sram, f.cost.instructions) for f in front})

    assert covered("front") > covered("accuracy")


def killed_search(log) -> None:
    def slow(config):
        time.sleep(0.003)
        return pretend_accuracy(config)

    search(PATCH, slow, cost_of, Budget(), OPTIONS, log=log)


def test_killed_at_ten_random_moments_and_resumed_gives_the_same_result(tmp_path):
    """SIGKILL to a process that searches; whatever of the last line is on the disk."""
    log, rng = tmp_path / "search.jsonl", random.Random(1)
    whole = search(PATCH, pretend_accuracy, cost_of, Budget(), OPTIONS)
    size = 0
    for kill in range(10):
        process = multiprocessing.get_context("fork").Process(target=killed_search, args=(log,))
        process.start()
        enough = size + rng.randint(0, 1200)  # bytes of log; an evaluation writes some 300
        while process.is_alive() and (log.stat().st_size if log.exists() else 0) < enough:
            time.sleep(0.001)
        process.kill()
        process.join()
        if kill % 3 == 2 and log.exists():  # killed while it wrote
            os.truncate(log, max(0, log.stat().st_size - rng.randint(1, 20)))
        size = log.stat().st_size if log.exists() else 0
    remembered = max(0, log.read_bytes().count(b"\n") - 1)
    assert 0 < remembered
    accuracy = Counting(pretend_accuracy)
    assert search(PATCH, accuracy, cost_of, Budget(), OPTIONS, log=log) == whole
    assert len(accuracy.asked) == len(whole.evaluated) - remembered


@pytest.mark.parametrize("space", [BIAS, TABLES], ids=["bias", "tables"])
def test_the_cost_of_relative_positions_is_that_of_the_converted_network(space, tmp_path):
    supernet, rng = SuperNet(space).eval(), random.Random(4)
    images = np.random.default_rng(0).integers(0, 256, (8, *space.image_shape), np.uint8)
    for config in [space.largest(), *(space.sample(rng) for _ in range(3))]:
        model, cost = convert(supernet.extract(config), images), cost_of(config)
        model.save(tmp_path / "model.tflite")
        assert model.plan.arena_bytes == cost.sram
        assert (tmp_path / "model.tflite").stat().st_size <= cost.flash
        plain = cost_of(dataclasses.replace(config, relative_position="none"))
        assert cost.flash > plain.flash and cost.instructions > plain.instructions


def test_a_log_of_another_search_is_refused(tmp_path):
    log = tmp_path / "search.jsonl"
    search(SMALL, pretend_accuracy, cost_of, Budget(), OPTIONS, log=log, identity={"supernet": "a"})
    before = log.read_bytes()
    with pytest.raises(ConfigError, match="belongs to another run, with supernet = a instead of b"):
        search(SMALL, pretend_accuracy, cost_of, Budget(), OPTIONS, log=log, identity={"supernet": "b"})
    with pytest.raises(ConfigError, match="with budget.sram = None instead of 1000000"):
        search(SMALL, pretend_accuracy, cost_of, Budget(sram=10**6), OPTIONS, log=log, identity={"supernet": "a"})
    assert log.read_bytes() == before
    for content in (b"{}\n", b"words\n", b"[1]\n", b"one line", b"lines\nof another file", before[:-9] + b"\n..."):
        log.write_bytes(content)
        with pytest.raises(
            (ModelError, ConfigError), match=r"search.jsonl: (not an? .*\blog\b|belongs to another run)"
        ):
            search(SMALL, pretend_accuracy, cost_of, Budget(), OPTIONS, log=log)
        assert log.read_bytes() == content  # a file that is not ours is left as it is
    with pytest.raises(ConfigError, match="cannot be used as a log"):
        search(SMALL, pretend_accuracy, cost_of, Budget(), OPTIONS, log=tmp_path)


SHARED = """
import sys
from pathlib import Path
from test_search import *
from mcuformer.nas.distributed import process_group, rank
asked = Counting(pretend_accuracy)
with process_group():
    result = search(PATCH, asked, cost_of, Budget(), OPTIONS, log=sys.argv[1])
    found = [len(asked.asked), len(result.evaluated), result.best.config.to_dict()]
    Path(f"{sys.argv[1]}.{rank()}").write_text(json.dumps(found))
"""


def test_processes_share_the_evaluations_and_get_the_same_result(tmp_path):
    log = tmp_path / "search.jsonl"
    paths = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    done = subprocess.run(
        [*command, sys.executable, "-c", SHARED, str(log)], capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = [json.loads((tmp_path / f"search.jsonl.{rank}").read_text()) for rank in range(2)]
    assert results[0][1:] == results[1][1:]
    assert abs(results[0][0] - results[1][0]) <= 5 and results[0][0] + results[1][0] == results[0][1]
    alone = search(PATCH, pretend_accuracy, cost_of, Budget(), OPTIONS)
    assert results[0][2] == alone.best.config.to_dict()
    assert search(PATCH, lambda c: 1 / 0, cost_of, Budget(), OPTIONS, log=log) == alone  # all of it is in the log


def test_predicted_memory_is_what_the_interpreter_takes():
    rng = random.Random(0)
    for _ in range(6):
        config = PATCH.sample(rng)
        model = convert(lively_subnet(config, 0), structured_images(config, 4))
        cost = cost_of(config)
        assert Interpreter(model).arena_used_bytes <= cost.sram and model.model_bytes <= cost.flash


@pytest.mark.parametrize(
    ("call", "text", "expected"),
    [
        (parse_bytes, "64KB", 65536), (parse_bytes, "64 kb", 65536), (parse_bytes, "1.5MB", 1572864),
        (parse_bytes, "4096", 4096), (parse_bytes, "10B", 10), (parse_count, "50M", 50_000_000),
        (parse_count, "2K", 2000),
    ],
)  # fmt: skip
def test_amounts(call, text, expected):
    assert call(text) == expected


@pytest.mark.parametrize("text", ["", "KB", "-4KB", "0", "4 cows", "1e3", "64GB"])
def test_amounts_that_are_none(text):
    with pytest.raises(ConfigError, match="write it in B, KB or MB, such as 64KB"):
        parse_bytes(text)


def test_a_boards_budget_is_replaced_by_what_is_given():
    board = get_board("nano33ble")
    assert board_budget(board, None, None, None) == Budget(board.sram_budget, board.flash_budget, None)
    assert board_budget(board, 1000, None, 5) == Budget(1000, board.flash_budget, 5)
    assert board_budget(None, None, 7, None) == Budget(None, 7, None)


def test_a_latency_is_a_budget_where_milliseconds_are_estimated():
    board, found = get_board("nano33ble"), SMALL.smallest()
    ms = cost_of(found, board).latency
    assert ms == cycles.cycles(found, "m4") / 64_000 and cost_of(found).latency is None
    assert board_budget(board, None, None, None, ms).admits(cost_of(found, board))
    assert not board_budget(board, None, None, None, 0.99 * ms).admits(cost_of(found, board))
    with pytest.raises(PlanError, match="no subnet of the space has at most 0.001 estimated ms per image: "):
        check_reachable(SMALL, functools.partial(cost_of, board=board), Budget(latency=0.001))
    m7 = get_board("stm32h743")
    line = r"a latency budget for stm32h743: the cycles of its Cortex-M7 are unknown \(known: Cortex-M4\); leave it out"
    with pytest.raises(ConfigError, match=line):
        board_budget(m7, None, None, None, 5.0)
    timed = dataclasses.replace(m7, measured=(Measurement("a", "", 10**6, 4.0, 20, "0.1.0", "2026-11-27"),))
    assert board_budget(timed, None, None, None, 5.0).latency == 5.0
    assert cost_of(found, timed).latency == pytest.approx(4.0 * cost_of(found, timed).instructions / 10**6)
    with pytest.raises(ConfigError, match="a latency budget is one of a board"):
        board_budget(None, None, None, None, 5.0)


def test_a_log_without_a_latency_is_as_before_there_was_one():
    assert Budget(1, 2).to_dict() == {"sram": 1, "flash": 2, "instructions": None}
    assert Budget(latency=2.5).to_dict() == {"sram": None, "flash": None, "instructions": None, "latency": 2.5}


def test_milliseconds():
    assert [parse_ms(text) for text in ("12.5", "12.5ms", " 3 ms")] == [12.5, 12.5, 3.0]
    for text in ("", "0", "-1", "5s", "1e3"):
        with pytest.raises(ConfigError, match="not a time above 0; write it in milliseconds, such as 12.5"):
            parse_ms(text)


@pytest.mark.parametrize(
    "wrong", [{"population": 0}, {"children": 1.5}, {"mutation": 0}, {"objective": "x"}, {"seed": -1}]
)
def test_options_that_make_no_sense_are_named(wrong):
    with pytest.raises(ConfigError, match=f"^{next(iter(wrong))} = "):
        SearchOptions(**wrong)
