# SPDX-License-Identifier: Apache-2.0
"""The command line: mcuformer demo | train | evolve | search | finetune | convert | run | inspect | export | boards.

Here boards, convert, run and inspect; the modules imported below have the others.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from mcuformer.cli import demo, export, nas  # noqa: F401  each adds its commands to the app
from mcuformer.cli.common import (
    DataOption,
    JsonOption,
    app,
    bar,
    check_outputs,
    load_data,
    out,
    progress_out,
    read_bytes,
    run_images,
    top1_of,
    write_json,
)
from mcuformer.errors import ConfigError, McuformerError, ModelError


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit status 2."""
    # Read when torch is loaded. Threads that wait in a loop make a training many times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except McuformerError as error:
        progress_out.print(f"error: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)


@app.command()
def boards(json_file: JsonOption = None) -> None:
    """List the boards, and what their firmware leaves for a model."""
    from mcuformer.boards import BOARDS

    table = Table("board", "MCU", "core", "SRAM", "for the arena", "flash", "for the model")
    rows = []
    for board in BOARDS.values():
        flash = "-" if board.flash_bytes is None else f"{board.flash_bytes:,}"
        budget = "-" if board.flash_budget is None else f"{board.flash_budget:,}"
        core = board.core.name
        clock = "" if board.clock_mhz is None else f" {board.clock_mhz} MHz"
        table.add_row(
            board.name, board.mcu, core + clock, f"{board.sram_bytes:,}", f"{board.sram_budget:,}", flash, budget
        )
        rows.append(
            {
                "name": board.name, "mcu": board.mcu, "core": core, "sram_bytes": board.sram_bytes,
                "sram_budget": board.sram_budget, "flash_bytes": board.flash_bytes, "flash_budget": board.flash_budget,
            }
        )  # fmt: skip
    out.print(table)
    out.print("All sizes in bytes; the budgets leave out what the firmware keeps (estimates, see mcuformer/boards.py).")
    write_json(json_file, {"boards": rows})


@app.command()
def convert(
    subnet: Annotated[Path, typer.Argument(help="subnet.pt, from `mcuformer train`.")],
    data: DataOption = "fashion-mnist",
    images: Annotated[int, typer.Option(help="Training images to calibrate with.")] = 256,
    board: Annotated[str | None, typer.Option(help="Check the budget of this board (see `mcuformer boards`).")] = None,
    schedule: Annotated[
        str, typer.Option(help="overwrite (op by op) or streamed (half-layers in place).")
    ] = "streamed",
    strips: Annotated[bool, typer.Option(help="The image comes a few rows at a time; the arena holds none.")] = False,
    weights: Annotated[
        str, typer.Option(help="xip (read in place from flash) or staged (a file of their own, read tile by tile).")
    ] = "xip",
    scratch: Annotated[int | None, typer.Option(help="The most bytes of scratch that one op may take.")] = None,
    method: Annotated[str | None, typer.Option(help="Ranges of activations: minmax, percentile or mse.")] = None,
    gelu: Annotated[str | None, typer.Option(help="erf (exact) or sigmoid (x * sigmoid(1.702 x)).")] = None,
    residual: Annotated[str | None, typer.Option(help="Residual stream: per-channel or per-tensor.")] = None,
    report: Annotated[bool, typer.Option(help="Print the error every tensor adds.")] = False,
    output: Annotated[Path, typer.Option("--out", "-o", help="The model.")] = Path("model.tflite"),
    json_file: JsonOption = None,
) -> None:
    """Convert a subnet to an int8 .tflite."""
    from mcuformer.converter.lower import QuantisationOptions
    from mcuformer.converter.model import convert as convert_network
    from mcuformer.converter.passes.staging import weights_path
    from mcuformer.converter.report import error_report
    from mcuformer.nas import load_subnet

    check_outputs(output, json_file)
    given = {"method": method, "gelu": gelu, "residual": residual}
    options = QuantisationOptions(**{name: value for name, value in given.items() if value is not None})
    net = load_subnet(subnet)
    if images < 1:
        raise ConfigError(f"--images {images}: calibrate with at least 1 image; some hundred are better")
    calibration = load_data(data, "train", net.config.image_size, images)
    start = time.perf_counter()
    choices = {"schedule": schedule, "board": board, "strips": strips, "weights": weights, "scratch": scratch}
    with bar("calibrating") as update:
        model = convert_network(
            net, calibration.images, quantisation=options, class_names=net.notes.get("class_names"), progress=update,
            **choices,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    model.save(output)
    rows = error_report(model, net, calibration.images[:8]) if report else []
    if rows:
        table = Table("tensor", "added %", "total %", "clipped %")
        for row in rows:
            table.add_row(row.name, *(f"{100 * v:.3f}" for v in (row.added, row.total, row.clipped)))
        out.print(table)
    _print_sizes(model.plan.arena_bytes, model.plan.head_bytes, model.model_bytes)
    if board is not None:
        out.print(f"arena on {board}: {model.arena_bytes(board):,} bytes")
    out.print(f"wrote {output} ({seconds:.1f} s)")
    if weights == "staged":
        out.print(f"wrote {weights_path(output)}, {len(model.weights_content):,} bytes of weights to read in tiles")
    write_json(
        json_file,
        {
            "model": str(output), "arena_bytes": model.plan.arena_bytes, "head_bytes": model.plan.head_bytes,
            "model_bytes": model.model_bytes, "weights_bytes": len(model.weights_content), **choices,
            "seconds": seconds, "report": [vars(row) for row in rows],
        },
    )  # fmt: skip


def _print_sizes(arena: int, head: int, model: int) -> None:
    out.print(f"arena {arena:,} bytes (head {head:,}, tail {arena - head:,}), model {model:,} bytes")


@app.command()
def run(
    model: Annotated[Path, typer.Argument(help="A .tflite made by `mcuformer convert`.")],
    data: DataOption = "fashion-mnist",
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Run only this many images (with --on: 16 by default).")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The file of staged weights; left out, the one beside the model.")
    ] = None,
    reference: Annotated[bool, typer.Option(help="Also compare every logit with the integer reference.")] = False,
    on: Annotated[
        str | None,
        typer.Option(help="Also run it as firmware in QEMU: mps2-an386 (M4), mps2-an500 (M7), mps3-an547 (M55)."),
    ] = None,
    board: Annotated[str | None, typer.Option(help="As --on, with this board's core, RAM and flash.")] = None,
    ram_bytes: Annotated[int | None, typer.Option(help="RAM of the firmware.")] = None,
    flash_bytes: Annotated[int | None, typer.Option(help="Flash of the firmware.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Run a model in the official tflite-micro interpreter, or as firmware in QEMU too; prints its top-1."""
    from mcuformer.cli import firmware as cli_firmware
    from mcuformer.interpreter import Interpreter
    from mcuformer.simulator import firmware

    check_outputs(json_file)
    simulate = on is not None or board is not None
    if simulate:
        machine, ram_bytes, flash_bytes = cli_firmware.choose_machine(on, board, ram_bytes, flash_bytes)
        firmware.require_tools()
        limit = cli_firmware.IMAGES if limit is None else limit
    elif ram_bytes is not None or flash_bytes is not None:
        raise ConfigError("--ram-bytes and --flash-bytes are limits of firmware: give --on or --board too")
    interpreter = Interpreter(model, weights=weights)
    dataset = load_data(data, split, interpreter.image_size, limit)
    if len(dataset.class_names) != len(interpreter.class_names):
        raise ConfigError(
            f"{data}: has {len(dataset.class_names)} classes, {model} has {len(interpreter.class_names)}: "
            "give the data it was trained for"
        )
    logits = run_images(interpreter, dataset.images)
    top1 = top1_of(logits, dataset.labels)
    used = interpreter.allocations
    out.print(
        f"top-1 {100 * top1:.2f} % on {len(dataset)} images, {interpreter.invoke_ms:.2f} ms an image on this machine, "
        f"arena {used['total']:,} bytes (head {used['head']:,}, tail {used['tail']:,})"
    )
    read, reads = interpreter.weights_read
    if reads:
        out.print(f"staged weights: {read:,} bytes an image in {reads:,} reads")
    result = {
        "weights_read_bytes": read, "weights_reads": reads,
        "top1": top1, "images": len(dataset), "invoke_ms": interpreter.invoke_ms, "arena_bytes": used["total"],
        "head_bytes": used["head"],
    }  # fmt: skip
    others = {}
    if reference:
        others["the integer reference"] = interpreter.reference(dataset.images)
    if simulate:
        summary, others[machine.name] = cli_firmware.run_on(
            interpreter, dataset.images, machine, ram_bytes, flash_bytes
        )
        result.update(summary)
    wrong = {name: int((other != logits).sum()) for name, other in others.items() if not np.array_equal(other, logits)}
    for name in others:
        out.print(f"{wrong[name]} logits differ from {name}" if name in wrong else f"every logit equals {name}")
    if others:
        result["exact"] = not wrong
    write_json(json_file, result)
    if wrong:
        raise ModelError(f"{model}: the kernels and {' and '.join(wrong)} disagree; please report this with the model")


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="A .tflite made by `mcuformer convert`.")],
    plot: Annotated[Path | None, typer.Option(help="Write the picture of the memory plan here (PNG).")] = None,
    tensors: Annotated[bool, typer.Option(help="List every tensor, constants too.")] = False,
    sizes: Annotated[bool, typer.Option(help="Memory of every part: the paper's rule, ours, stock tools.")] = False,
    board: Annotated[
        str | None, typer.Option(help="Multiply-accumulates of every op, and its instructions on this board's core.")
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Show a model's ops, tensors, offsets and memory plan."""
    from mcuformer.boards import get_board
    from mcuformer.cli import instructions as cli_instructions
    from mcuformer.converter.estimate.sizing import sizes as part_sizes
    from mcuformer.converter.memory.arena import plan_arena
    from mcuformer.converter.passes import staging
    from mcuformer.converter.subnet_config import SubnetConfig
    from mcuformer.converter.tflite_file import read

    check_outputs(plot, json_file)
    core = None if board is None else get_board(board).core
    content = read_bytes(model)
    stored = read(content, str(model))
    graph, plan = stored.graph, plan_arena(stored.graph)
    config = stored.info["config"]
    out.print(
        f"{model}: {len(content):,} bytes, {len(graph.ops)} ops, {len(graph.tensors)} tensors, schedule "
        f"{stored.info['schedule']}"
    )
    out.print(", ".join(f"{name} {value}" for name, value in config.items() if value is not None))
    scratch = dict(zip((b.first for b in plan.problem.scratch), plan.problem.scratch, strict=True))
    columns = ["#", "op", "output", "shape", "offset", "bytes", "overwrites", "scratch", "constants"]
    table = Table(*columns, *(["weights read", "reads"] if staging.is_staged(graph) else []))
    rows = []
    buffer_of = dict(zip(plan.tensors, plan.problem.buffers, strict=True))
    for step, op in enumerate(graph.ops, start=1):
        tensor = graph.tensors[op.output]
        over = buffer_of[op.output].overwrites
        row = {
            "op": op.kind, "output": tensor.name, "shape": list(tensor.shape), "offset": stored.offsets[op.output],
            "bytes": tensor.bytes, "overwrites": None if over is None else plan.problem.buffers[over].name,
            "scratch_bytes": scratch[step].size if step in scratch else 0,
            "constant_bytes": sum(graph.tensors[i].bytes for i in op.inputs if i >= 0 and graph.tensors[i].is_constant),
        }  # fmt: skip
        row["weights_read_bytes"], row["weights_reads"] = staging.traffic(graph, op)
        rows.append(row)
        table.add_row(
            str(step), op.kind, tensor.name, "x".join(map(str, tensor.shape[1:])), f"{row['offset']:,}",
            f"{tensor.bytes:,}", row["overwrites"] or "", f"{row['scratch_bytes']:,}", f"{row['constant_bytes']:,}",
            *([f"{row['weights_read_bytes']:,}", f"{row['weights_reads']:,}"] if staging.is_staged(graph) else []),
        )  # fmt: skip
    out.print(table)
    if tensors:
        listing = Table("tensor", "type", "shape", "bytes", "offset", "zero point", "scale")
        for tensor, offset in zip(graph.tensors, stored.offsets, strict=True):
            q = tensor.quantisation
            scale = (
                "" if q is None else f"{np.min(q.scale):.4g}" + (f" .. {np.max(q.scale):.4g}" if q.per_channel else "")
            )
            outside = "weights file" if q is None else "strips"
            place = "flash" if tensor.is_constant else outside if tensor.external else f"{offset:,}"
            listing.add_row(
                tensor.name, tensor.dtype.name, "x".join(map(str, tensor.shape)), f"{tensor.bytes:,}",
                place, "" if q is None else str(q.zero_point), scale,
            )  # fmt: skip
        out.print(listing)
    parts = part_sizes(SubnetConfig.from_dict(config), plan)
    if sizes:
        listing = Table("part", "paper's rule M, weights counted", "ours", "stock tools")
        for part in parts:
            listing.add_row(part.name, *(f"{value:,}" for value in (part.paper, part.ours, part.stock)))
        out.print(listing)
    if core is not None:
        cli_instructions.add_instructions(graph, core, rows)
    _print_sizes(plan.arena_bytes, plan.head_bytes, len(content))
    if plot is not None:
        from mcuformer.plots import plot_memory_plan

        plot_memory_plan(plan, plot, model.name)
        out.print(f"wrote {plot}")
    write_json(
        json_file,
        {
            "model_bytes": len(content), "arena_bytes": plan.arena_bytes, "head_bytes": plan.head_bytes, "ops": rows,
            "config": config, "schedule": stored.info["schedule"], "parts": [vars(part) for part in parts],
        },
    )  # fmt: skip
