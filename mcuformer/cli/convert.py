# SPDX-License-Identifier: Apache-2.0
"""mcuformer convert: a subnet as an int8 .tflite."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from mcuformer.boards import get_board
from mcuformer.cli.common import (
    CONSOLE,
    PATH,
    check_outputs,
    data_option,
    json_option,
    load_data,
    out,
    run_images,
    sizes_line,
    write_json,
)
from mcuformer.cli.progress import SILENT, Progress
from mcuformer.errors import ConfigError, McuformerWarning

if TYPE_CHECKING:
    from mcuformer.converter.lower import QuantisationOptions
    from mcuformer.converter.model import Model
    from mcuformer.converter.report import Agreement, TensorError

REPORT_IMAGES = 8  # images that errors are measured on
LOW_COSINE = 0.9  # trained networks have 0.98 and more
AGREEMENT_IMAGES = 64  # images that outputs are compared on


@dataclass(frozen=True)
class ConvertedModel:
    """model: written to path; agreement: of its outputs with the float network's on calibration images; report: its
    tensors' errors, if asked for; seconds: of calibration and lowering; the others: as given."""

    model: Model
    path: Path
    agreement: Agreement
    report: tuple[TensorError, ...]
    seconds: float
    strips: bool
    weights: str
    scratch: int | None

    def to_dict(self) -> dict:
        """What --json writes."""
        model = self.model
        return {
            "model": str(self.path), "arena_bytes": model.plan.arena_bytes, "head_bytes": model.plan.head_bytes,
            "model_bytes": model.model_bytes, "weights_bytes": len(model.weights_content), "schedule": model.schedule,
            "costs": [vars(cost) for cost in model.costs], "board": model.board, "strips": self.strips,
            "weights": self.weights, "scratch": self.scratch, "seconds": self.seconds,
            "agreement": vars(self.agreement), "report": [vars(row) for row in self.report],
        }  # fmt: skip


def convert(
    subnet: str | os.PathLike,
    *,
    data: str = "fashion-mnist",
    images: int = 256,
    board: str | None = None,
    sram: int | None = None,
    schedule: str | None = None,
    strips: bool = False,
    weights: str = "xip",
    scratch: int | None = None,
    external_flash: bool = False,
    quantisation: QuantisationOptions | None = None,
    report: bool = False,
    output: str | os.PathLike = "model.tflite",
    progress: Progress = SILENT,
) -> ConvertedModel:
    """Reads a subnet.pt, calibrates it with `images` of the training images of `data`, writes the model, and compares
    its outputs with the float network's on AGREEMENT_IMAGES of them.

    report: also measure the error that each tensor adds; sram: default with a board: what the search that found the
    subnet had allowed, else what the board has. The rest: as for mcuformer.convert.
    """
    from mcuformer.converter.model import convert as convert_network
    from mcuformer.converter.report import agreement, error_report, float_outputs
    from mcuformer.interpreter import Interpreter
    from mcuformer.nas import load_subnet
    from mcuformer.nas.subnet import ARENA_LIMIT

    output = Path(output)
    check_outputs(output)
    net = load_subnet(subnet)
    if sram is None and board is not None and ARENA_LIMIT in net.notes:
        sram = min(net.notes[ARENA_LIMIT], get_board(board).sram_budget)
    if images < 1:
        raise ConfigError(f"--images {images}: calibrate with at least 1 image; a few hundred are better")
    front_end = net.notes.get("front_end")
    size, channels = net.config.image_size, net.config.in_channels
    calibration = load_data(data, "train", size, images, front_end, channels).images[:]
    start = time.perf_counter()
    with progress.bar("calibrating") as update:
        model = convert_network(
            net, calibration, schedule=schedule, board=board, sram=sram, strips=strips, weights=weights,
            scratch=scratch, external_flash=external_flash, quantisation=quantisation,
            class_names=net.notes.get("class_names"), front_end=front_end, progress=update,
        )  # fmt: skip
    seconds = time.perf_counter() - start
    model.save(output)
    shown = calibration[:AGREEMENT_IMAGES]
    outputs = run_images(Interpreter(model), shown, progress)
    agreed = agreement(float_outputs(net, shown), outputs, has_head=net.config.num_classes > 0)
    if agreed.mean_cosine < LOW_COSINE:
        warnings.warn(
            f"{output}: the int8 outputs are far from the float network's (mean cosine {agreed.mean_cosine:.2f}): "
            "--report shows in which tensor they part; look there for weights that are far too large",
            McuformerWarning,
            stacklevel=2,
        )
    rows = tuple(error_report(model, net, calibration[:REPORT_IMAGES])) if report else ()
    return ConvertedModel(model, output, agreed, rows, seconds, strips, weights, scratch)


