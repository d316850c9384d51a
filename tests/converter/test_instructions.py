# SPDX-License-Identifier: Apache-2.0
"""The models of instructions and cycles: from a config as from a graph, quick, and within 5 % of counts in QEMU."""

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from arm_tests import ALL, LARGE_BOARD, MAIN
from conftest import lively_subnet, structured_images
from random_networks import random_config

from mcuformer import SubnetConfig, convert
from mcuformer.converter.estimate import cycles, instructions, kernel_model
from mcuformer.converter.estimate.macs import op_macs
from mcuformer.converter.memory.arena import plan_arena
from mcuformer.converter.ops.work import Work
from mcuformer.converter.skeleton import Schedule, skeleton
from mcuformer.cores import CORES
from mcuformer.errors import ConfigError
from mcuformer.simulator import firmware, firmware_model
from mcuformer.simulator.cycles import DEFAULT

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import fit_instruction_model  # noqa: E402

A = SubnetConfig(image_size=96, in_channels=3, patch_size=16, embed_dim=96, depth=6, num_heads=3, head_dim=32)
NEITHER = SubnetConfig(
    image_size=50, in_channels=1, patch_size=7, embed_dim=84, depth=2, num_heads=(4, 2), kv_heads=(2, 1), head_dim=20,
    mlp_ratio=2.5, rank_ratio=0.3, num_classes=12,
)  # fmt: skip
CONV = SubnetConfig(
    image_size=36, in_channels=3, patch_size=4, embed_dim=72, depth=1, num_heads=2, head_dim=24, stem="conv"
)
BLOCKS = dataclasses.replace(CONV, patch_size=8, stem_channels=(12, 20), stem_blocks=(2, 3))
FITTED = {key: core for key, core in CORES.items() if core.coefficients == key}
WITH_MODEL = {key: core for key, core in CORES.items() if core.machine is not None and core.coefficients is not None}
BIASES = dataclasses.replace(NEITHER, image_size=(50, 71), prefix_tokens=1, relative_position="bias")
TABLES = dataclasses.replace(NEITHER, image_size=(71, 50), prefix_tokens=1, relative_position="tables")
CHECKED = {"A": A, "neither": NEITHER, "conv": CONV, "blocks": BLOCKS, "biases": BIASES, "tables": TABLES}


def test_key_value_heads_take_the_room_that_the_arena_has():
    """One pass over all of A's heads where one head at once needs the least scratch: the MLPs need as much."""
    net, images = lively_subnet(A, 0), structured_images(A, 2, 0)
    found = convert(net, images).graph
    at_once = [op.options.kv_heads_at_once for op in found.ops if op.kind == "StreamedAttention"]
    least = [
        step.dims.kv_heads_at_once for _, step in skeleton(A, Schedule()).steps() if step.kind == "StreamedAttention"
    ]
    assert (least, at_once) == ([1] * 6, [3] * 6)
    assert convert(net, images, scratch=1 << 20).plan.arena_bytes == plan_arena(found).arena_bytes


def test_a_config_predicts_what_its_graph_does():
    for seed in range(12):
        config = random_config(np.random.default_rng(seed))
        net, images = lively_subnet(config, seed), structured_images(config, 2, seed)
        for core, board in ((name, LARGE_BOARD[core.packing]) for name, core in FITTED.items()):
            schedule = ("overwrite", "streamed")[(seed + len(core)) % 2]
            graph = convert(net, images, schedule=schedule, board=board).graph
            work = [instructions.work_of(graph, op) for op in graph.ops]
            assert instructions.config_work(config, schedule, packing=instructions.PACKING_OF[core]) == work, config
            by_op = sum(instructions.op_instructions(graph, op, core) for op in graph.ops)
            assert abs(instructions.instructions(config, core, schedule) - by_op) <= len(graph.ops)
            assert sum(op_macs(graph, op) for op in graph.ops) == config.macs
        strips = convert(net, images, strips=True).graph
        assert [instructions.work_of(strips, op) for op in strips.ops] == instructions.config_work(config, strips=True)


