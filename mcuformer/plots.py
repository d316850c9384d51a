# SPDX-License-Identifier: Apache-2.0
"""Pictures: the memory plan of a model."""

from __future__ import annotations

import os

from mcuformer.converter.memory.arena import ArenaPlan
from mcuformer.converter.memory.plan import Problem, Solution
from mcuformer.files import write_whole

STREAM, BRANCH, IMAGE, SCRATCH = "#3b6ea5", "#e0a030", "#7a9e5f", "#bbbbbb"
HEIGHT, PANEL_HEIGHT = 6.0, 4.3  # of the picture, and at least of a panel in it, inches
LETTER_WIDTH, LETTER_HEIGHT = 0.075, 0.14  # of a label, inches


def plot_memory_plan(plan: ArenaPlan, path: str | os.PathLike, title: str) -> None:
    """Writes a PNG: time (ops) across, address (bytes) up. One rectangle per tensor; tensors that overwrite each other
    have the same address and colour."""
    label = f"{title}: head {plan.head_bytes:,} + tail {plan.tail_bytes:,} = {plan.arena_bytes:,} bytes"
    plot_plans([(label, plan.problem, plan.solution)], path)


def plot_plans(plans: list[tuple[str, Problem, Solution]], path: str | os.PathLike) -> None:
    """Writes a PNG with a panel for each (title, problem, solution), side by side, on one address scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    inches = [min(18.0, 6 + _steps(problem) * 0.3) if len(plans) == 1 else 4.5 for _, problem, _ in plans]
    figure, panels = plt.subplots(
        1, len(plans), figsize=(sum(inches), HEIGHT), layout="constrained", sharey=True, squeeze=False
    )
    top = max(solution.head_bytes for _, _, solution in plans)
    for axes, (title, problem, solution), width in zip(panels[0], plans, inches, strict=True):
        _draw(axes, problem, solution, top, width)
        axes.set_title(title)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        axes.set_xlabel("op (in order of execution; 0 is the filled input)")
    panels[0][0].set_ylim(0, top * 1.1)
    panels[0][0].set_ylabel("address in the arena, bytes")
    panels[0][0].yaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    legend = {"image": IMAGE, "residual stream": STREAM, "inside a layer": BRANCH}
    handles = [Patch(color=colour, label=label) for label, colour in legend.items()]
    handles.append(Patch(facecolor=SCRATCH, hatch="///", edgecolor="white", label="scratch"))
    if len(plans) == 1:
        panels[0][0].legend(handles=handles, loc="upper right", ncols=4, fontsize=8)
    else:
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    try:
        write_whole(path, lambda file: figure.savefig(file, format="png", dpi=130 if len(plans) == 1 else 100))
    finally:
        plt.close(figure)


def _steps(problem: Problem) -> int:
    return max(buffer.last for buffer in problem.buffers) + 1


def _draw(axes, problem: Problem, solution: Solution, top: int, inches: float) -> None:
    """Draws one plan; top: the highest address of the picture; inches: the panel's width."""
    steps, stream = _steps(problem), _stream_members(problem)
    overwritten = {buffer.overwrites for buffer in problem.buffers}
    for i, (buffer, offset) in enumerate(zip(problem.buffers, solution.offsets, strict=True)):
        colour = IMAGE if buffer.first == 0 else STREAM if i in stream else BRANCH
        # A tensor that is overwritten ends where its successor begins.
        last = buffer.last if i in overwritten else buffer.last + 1
        width = max(last - buffer.first, 0.5)
        axes.bar(buffer.first, buffer.size, width, offset, align="edge", color=colour, edgecolor="white", linewidth=0.6)
        _label(axes, buffer.name.removeprefix("layers."), buffer.first + width / 2, offset + buffer.size / 2,
               width / steps * inches, buffer.size / top * PANEL_HEIGHT)  # fmt: skip
    for buffer, offset in zip(problem.scratch, solution.scratch_offsets, strict=True):
        axes.bar(buffer.first, buffer.size, 1, offset, align="edge", color=SCRATCH, hatch="///", edgecolor="white")
    axes.axhline(solution.head_bytes, color="black", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, steps)


def _label(axes, text: str, x: float, y: float, width: float, height: float) -> None:
    """Writes text across, or else up, if the rectangle (inches) holds it."""
    length = LETTER_WIDTH * len(text)
    for rotation, along, across in ((0, width, height), (90, height, width)):
        if along >= length and across >= LETTER_HEIGHT:
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white", rotation=rotation)
            return


def _stream_members(problem: Problem) -> set[int]:
    """Buffers that occupy, one after another, the place of the patch embedding's output."""
    buffers = problem.buffers
    members = {i for i, buffer in enumerate(buffers) if buffer.name == "embed"}
    while grown := {i for i, b in enumerate(buffers) if i not in members and b.overwrites in members}:
        members |= grown
    return members
