# SPDX-License-Identifier: Apache-2.0
"""Where every activation lies in the arena: a Problem, a Solution, plan() and an independent validate().

Tensors that overwrite each other share an offset. Scratch buffers are placed by the interpreter at run time, after the
planned tensors; `place_scratch` reproduces that, so that the whole arena is known in advance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcuformer.errors import PlanError

ALIGNMENT = 16  # bytes; TFLM's MicroArenaBufferAlignment
ROUNDS = 8  # placements tried per order


@dataclass(frozen=True)
class Buffer:
    """In use from step `first` to step `last`, inclusive. Step 0 fills the input; op i runs in step i + 1.

    size: in bytes; overwrites: index of the buffer that this one overwrites, which ends in the step where this begins.
    """

    name: str
    size: int
    first: int
    last: int
    overwrites: int | None = None

    @property
    def aligned_size(self) -> int:
        return align(self.size)


@dataclass(frozen=True)
class Problem:
    buffers: tuple[Buffer, ...]
    scratch: tuple[Buffer, ...] = ()


@dataclass(frozen=True)
class Solution:
    """Offsets in bytes of problem.buffers and problem.scratch; head_bytes: all that lies below the arena's tail."""

    offsets: tuple[int, ...]
    scratch_offsets: tuple[int, ...]
    head_bytes: int


def align(size: int) -> int:
    return (size + ALIGNMENT - 1) & -ALIGNMENT


def _meet(a: Buffer, b: Buffer) -> bool:
    return a.first <= b.last and b.first <= a.last


def place_scratch(problem: Problem, offsets: Sequence[int]) -> tuple[int, ...]:
    """The offsets that TFLM's greedy planner gives the scratch buffers: largest first, each in the first gap that is
    free during its step. Of equal sizes, the last requested comes first."""
    placed = sorted(
        ((offset, buffer) for offset, buffer in zip(offsets, problem.buffers, strict=True)),
        key=lambda item: item[0],
    )
    order = sorted(reversed(range(len(problem.scratch))), key=lambda i: -problem.scratch[i].aligned_size)
    result = [0] * len(problem.scratch)
    for i in order:
        wanted, offset = problem.scratch[i], 0
        for other_offset, other in placed:
            if not _meet(wanted, other):
                continue
            if other_offset - offset >= wanted.aligned_size:
                break
            offset = max(offset, other_offset + other.aligned_size)
        result[i] = offset
        at = next((j for j, (other_offset, _) in enumerate(placed) if other_offset > offset), len(placed))
        placed.insert(at, (offset, wanted))
    return tuple(result)


def lower_bound(problem: Problem) -> int:
    """The most bytes in use in any step; a pair that overwrites counts once, at the larger size. No plan is smaller."""
    everything = (*problem.buffers, *problem.scratch)
    groups = [[everything[i] for i in group] for group in _groups(Problem(everything))]
    spans = [(min(b.first for b in group), max(b.last for b in group), group) for group in groups]
    bound = 0
    for step in {buffer.first for buffer in everything}:
        alive = (group for first, last, group in spans if first <= step <= last)
        bound = max(
            bound, sum(max((b.aligned_size for b in group if b.first <= step <= b.last), default=0) for group in alive)
        )
    return bound


def _groups(problem: Problem) -> list[list[int]]:
    """Buffers that share an offset, by the index of the one that overwrites nothing."""
    groups: dict[int, list[int]] = {}
    for i, buffer in enumerate(problem.buffers):
        root = i
        while buffer.overwrites is not None:
            root = buffer.overwrites
            buffer = problem.buffers[root]
        groups.setdefault(root, []).append(i)
    return [groups[root] for root in sorted(groups)]


def _lowest_offset(problem: Problem, group: list[int], offsets: dict[int, int]) -> int:
    """The lowest offset at which no member of the group meets a placed buffer in both time and space."""
    around = [
        (offset, offset + problem.buffers[j].aligned_size, problem.buffers[i].aligned_size)
        for i in group
        for j, offset in offsets.items()
        if _meet(problem.buffers[i], problem.buffers[j])
    ]
    result, tried = 0, -1
    while tried != result:
        tried = result
        for start, end, size in around:
            if result < end and start < result + size:
                result = end
    return result


def _highest_offset(problem: Problem, group: list[int], offsets: dict[int, int], ceiling: int) -> int:
    """The highest such offset at which the group ends below the ceiling; negative if there is none."""
    result = ceiling - max(problem.buffers[i].aligned_size for i in group)
    tried = ceiling
    while tried != result and result >= 0:
        tried = result
        for i in group:
            a = problem.buffers[i]
            for j, offset in offsets.items():
                b = problem.buffers[j]
                if _meet(a, b) and result < offset + b.aligned_size and offset < result + a.aligned_size:
                    result = offset - a.aligned_size
    return result


