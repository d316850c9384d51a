# SPDX-License-Identifier: Apache-2.0
"""Pictures of a search and of an evolution."""

from __future__ import annotations

import os

import numpy as np

from mcuformer.nas.cost import Budget
from mcuformer.nas.evolve_space import EvolutionResult
from mcuformer.nas.search import Found, SearchResult
from mcuformer.pictures import picture

SIZE = (8, 5.5)  # inches
VARIES = 1.05  # largest arena / smallest, from where the arena tells networks apart
RED = "#b03030"
LABEL = {"sram": "arena, bytes", "instructions": "million instructions per image"}
# Where a label may stand around its dot, and how far away: points.
SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
NEAR, FAR = 10, 16


def front_axis(found: tuple[Found, ...]) -> str:
    """What accuracy is drawn against: sram, or instructions if SRAM hardly varies and they are known."""
    arenas = [f.cost.sram for f in found]
    varies = max(arenas) > VARIES * min(arenas)
    return "sram" if varies or any(f.cost.instructions is None for f in found) else "instructions"


def plot_front(result: SearchResult, path: str | os.PathLike, title: str, budget: Budget | None = None) -> None:
    """Draws accuracy against SRAM of all evaluated subnets, or against instructions where SRAM hardly varies; colour:
    million instructions; a line where the budget ends. path: .png, .svg or .pdf."""
    across = front_axis(result.evaluated)
    limit = None if budget is None else getattr(budget, across)
    _plot_found(result.evaluated, (result.best,), across, () if limit is None else (limit,), path, title)


def plot_budgets(found: tuple[Found, ...], chosen: dict[int, Found], path: str | os.PathLike, title: str) -> None:
    """Draws accuracy against SRAM of all evaluated subnets; a line for each budget, bytes, and what was chosen within
    it. path: .png, .svg or .pdf."""
    _plot_found(found, tuple(chosen.values()), "sram", tuple(chosen), path, title)


def _plot_found(
    found: tuple[Found, ...], chosen: tuple[Found, ...], across: str, limits: tuple[int, ...],
    path: str | os.PathLike, title: str,
) -> None:  # fmt: skip
    unit = 1e6 if across == "instructions" else 1

    def x(f: Found) -> float:
        return f.cost.of(across) / unit

    with picture(path, figsize=SIZE) as (figure, axes):
        counted = [f.cost.instructions for f in found if f.cost.instructions is not None]
        coloured = across == "sram" and len(counted) == len(found)
        style = {"c": [count / 1e6 for count in counted], "cmap": "viridis"} if coloured else {"color": "#3b6ea5"}
        dots = axes.scatter([x(f) for f in found], [100 * f.accuracy for f in found], s=18, **style)
        if coloured:
            figure.colorbar(dots, ax=axes, label=LABEL["instructions"])
        line = _best_up_to(sorted(found, key=lambda f: (x(f), -f.accuracy)))
        axes.step(
            [x(f) for f in line], [100 * f.accuracy for f in line], where="post", color=RED, linewidth=1,
            label="best up to here",
        )  # fmt: skip
        axes.scatter(
            [x(f) for f in chosen], [100 * f.accuracy for f in chosen], s=140, facecolors="none", edgecolors=RED,
            label="chosen",
        )  # fmt: skip
        for i, limit in enumerate(limits):
            _draw_limit(axes, limit, unit, first=i == 0)
        axes.xaxis.set_major_formatter("{x:,.0f}" if unit == 1 else "{x:,.2f}")
        axes.set(xlabel=LABEL[across], ylabel="held-out top-1, inherited weights, %", title=title)
        figure.legend(loc="outside lower center", ncols=3)


def _best_up_to(found: list[Found]) -> list[Found]:
    """Those that are more accurate than all before them."""
    better: list[Found] = []
    for f in found:
        if not better or f.accuracy > better[-1].accuracy:
            better.append(f)
    return better


def _draw_limit(axes, limit: int, unit: float, first: bool) -> None:
    """A budget as a line where it is near the dots; far away it would press them together, so words say it. first:
    of several, the one that the legend names."""
    left, right = axes.get_xlim()
    if limit / unit <= right + (right - left):
        label = "budget" if first else None
        axes.axvline(limit / unit, color="black", linewidth=1, linestyle="--", label=label)
    else:
        shown = f"{limit:,} bytes" if unit == 1 else f"{limit / unit:,.0f} million"
        axes.plot([], [], color="black", linewidth=1, linestyle="--", label=f"budget: {shown}, further right")


def plot_path(result: EvolutionResult, path: str | os.PathLike, title: str) -> None:
    """Draws rank ratio across, tokens up; each visited space with its last score, and the window's path. path: .png,
    .svg or .pdf."""
    with picture(path, figsize=SIZE) as (figure, axes):
        last = list({visit.place: visit for visit in result.visits}.values())
        dots = axes.scatter([v.x[0] for v in last], [v.x[1] for v in last], c=[v.score for v in last], s=120)
        figure.colorbar(dots, ax=axes, label="score S = A + eta R, after the space's last epoch")
        for a, b in zip(result.path, result.path[1:], strict=False):
            axes.annotate("", b.x, a.x, arrowprops={"arrowstyle": "->", "color": RED, "shrinkA": 7, "shrinkB": 7})
        best = result.best
        axes.scatter([best.x[0]], [best.x[1]], s=300, facecolors="none", edgecolors=RED, label="best")
        axes.set(xlabel="rank ratio (middle of the window)", ylabel="tokens (middle of the window)", title=title)
        axes.margins(0.15)  # the labels beside the dots stay inside
        figure.legend(loc="outside lower center")
        steps = zip(result.path, result.path[1:], strict=False)
        arrows = [point for a, b in steps for point in np.linspace(a.x, b.x, 200)]
        _label_dots(figure, axes, [(v.x, f"{v.score:.3f} ({v.epochs})") for v in last], arrows)


def _label_dots(figure, axes, labels: list[tuple[tuple[float, float], str]], arrows: list[np.ndarray]) -> None:
    """Writes each label beside its dot where it covers no dot, label or arrow; where nothing is free, above its dot."""
    figure.draw_without_rendering()  # axes and sizes of text are known from here on
    dots = [tuple(axes.transData.transform(x)) for x, _ in labels]
    lines = [tuple(axes.transData.transform(point)) for point in arrows]
    taken: list = []
    for x, text in labels:
        tried = []
        for distance in (NEAR, FAR):
            for side in SIDES:
                offset = (side[0] * distance, side[1] * distance)
                ha, va = ("right", "center", "left")[side[0] + 1], ("top", "center", "bottom")[side[1] + 1]
                tried.append(
                    axes.annotate(
                        text, x, offset, textcoords="offset points", fontsize=8, ha=ha, va=va, in_layout=False
                    )
                )
        boxes = [label.get_window_extent() for label in tried]
        free = [
            i for i, box in enumerate(boxes)
            if not any(box.padded(8).contains(*dot) for dot in dots)
            and not any(box.padded(2).contains(*point) for point in lines)
            and not any(box.overlaps(other) for other in taken)
        ]  # fmt: skip
        chosen = free[0] if free else 0
        taken.append(boxes[chosen])
        for i, label in enumerate(tried):
            if i != chosen:
                label.remove()
