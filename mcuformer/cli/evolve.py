# SPDX-License-Identifier: Apache-2.0
"""mcuformer evolve: moves a space's window to where its supernet is accurate and its subnets fit."""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mcuformer.boards import get_board
from mcuformer.cli.budget import (
    board_option,
    budget_of,
    flash_option,
    instructions_option,
    latency_option,
    sram_option,
    strips_option,
)
from mcuformer.cli.common import CONSOLE, PATH, check_outputs, data_option, json_option, out, write_json
from mcuformer.cli.fitting import check_before_loading, more_settings, setting_option, settings, space_for
from mcuformer.cli.progress import SILENT, Progress
from mcuformer.cli.training import assignments, held_out_option, stratified_option, train_options, training_option
from mcuformer.errors import ConfigError, McuformerWarning
from mcuformer.files import write_bytes
from mcuformer.pictures import ENDINGS, check_pictures
from mcuformer.sizes import size_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcuformer.boards import Board
    from mcuformer.converter.subnet_config import SubnetConfig
    from mcuformer.data import Dataset
    from mcuformer.data.loading import Outline
    from mcuformer.nas import SearchSpace, SuperNet, TrainOptions
    from mcuformer.nas.cost import Budget, Cost
    from mcuformer.nas.evolve_space import EvolutionOptions, EvolutionResult, Visit
    from mcuformer.nas.search_space import EvolutionRange
    from mcuformer.nas.split import Split

LOG = "evolution.jsonl"  # in the folder
ARENA, PAPER = RULES = ("arena", "paper")  # what counts as SRAM


@dataclass(frozen=True)
class EvolvedSpace:
    """The best space that the evolution found, written to path; its supernet is beside it, .pt. record: what made them,
    nas/record.py."""

    path: Path
    space: SearchSpace
    evolution: EvolutionResult
    record: dict

    def to_dict(self) -> dict:
        """What --json writes."""
        return {
            "best": dataclasses.asdict(self.evolution.best), "converged": self.evolution.converged,
            "space": self.space.to_dict(), "visits": [dataclasses.asdict(visit) for visit in self.evolution.visits],
            "record": self.record,
        }  # fmt: skip


def evolve(
    space: SearchSpace | str | os.PathLike,
    *,
    data: str = "fashion-mnist",
    board: str | None = None,
    sram: str | int | None = None,
    flash: str | int | None = None,
    instructions: str | int | None = None,
    latency: str | float | None = None,
    rule: str = ARENA,
    strips: bool = False,
    options: EvolutionOptions | None = None,
    training: TrainOptions | None = None,
    limit: int | None = None,
    held_out: int | None = None,
    stratified: bool = True,
    folder: str | os.PathLike = "evolution",
    plot: str | os.PathLike | None = None,
    output: str | os.PathLike = "space.yaml",
    progress: Progress = SILENT,
) -> EvolvedSpace:
    """Evolves the space, and writes the best one and its supernet; progress.say() reports each visit.

    space        a SearchSpace, its YAML file, or the name of one of the package's; with the key evolution
    data         as mcuformer.data.load takes it; limit: use only so many training images; held_out: of them;
                 stratified: hold out as large a share of each class
    board, sram, flash, instructions, latency  the budget, such as "64KB", "50M" or "20"; R counts all, the board's own
                 among them
    rule         what is held against sram: "arena", the exact bytes, or "paper", the paper's M (nas/paper_memory.py)
    training     of each visit's supernet, for options.epochs; default: nas/recipes.py
    folder       for restore points and the log; the evolution continues from them
    plot         the path is drawn here: .png, .svg or .pdf
    """
    from mcuformer.data.loading import outline
    from mcuformer.nas import distributed, evolve_space, recipes
    from mcuformer.nas.space_trainer import SpaceTrainer, check_reachable_somewhere, tokens_of
    from mcuformer.nas.split import split_images

    output, folder = Path(output), Path(folder)
    check_outputs(output, output.with_suffix(".pt"), plot, folder / LOG)
    check_pictures(plot)
    limits = _limits(
        board, strips, rule, folder / LOG, sram=sram, flash=flash, instructions=instructions, latency=latency
    )
    made, evolution = _with_range(space, found := outline(data))
    options = options or evolve_space.EvolutionOptions()
    how = training or recipes.for_images(recipes.for_device(recipes.evolution_options(options.epochs)), made.flip)
    check_reachable_somewhere(made, limits.cost, limits.budget, limits.names)
    check_before_loading(made, found, how, limit, held_out)
    split = split_images(data, made.image_size, limit, held_out, None, made.in_channels, stratified)
    with distributed.process_group(), progress.training("training spaces") as show_step:
        trainer = SpaceTrainer(made, split.images, split.kept, how, folder, limits.cost, limits.budget, show_step)
        result = evolve_space.evolve(
            evolution, tokens_of(made), trainer, options, log=folder / LOG,
            identity=_identity(made, how, split.notes) | limits.identity,
            progress=lambda done, most, visit: progress.say(_line(done, most, visit)),
        )  # fmt: skip
        best = made.window(result.best.place)
        supernet = trainer.supernet(result.best.place, result.best.epochs)
        notes = _notes(options, how, split, best)
        distributed.on_first(_write, output, best, supernet, notes)
        distributed.on_first(_tell, result, plot, split.kept)
    return EvolvedSpace(output, best, result, notes["record"])


