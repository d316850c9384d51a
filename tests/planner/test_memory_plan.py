# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from planner_cases import random_problem

from mcuformer.converter.memory.plan import Buffer, Problem, Solution, plan, validate
from mcuformer.errors import PlanError


@pytest.mark.parametrize("seed", range(200))
def test_random_plans_are_valid(seed):
    """plan() validates; here the picture is checked again, byte by byte and step by step."""
    problem = random_problem(np.random.default_rng(seed), 12)
    solution = plan(problem)
    everything = [*zip(problem.buffers, solution.offsets), *zip(problem.scratch, solution.scratch_offsets)]  # noqa: B905
    for step in range(20):
        owner = np.full(solution.head_bytes, -1)
        for i, (buffer, offset) in enumerate(everything):
            if not buffer.first <= step <= buffer.last:
                continue
            region = owner[offset : offset + buffer.size]
            for other in set(region[region >= 0].tolist()):
                pair = sorted((other, i))
                newer = everything[pair[1]][0]
                assert newer.overwrites == pair[0] and newer.first == step
            owner[offset : offset + buffer.size] = i


def test_overwriting_needs_one_buffer():
    """The paper's rule: input and output of a layer take max(input, output)."""
    chain = (Buffer("a", 64, 0, 1), Buffer("b", 256, 1, 2, 0), Buffer("c", 32, 2, 3, 1))
    assert plan(Problem(chain)).head_bytes == 256
    assert plan(Problem((chain[0], Buffer("b", 256, 1, 2), Buffer("c", 32, 2, 3)))).head_bytes == 320


def test_scratch_falls_into_a_gap():
    problem = Problem((Buffer("a", 160, 0, 0), Buffer("b", 32, 1, 2)), (Buffer("s", 96, 1, 1),))
    assert plan(problem).head_bytes == 160


@pytest.mark.parametrize(
    ("offsets", "head", "message"),
    [
        ((0, 16), 300, r"a \(bytes 0 to 100\) and b \(bytes 16 to 66\) overlap in step 1"),
        ((0, 104), 300, "multiple of 16"),
        ((0, -16), 300, "multiple of 16"),
        ((0, 112), 128, "past the arena's head"),
        ((0,), 300, "another number of buffers"),
    ],
)
def test_validate_names_the_violation(offsets, head, message):
    problem = Problem((Buffer("a", 100, 0, 1), Buffer("b", 50, 1, 2)))
    with pytest.raises(PlanError, match=message):
        validate(problem, Solution(offsets, (), head))


@pytest.mark.parametrize(
    ("scratch_offset", "message"), [(0, "a .* and s .* overlap in step 1"), (160, "past"), (8, "16")]
)
def test_validate_checks_scratch(scratch_offset, message):
    problem = Problem((Buffer("a", 100, 0, 1),), (Buffer("s", 32, 1, 1),))
    validate(problem, Solution((0,), (112,), 144))
    with pytest.raises(PlanError, match=message):
        validate(problem, Solution((0,), (scratch_offset,), 144))


def test_a_plan_is_validated_before_it_is_given(monkeypatch):
    from mcuformer.converter.memory import plan as memory_plan

    def refuse(problem, solution):
        raise PlanError("seen")

    monkeypatch.setattr(memory_plan, "validate", refuse)
    with pytest.raises(PlanError, match="seen"):
        plan(Problem((Buffer("a", 64, 0, 1),)))


def test_validate_knows_what_may_overwrite():
    """The same offsets are right with the permission, and wrong without it, too late, or at another offset."""
    a = Buffer("a", 64, 0, 1)
    validate(Problem((a, Buffer("b", 64, 1, 2, 0))), Solution((0, 0), (), 64))
    for other, offsets in (
        (Buffer("b", 64, 1, 2), (0, 0)),
        (Buffer("b", 64, 1, 2, 0), (0, 16)),
        (Buffer("b", 64, 0, 2, 0), (0, 0)),
    ):
        with pytest.raises(PlanError, match="overlap"):
            validate(Problem((a, other)), Solution(offsets, (), 96))
