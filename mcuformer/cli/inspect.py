# SPDX-License-Identifier: Apache-2.0
"""mcuformer inspect: a model's ops, tensors, offsets and memory plan."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from mcuformer import measured
from mcuformer.cli.common import PATH, check_outputs, json_option, out, read_bytes, sizes_line, write_json
from mcuformer.pictures import ENDINGS, check_pictures
from mcuformer.sizes import size_text

if TYPE_CHECKING:
    from mcuformer.converter.estimate.sizing import PartSize
    from mcuformer.converter.graph import Graph, Op, Tensor
    from mcuformer.converter.memory.arena import ArenaPlan
    from mcuformer.converter.tflite_file import ModelFile
    from mcuformer.cores import Core

SIZES = ("image_size", "patch_size")  # fields of a config


@dataclass(frozen=True)
class OpRow:
    """One op, in the order of execution; all sizes in bytes.

    overwrites      the tensor that its output overwrites
    constant_bytes  of its weights and tables
    weights_read_bytes, weights_reads   of staged weights, in one run
    macs, instructions, cycles   if a core was given; instructions, cycles: None if unknown
    """

    op: str
    output: str
    shape: tuple[int, ...]
    offset: int
    bytes: int
    overwrites: str | None
    scratch_bytes: int
    constant_bytes: int
    weights_read_bytes: int
    weights_reads: int
    macs: int | None = None
    instructions: int | None = None
    cycles: int | None = None


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a model file holds. core: the given board's, or None; measured: board -> ms an image, as `check-board` keeps
    them beside the model, or in the given board's file; estimate: in words, of the milliseconds on that board, empty
    without one; estimated_ms: the same as a number."""

    path: Path
    model_bytes: int
    stored: ModelFile
    plan: ArenaPlan
    ops: tuple[OpRow, ...]
    parts: tuple[PartSize, ...]
    core: Core | None
    measured: dict[str, float] = field(default_factory=dict)
    estimate: str = ""
    estimated_ms: float | None = None

    @property
    def graph(self) -> Graph:
        return self.stored.graph

    @property
    def arena_bytes(self) -> int:
        return self.plan.arena_bytes

    @property
    def config(self) -> dict:
        """The fields of the network's SubnetConfig."""
        return self.stored.info["config"]

    def to_dict(self) -> dict:
        """What --json writes."""
        hidden = {"macs", "instructions", "cycles"} if self.core is None else set()
        rows = [{name: value for name, value in vars(row).items() if name not in hidden} for row in self.ops]
        return {
            "model_bytes": self.model_bytes, "arena_bytes": self.arena_bytes, "head_bytes": self.plan.head_bytes,
            "ops": rows, "config": self.config, "schedule": self.stored.info["schedule"],
            "parts": [vars(part) for part in self.parts], "measured_ms": self.measured,
            **({} if self.core is None else {"estimated_ms": self.estimated_ms}),
        }  # fmt: skip


def inspect(model: str | os.PathLike, *, board: str | None = None, plot: str | os.PathLike | None = None) -> Inspection:
    """Reads a .tflite and plans its memory again.

    board  also predict multiply-accumulates and instructions of each op on this board's core
    plot   the memory plan is drawn here: .png, .svg or .pdf
    """
    from mcuformer.boards import get_board
    from mcuformer.converter.estimate.on_board import cycles_on, instructions_on
    from mcuformer.converter.estimate.sizing import sizes
    from mcuformer.converter.memory.arena import plan_arena
    from mcuformer.converter.subnet_config import SubnetConfig
    from mcuformer.converter.tflite_file import read

    path = Path(model)
    target = None if board is None else get_board(board)
    core = None if target is None else target.core
    content = read_bytes(path)
    stored = read(content, str(path))
    plan = plan_arena(stored.graph)
    parts = tuple(sizes(SubnetConfig.from_dict(stored.info["config"]), plan))
    times = {name: kept["ms"] for name, kept in measured.read(measured.path_of(path), content).items()}
    estimate, estimated = "", None
    if target is not None:
        if (ms := target.measured_ms(measured.identity(content))) is not None:
            times.setdefault(target.name, ms)
        if target.name not in times:
            counts = instructions_on(stored.graph, target.core), cycles_on(stored.graph, target.core)
            estimate, estimated = target.estimate_rule(*counts), target.estimated_ms(*counts)
    rows = _rows(stored, plan, core)
    inspected = Inspection(path, len(content), stored, plan, rows, parts, core, times, estimate, estimated)
    if plot is not None:
        from mcuformer.plots import plot_memory_plan

        plot_memory_plan(plan, plot, path.name)
    return inspected