@pytest.mark.parametrize("core", WITH_MODEL.values(), ids=WITH_MODEL)
def test_within_5_percent_of_networks_it_was_not_fitted_on(core, shared, tmp_path):
    """All networks on the main machines, or with MCUFORMER_TEST_ARM=all on every one; else one of them."""
    if missing := firmware.missing_tools(core):
        pytest.skip(missing)
    machine, every = core.machine, ALL or core.machine.name in MAIN
    for name, config in CHECKED.items() if every else [("neither", NEITHER)]:
        images = structured_images(config, 1)
        for schedule in ("streamed", "overwrite") if every else ("streamed",):
            model = convert(
                lively_subnet(config, 1), images, schedule=schedule, board=LARGE_BOARD[machine.core.packing]
            )
            built = firmware_model.build(
                model.graph, model.class_names, machine, tmp_path / name, objects=shared(machine)
            )
            timed = machine.core.cycle_coefficients
            run = built.run(images, cycles=None if timed is None else DEFAULT)
            guess = instructions.instructions(config, machine.core.coefficients, schedule)
            assert abs(guess / run.instructions - 1) < 0.05, f"{name} {schedule}: {guess} for {run.instructions}"
            assert (run.cycles is None) == (timed is None)
            if timed is not None:
                guess = cycles.cycles(config, timed, schedule)
                assert abs(guess / run.cycles - 1) < 0.05, f"{name} {schedule}: {guess} cycles for {run.cycles}"


def test_quick_enough_for_a_search():
    configs = [
        dataclasses.replace(A, depth=12, embed_dim=64 + 8 * i, mlp_ratio=tuple(1 + (i + j) / 16 for j in range(12)))
        for i in range(20)
    ]
    start = time.process_time()
    for config in configs:
        instructions.instructions(config, "m4")
    assert (time.process_time() - start) / len(configs) < 0.003  # new layers every time; 1 ms on a free machine
    start = time.process_time()
    for config in configs:
        instructions.instructions(config, "m4")
    assert (time.process_time() - start) / len(configs) < 0.001


def test_more_work_is_more_instructions_and_mistakes_are_named():
    for core in instructions.CORES:
        for change in ({"embed_dim": 192}, {"depth": 7}, {"mlp_ratio": 5.0}, {"num_classes": 100}, {"num_heads": 4}):
            larger = dataclasses.replace(A, **change)
            assert instructions.instructions(larger, core) > instructions.instructions(A, core)
    with pytest.raises(ConfigError, match="core 'm85' is unknown; choose one of m0plus, m3, m4, m7, m55"):
        instructions.instructions(A, "m85")
    with pytest.raises(ConfigError, match="schedule = 'none'"):
        instructions.instructions(A, "m4", "none")


def test_a_kernel_without_coefficients_is_an_error_only_where_it_is_used(monkeypatch):
    known = instructions.instructions(A, "m4")
    monkeypatch.setitem(instructions.KERNELS, "new", ("call",))
    kernel_model.coefficients_of.cache_clear()
    assert instructions.instructions(dataclasses.replace(A, depth=7), "m4") > known
    with pytest.raises(ConfigError, match="kernel 'new' on m4 are unknown: run tools/fit_instruction_model.py"):
        instructions.MODEL.of_work([Work("new", (1,))], "m4")


def test_the_fit_finds_coefficients_that_made_the_counts():
    coefficients = {
        kernel: {name: float(3 + i) for i, name in enumerate(names)} for kernel, names in instructions.KERNELS.items()
    }
    samples = []
    for seed in range(40):
        for work in instructions.config_work(fit_instruction_model.random_config(seed), "streamed"):
            counts = fit_instruction_model.summed(work)
            sample = fit_instruction_model.OpSample("op", counts, 1)
            made = fit_instruction_model.predicted(sample, coefficients)
            samples.append(dataclasses.replace(sample, taken=made))
    found = fit_instruction_model.fit(samples)
    worst, _ = fit_instruction_model.report([samples], found)
    assert worst < 1e-3
    held = {kernel: values for kernel, values in found.items() if kernel != "stem_block"}
    alone = fit_instruction_model.fit(samples, held)
    assert {kernel: alone[kernel] for kernel in held} == held and alone.keys() == found.keys()
    worst, _ = fit_instruction_model.report([samples], alone)
    assert worst < 1e-3
