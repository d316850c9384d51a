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
from mcuformer.cli.progress import SILENT, Progress
from mcuformer.cli.training import HeldOutOption, TrainingOption, train_options
from mcuformer.errors import ConfigError
from mcuformer.files import write_bytes
from mcuformer.pictures import ENDINGS, check_pictures
from mcuformer.sizes import size_text

if TYPE_CHECKING:
    from mcuformer.nas import SearchSpace, SuperNet, TrainOptions
    from mcuformer.nas.evolve_space import EvolutionOptions, EvolutionResult, Visit
    from mcuformer.nas.search_space import EvolutionRange

SpaceOption = Annotated[
    str, typer.Option("--space", help="YAML file of a search space, or one of the package's: see nas/spaces.")
]
LOG = "evolution.jsonl"  # in the folder


@dataclass(frozen=True)
class EvolvedSpace:
    """The best space that the evolution found, written to path; its supernet is beside it, .pt."""

    path: Path
    space: SearchSpace
    evolution: EvolutionResult

    def to_dict(self) -> dict:
        """What --json writes."""
        return {
            "best": dataclasses.asdict(self.evolution.best), "converged": self.evolution.converged,
            "space": self.space.to_dict(), "visits": [dataclasses.asdict(visit) for visit in self.evolution.visits],
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
    folder: str | os.PathLike = "evolution",
    plot: str | os.PathLike | None = None,
    output: str | os.PathLike = "space.yaml",
    progress: Progress = SILENT,
) -> EvolvedSpace:
    """Evolves the space, and writes the best one and its supernet; progress.say() reports each visit.

    space        a SearchSpace, its YAML file, or the name of one of the package's; with the key evolution
    data         as mcuformer.data.load takes it; limit: use only so many training images; held_out: of them
    board, sram  the budget, such as 65536 or "64KB"
    training     of each visit's supernet, for options.epochs; default: nas/recipes.py
    folder       for restore points and the log; the evolution continues from them
    plot         the path is drawn here: .png, .svg or .pdf
    """
    from mcuformer.nas import distributed, plots, recipes
    from mcuformer.nas.cost import Budget, cost_of
    from mcuformer.nas.evolve_space import EvolutionOptions
    from mcuformer.nas.evolve_space import evolve as run_evolution
    from mcuformer.nas.space_trainer import SpaceTrainer, check_reachable_somewhere, tokens_of
    from mcuformer.nas.split import split_images

    output, folder = Path(output), Path(folder)
    check_outputs(output, output.with_suffix(".pt"), plot, folder / LOG)
    check_pictures(plot)
    target = None if board is None else get_board(board)
    budget = budget_of(target, sram=sram)
    made, evolution = _with_range(space)
    options = options or EvolutionOptions()
    how = training or recipes.for_images(recipes.for_device(recipes.evolution_options(options.epochs)), made.flip)
    cost = functools.partial(cost_of, board=target, strips=strips)
    check_reachable_somewhere(made, cost, Budget(sram=budget.sram))
    split = split_images(data, made.image_size, limit, held_out, channels=made.in_channels)
    identity = {
        "space": made.to_dict(), "board": board, "strips": strips, "sram": budget.sram,
        "training": dataclasses.asdict(how), **split.notes,
    }  # fmt: skip
    with distributed.process_group(), progress.training("training spaces") as show_step:
        trainer = SpaceTrainer(made, split.images, split.kept, how, folder, cost, budget, show_step)
        result = run_evolution(
            evolution, tokens_of(made), trainer, options, log=folder / LOG, identity=identity,
            progress=lambda done, most, visit: progress.say(_line(done, most, visit)),
        )  # fmt: skip
        best = made.window(result.best.place)
        supernet = trainer.supernet(result.best.place, result.best.epochs)
        distributed.on_first(_write, output, best, supernet, {**split.notes, **recipes.mirror_notes(how)})
        if plot is not None:
            distributed.on_first(plots.plot_path, result, plot, f"{len(result.visits)} visits")
    return EvolvedSpace(output, best, result)


def _with_range(space: SearchSpace | str | os.PathLike) -> tuple[SearchSpace, EvolutionRange]:
    """The space, and where its window may move."""
    from mcuformer import nas

    made = space if isinstance(space, nas.SearchSpace) else nas.load_space(space)
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
    from mcuformer.nas import recipes
    from mcuformer.nas.evolve_space import EvolutionOptions

    check_outputs(output, output.with_suffix(".pt"), json_file, plot, folder / LOG)
    options = EvolutionOptions(eta=eta, neighbours=neighbours, epochs=epochs, visits=visits)
    if any(pair.startswith("schedule=") for pair in training or []):
        raise ConfigError("--option schedule: always constant here, since more epochs may follow; leave it out")
    defaults = recipes.for_images(recipes.for_device(recipes.evolution_options(epochs)), nas.load_space(space).flip)
    how = train_options(defaults, training, epochs=epochs, seed=seed)
    evolved = evolve(
        space, data=data, board=board, sram=sram, strips=strips, options=options, training=how, limit=limit,
        held_out=held_out, folder=folder, plot=plot, output=output, progress=CONSOLE,
    )  # fmt: skip
    show(evolved)
    write_json(json_file, evolved.to_dict())
