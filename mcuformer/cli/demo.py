# SPDX-License-Identifier: Apache-2.0
"""mcuformer demo: the whole way on real images, from a search space to the interpreter."""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from mcuformer.boards import Board, get_board
from mcuformer.cli.budget import describe, input_words
from mcuformer.cli.common import CONSOLE, PATH, check_outputs, json_option, out, run_images, top1_of, write_json
from mcuformer.cli.progress import SILENT, Progress
from mcuformer.errors import ModelError
from mcuformer.files import write_bytes

if TYPE_CHECKING:
    from mcuformer.converter.float_vit import FloatViT
    from mcuformer.converter.subnet_config import SubnetConfig
    from mcuformer.data import Dataset
    from mcuformer.nas import SearchSpace, SuperNet
    from mcuformer.nas.cost import Budget, Cost
    from mcuformer.nas.evolve_space import EvolutionResult
    from mcuformer.nas.search import Found
    from mcuformer.nas.split import Split

DATA, SPACE = "fashion-mnist", "tiny"
EVOLUTION_LIMIT = 3000  # training images per visit of the evolution
CALIBRATION_IMAGES = 256
FILES = ("space.yaml", "supernet.pt", "subnet.pt", "model.tflite", "evolution.png", "search.png", "memory_plan.png")


@dataclass(frozen=True)
class Int8Figures:
    """The int8 model. engine: what ran it, as Interpreter.engine; top1: from 0 to 1; exact: whether every logit equals
    the reference's; arena_bytes: in the interpreter of a 64-bit machine; invoke_ms: an image, on this machine;
    stock_arena_bytes and lean_arena_bytes: the same shape with stock tools by formula, as they are and arranged by
    hand."""

    engine: str
    top1: float
    exact: bool
    arena_bytes: int
    board_arena_bytes: int
    model_bytes: int
    stock_arena_bytes: int
    lean_arena_bytes: int
    invoke_ms: float
    test_images: int


@dataclass(frozen=True)
class Demonstration:
    """The demo's result. float_top1: of the fine-tuned subnet on the test images; supernet_top1: of its largest and
    smallest subnet on the held-out images; chosen: the best subnet within each number of bytes of arena; best: the one
    of them for the board; evaluated: how many there were; seconds_of: by stage."""

    board: Board
    config: SubnetConfig
    float_top1: float
    int8: Int8Figures
    supernet_top1: tuple[float, float]
    chosen: dict[int, Found]
    best: Found
    evaluated: int
    evolution: EvolutionResult
    seconds: float
    seconds_of: dict[str, float]
    files: dict[str, Path]

    def to_dict(self) -> dict:
        """What --json writes."""
        int8, best = self.int8, self.best
        return {
            "float_top1": self.float_top1, "int8_top1": int8.top1, "exact": int8.exact,
            "arena_bytes": int8.arena_bytes, "board_arena_bytes": int8.board_arena_bytes,
            "model_bytes": int8.model_bytes, "stock_arena_bytes": int8.stock_arena_bytes, "board": self.board.name,
            "config": self.config.to_dict(), "predicted": dataclasses.asdict(best.cost),
            "held_out_top1": best.accuracy, "supernet_top1": list(self.supernet_top1),
            "budgets": [
                {"sram": sram, "held_out_top1": one.accuracy, "config": one.config.to_dict(),
                 "predicted": dataclasses.asdict(one.cost)}
                for sram, one in self.chosen.items()
            ],
            "evaluated": self.evaluated, "visits": len(self.evolution.visits), "seconds": self.seconds,
            "seconds_of": self.seconds_of, "files": {name: str(path) for name, path in self.files.items()},
        }  # fmt: skip


@dataclass(frozen=True)
class _Setting:
    """The settings that all stages share."""

    board: Board
    budget: Budget
    cost: Callable[[SubnetConfig], Cost]
    epochs: int | None
    seed: int
    files: dict[str, Path]
    progress: Progress

    def budgets(self, space: SearchSpace) -> list[int]:
        """The bytes of arena that the space is made for, at most the board's."""
        return [min(sram, self.board.sram_budget) for sram in space.budgets]


