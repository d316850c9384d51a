# SPDX-License-Identifier: Apache-2.0
"""What a report says, section by section: HTML text of what is there, or the command that makes what is missing."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcuformer.cli.budget import network_words
from mcuformer.nas.front import INTERPRETER
from mcuformer.nas.plots import front_axis
from mcuformer.report.folder import Curves, Log, Material
from mcuformer.report.searches import Searched, searches
from mcuformer.report.svg import Chart, bars, cells, margin

if TYPE_CHECKING:
    from mcuformer.cli.inspect import Inspection
    from mcuformer.nas.search import Found

MOST_CLASSES = 40  # that a confusion matrix shows; of more, the table alone
PICTURE = "search --plot, run --confusion, run --worst or inspect --plot"
AXES = {"sram": "arena, bytes", "instructions": "instructions per image"}


@dataclass(frozen=True)
class Section:
    """A heading and its content; missing: without content, the command that makes it."""

    title: str
    content: str
    missing: str = ""


def sections(material: Material) -> list[Section]:
    """All sections of the page, in order. A file that does not hold what its command writes joins material.unused."""
    folder, results, searched = material.folder, material.results, searches(material)
    run, convert = f"mcuformer run model.tflite --per-class {_to(folder, 'run')}", f"-o {folder}/model.tflite"
    trained = [(file, partial(_losses, file, content)) for file, content in results["train"]]

    def section(title: str, parts: Iterable[tuple[str, Callable[[], str]]], missing: str) -> Section:
        content = "".join(material.safely(file, make) for file, make in parts)
        return Section(title, content, "" if content else missing)

    return [
        section("Search", [(s.files, partial(_front, s)) for s in searched],
                f"mcuformer search supernet.pt --board B --log-file {folder}/search.jsonl {_to(folder, 'search')}"),
        section("How the search went", [(s.files, partial(_progress, s)) for s in searched if s.whole],
                f"mcuformer search supernet.pt --board B --log-file {folder}/search.jsonl"),
        section("Evolution of the space", [(log.file, partial(_evolution, log)) for log in material.evolution_logs],
                f"mcuformer evolve --space S --board B --folder {folder}"),
        section("Training", [(c.file, partial(_curves, c)) for c in material.curves] + trained,
                f"mcuformer train --space S {_to(folder, 'train')}"),
        section("Accuracy, float and int8", [("", partial(_accuracy, material))], f"{run}, mcuformer finetune --test"),
        section("Which classes are taken for which",
                [(file, partial(_confusion, file, content)) for file, content in results["run"]], run),
        section("Memory plan", [(file, partial(_memory, file, model)) for file, model in material.models],
                f"mcuformer convert subnet.pt {convert}"),
        section("Instructions of each op", [(m[0], partial(_instructions, *m)) for m in material.models],
                f"mcuformer convert subnet.pt {convert}"),
        section("Pictures", [(p[0], partial(_picture, *p)) for p in material.pictures],
                f"mcuformer {PICTURE} {folder}/NAME.png"),
        section("Commands", [("", partial(_commands, material))], f"any of the above with --json {folder}/NAME.json"),
        section("Files that are not shown", [("", partial(_unused, material))], ""),
    ]  # fmt: skip


def _to(folder: Path, name: str) -> str:
    return f"--json {folder}/{name}.json"


def summary(material: Material) -> list[tuple[str, str]]:
    """(what, value) of the first screen: the last model and what it reached."""
    said: list[tuple[str, str]] = []
    if runs := [content for _, content in material.results["run"] if isinstance(content.get("top1"), float)]:
        said.append(("int8 top-1", f"{100 * runs[-1]['top1']:.2f} %"))
    if tops := [top1 for _, top1 in _float_top1(material)]:
        said.append(("float top-1", f"{100 * tops[-1]:.2f} %"))
    if material.models:
        _, model = material.models[-1]
        said.append(("arena, 64-bit", f"{model.arena_bytes:,} bytes"))
        said.append(("model", f"{model.model_bytes:,} bytes"))
        counted = [row.instructions for row in model.ops if row.instructions is not None]
        if model.core is not None and len(counted) == len(model.ops):
            said.append((f"instructions, {model.core.label}", f"{sum(counted) / 1e6:.2f} M"))
        said += [(f"measured on {board}", f"{ms:.1f} ms") for board, ms in model.measured.items()]
        if model.estimated_ms is not None:
            said.append(("time, an estimate", f"{model.estimated_ms:.1f} ms"))
    return said


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """All text is escaped here."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _said(words: str, kind: str = "note") -> str:
    return f'<p class="{kind}">{escape(words)}</p>'


def _drawn(svg: str) -> str:
    return f'<div class="wide">{svg}</div>'


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"


def _subnet_tip(f: Found, first: str) -> str:
    return (
        f"{first}\n{network_words(f.config)}\nheld-out top-1 {100 * f.accuracy:.2f} %\narena {f.cost.sram:,} bytes\n"
        f"model at most {f.cost.flash:,} bytes\ninstructions {_count(f.cost.instructions)}\n"
        f"estimated ms {_ms(f.cost.latency)}"
    )


