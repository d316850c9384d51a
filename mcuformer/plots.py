# SPDX-License-Identifier: Apache-2.0
"""Pictures of a model: its memory plan, what it takes for what, the images it is most wrong about."""

from __future__ import annotations

import os

import numpy as np

from mcuformer.confusion import Confusion
from mcuformer.converter.memory.arena import ArenaPlan
from mcuformer.converter.memory.plan import Problem, Solution
from mcuformer.pictures import picture

STREAM, BRANCH, IMAGE, SCRATCH = "#3b6ea5", "#e0a030", "#7a9e5f", "#bbbbbb"
HEIGHT, PANEL_HEIGHT = 6.0, 4.3  # of the picture, and at least of a panel in it, inches
MOST_NAMES = 40  # of classes that a confusion matrix writes
COLUMNS = 6  # of images
LETTER_WIDTH, LETTER_HEIGHT = 0.075, 0.14  # of a label, inches


def plot_memory_plan(plan: ArenaPlan, path: str | os.PathLike, title: str) -> None:
    """Draws time (ops) across, address (bytes) up. One rectangle per tensor; tensors that overwrite each other have the
    same address and colour. path: .png, .svg or .pdf."""
    label = f"{title}: head {plan.head_bytes:,} + tail {plan.tail_bytes:,} = {plan.arena_bytes:,} bytes"
    plot_plans([(label, plan.problem, plan.solution)], path)


def plot_plans(plans: list[tuple[str, Problem, Solution]], path: str | os.PathLike) -> None:
    """Draws a panel for each (title, problem, solution), side by side, on one address scale."""
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    inches = [min(18.0, 6 + _steps(problem) * 0.3) if len(plans) == 1 else 4.5 for _, problem, _ in plans]
    size, dpi = (sum(inches), HEIGHT), 130 if len(plans) == 1 else 100
    top = max(solution.head_bytes for _, _, solution in plans)
    with picture(path, dpi, nrows=1, ncols=len(plans), figsize=size, sharey=True, squeeze=False) as (figure, panels):
        for axes, (title, problem, solution), width in zip(panels[0], plans, inches, strict=True):
            _draw(axes, problem, solution, top, width)
            axes.set_title(title)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("op (in order of execution; 0 is the filled input)")
        panels[0][0].set_ylim(0, top * 1.1)
        panels[0][0].set_ylabel("address in the arena, bytes")
        panels[0][0].yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        legend = {"image": IMAGE, "residual stream": STREAM, "inside a layer": BRANCH}
        handles = [Patch(color=colour, label=label) for label, colour in legend.items()]
        handles.append(Patch(facecolor=SCRATCH, hatch="///", edgecolor="white", label="scratch"))
        figure.legend(handles=handles, loc="outside lower center", ncols=4)


def plot_confusion(confusion: Confusion, path: str | os.PathLike, title: str) -> None:
    """Draws a row for each class, a column for each class that it was taken for, and in each cell the share of the row
    in percent. path: .png, .svg or .pdf."""
    names, shares = confusion.class_names, 100 * confusion.shares
    side = max(4.5, min(24.0, 2.2 + 0.55 * len(names)))
    with picture(path, figsize=(side + 1, side)) as (figure, axes):
        shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        figure.colorbar(shown, ax=axes, label="% of the class", shrink=0.8)
        if len(names) <= MOST_NAMES:
            axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(len(names)), names)
            for (row, column), share in np.ndenumerate(shares):
                if share > 0:
                    colour = "white" if share > 50 else "black"
                    axes.text(column, row, _percent(share), ha="center", va="center", fontsize=8, color=colour)
        axes.set(xlabel="taken for", ylabel="class", title=title)


def _percent(share: float) -> str:
    """Few digits, and never 0 for what happened or 100 for what did not always."""
    return "<1" if share < 1 else ">99" if 99 < share < 100 else f"{share:.0f}"


def plot_worst(images: np.ndarray, captions: list[str], path: str | os.PathLike, title: str) -> None:
    """Draws images, uint8 [n, height, width, channels], each under its caption; of other than 3 channels the first.
    path: .png, .svg or .pdf."""
    columns = min(COLUMNS, max(1, len(images)))
    rows = max(1, -(-len(images) // columns))
    with picture(path, nrows=rows, ncols=columns, figsize=(1.9 * columns, 2.3 * rows + 0.5), squeeze=False) as drawn:
        figure, panels = drawn
        figure.suptitle(title)
        for axes in panels.flat:
            axes.axis("off")
        for axes, image, caption in zip(panels.flat, images, captions, strict=False):
            axes.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255)
            axes.set_title(caption, fontsize=8)


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
