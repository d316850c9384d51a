# SPDX-License-Identifier: Apache-2.0
"""mcuformer search: the most accurate subnet of a supernet within a budget."""

from __future__ import annotations

import dataclasses
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from mcuformer.boards import Board, get_board
from mcuformer.cli.budget import (
    board_option,
    budget_of,
    bytes_words,
    describe,
    flash_option,
    instructions_option,
    latency_option,
    network_words,
    sram_option,
    strips_option,
)
from mcuformer.cli.common import CONSOLE, PATH, check_outputs, json_option, out, write_json
from mcuformer.cli.progress import SILENT, Progress
from mcuformer.pictures import ENDINGS, check_pictures

if TYPE_CHECKING:
    from mcuformer.nas.cost import Budget
    from mcuformer.nas.search import Found, SearchOptions, SearchResult


@dataclass(frozen=True)
class ChosenSubnet:
    """The best subnet of a search, written to path with its inherited weights. held_out: number of held-out images;
    record: what made it, nas/record.py. board: whose bytes the arenas are counted in, None: those of the 64-bit
    interpreter; strips: as given; front_dir: the folder of the front's subnets, if asked for."""

    path: Path
    found: SearchResult
    budget: Budget
    held_out: int
    record: dict
    board: Board | None = None
    strips: bool = False
    front_dir: Path | None = None

    @property
    def front(self) -> tuple[Found, ...]:
        """The front without repeats, by SRAM."""
        from mcuformer.nas.front import different

        return different(self.found.front)

    def to_dict(self) -> dict:
        """What --json writes."""
        found = self.found
        return {
            "best": _plain(found.best), "front": [_plain(f) for f in self.front], "evaluated": len(found.evaluated),
            "judged": found.judged, "subnet": str(self.path), "budget": self.budget.to_dict(),
            "record": self.record, "board": None if self.board is None else self.board.name, "strips": self.strips,
            "held_out": self.held_out,
            "front_dir": None if self.front_dir is None else str(self.front_dir),
        }  # fmt: skip


def _plain(found: Found) -> dict:
    return {"config": found.config.to_dict(), "accuracy": found.accuracy, **dataclasses.asdict(found.cost)}


def search(
    supernet: str | os.PathLike,
    *,
    board: str | None = None,
    sram: str | int | None = None,
    flash: str | int | None = None,
    instructions: str | int | None = None,
    latency: str | float | None = None,
    strips: bool = False,
    data: str | None = None,
    options: SearchOptions | None = None,
    log: str | os.PathLike | None = None,
    plot: str | os.PathLike | None = None,
    front_dir: str | os.PathLike | None = None,
    output: str | os.PathLike = "subnet.pt",
    progress: Progress = SILENT,
) -> ChosenSubnet:
    """Searches the supernet.pt and writes the best subnet; under torchrun, processes share the evaluations.

    board, sram, flash, instructions  the budget: the board's, with given amounts in place of its own: 65536 or "64KB"
    latency  most estimated milliseconds an image on the board; ConfigError where nothing estimates them
    strips   the image comes a few rows at a time
    data     the supernet's training data, if it has moved since
    log      gets a line per evaluation; the search continues from it
    plot     accuracy against SRAM, or instructions where it does not vary, is drawn here: .png, .svg or .pdf
    front_dir  every subnet of the front is written into this folder, see mcuformer.nas.front
    """
    from mcuformer import nas
    from mcuformer.nas import distributed, recipes, saved_network
    from mcuformer.nas.cost import cost_of
    from mcuformer.nas.front import check_front_folder, write_front
    from mcuformer.nas.plots import plot_front
    from mcuformer.nas.record import record
    from mcuformer.nas.search import HeldOutAccuracy, SearchOptions
    from mcuformer.nas.search import search as run_search
    from mcuformer.nas.split import split_of
    from mcuformer.nas.subnet import ARENA_LIMIT
    from mcuformer.nas.train_options import TrainOptions

    supernet, output = Path(supernet), Path(output)
    check_outputs(output, log, plot)
    check_pictures(plot)
    if front_dir is not None:
        check_front_folder(front_dir, output, log, plot)
    target = None if board is None else get_board(board)
    budget = budget_of(target, sram=sram, flash=flash, instructions=instructions, latency=latency)
    options = options or SearchOptions()
    net = nas.load_supernet(supernet)
    split = split_of(net, supernet, data)
    with distributed.process_group(), progress.searching() as show_best:
        net.to(distributed.device())
        precision = recipes.for_device(TrainOptions()).precision
        found = run_search(
            net.space, HeldOutAccuracy(net, split.kept, precision=precision),
            functools.partial(cost_of, board=target, strips=strips), budget, options, log=log, progress=show_best,
            identity={
                "supernet": saved_network.checksum(net), "held_out": len(split.kept), **split.identity,
                **({} if precision == "float32" else {"precision": precision}),
            },
        )  # fmt: skip
        made = record(options.seed, dataclasses.asdict(options), split.identity, net.space)
        notes = split.notes
        kept = {
            **{name: notes[name] for name in ("class_names", "data", "front_end") if name in notes},
            **recipes.mirror_notes(net.notes),
            **({} if budget.sram is None else {ARENA_LIMIT: budget.sram}),
            "record": made,
        }
        best = net.extract(found.best.config)
        distributed.on_first(nas.save_subnet, best, output, {**kept, "held_out_top1": found.best.accuracy})
        if front_dir is not None:
            distributed.on_first(write_front, front_dir, net, found.front, budget, kept, target)
        if plot is not None:
            title = f"{len(found.evaluated)} subnets of {supernet.name}"
            distributed.on_first(plot_front, found, plot, title, budget)
    folder = None if front_dir is None else Path(front_dir)
    return ChosenSubnet(output, found, budget, len(split.kept), made, target, strips, folder)


