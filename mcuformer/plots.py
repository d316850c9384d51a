# SPDX-License-Identifier: Apache-2.0
"""Pictures: the memory plan of a model."""

from __future__ import annotations

import os

from mcuformer.converter.arena import ArenaPlan
from mcuformer.files import write_whole

STREAM, BRANCH, IMAGE, SCRATCH = "#3b6ea5", "#e0a030", "#7a9e5f", "#bbbbbb"
HEIGHT = 6.0  # of the picture, inches
LETTER_WIDTH, LETTER_HEIGHT = 0.075, 0.14  # of a label, inches


def plot_memory_plan(plan: ArenaPlan, path: str | os.PathLike, title: str) -> None:
    """Writes a PNG: time (ops) across, address (bytes) up. One rectangle a tensor; tensors that overwrite each other
    stand at one address and share a colour."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    buffers, offsets = plan.problem.buffers, plan.solution.offsets
    steps = max(buffer.last for buffer in buffers) + 1
    stream = _stream_members(plan)
    inches = min(18.0, 6 + steps * 0.3)
    figure, axes = plt.subplots(figsize=(inches, HEIGHT), layout="constrained")
    for i, (buffer, offset) in enumerate(zip(buffers, offsets, strict=True)):
        colour = IMAGE if buffer.first == 0 else STREAM if i in stream else BRANCH
        # A tensor that is overwritten ends where its successor begins.
        last = buffer.last if any(other.overwrites == i for other in buffers) else buffer.last + 1
        width = max(last - buffer.first, 0.5)
        axes.bar(buffer.first, buffer.size, width, offset, align="edge", color=colour, edgecolor="white", linewidth=0.6)
        _label(axes, buffer.name.removeprefix("layers."), buffer.first + width / 2, offset + buffer.size / 2,
               width / steps * inches, buffer.size / plan.head_bytes * HEIGHT)  # fmt: skip
    for buffer, offset in zip(plan.problem.scratch, plan.solution.scratch_offsets, strict=True):
        axes.bar(buffer.first, buffer.size, 1, offset, align="edge", color=SCRATCH, hatch="///", edgecolor="white")
    axes.axhline(plan.head_bytes, color="black", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, steps)
    axes.set_ylim(0, plan.head_bytes * 1.1)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.set_xlabel("op (order of execution; 0 is the filled input)")
    axes.set_ylabel("address in the arena, bytes")
    axes.yaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.set_title(f"{title}: head {plan.head_bytes:,} + tail {plan.tail_bytes:,} = {plan.arena_bytes:,} bytes")
    legend = {"image": IMAGE, "residual stream": STREAM, "inside a layer": BRANCH}
    handles = [Patch(color=colour, label=label) for label, colour in legend.items()]
    handles.append(Patch(facecolor=SCRATCH, hatch="///", edgecolor="white", label="scratch"))
    axes.legend(handles=handles, loc="upper right", ncols=4, fontsize=8)
    try:
        write_whole(path, lambda file: figure.savefig(file, format="png", dpi=130))
    finally:
        plt.close(figure)


def _label(axes, text: str, x: float, y: float, width: float, height: float) -> None:
    """Writes text across, or else up, where the rectangle (inches) holds it."""
    length = LETTER_WIDTH * len(text)
    for rotation, along, across in ((0, width, height), (90, height, width)):
        if along >= length and across >= LETTER_HEIGHT:
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white", rotation=rotation)
            return


def _stream_members(plan: ArenaPlan) -> set[int]:
    """Buffers that stand, one after the other, where the image stood."""
    members = {0}
    for i, buffer in enumerate(plan.problem.buffers):
        if buffer.overwrites in members:
            members.add(i)
    if len(members) == 1:  # a convolution stem: the stream starts at the last stem convolution
        start = next((i for i, b in enumerate(plan.problem.buffers) if b.name == "embed"), None)
        for i, buffer in enumerate(plan.problem.buffers):
            if i == start or buffer.overwrites in members - {0}:
                members.add(i)
    return members
