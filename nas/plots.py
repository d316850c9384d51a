# SPDX-License-Identifier: Apache-2.0
"""Pictures of a search and of an evolution."""

from __future__ import annotations

import os

from mcuformer.files import write_whole
from mcuformer.nas.evolve_space import EvolutionResult
from mcuformer.nas.search import SearchResult


def _figure(path: str | os.PathLike, draw) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    try:
        draw(figure, axes)
        write_whole(path, lambda file: figure.savefig(file, format="png", dpi=110))
    finally:
        plt.close(figure)


def plot_front(result: SearchResult, path: str | os.PathLike, title: str) -> None:
    """Writes a PNG: accuracy against SRAM of all evaluated subnets; colour: million instructions."""

    def draw(figure, axes) -> None:
        found = result.evaluated
        dots = axes.scatter(
            [f.cost.sram for f in found], [100 * f.accuracy for f in found],
            c=[(f.cost.instructions or 0) / 1e6 for f in found], s=18, cmap="viridis",
        )  # fmt: skip
        if any(f.cost.instructions is not None for f in found):
            figure.colorbar(dots, ax=axes, label="million instructions")
        best_so_far, front = -1.0, []
        for f in sorted(found, key=lambda f: (f.cost.sram, -f.accuracy)):
            if f.accuracy > best_so_far:
                best_so_far = f.accuracy
                front.append(f)
        axes.step(
            [f.cost.sram for f in front], [100 * f.accuracy for f in front], where="post", color="#b03030",
            linewidth=1, label="best for its SRAM",
        )  # fmt: skip
        best = result.best
        axes.scatter(
            [best.cost.sram], [100 * best.accuracy], s=140, facecolors="none", edgecolors="#b03030", label="chosen"
        )
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="arena, bytes", ylabel="held-out top-1, inherited weights, %", title=title)
        axes.legend(loc="lower right")

    _figure(path, draw)


def plot_path(result: EvolutionResult, path: str | os.PathLike, title: str) -> None:
    """Writes a PNG: rank ratio across, tokens up; each visited space with its last score, and the window's path."""

    def draw(figure, axes) -> None:
        last = {visit.place: visit for visit in result.visits}.values()
        dots = axes.scatter([v.x[0] for v in last], [v.x[1] for v in last], c=[v.score for v in last], s=120)
        figure.colorbar(dots, ax=axes, label="score S = A + eta R, after the space's last epoch")
        for visit in last:
            axes.annotate(
                f"{visit.score:.3f} ({visit.epochs})", visit.x, (6, 6), textcoords="offset points", fontsize=8
            )
        for a, b in zip(result.path, result.path[1:], strict=False):
            axes.annotate("", b.x, a.x, arrowprops={"arrowstyle": "->", "color": "#b03030"})
        best = result.best
        axes.scatter([best.x[0]], [best.x[1]], s=300, facecolors="none", edgecolors="#b03030", label="best")
        axes.set(xlabel="rank ratio (middle of the window)", ylabel="tokens (middle of the window)", title=title)
        axes.margins(0.15)  # the labels beside the dots stay inside
        axes.legend()

    _figure(path, draw)