def show(chosen: ChosenSubnet, front: bool) -> None:
    """front: list it too."""
    found = chosen.found
    out.print(
        f"{found.judged:,} subnets judged, {len(found.evaluated):,} evaluated on {chosen.held_out:,} held-out images"
    )
    if front:
        out.print(_front_table(chosen.front))
        if chosen.board is not None and found.best.cost.latency is not None:
            out.print(chosen.board.how_estimated, markup=False)
    out.print(f"best: {100 * found.best.accuracy:.2f} %, {describe(found.best.config, found.best.cost)}")
    out.print(bytes_words(None if chosen.board is None else chosen.board.name))
    out.print(f"wrote {chosen.path}")
    if chosen.front_dir is not None:
        out.print(f"wrote {len(chosen.front)} subnets and front.json into {chosen.front_dir}")


def _front_table(front: tuple[Found, ...]) -> Table:
    from mcuformer.nas.front import UNKNOWN

    table = Table("#", "arena", "model at most", "instructions", "estimated ms", "held-out top-1 %", "network")
    for number, f in enumerate(front, 1):
        count = UNKNOWN if f.cost.instructions is None else f"{f.cost.instructions:,}"
        ms = f.cost.latency
        table.add_row(
            str(number), f"{f.cost.sram:,}", f"{f.cost.flash:,}", count,
            UNKNOWN if ms is None else f"{ms:.1f}", f"{100 * f.accuracy:.2f}",
            network_words(f.config),
        )  # fmt: skip
    return table


@click.command("search")
@click.argument("supernet", type=PATH, help="supernet.pt, from `mcuformer train --space`.")
@board_option
@sram_option
@flash_option
@instructions_option
@latency_option
@strips_option
@click.option("--data", help="The training data, if it has moved since.")
@click.option("--population", default=50, help="Subnets of the first generation.")
@click.option("--generations", default=10, help="Generations that follow.")
@click.option("--children", default=25, help="New subnets per generation.")
@click.option("--objective", default="accuracy", help="accuracy, or front: accuracy against SRAM and instructions.")
@click.option("--seed", default=0, help="Seed of all random choices.")
@click.option("--log-file", "log", type=PATH, help="A line per evaluation; the search continues from it.")
@click.option("--plot", type=PATH, help=f"Draw accuracy against SRAM here ({ENDINGS}).")
@click.option("--front-dir", type=PATH, help="Write every subnet of the front into this folder, with front.json.")
@click.option("--out", "-o", "output", type=PATH, default="subnet.pt", help="The best subnet: weights and config.")
@json_option
def command(
    supernet: Path, board: str | None, sram: str | None, flash: str | None, instructions: str | None,
    latency: str | None, strips: bool, data: str | None, population: int, generations: int, children: int,
    objective: str, seed: int, log: Path | None, plot: Path | None, front_dir: Path | None, output: Path,
    json_file: Path | None,
) -> None:  # fmt: skip
    """Search a supernet for the most accurate subnet within a budget; under torchrun in all processes."""
    from mcuformer.nas.search import SearchOptions

    check_outputs(output, json_file, log, plot)
    options = SearchOptions(
        population=population, generations=generations, children=children, objective=objective, seed=seed
    )
    chosen = search(
        supernet, board=board, sram=sram, flash=flash, instructions=instructions, latency=latency, strips=strips,
        data=data, options=options, log=log, plot=plot, front_dir=front_dir, output=output, progress=CONSOLE,
    )  # fmt: skip
    show(chosen, front=objective == "front" or front_dir is not None)
    write_json(json_file, chosen.to_dict())
