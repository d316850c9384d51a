# SPDX-License-Identifier: Apache-2.0
"""The planner for the device: the same plans as the converter's, all valid, close to the optimum; bad input refused."""

import ctypes
import dataclasses

import numpy as np
import pytest
from conftest import TINY, lively_subnet, structured_images
from planner_cases import (
    graph_problem,
    network_like,
    odd_graph,
    on_device,
    optimum,
    plan_model,
    random_problem,
    shared_cases,
)

from mcuformer import convert, kernel_library
from mcuformer.converter import tflite_file
from mcuformer.converter.memory import plan as memory_plan
from mcuformer.converter.memory.plan import Buffer, Problem, validate
from mcuformer.converter.ops import OPS, PREFIX

CONFIGS = {
    "tiny": {},
    "conv stem": {"stem": "conv"},
    "low rank": {"rank_ratio": 0.4},
    "kv_heads": {"kv_heads": 1},
    "wide": {"embed_dim": 64, "image_size": 32},
    "deep": {"depth": 7, "mlp_ratio": (1.0, 4.0, 2.0, 0.5, 3.0, 4.0, 1.5)},
}


@pytest.fixture(scope="module", params=[(name, s) for name in CONFIGS for s in ("overwrite", "streamed")], ids=str)
def model(request):
    name, schedule = request.param
    config = dataclasses.replace(TINY, **CONFIGS[name])
    return convert(lively_subnet(config, 1), structured_images(config, 4), schedule=schedule)


def without_plan(graph) -> bytes:
    return tflite_file.write(graph, [], {}, with_plan=False)


def test_both_planners_agree():
    for name, problem in shared_cases():
        wanted, found = memory_plan.plan(problem), on_device(problem)
        assert found == wanted, name
        validate(problem, found)


def test_both_find_the_same_links_in_odd_graphs():
    for seed in range(150):
        rng = np.random.default_rng(seed)
        graph = odd_graph(rng, int(rng.integers(0, 25)))
        problem = graph_problem(graph)
        found = plan_model(without_plan(graph), problem)
        assert found == memory_plan.plan(problem), f"seed {seed}"
        validate(problem, found)


def test_both_plan_networks_alike(model):
    problem = graph_problem(model.graph)
    found = plan_model(without_plan(model.graph), problem)
    assert found == model.plan.solution
    assert found.head_bytes == memory_plan.lower_bound(problem), "a network's plan is optimal"


def test_close_to_the_optimum_on_small_cases():
    """Against the exact optimum: how far above it the worst case is, and how many cases reach it."""
    kinds = {
        "random": [random_problem(rng, int(rng.integers(2, 7))) for rng in map(np.random.default_rng, range(200))],
        "networks": [_start(network_like(rng)) for rng in map(np.random.default_rng, range(200))],
    }
    for kind, problems in kinds.items():
        ratios = np.array([on_device(problem).head_bytes / optimum(problem) for problem in problems])
        print(f"{kind}: at most {ratios.max() - 1:.1%} above the optimum, {np.mean(ratios == 1):.1%} of them optimal")
        assert ratios.min() >= 1 and ratios.max() <= 1.25 and np.mean(ratios == 1) >= 0.95


def _start(problem: Problem) -> Problem:
    """Its first buffers, few enough for the exact optimum."""
    buffers = problem.buffers[:6]
    last = max(b.last for b in buffers)
    return Problem(buffers, tuple(s for s in problem.scratch if s.last <= last)[:3])


def test_the_table_says_what_the_converter_says():
    library = kernel_library.load()
    library.mcuf_host_overwriting_op.restype = ctypes.c_char_p
    table, row = {}, 0
    while (name := library.mcuf_host_overwriting_op(row)) is not None:
        inputs = [library.mcuf_host_overwritable_input(row, place) for place in range(8)]
        table[name.decode()] = tuple(i for i in inputs if i >= 0)
        row += 1
    assert table == {PREFIX + kind: tuple(module.OVERWRITES) for kind, module in OPS.items()}, (
        "MCUF_OPS in tflm_kernels/mcuformer_ops.h, and NAME and OVERWRITES in converter/ops differ"
    )


def test_links_that_cannot_be_are_refused():
    a, b = Buffer("a", 64, 0, 2), Buffer("b", 64, 2, 3)
    for buffers in (
        (a, Buffer("b", 64, 1, 3, 0)),  # a is still in use
        (a, Buffer("b", 64, 3, 4, 0)),  # a is no more
        (a, Buffer("b", 64, 2, 3, 0), Buffer("c", 64, 2, 3, 0)),  # twice
        (a, Buffer("b", 64, 2, 2, 0), Buffer("c", 64, 2, 3, 1)),  # three at once
        (Buffer("a", 64, 1, 1, 1), Buffer("b", 64, 1, 1, 0)),  # a circle
        (Buffer("a", 64, 1, 1, 0),),
        (a, dataclasses.replace(b, overwrites=7)),
        (a, dataclasses.replace(b, overwrites=-2)),
    ):
        assert isinstance(on_device(Problem(buffers)), int), buffers
    assert isinstance(on_device(Problem((Buffer("a", 2**30, 0, 1), Buffer("b", 2**30, 0, 1)))), int), "over 2 GB"