def _rows(stored: ModelFile, plan: ArenaPlan, core: Core | None) -> tuple[OpRow, ...]:
    from mcuformer.converter import file_form
    from mcuformer.converter.passes import staging

    graph, problem = stored.graph, plan.problem
    scratch = {buffer.first: buffer.size for buffer in problem.scratch}
    buffer_of = dict(zip(plan.tensors, problem.buffers, strict=True))
    rows = []
    for step, op in enumerate(graph.ops, start=1):
        tensor, over = graph.tensors[op.output], buffer_of[op.output].overwrites
        macs, instructions, cycles = (None, None, None) if core is None else _predicted(graph, op, core)
        read, reads = staging.traffic(graph, op)
        rows.append(
            OpRow(
                op=op.kind,
                output=tensor.name,
                shape=tensor.shape,
                offset=stored.offsets[op.output],
                bytes=tensor.bytes,
                overwrites=None if over is None else problem.buffers[over].name,
                scratch_bytes=scratch.get(step, 0),
                constant_bytes=file_form.constant_bytes(graph, op),
                weights_read_bytes=read,
                weights_reads=reads,
                macs=macs,
                instructions=instructions,
                cycles=cycles,
            )
        )
    return tuple(rows)


def _predicted(graph: Graph, op: Op, core: Core) -> tuple[int, int | None, int | None]:
    """Multiply-accumulates, and the instructions and cycles that the core's models predict; None where they cannot."""
    from mcuformer.converter.estimate.cycles import op_cycles
    from mcuformer.converter.estimate.instructions import op_instructions
    from mcuformer.converter.estimate.macs import op_macs

    if graph.is_wide:
        return op_macs(graph, op), None, None
    instructions = None if core.coefficients is None else op_instructions(graph, op, core.coefficients)
    cycles = None if core.cycle_coefficients is None else op_cycles(graph, op, core.cycle_coefficients)
    return op_macs(graph, op), instructions, cycles


def show(inspected: Inspection, tensors: bool = False, sizes: bool = False) -> None:
    """tensors: list all tensors of the file, constants too; sizes: the memory of each part."""
    from mcuformer.converter.file_form import moved, to_file_form

    graph, plan = inspected.graph, inspected.plan
    filed, place = to_file_form(graph)
    out.print(
        f"{inspected.path}: {inspected.model_bytes:,} bytes, {len(graph.ops)} ops, {len(filed.tensors)} tensors, "
        f"schedule {inspected.stored.info['schedule']}"
    )
    known = {name: value for name, value in inspected.config.items() if value is not None}
    out.print(", ".join(f"{name} {_shown(name, value)}" for name, value in known.items()))
    out.print(_ops_table(inspected))
    if tensors:
        out.print(_tensors_table(filed.tensors, moved(inspected.stored.offsets, place, len(filed.tensors))))
    if sizes:
        table = Table("part", "paper's rule M, weights counted", "ours", "stock tools")
        for part in inspected.parts:
            stock = "unknown" if part.stock is None else f"{part.stock:,}"
            table.add_row(part.name, f"{part.paper:,}", f"{part.ours:,}", stock)
        out.print(table)
    if inspected.core is not None:
        _show_instructions(inspected.ops, inspected.core)
    for name, ms in inspected.measured.items():
        out.print(f"measured on {name}: {ms:.3f} ms an image")
    if inspected.estimate:
        out.print(inspected.estimate, markup=False)
    out.print(sizes_line(plan.arena_bytes, plan.head_bytes, inspected.model_bytes))


def _shown(field: str, value: Any) -> str:
    """A config's value as the command line takes it."""
    return size_text(tuple(value)) if field in SIZES and isinstance(value, list) else str(value)