class _Laps:
    """Seconds per stage."""

    def __init__(self, say: Callable[[str], object]):
        self.say, self.seconds = say, dict[str, float]()
        self.start = self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now
        self.say(f"  {self.seconds[name]:.0f} s")


def demo(
    output: str | os.PathLike = "mcuformer-demo",
    *,
    board: str = "nano33ble",
    epochs: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Demonstration:
    """Goes the whole way and writes FILES into the folder `output`; progress.say() announces each stage.

    epochs: of the supernet, and at most of the fine-tuning; default: nas/recipes.py
    """
    from mcuformer import nas
    from mcuformer.data import load
    from mcuformer.engines import ENGINES, choose
    from mcuformer.nas.cost import board_budget, cost_of
    from mcuformer.nas.split import split_images

    files = {name: Path(output) / name for name in FILES}
    check_outputs(*files.values())
    laps, target = _Laps(progress.say), get_board(board)
    budget, cost = board_budget(target, None, None, None), functools.partial(cost_of, board=target)
    setting = _Setting(target, budget, cost, epochs, seed, files, progress)
    space = nas.load_space(SPACE)
    split = split_images(DATA, space.image_size)
    progress.say(
        f"Fashion-MNIST: {len(split.images):,} images to train on, {len(split.kept):,} held out to select on; {board} "
        f"leaves {target.sram_budget:,} bytes for the arena"
    )

    progress.say("1. evolution of the search space: where along rank ratio and tokens?")
    space, evolution = _evolve(setting, space)
    laps.lap("evolution")

    progress.say("2. one supernet that holds them all")
    supernet, ends = _train(setting, space, split)
    laps.lap("supernet")

    progress.say("3. search within three budgets of arena")
    evaluated, chosen = _search(setting, supernet, split)
    best = max(chosen.values(), key=lambda found: found.accuracy)
    laps.lap("search")

    progress.say("4. fine-tuning of the most accurate one, on all training images")
    net, whole = supernet.extract(best.config), load(DATA, "train", image_size=best.config.image_size)
    _finetune(setting, net, whole)
    laps.lap("fine-tuning")

    progress.say(f"5. int8, {ENGINES[choose(None)]}, on the test images")
    float_top1, int8 = _convert(setting, net, whole)
    laps.lap("int8")
    total = time.perf_counter() - laps.start
    return Demonstration(
        target, net.config, float_top1, int8, ends, chosen, best, evaluated, evolution, total, laps.seconds, files
    )


def _evolve(setting: _Setting, space: SearchSpace) -> tuple[SearchSpace, EvolutionResult]:
    from mcuformer.data import hold_out, load
    from mcuformer.nas import plots, recipes
    from mcuformer.nas.cost import Budget
    from mcuformer.nas.evolve_space import EvolutionOptions, evolve
    from mcuformer.nas.search_space import space_yaml
    from mcuformer.nas.space_trainer import SpaceTrainer, tokens_of

    files = setting.files
    few, some = hold_out(load(DATA, "train", limit=EVOLUTION_LIMIT))
    options = dataclasses.replace(recipes.EVOLUTION_OPTIONS, epochs=1, warmup_epochs=0.5, seed=setting.seed)
    with setting.progress.training("training spaces") as show_step, tempfile.TemporaryDirectory() as folder:
        budget = Budget(sram=setting.budgets(space)[1])  # the middle one: which subnets fit it is part of the score
        trainer = SpaceTrainer(space, few, some, options, Path(folder), setting.cost, budget, show_step)
        result = evolve(
            space.evolution_range, tokens_of(space), trainer, EvolutionOptions(neighbours=3, epochs=1, visits=6)
        )
    space = space.window(result.best.place)
    plots.plot_path(result, files["evolution.png"], f"{len(result.visits)} visits of 1 epoch")
    write_bytes(files["space.yaml"], space_yaml(space).encode())
    setting.progress.say(
        f"  {len(result.visits)} visits; best: rank ratios {list(space.rank_ratio or ())}, "
        f"{result.best.x[1]:.0f} tokens, {space.subnets:,} subnets"
    )
    return space, result


def _train(setting: _Setting, space: SearchSpace, split: Split) -> tuple[SuperNet, tuple[float, float]]:
    """The supernet, and the held-out top-1 of its largest and smallest subnet."""
    from mcuformer import nas
    from mcuformer.nas import recipes
    from mcuformer.nas.distributed import device

    options = dataclasses.replace(recipes.DEMO_SUPERNET_OPTIONS, seed=setting.seed)
    if (epochs := setting.epochs) is not None:
        options = dataclasses.replace(options, epochs=epochs, warmup_epochs=min(options.warmup_epochs, epochs))
    supernet = nas.SuperNet(space, setting.seed).to(device())
    with setting.progress.training("training") as show_step:
        nas.train(supernet, split.images, options, progress=show_step)
    nas.save_supernet(supernet, setting.files["supernet.pt"], split.notes)
    largest, smallest = (
        nas.evaluate(supernet, split.kept, config=config) for config in (space.largest(), space.smallest())
    )
    setting.progress.say(f"  largest {100 * largest:.2f} %, smallest {100 * smallest:.2f} % of the held-out images")
    return supernet, (largest, smallest)


def _search(setting: _Setting, supernet: SuperNet, split: Split) -> tuple[int, dict[int, Found]]:
    """How many subnets were evaluated, and the best within each budget of arena, the least budget first."""
    from mcuformer.nas import plots
    from mcuformer.nas.search import HeldOutAccuracy, SearchOptions, search

    options = SearchOptions(population=16, generations=3, parents=6, children=8, seed=setting.seed)
    accuracy = functools.cache(HeldOutAccuracy(supernet, split.kept))
    found: dict[SubnetConfig, Found] = {}
    chosen: dict[int, Found] = {}
    for sram in setting.budgets(supernet.space):
        budget = dataclasses.replace(setting.budget, sram=sram)
        with setting.progress.searching() as show_best:
            result = search(supernet.space, accuracy, setting.cost, budget, options, progress=show_best)
        found |= {one.config: one for one in result.evaluated}
        # What a smaller budget found is within this one too.
        chosen[sram] = best = max((result.best, *chosen.values()), key=lambda one: one.accuracy)
        setting.progress.say(
            f"  within {sram:,} bytes: {100 * best.accuracy:.2f} %, {describe(best.config, best.cost)}"
        )
    plots.plot_budgets(tuple(found.values()), chosen, setting.files["search.png"], f"{len(found)} subnets")
    setting.progress.say(f"  {len(found)} evaluated")
    return len(found), chosen


def _finetune(setting: _Setting, net: FloatViT, images: Dataset) -> None:
    from mcuformer.nas import recipes
    from mcuformer.nas.finetune import finetune

    options = dataclasses.replace(recipes.DEMO_FINETUNE_OPTIONS, seed=setting.seed)
    if setting.epochs is not None:
        options = dataclasses.replace(options, epochs=min(options.epochs, setting.epochs))
    with setting.progress.training("fine-tuning") as show_step:
        finetune(net, images, options, progress=show_step)


def _convert(setting: _Setting, net: FloatViT, images: Dataset) -> tuple[float, Int8Figures]:
    """The float top-1 on the test images, and the int8 model's figures on them."""
    import numpy as np

    from mcuformer import nas
    from mcuformer.converter.estimate.stock import stock_arena_bytes
    from mcuformer.converter.model import convert
    from mcuformer.data import load
    from mcuformer.interpreter import Interpreter
    from mcuformer.plots import plot_memory_plan

    files, board = setting.files, setting.board.name
    test = load(DATA, "test", image_size=net.config.image_size)
    float_top1 = nas.evaluate(net, test)
    nas.save_subnet(net, files["subnet.pt"], {"class_names": list(test.class_names), "float_top1": float_top1})
    model = convert(
        net, images.images[:CALIBRATION_IMAGES], schedule="streamed", board=board, class_names=test.class_names
    )
    model.save(files["model.tflite"])
    plot_memory_plan(model.plan, files["memory_plan.png"], "demo")
    interpreter = Interpreter(files["model.tflite"])
    logits = run_images(interpreter, test.images[:], setting.progress)
    # The plan says to the byte what the interpreter reports, where there is one.
    arena_bytes = interpreter.arena_used_bytes if interpreter.engine == "tflm" else model.plan.arena_bytes
    figures = Int8Figures(
        engine=interpreter.engine,
        top1=top1_of(logits, test.labels),
        exact=bool(np.array_equal(logits, model.reference(test.images[:]))),
        arena_bytes=arena_bytes,
        board_arena_bytes=model.arena_bytes(board),
        model_bytes=model.model_bytes,
        stock_arena_bytes=stock_arena_bytes(net.config),
        lean_arena_bytes=stock_arena_bytes(net.config, route="lean_per_tensor"),
        invoke_ms=interpreter.invoke_ms or 0.0,
        test_images=len(test),
    )
    return float_top1, figures


def show(shown: Demonstration) -> None:
    from mcuformer.engines import ENGINES

    int8, board = shown.int8, shown.board
    table = Table(show_header=False)
    for sram, found in shown.chosen.items():
        table.add_row(
            f"found for {sram:,} bytes",
            f"{100 * found.accuracy:.2f} % of held-out images, arena {found.cost.sram:,} bytes, "
            f"{input_words(found.config)}",
        )
    table.add_row("float top-1", f"{100 * shown.float_top1:.2f} %")
    table.add_row("int8 top-1", f"{100 * int8.top1:.2f} %, {ENGINES[int8.engine]}, {int8.test_images:,} test images")
    table.add_row("kernels against reference", "every logit equal" if int8.exact else "LOGITS DIFFER")
    table.add_row(
        "arena",
        f"{int8.board_arena_bytes:,} bytes of {board.name}'s {board.sram_budget:,}; {int8.arena_bytes:,} here",
    )
    flash = "no limit" if board.flash_budget is None else f"of {board.name}'s {board.flash_budget:,}"
    table.add_row("model", f"{int8.model_bytes:,} bytes {flash}")
    stock, lean, used = int8.stock_arena_bytes, int8.lean_arena_bytes, int8.arena_bytes
    table.add_row(
        "same shape with stock tools",
        f"by formula {stock:,} bytes of arena ({stock / used:.1f} times), arranged by hand {lean:,} "
        f"({lean / used:.1f} times)",
    )
    table.add_row("time", f"{shown.seconds:.0f} s; {int8.invoke_ms:.2f} ms per image on this machine")
    out.print(table)
    for path in shown.files.values():
        out.print(f"wrote {path}")


@click.command("demo")
@click.option("--out", "-o", "output", type=PATH, default="mcuformer-demo", help="Folder for the files.")
@click.option("--board", default="nano33ble", help="The board to search and convert for.")
@click.option("--epochs", type=int, help="Epochs of the supernet, and at most of the fine-tuning.")
@click.option("--seed", default=0, help="Seed of all random choices.")
@json_option
def command(output: Path, board: str, epochs: int | None, seed: int, json_file: Path | None) -> None:
    """The whole way: evolve a space, train its supernet, search it, fine-tune, convert, run in the interpreter."""
    check_outputs(*(output / name for name in FILES), json_file)
    shown = demo(output, board=board, epochs=epochs, seed=seed, progress=CONSOLE)
    show(shown)
    write_json(json_file, shown.to_dict())
    if not shown.int8.exact:
        raise ModelError("the kernels and the integer reference disagree; please report this with the files above")