def _front(s: Searched) -> str:
    axis = front_axis(s.found)
    points, front = [(f.cost.of(axis), 100 * f.accuracy) for f in s.found], set(map(id, s.front))
    limit = s.budget.get(axis)
    xs = [x for x, _ in points]
    near = limit is not None and limit <= max(xs) + (max(xs) - min(xs))
    words = AXES[axis]
    chart = Chart(
        margin([*xs, limit] if near and limit is not None else xs), margin([y for _, y in points]),
        (words, "held-out top-1, %"), f"Accuracy of {len(points)} subnets against {words}",
    )  # fmt: skip
    if near and limit is not None:
        chart.line([(limit, chart.y[0]), (limit, chart.y[1])], "limit")
    better: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not better or point[1] > better[-1][1]:
            better.append(point)
    chart.line(better, "best", steps=True)
    order = sorted(range(len(points)), key=lambda i: id(s.found[i]) in front)  # the front on top
    for i in order:
        on = id(s.found[i]) in front
        first = f"evaluation {i + 1}" + (", on the front" if on else "") if s.whole else "on the front"
        chart.point(*points[i], "front" if on else "other", _subnet_tip(s.found[i], first), 6 if on else 4)
    limits = [f"{name} at most {value:,}" for name, value in s.budget.items() if value is not None]
    rows = [
        (str(i), f"{f.cost.sram:,}", f"{f.cost.flash:,}", _count(f.cost.instructions), _ms(f.cost.latency),
         f"{100 * f.accuracy:.2f}",
         network_words(f.config))
        for i, f in enumerate(s.front, 1)
    ]  # fmt: skip
    whole = "" if s.whole else " Only the front is known: --log-file keeps all evaluations."
    return (
        _said(
            f"{s.files}: {len(s.found)} subnets; arenas in bytes of {s.board or INTERPRETER}; "
            f"{'; '.join(limits)}.{whole}"
        )
        + _said("Point at a dot to see its network. Red: the front. Line: the best up to there. Dashed: the budget.")
        + _drawn(chart.to_svg())
        + table(("#", "arena", "model at most", "instructions", "estimated ms", "held-out top-1 %", "network"), rows)
    )


def _progress(s: Searched) -> str:
    points = [(i, 100 * f.accuracy) for i, f in enumerate(s.found, 1)]
    chart = Chart(
        (0, len(points) + 1), margin([y for _, y in points]), ("evaluation", "held-out top-1, %"),
        "Accuracy by evaluation", counted=True,
    )  # fmt: skip
    best: list[tuple[float, float]] = []
    for point in points:
        best.append((point[0], max(point[1], best[-1][1] if best else point[1])))
    at = s.first
    while 0 < at < len(points):
        chart.line([(at + 0.5, chart.y[0]), (at + 0.5, chart.y[1])], "generation")
        if s.children < 1:
            break
        at += s.children
    chart.line(best, "best", steps=True)
    for (x, y), f in zip(points, s.found, strict=True):
        chart.point(x, y, "other", _subnet_tip(f, f"evaluation {x}"))
    return _said(f"{s.files}. Line: the best so far. Dotted: generations.") + _drawn(chart.to_svg())


def _evolution(log: Log) -> str:
    visits = [entry for entry in log.entries if "score" in entry]
    if not visits:
        return ""
    points = [(i, visit["score"]) for i, visit in enumerate(visits, 1)]
    chart = Chart(
        (0, len(points) + 1),
        margin([y for _, y in points]),
        ("visit", "score S = A + eta R"),
        "Score of each visit",
        counted=True,
    )
    chart.line(points, "best")
    for (i, score), visit in zip(points, visits, strict=True):
        tip = f"visit {i}: score {score:.4f}\naccuracy {visit['accuracy']:.4f}, share that fits {visit['share']:.3f}"
        x = visit.get("x")
        where = f"\nrank ratio {x[0]:.3f}, {x[1]:.1f} tokens" if x else ""
        chart.point(i, score, "front", f"{tip}{where}\n{visit['epochs']} epochs", 5)
    return _said(f"{log.file}: {len(visits)} visits.") + _drawn(chart.to_svg())


def _curves(curves: Curves) -> str:
    return "".join(_curve(curves.file, name, curves) for name in curves.columns)


def _losses(file: str, content: dict[str, Any]) -> str:
    losses = tuple(map(float, content["losses"]))
    return _curves(Curves(file, tuple(range(1, len(losses) + 1)), {"loss": losses} if losses else {}))


def _curve(file: str, name: str, curves: Curves) -> str:
    points = [(x, y) for x, y in zip(curves.epochs, curves.columns[name], strict=True) if math.isfinite(y)]
    chart = Chart((min(x for x, _ in points), max(x for x, _ in points)), margin([y for _, y in points]),
                  ("epoch", name), f"{name} by epoch", height=240, counted=True)  # fmt: skip
    chart.line(points, "best")
    for x, y in points:
        chart.point(x, y, "front", f"epoch {x:g}\n{name} {y:.5g}", 3)
    return _said(f"{file}: {name}") + _drawn(chart.to_svg())