def _ops_table(inspected: Inspection) -> Table:
    from mcuformer.converter.passes.staging import is_staged

    staged = is_staged(inspected.graph)
    columns = ["#", "op", "output", "shape", "offset", "bytes", "overwrites", "scratch", "constants"]
    table = Table(*columns, *(["weights read", "reads"] if staged else []))
    for step, row in enumerate(inspected.ops, start=1):
        table.add_row(
            str(step), row.op, row.output, "x".join(map(str, row.shape[1:])), f"{row.offset:,}", f"{row.bytes:,}",
            row.overwrites or "", f"{row.scratch_bytes:,}", f"{row.constant_bytes:,}",
            *([f"{row.weights_read_bytes:,}", f"{row.weights_reads:,}"] if staged else []),
        )  # fmt: skip
    return table


def _tensors_table(tensors: list[Tensor], offsets: list[int]) -> Table:
    table = Table("tensor", "type", "shape", "bytes", "offset", "zero point", "scale")
    for tensor, offset in zip(tensors, offsets, strict=True):
        zero = "" if tensor.quantisation is None else str(tensor.quantisation.zero_point)
        table.add_row(
            tensor.name, tensor.dtype.name, "x".join(map(str, tensor.shape)), f"{tensor.bytes:,}",
            _place(tensor, offset), zero, _scale(tensor),
        )  # fmt: skip
    return table


def _place(tensor: Tensor, offset: int) -> str:
    if tensor.is_constant:
        return "flash"
    if tensor.external:
        return "weights file" if tensor.quantisation is None else "strips"
    return f"{offset:,}"


def _scale(tensor: Tensor) -> str:
    import numpy as np

    q = tensor.quantisation
    if q is None:
        return ""
    return f"{np.min(q.scale):.4g}" + (f" .. {np.max(q.scale):.4g}" if q.per_channel else "")


def _show_instructions(rows: tuple[OpRow, ...], core: Core) -> None:
    table = Table("#", "op", "output", "MACs", "instructions", "per MAC", "cycles", "per MAC")
    for step, row in enumerate(rows, start=1):
        macs, cells = row.macs or 0, []
        for count in (row.instructions, row.cycles):
            cells.append("unknown" if count is None else f"{count:,}")
            cells.append("" if count is None or not macs else f"{count / macs:.2f}")
        table.add_row(str(step), row.op, row.output, f"{macs:,}", *cells)
    out.print(table)
    if core.coefficients is None:
        out.print(f"instructions on {core.label} are unknown: no counts have been fitted")
        return
    if any(row.instructions is None for row in rows):
        out.print("instructions are unknown: none have been counted of an int16 residual stream")
        return
    macs, total = sum(row.macs or 0 for row in rows), sum(row.instructions or 0 for row in rows)
    out.print(
        f"about {total:,} instructions per image on {core.label}, {total / macs:.3f} per MAC (by the model "
        "fitted to counts in QEMU; neither cycles nor time)"
    )
    if core.cycle_coefficients is None:
        out.print(f"cycles on {core.label} are unknown: no table of its instructions' cycles is known here")
        return
    took = sum(row.cycles or 0 for row in rows)
    out.print(f"about {took:,} cycles, {took / macs:.3f} per MAC, an estimate by Arm's timing of each instruction")


@click.command("inspect")
@click.argument("model", type=PATH, help="A .tflite made by `mcuformer convert`.")
@click.option("--plot", type=PATH, help=f"Draw the memory plan here ({ENDINGS}).")
@click.option("--tensors/--no-tensors", help="List all tensors, constants too.")
@click.option("--sizes/--no-sizes", help="Memory of each part: the paper's rule, ours, stock tools.")
@click.option("--board", help="Multiply-accumulates of each op, and its instructions and cycles on this board's core.")
@json_option
def command(
    model: Path, plot: Path | None, tensors: bool, sizes: bool, board: str | None, json_file: Path | None,
) -> None:  # fmt: skip
    """Show a model's ops, tensors, offsets and memory plan."""
    check_outputs(plot, json_file)
    check_pictures(plot)
    inspected = inspect(model, board=board, plot=plot)
    show(inspected, tensors, sizes)
    if plot is not None:
        out.print(f"wrote {plot}")
    write_json(json_file, inspected.to_dict())