def plan(problem: Problem) -> Solution:
    """The best of several greedy orders, each improved, and of one placement from both ends; with scratch. Validated.

    tflm_kernels/buffer_placement.cc is the same, on the device.
    """
    groups, bound = _groups(problem), lower_bound(problem)

    def size(group):
        return max(problem.buffers[i].aligned_size for i in group)

    def span(group):
        return max(problem.buffers[i].last for i in group) - min(problem.buffers[i].first for i in group)

    orders = (
        lambda g: (-size(g), -span(g)),
        lambda g: (-span(g), -size(g)),
        lambda g: (-size(g) * (span(g) + 1),),
        lambda g: (min(problem.buffers[i].first for i in g), -size(g)),
    )
    best = _place(problem, sorted(groups, key=orders[0]))
    for key in orders:
        order = sorted(groups, key=key)
        for _ in range(ROUNDS):
            solution = _place(problem, order)
            if solution.head_bytes < best.head_bytes:
                best = solution
            # The buffer that ends highest is placed first next time.
            ends = [o + b.aligned_size for o, b in zip(solution.offsets, problem.buffers, strict=True)]
            if best.head_bytes == bound or not ends or ends.index(max(ends)) in order[0]:
                break
            highest = ends.index(max(ends))
            order.sort(key=lambda group: highest not in group)
        if best.head_bytes == bound:
            break
    if groups and best.head_bytes > bound:
        best = min(best, _place_from_ends(problem, groups, bound), key=lambda solution: solution.head_bytes)
    validate(problem, best)
    return best


def _place_from_ends(problem: Problem, groups: list[list[int]], ceiling: int) -> Solution:
    """The longest group at the bottom. Earlier groups, last to first, at the bottom if free, else just below the
    ceiling; later groups as low as possible.

    In the chain of layers before the residual stream, input and output then sit at opposite ends, with all the space
    between free for scratch.
    """

    def first(group):
        return min(problem.buffers[i].first for i in group)

    longest = max(groups, key=lambda g: max(problem.buffers[i].last for i in g) - first(g))
    before = sorted((g for g in groups if first(g) < first(longest)), key=first, reverse=True)
    after = sorted((g for g in groups if first(g) >= first(longest) and g is not longest), key=first)
    offsets: dict[int, int] = {}
    for group in (longest, *before, *after):
        offset = _lowest_offset(problem, group, offsets)
        if offset > 0 and first(group) < first(longest):
            high = _highest_offset(problem, group, offsets, ceiling)
            offset = high if high >= 0 else offset
        offsets.update(dict.fromkeys(group, offset))
    return with_scratch(problem, [offsets[i] for i in range(len(problem.buffers))])


def _place(problem: Problem, order: list[list[int]]) -> Solution:
    """Each group in turn at the lowest free offset, then the scratch."""
    offsets: dict[int, int] = {}
    for group in order:
        offset = _lowest_offset(problem, group, offsets)
        offsets.update(dict.fromkeys(group, offset))
    return with_scratch(problem, [offsets[i] for i in range(len(problem.buffers))])


def with_scratch(problem: Problem, offsets: Sequence[int]) -> Solution:
    """The solution that the buffers' offsets give."""
    scratch_offsets = place_scratch(problem, offsets)
    ends = [o + b.aligned_size for o, b in zip(offsets, problem.buffers, strict=True)]
    ends += [o + b.aligned_size for o, b in zip(scratch_offsets, problem.scratch, strict=True)]
    return Solution(tuple(offsets), scratch_offsets, max(ends, default=0))


def validate(problem: Problem, solution: Solution) -> None:
    """Checks a solution step by step, every pair of live buffers, independently of how it was made.

    Raises PlanError with the first violation. The only overlap allowed: a buffer and the one it overwrites, at the same
    offset, in the step that reads the old and writes the new.
    """
    if len(solution.offsets) != len(problem.buffers) or len(solution.scratch_offsets) != len(problem.scratch):
        raise PlanError("the plan has another number of buffers than the problem")
    everything = [*zip(problem.buffers, solution.offsets, strict=True)]
    everything += [*zip(problem.scratch, solution.scratch_offsets, strict=True)]
    for buffer, offset in everything:
        if offset < 0 or offset % ALIGNMENT:
            raise PlanError(f"{buffer.name}: offset {offset} is not a positive multiple of {ALIGNMENT}")
        if offset + buffer.size > solution.head_bytes:
            raise PlanError(
                f"{buffer.name}: bytes {offset} to {offset + buffer.size} reach past the arena's head of "
                f"{solution.head_bytes} bytes"
            )
    last_step = max((buffer.last for buffer, _ in everything), default=-1)
    for step in range(last_step + 1):
        live = [(i, b, o) for i, (b, o) in enumerate(everything) if b.first <= step <= b.last]
        for a, (i, x, x_offset) in enumerate(live):
            for j, y, y_offset in live[a + 1 :]:
                if x_offset >= y_offset + y.size or y_offset >= x_offset + x.size:
                    continue
                overwrites = (y.overwrites == i and x.last == step == y.first) or (
                    x.overwrites == j and y.last == step == x.first
                )
                if not (overwrites and x_offset == y_offset):
                    raise PlanError(
                        f"{x.name} (bytes {x_offset} to {x_offset + x.size}) and {y.name} (bytes {y_offset} to "
                        f"{y_offset + y.size}) overlap in step {step}"
                    )