def _float_top1(material: Material) -> list[tuple[str, float]]:
    """(file, top-1 on test images) of float networks; a network and the result that tells of it are one row."""
    found = [(file, notes.get("float_top1")) for file, notes in material.subnets]
    told = {Path(file).name for file, _ in material.subnets}
    for file, content in material.results["train"]:
        if Path(str(content.get("subnet", ""))).name not in told:
            found.append((file, content.get("float_top1")))
    return [(file, float(top1)) for file, top1 in found if isinstance(top1, int | float)]


def _accuracy(material: Material) -> str:
    rows = [(file, "float", f"{100 * top1:.2f}", "test images") for file, top1 in _float_top1(material)]
    for file, content in material.results["run"]:
        if isinstance(content.get("top1"), float):
            model = Path(str(content.get("model", ""))).name
            images = f"{content['images']:,} images"
            rows.append((f"{file} {model}".strip(), "int8", f"{100 * content['top1']:.2f}", images))
    return table(("file", "arithmetic", "top-1 %", "of"), rows) if rows else ""


def _confusion(file: str, content: dict[str, Any]) -> str:
    if "confusion" not in content:
        return ""
    names, counts = content["class_names"], content["confusion"]
    model = Path(str(content.get("model", ""))).name
    text = _said(f"{file}: {model}, {content['images']:,} images. Rows: the class; columns: what it was taken for.")
    if len(names) <= MOST_CLASSES:
        text += _drawn(cells(counts, names, "Confusion matrix"))
    rows = [
        (row["name"], f"{row['images']:,}", *(_percent(row[key]) for key in ("accuracy", "precision")),
         "" if row["mistaken_for"] is None else f"{row['mistaken_for']} ({row['mistaken']:,})")
        for row in content["per_class"]
    ]  # fmt: skip
    return text + table(("class", "images", "accuracy %", "precision %", "most taken for"), rows)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _memory(file: str, model: Inspection) -> str:
    problem, solution = model.plan.problem, model.plan.solution
    steps = max(buffer.last for buffer in problem.buffers) + 1
    chart = Chart((0, steps), (0, solution.head_bytes), ("op, in order of execution", "address, bytes"),
                  f"Memory plan of {file}", counted=True)  # fmt: skip
    overwritten = {buffer.overwrites for buffer in problem.buffers}
    for i, (buffer, offset) in enumerate(zip(problem.buffers, solution.offsets, strict=True)):
        last = buffer.last if i in overwritten else buffer.last + 1
        over = "" if buffer.overwrites is None else f"\noverwrites {problem.buffers[buffer.overwrites].name}"
        tip = f"{buffer.name}\n{buffer.size:,} bytes at {offset:,}\nsteps {buffer.first} to {buffer.last}{over}"
        kind = "image" if buffer.first == 0 else "tensor"
        span = (buffer.first, max(last, buffer.first + 0.5))
        chart.rectangle(span, (offset, offset + buffer.size), kind, tip)
    for buffer, offset in zip(problem.scratch, solution.scratch_offsets, strict=True):
        tip = f"scratch of op {buffer.first}\n{buffer.size:,} bytes at {offset:,}"
        chart.rectangle((buffer.first, buffer.first + 1), (offset, offset + buffer.size), "scratch", tip)
    sizes = f"head {model.plan.head_bytes:,} + tail {model.plan.tail_bytes:,} = {model.arena_bytes:,} bytes of arena"
    colours = "Green: the image; blue: tensors; grey: scratch. Point at one to see it."
    return _said(f"{file}: {sizes} in the 64-bit interpreter. {colours}") + _drawn(chart.to_svg())


def _instructions(file: str, model: Inspection) -> str:
    assert model.core is not None  # the folder's reader names a board
    rows = []
    for row in model.ops:
        value = row.instructions if row.instructions is not None else row.macs or 0
        tip = f"{row.op}, {row.output}\n{row.macs or 0:,} multiply-accumulates\ninstructions {_count(row.instructions)}"
        tip += f"\nestimated cycles {_count(row.cycles)}"
        rows.append((row.output, float(value), tip))
    known = all(row.instructions is not None for row in model.ops)
    what = f"instructions on {model.core.label}, by the model fitted to counts in QEMU" if known else (
        f"multiply-accumulates: the instructions of {model.core.label} are unknown"
    )  # fmt: skip
    total = sum(value for _, value, _ in rows)
    time = _said(model.estimate) if model.estimate else ""
    return _said(f"{file}: {total:,.0f} {what}") + time + _drawn(bars(rows, f"Instructions of each op of {file}"))


def _picture(file: str, content: bytes) -> str:
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    name = escape(file)
    return f'<figure><img src="{source}" alt="{name}"><figcaption class="note">{name}</figcaption></figure>'


def _commands(material: Material) -> str:
    return "".join(f"<pre>{escape(command)}</pre>" for command in material.commands)


def _unused(material: Material) -> str:
    return table(("file", "why"), material.unused) if material.unused else ""