def test_offline_offsets_are_kept(model):
    """All of them, or some: the rest is planned around them."""
    problem = graph_problem(model.graph)
    content, tensors = without_plan(model.graph), len(problem.buffers)
    fixed = [*model.plan.solution.offsets, *[-1] * len(problem.scratch)]
    assert plan_model(content, problem, fixed) == model.plan.solution
    rng = np.random.default_rng(3)
    for _ in range(20):
        some = [offset if rng.random() < 0.5 else -1 for offset in fixed]
        found = plan_model(content, problem, some)
        assert all(o in (s, -1) or s == -1 for o, s in zip(some[:tensors], found.offsets, strict=True))
        assert [s for s, o in zip(found.offsets, some[:tensors], strict=True) if o != -1] == [
            o for o in some[:tensors] if o != -1
        ]
        validate(problem, found)


def test_bad_offline_plans_are_refused(tiny_model):
    problem = graph_problem(tiny_model.graph)
    content = without_plan(tiny_model.graph)
    good = [*tiny_model.plan.solution.offsets, *[-1] * len(problem.scratch)]
    for place, offset, message in ((1, -2, "negative"), (1, 8, "multiple of 16"), (0, 2**31 - 16, "2 GB")):
        bad = list(good)
        bad[place] = offset
        assert message in plan_model(content, problem, bad)
    # The first hidden tensor over the residual stream.
    pairs = [
        (i, j)
        for i, a in enumerate(problem.buffers)
        for j, b in enumerate(problem.buffers)
        if i < j and a.first < b.first < a.last
    ]
    i, j = pairs[0]
    bad = list(good)
    bad[j] = bad[i]
    assert "still in use" in plan_model(content, problem, bad)
    bad = list(good)
    bad[-1] = 0
    assert "not the model of this interpreter" in plan_model(content, problem, bad)


def test_another_model_is_refused(tiny_model):
    """Each buffer in turn larger, missing or too many; never a plan."""
    problem = graph_problem(tiny_model.graph)
    content = without_plan(tiny_model.graph)
    for i, buffer in enumerate(problem.buffers):
        larger = dataclasses.replace(buffer, size=buffer.size + 16)
        changed = Problem((*problem.buffers[:i], larger, *problem.buffers[i + 1 :]), problem.scratch)
        assert "not the model of this interpreter" in plan_model(content, changed)
        changed = Problem((*problem.buffers[:i], *problem.buffers[i + 1 :]), problem.scratch)
        assert isinstance(plan_model(content, changed), str)
        late = dataclasses.replace(buffer, first=buffer.first + 50, last=buffer.last + 50)
        changed = Problem((*problem.buffers[:i], late, *problem.buffers[i + 1 :]), problem.scratch)
        assert buffer.name == tiny_model.graph.tensors[tiny_model.graph.output].name or isinstance(
            plan_model(content, changed), str
        )
    assert isinstance(plan_model(content, Problem((*problem.buffers, problem.buffers[0]), problem.scratch)), str)


def test_too_little_room_is_refused(tiny_model):
    """40 bytes a buffer are enough, one less is not."""
    problem = graph_problem(tiny_model.graph)
    content = without_plan(tiny_model.graph)
    count = len(problem.buffers) + len(problem.scratch)
    assert "no room for buffer" in plan_model(content, problem, room=40 * count - 1)
    assert "no room for buffer" in plan_model(content, problem, room=0)
    assert plan_model(content, problem, room=40 * count + 4) == tiny_model.plan.solution


def test_damaged_files_are_refused_or_planned_safely(tiny_model):
    """Cut short, with changed bytes, or no model at all: a message or a valid plan, never a read beyond the end."""
    problem = graph_problem(tiny_model.graph)
    content = without_plan(tiny_model.graph)
    assert "not the bytes" in plan_model(b"", problem, length=0)
    assert "not the bytes" in plan_model(b"TFL4" * 40, problem)
    assert "damaged" in plan_model(b"TFL3" * 40, problem)
    assert "not the bytes" in plan_model(bytes(100), problem)
    rng = np.random.default_rng(1)
    for length in [*range(8, 200, 4), *(int(n) for n in rng.integers(8, len(content), 200))]:
        short = content[:length]
        found = plan_model(short, problem)
        assert isinstance(found, str) or validate(problem, found) is None
    for _ in range(2000):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), 4):
            damaged[at] = rng.integers(0, 256)
        damaged[4:8] = b"TFL3"
        found = plan_model(bytes(damaged), problem)
        if isinstance(found, str):
            assert found.startswith("TokenOverwritePlanner: ")
