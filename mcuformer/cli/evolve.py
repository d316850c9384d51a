# SPDX-License-Identifier: Apache-2.0
"""mcuformer evolve: moves a space's window to where its supernet is accurate and its subnets fit."""

from __future__ import annotations

import dataclasses
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mcuformer.boards import get_board
from mcuformer.cli.budget import BoardOption, SramOption, StripsOption, budget_of
from mcuformer.cli.common import CONSOLE, DataOption, JsonOption, app, check_outputs, out, write_json
from mcuformer.cli.fitting import MoreSettings, SettingOption, check_before_loading, settings, space_for
from mcuformer.cli.progress import SILENT, Progress
from mcuformer.cli.training import HeldOutOption, StratifiedOption, TrainingOption, assignments, train_options
from mcuformer.errors import ConfigError
from mcuformer.files import write_bytes
from mcuformer.pictures import ENDINGS, check_pictures
from mcuformer.sizes import size_text

if TYPE_CHECKING:
    from mcuformer.data.loading import Outline
    from mcuformer.nas import SearchSpace, SuperNet, TrainOptions
    from mcuformer.nas.evolve_space import EvolutionOptions, EvolutionResult, Visit
    from mcuformer.nas.search_space import EvolutionRange

SpaceOption = Annotated[
    str, typer.Option("--space", help="YAML file of a search space, or one of the package's: see nas/spaces.")
]
LOG = "evolution.jsonl"  # in the folder


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
    board, sram  the budget, such as 65536 or "64KB"
    training     of each visit's supernet, for options.epochs; default: nas/recipes.py
    folder       for restore points and the log; the evolution continues from them
    plot         the path is drawn here: .png, .svg or .pdf
    """
    from mcuformer.data.loading import outline
    from mcuformer.nas import distributed, evolve_space, plots, recipes
    from mcuformer.nas.cost import Budget, cost_of
    from mcuformer.nas.record import record
    from mcuformer.nas.space_trainer import SpaceTrainer, check_reachable_somewhere, tokens_of
    from mcuformer.nas.split import split_images

    output, folder = Path(output), Path(folder)
    check_outputs(output, output.with_suffix(".pt"), plot, folder / LOG)
    check_pictures(plot)
    target = None if board is None else get_board(board)
    budget = budget_of(target, sram=sram)
    made, evolution = _with_range(space, found := outline(data))
    options = options or evolve_space.EvolutionOptions()
    how = training or recipes.for_images(recipes.for_device(recipes.evolution_options(options.epochs)), made.flip)
    cost = functools.partial(cost_of, board=target, strips=strips)
    check_reachable_somewhere(made, cost, Budget(sram=budget.sram))
    check_before_loading(made, found, how, limit, held_out)
    split = split_images(data, made.image_size, limit, held_out, None, made.in_channels, stratified)
    identity = _identity(made, how, split.notes) | {"board": board, "strips": strips, "sram": budget.sram}
    with distributed.process_group(), progress.training("training spaces") as show_step:
        trainer = SpaceTrainer(made, split.images, split.kept, how, folder, cost, budget, show_step)
        result = evolve_space.evolve(
            evolution, tokens_of(made), trainer, options, log=folder / LOG, identity=identity,
            progress=lambda done, most, visit: progress.say(_line(done, most, visit)),
        )  # fmt: skip
        best = made.window(result.best.place)
        supernet = trainer.supernet(result.best.place, result.best.epochs)
        rule = dataclasses.asdict(options) | {"training": dataclasses.asdict(how)}
        notes = {**split.notes, **recipes.mirror_notes(how), "record": record(how.seed, rule, split.identity, best)}
        distributed.on_first(_write, output, best, supernet, notes)
        if plot is not None:
            distributed.on_first(plots.plot_path, result, plot, f"{len(result.visits)} visits")
    return EvolvedSpace(output, best, result, notes["record"])


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


@app.command("evolve")
def command(
    space: SpaceOption,
    setting: SettingOption = None,
    more: MoreSettings = None,
    data: DataOption = "fashion-mnist",
    board: BoardOption = None,
    sram: SramOption = None,
    strips: StripsOption = False,
    epochs: Annotated[int, typer.Option(help="Epochs per visit (t).")] = 2,
    visits: Annotated[int, typer.Option(help="The most visits.")] = 20,
    eta: Annotated[float, typer.Option(help="Weight of the share of fitting subnets in a space's score.")] = 0.5,
    neighbours: Annotated[int, typer.Option(help="Nearest spaces per linear fit (k).")] = 5,
    training: TrainingOption = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order, augmentation and subnets; default: 0.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use only this many training images.")] = None,
    held_out: HeldOutOption = None,
    stratified: StratifiedOption = True,
    folder: Annotated[Path, typer.Option(help="Restore points and log; evolution continues from them.")] = Path(
        "evolution"
    ),
    plot: Annotated[Path | None, typer.Option(help=f"Draw the path here ({ENDINGS}).")] = None,
    output: Annotated[Path, typer.Option("--out", "-o", help="The best space; beside it its supernet, .pt.")] = Path(
        "space.yaml"
    ),
    json_file: JsonOption = None,
) -> None:
    """Move a space's window of rank ratios and tokens to where its supernet is accurate and its subnets fit."""
    from mcuformer import nas
    from mcuformer.data.loading import outline
    from mcuformer.nas import recipes
    from mcuformer.nas.evolve_space import EvolutionOptions

    check_outputs(output, output.with_suffix(".pt"), json_file, plot, folder / LOG)
    options = EvolutionOptions(eta=eta, neighbours=neighbours, epochs=epochs, visits=visits)
    if any(pair.startswith("schedule=") for pair in training or []):
        raise ConfigError("--option schedule: always constant here, since more epochs may follow; leave it out")
    made = nas.load_space(space)
    if made.evolution is not None:  # else evolve() says so
        made = space_for(space, assignments(settings(setting, more), "--set"), outline(data))
    defaults = recipes.for_images(recipes.for_device(recipes.evolution_options(epochs)), made.flip)
    how = train_options(defaults, training, epochs=epochs, seed=seed)
    evolved = evolve(
        space if made.evolution is None else made, data=data, board=board, sram=sram, strips=strips, options=options,
        training=how, limit=limit, held_out=held_out, stratified=stratified, folder=folder, plot=plot, output=output,
        progress=CONSOLE,
    )  # fmt: skip
    show(evolved)
    write_json(json_file, evolved.to_dict())