def show(made: ConvertedModel) -> None:
    from mcuformer.converter.memory.board_arena import board_arena_bytes
    from mcuformer.converter.passes.staging import weights_path

    model = made.model
    if made.report:
        table = Table("tensor", "added %", "total %", "clipped %", "cosine")
        for row in made.report:
            shares = (f"{100 * v:.3f}" for v in (row.added, row.total, row.clipped))
            table.add_row(row.name, *shares, f"{row.cosine:.5f}")
        out.print(table)
    out.print(sizes_line(model.plan.arena_bytes, model.plan.head_bytes, model.model_bytes))
    if model.board is not None:
        out.print(f"arena on {model.board}: {board_arena_bytes(model.graph, model.plan):,} bytes")
    for line in _schedule_lines(model):
        out.print(line)
    agreed = made.agreement
    what = "embeddings" if agreed.top1 is None else "logits"
    same = "" if agreed.top1 is None else f", same class {100 * agreed.top1:.2f} %"
    out.print(
        f"int8 and float {what} on {agreed.images} calibration images: cosine {agreed.mean_cosine:.4f} in the mean, "
        f"{agreed.least_cosine:.4f} at least{same}"
    )
    out.print(f"wrote {made.path} ({made.seconds:.1f} s)")
    if made.weights == "staged":
        read = f"{len(model.weights_content):,} bytes of weights to read in tiles"
        out.print(f"wrote {weights_path(made.path)}, {read}")


def _schedule_lines(model: Model) -> list[str]:
    """What each schedule takes, if one was chosen of them: the chosen one first."""
    rows = sorted(model.costs, key=lambda cost: cost.schedule != model.schedule)
    words = [f"{cost.arena_bytes:,} bytes, {cost.instructions / 1e6:,.2f} M instructions" for cost in rows]
    ahead = ("schedule {}: arena", "  {} would take")
    return [f"{text.format(cost.schedule)} {word}" for text, cost, word in zip(ahead, rows, words, strict=False)]


def _bytes(sram: str | None) -> int | None:
    """Of --sram."""
    from mcuformer.nas.cost import parse_bytes

    try:
        return None if sram is None else parse_bytes(sram)
    except ConfigError as error:
        raise ConfigError(f"--sram {error}") from error


@click.command("convert")
@click.argument("subnet", type=PATH, help="subnet.pt, from `mcuformer train` or `import`.")
@data_option
@click.option("--images", default=256, help="Training images to calibrate with.")
@click.option("--board", help="Check this board's budget (see `mcuformer boards`).")
@click.option(
    "--sram", help="Most bytes of arena on the board, such as 64KB; default: as the search had it, else the board's."
)
@click.option(
    "--schedule",
    help="overwrite (op by op), streamed (half-layers in place), or auto (the quicker that fits the board). "
    "Default: auto with --board, else streamed.",
)
@click.option("--strips/--no-strips", help="The image comes a few rows at a time; the arena holds none.")
@click.option(
    "--weights",
    default="xip",
    help="xip (read in place from flash) or staged (a file of their own, read tile by tile).",
)
@click.option("--scratch", type=int, help="The most bytes of scratch that one op may take.")
@click.option("--external-flash", is_flag=True, help="For the board's flash beside the chip, read in place.")
@click.option("--method", help="Ranges of activations: minmax, percentile or mse.")
@click.option("--gelu", help="erf (exact) or sigmoid (x * sigmoid(1.702 x)).")
@click.option("--residual", help="Residual stream: per-channel, per-tensor, or int16 (twice its RAM).")
@click.option("--ranges", help="Of what matrices read: own, or outputs (for outliers of trained networks).")
@click.option("--rounding", help="Weights: nearest, or compensated (for the calibration images).")
@click.option("--report/--no-report", help="Print the error that each tensor adds.")
@click.option("--out", "-o", "output", type=PATH, default="model.tflite", help="The model.")
@json_option
def command(
    subnet: Path, data: str, images: int, board: str | None, sram: str | None, schedule: str | None, strips: bool,
    weights: str, scratch: int | None, external_flash: bool, method: str | None, gelu: str | None, residual: str | None,
    ranges: str | None, rounding: str | None, report: bool, output: Path, json_file: Path | None,
) -> None:  # fmt: skip
    """Convert a subnet to an int8 .tflite."""
    from mcuformer.converter.lower import QuantisationOptions

    check_outputs(output, json_file)
    given: dict[str, Any] = {
        "method": method, "gelu": gelu, "residual": residual, "ranges": ranges, "rounding": rounding,
    }  # fmt: skip
    quantisation = QuantisationOptions(**{name: value for name, value in given.items() if value is not None})
    made = convert(
        subnet, data=data, images=images, board=board, sram=_bytes(sram), schedule=schedule, strips=strips,
        weights=weights, scratch=scratch, external_flash=external_flash, quantisation=quantisation, report=report,
        output=output, progress=CONSOLE,
    )  # fmt: skip
    show(made)
    write_json(json_file, made.to_dict())