@dataclass(frozen=True)
class _Limits:
    """What decides R. cost: of a subnet, whose numbers are in words `names`; identity: what a log states of it."""

    budget: Budget
    cost: Callable[[SubnetConfig], Cost]
    names: dict[str, str]
    identity: dict


def _limits(board: str | None, strips: bool, rule: str, log: Path, **amounts: str | float | None) -> _Limits:
    from mcuformer.nas.cost import BY_PAPER, NAMES, cost_by_paper, cost_of

    target = None if board is None else get_board(board)
    budget = _budget(target, rule, log, **amounts)
    measured, names = (cost_of, NAMES) if rule == ARENA else (cost_by_paper, BY_PAPER)
    identity = {"board": board, "strips": strips, **budget.to_dict()}
    if rule != ARENA:
        identity["rule"] = rule
    return _Limits(budget, functools.partial(measured, board=target, strips=strips), names, identity)


def _budget(target: Board | None, rule: str, log: Path, **amounts: str | float | None) -> Budget:
    """All limits given, and the board's own. ConfigError if rule has none of SRAM to count against.

    A log of version 0.1.0 counts SRAM alone: to go on alike, its board's flash does not count either.
    """
    from mcuformer.nas.append_log import first_line

    if rule not in RULES:
        raise ConfigError(f"--rule {rule}: unknown; use {' or '.join(RULES)}")
    budget = budget_of(target, **amounts)
    if rule == PAPER and budget.sram is None:
        raise ConfigError("--rule paper: it says what counts as SRAM; give --sram or --board too")
    if target is not None and amounts["flash"] is None and "flash" not in (first_line(log) or {"flash": None}):
        warnings.warn(
            f"{log}: of an earlier version, whose R counts SRAM alone: so the flash of {target.name} does not count; "
            "give another folder to count it",
            McuformerWarning,
            stacklevel=2,
        )
        return dataclasses.replace(budget, flash=None)
    return budget


def _notes(options: EvolutionOptions, how: TrainOptions, split: Split, best: SearchSpace) -> dict:
    """Of the supernet's file."""
    from mcuformer.nas import recipes
    from mcuformer.nas.record import record

    asked = dataclasses.asdict(options) | {"training": dataclasses.asdict(how)}
    return {**split.notes, **recipes.mirror_notes(how), "record": record(how.seed, asked, split.identity, best)}


def _tell(result: EvolutionResult, plot: str | os.PathLike | None, kept: Dataset) -> None:
    """Draws the path, and warns of what led nowhere."""
    import numpy as np

    from mcuformer.nas import evolve_space, plots

    if plot is not None:
        plots.plot_path(result, plot, f"{len(result.visits)} visits")
    evolve_space.warn_of_flat(result.visits, float(np.bincount(kept.labels).max() / len(kept)), len(kept))


def _identity(space: SearchSpace, training: TrainOptions, split: dict) -> dict:
    """What an evolution's log must share, but for the budget. split: notes, of which the path may change."""
    held = {name: value for name, value in split.items() if name != "data"}
    options = dataclasses.asdict(training)
    del options["workers"]  # the result does not depend on it
    return {"space": space.to_dict(), "training": options, **held}


def _with_range(space: SearchSpace | str | os.PathLike, data: Outline) -> tuple[SearchSpace, EvolutionRange]:
    """The space, and where its window may move."""
    from mcuformer import nas

    if isinstance(space, nas.SearchSpace):
        made = space
    else:
        made = space_for(space, {}, data)
    if made.evolution is None:
        name = "the space" if space is made else space
        raise ConfigError(f"{name}: has no key evolution: where its window may move (see nas/spaces/mcuformer.yaml)")
    return made, made.evolution


