# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG text: axes, points, lines, bars, a grid of cells. Marks have tips, which page.js shows.

All text is escaped here; callers give it as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 640, 360  # of a chart, units of its own; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 100, 20, 14, 50  # margins around the plot
LETTER = 7.2  # of a label's font, in the mean


class Chart:
    """A plot between x and y ranges, each (low, high). Marks are added in order; to_svg() gives the text. counted: x is
    a whole number."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        labels: tuple[str, str],
        name: str,
        height: int = HEIGHT,
        counted: bool = False,
    ):
        self.x, self.y, self.labels, self.name = _apart(*x), _apart(*y), labels, name
        self.height, self.left, self.counted = height, LEFT, counted
        self.marks: list[str] = []

    def across(self, value: float) -> float:
        low, high = self.x
        return self.left + (value - low) / (high - low) * (WIDTH - self.left - RIGHT)

    def up(self, value: float) -> float:
        low, high = self.y
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - BOTTOM - TOP)

    def point(self, x: float, y: float, kind: str, tip: str, radius: float = 4) -> None:
        self.marks.append(
            f'<circle class="mark {kind}" cx="{self.across(x):.1f}" cy="{self.up(y):.1f}" r="{radius}" '
            f'{_tip(tip)}/>'
        )  # fmt: skip

    def rectangle(self, x: tuple[float, float], y: tuple[float, float], kind: str, tip: str, style: str = "") -> None:
        left, right, low, high = self.across(x[0]), self.across(x[1]), self.up(y[0]), self.up(y[1])
        self.marks.append(
            f'<rect class="mark {kind}" x="{left:.1f}" y="{high:.1f}" width="{max(right - left, 0.5):.1f}" '
            f'height="{max(low - high, 0.5):.1f}"{style} {_tip(tip)}/>'
        )  # fmt: skip

    def line(self, points: Sequence[tuple[float, float]], kind: str, steps: bool = False) -> None:
        """steps: level from each point to the next."""
        corners: list[tuple[float, float]] = []
        for x, y in points:
            if steps and corners:
                corners.append((x, corners[-1][1]))
            corners.append((x, y))
        path = " ".join(f"{self.across(x):.1f},{self.up(y):.1f}" for x, y in corners)
        self.marks.append(f'<polyline class="{kind}" points="{path}"/>')

    def to_svg(self) -> str:
        parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(self.name)}">']
        floor, wall = self.height - BOTTOM, WIDTH - RIGHT
        for value in ticks(*self.x, least=1 if self.counted else 0):
            at = self.across(value)
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{floor}"/>')
            parts.append(f'<text x="{at:.1f}" y="{floor + 18}" text-anchor="middle">{number(value)}</text>')
        for value in ticks(*self.y):
            at = self.up(value)
            parts.append(f'<line class="grid" x1="{self.left}" x2="{wall}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{self.left - 8}" y="{at + 4:.1f}" text-anchor="end">{number(value)}</text>')
        middle = (self.left + wall) / 2
        parts.append(f'<text x="{middle}" y="{self.height - 6}" text-anchor="middle">{escape(self.labels[0])}</text>')
        turned = f'x="18" y="{floor / 2}" text-anchor="middle" transform="rotate(-90 18 {floor / 2})"'
        parts.append(f"<text {turned}>{escape(self.labels[1])}</text>")
        return "".join([*parts, *self.marks, "</svg>"])


def bars(rows: Sequence[tuple[str, float, str]], name: str) -> str:
    """A bar to the right for each (label, value, tip), from 0."""
    step, left = 20, 40 + LETTER * max(len(label) for label, _, _ in rows)
    most = max(value for _, value, _ in rows) or 1
    parts = [f'<svg viewBox="0 0 {WIDTH} {step * len(rows) + 8}" role="img" aria-label="{escape(name)}">']
    space = WIDTH - left - 100
    for i, (label, value, tip) in enumerate(rows):
        y, width = i * step + 4, max(1.0, value / most * space)
        parts.append(f'<text x="{left - 8:.0f}" y="{y + 13}" text-anchor="end">{escape(label)}</text>')
        parts.append(
            f'<rect class="mark bar" x="{left:.0f}" y="{y}" width="{width:.1f}" height="{step - 4}" {_tip(tip)}/>'
        )
        parts.append(f'<text x="{left + width + 6:.1f}" y="{y + 13}">{number(value)}</text>')
    return "".join([*parts, "</svg>"])


def cells(counts: Sequence[Sequence[int]], names: Sequence[str], name: str) -> str:
    """A square for each count, the darker the larger its share of the row; rows and columns have the same names."""
    size, shortened = 34, [shown if len(shown) <= 16 else shown[:15] + "…" for shown in names]
    left = 16 + LETTER * max(map(len, shortened))
    side, top = size * len(names), left * 0.75 + 10
    parts = [f'<svg viewBox="0 0 {left + side + 60:.0f} {top + side + 6:.0f}" role="img" aria-label="{escape(name)}">']
    for i, (label, row) in enumerate(zip(shortened, counts, strict=True)):
        x, y = left + i * size + size / 2, top + i * size + size / 2
        parts.append(f'<text x="{left - 8:.0f}" y="{y + 4:.0f}" text-anchor="end">{escape(label)}</text>')
        corner = f'x="{x:.0f}" y="{top - 8:.0f}"'
        parts.append(f'<text {corner} transform="rotate(-45 {x:.0f} {top - 8:.0f})">{escape(label)}</text>')
        whole = sum(row)
        for j, count in enumerate(row):
            share = count / whole if whole else 0.0
            tip = f"{names[i]} taken for {names[j]}\n{count:,} of {whole:,} images, {100 * share:.1f} %"
            kind = "right" if i == j else "wrong"
            at = f'x="{left + j * size:.0f}" y="{top + i * size:.0f}" width="{size - 1}" height="{size - 1}"'
            parts.append(f'<rect class="mark cell {kind}" {at} style="--share:{share:.3f}" {_tip(tip)}/>')
            if count:
                dark = " dark" if share > 0.55 else ""
                parts.append(
                    f'<text class="count{dark}" x="{left + j * size + size / 2:.0f}" y="{y + 4:.0f}" '
                    f'text-anchor="middle">{count if count < 10_000 else f"{count / 1000:.0f}k"}</text>'
                )
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, least: float = 0) -> list[float]:
    """Round values from low to high, about six of them, at least `least` apart."""
    raw = max((high - low) / 6, least)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """As few digits as say it: 16,500, 1.25 M, 0.875."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.3f}".rstrip("0").rstrip(".") + " M"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}"


def margin(values: Sequence[float]) -> tuple[float, float]:
    """The range of values, with some room on both sides."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low)
    return low - room, high + room


def _apart(low: float, high: float) -> tuple[float, float]:
    """A range that is not empty."""
    if high > low:
        return low, high
    room = abs(low) * 0.01 or 1.0
    return low - room, high + room


def _tip(words: str) -> str:
    """What page.js shows; reached by the keyboard too."""
    return f'tabindex="0" data-tip="{escape(words)}"'