def _write(path: Path, space: SearchSpace, supernet: SuperNet, notes: dict) -> None:
    """The space, and its supernet beside it."""
    from mcuformer import nas
    from mcuformer.nas.search_space import space_yaml

    write_bytes(path, space_yaml(space).encode())
    nas.save_supernet(supernet, path.with_suffix(".pt"), notes)


def _line(done: int, most: int, visit: Visit) -> str:
    return (
        f"{done}/{most}  rank ratio {visit.x[0]:.3f}, {visit.x[1]:.1f} tokens, {visit.epochs} epochs: "
        f"A {visit.accuracy:.4f}, R {visit.share:.3f}, S {visit.score:.4f}"
    )


def show(evolved: EvolvedSpace) -> None:
    space, path = evolved.space, evolved.path
    rest = "converged" if evolved.evolution.converged else "out of visits"
    patches = ", ".join(map(size_text, space.patch_size))
    out.print(f"{rest}; best: rank ratios {list(space.rank_ratio or ())}, patch sizes [{patches}]")
    out.print(f"wrote {path} and {path.with_suffix('.pt')}")


@click.command("evolve")
@click.option("--space", required=True, help="YAML file of a search space, or one of the package's: see nas/spaces.")
@setting_option
@more_settings
@data_option
@board_option
@sram_option
@flash_option
@instructions_option
@latency_option
@click.option(
    "--rule", default=ARENA, help="What counts as SRAM: arena, the exact bytes; or paper, the paper's sizing rule."
)
@strips_option
@click.option("--epochs", default=2, help="Epochs per visit (t).")
@click.option("--visits", default=20, help="The most visits.")
@click.option("--eta", default=0.5, help="Weight of the share of fitting subnets in a space's score.")
@click.option("--neighbours", default=5, help="Nearest spaces per linear fit (k).")
@training_option
@click.option("--seed", type=int, help="Seed of weights, order, augmentation and subnets; default: 0.")
@click.option("--limit", type=int, help="Use only this many training images.")
@held_out_option
@stratified_option
@click.option("--folder", type=PATH, default="evolution", help="Restore points and log; evolution continues from them.")
@click.option("--plot", type=PATH, help=f"Draw the path here ({ENDINGS}).")
@click.option(
    "--out", "-o", "output", type=PATH, default="space.yaml", help="The best space; beside it its supernet, .pt."
)
@json_option
def command(
    space: str, setting: tuple[str, ...], more: tuple[str, ...], data: str, board: str | None, sram: str | None,
    flash: str | None, instructions: str | None, latency: str | None, rule: str, strips: bool, epochs: int, visits: int,
    eta: float, neighbours: int, training: tuple[str, ...], seed: int | None, limit: int | None, held_out: int | None,
    stratified: bool, folder: Path, plot: Path | None, output: Path, json_file: Path | None,
) -> None:  # fmt: skip
    """Move a space's window of rank ratios and tokens to where its supernet is accurate and its subnets fit."""
    from mcuformer import nas
    from mcuformer.data.loading import outline
    from mcuformer.nas import recipes
    from mcuformer.nas.evolve_space import EvolutionOptions

    check_outputs(output, output.with_suffix(".pt"), json_file, plot, folder / LOG)
    options = EvolutionOptions(eta=eta, neighbours=neighbours, epochs=epochs, visits=visits)
    if any(pair.startswith("schedule=") for pair in training):
        raise ConfigError("--option schedule: always constant here, since more epochs may follow; leave it out")
    made = nas.load_space(space)
    if made.evolution is not None:  # else evolve() says so
        made = space_for(space, assignments(settings(setting, more), "--set"), outline(data))
    defaults = recipes.for_images(recipes.for_device(recipes.evolution_options(epochs)), made.flip)
    how = train_options(defaults, training, epochs=epochs, seed=seed)
    evolved = evolve(
        space if made.evolution is None else made, data=data, board=board, sram=sram, flash=flash,
        instructions=instructions, latency=latency, rule=rule, strips=strips, options=options, training=how,
        limit=limit, held_out=held_out, stratified=stratified, folder=folder, plot=plot, output=output,
        progress=CONSOLE,
    )  # fmt: skip
    show(evolved)
    write_json(json_file, evolved.to_dict())
