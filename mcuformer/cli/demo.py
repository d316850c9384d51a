# SPDX-License-Identifier: Apache-2.0
"""mcuformer demo: the whole way on real images, from a search space to the interpreter."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from mcuformer.cli.common import JsonOption, app, bar, check_outputs, out, run_images, top1_of, write_json
from mcuformer.cli.nas import describe, split_images, training_bar
from mcuformer.errors import ModelError
from mcuformer.files import write_bytes

DATA, SPACE = "fashion-mnist", "tiny"
EVOLUTION_LIMIT = 3000  # training images a visit of the evolution sees


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files.")] = Path("mcuformer-demo"),
    board: Annotated[str, typer.Option(help="The board to search and convert for.")] = "nano33ble",
    epochs: Annotated[int | None, typer.Option(help="Epochs of the supernet, and most of the fine-tuning.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 0,
    json_file: JsonOption = None,
) -> None:
    """The whole way: evolve a space, train its supernet, search it, fine-tune, convert, run in the interpreter."""
    from mcuformer import nas
    from mcuformer.boards import get_board
    from mcuformer.converter.estimate.stock import stock_arena_bytes
    from mcuformer.converter.model import convert
    from mcuformer.data import hold_out, load
    from mcuformer.interpreter import Interpreter
    from mcuformer.nas import plots, recipes
    from mcuformer.nas.cost import board_budget, cost_of
    from mcuformer.nas.distributed import device
    from mcuformer.nas.evolve_space import EvolutionOptions, evolve
    from mcuformer.nas.finetune import finetune
    from mcuformer.nas.search import HeldOutAccuracy, SearchOptions, search
    from mcuformer.nas.search_space import space_yaml
    from mcuformer.nas.space_trainer import SpaceTrainer, tokens_of
    from mcuformer.plots import plot_memory_plan

    start = time.perf_counter()
    names = ("space.yaml", "supernet.pt", "subnet.pt", "model.tflite", "evolution.png", "search.png", "memory_plan.png")
    files = {name: output / name for name in names}
    check_outputs(*files.values(), json_file)
    target = get_board(board)
    budget = board_budget(target, None, None, None)
    cost = functools.partial(cost_of, board=target)
    space = nas.load_space(SPACE)
    whole = load(DATA, "train")
    images, kept, split = split_images(DATA, space.image_size, None, None)
    seconds, last = {}, start

    def lap(name: str) -> None:
        nonlocal last
        seconds[name], last = time.perf_counter() - last, time.perf_counter()
        out.print(f"  {seconds[name]:.0f} s")

    out.print(
        f"Fashion-MNIST: {len(images):,} images to train on, {len(kept):,} held out to select on; {board} leaves "
        f"{target.sram_budget:,} bytes for the arena"
    )

    out.print("1. evolution of the search space: where along rank ratio and tokens?")
    few, some = hold_out(load(DATA, "train", limit=EVOLUTION_LIMIT))
    options = dataclasses.replace(recipes.EVOLUTION_OPTIONS, epochs=1, warmup_epochs=0.5, seed=seed)
    with training_bar("training spaces") as show, tempfile.TemporaryDirectory() as folder:
        trainer = SpaceTrainer(space, few, some, options, Path(folder), cost, budget, show)
        evolution = evolve(
            space.evolution, tokens_of(space), trainer, EvolutionOptions(neighbours=3, epochs=1, visits=6)
        )
    space = space.window(evolution.best.place)
    plots.plot_path(evolution, files["evolution.png"], f"{len(evolution.visits)} visits of 1 epoch")
    write_bytes(files["space.yaml"], space_yaml(space).encode())
    out.print(
        f"  {len(evolution.visits)} visits; best: rank ratios {list(space.rank_ratio)}, "
        f"{evolution.best.x[1]:.0f} tokens, {space.subnets:,} subnets"
    )
    lap("evolution")

    out.print("2. one supernet that holds them all")
    options = dataclasses.replace(recipes.DEMO_SUPERNET_OPTIONS, seed=seed)
    if epochs is not None:
        options = dataclasses.replace(options, epochs=epochs, warmup_epochs=min(options.warmup_epochs, epochs))
    supernet = nas.SuperNet(space, seed).to(device())
    with training_bar("training") as show:
        nas.train(supernet, images, options, progress=show)
    nas.save_supernet(supernet, files["supernet.pt"], split)
    ends = [nas.evaluate(supernet, kept, config=config) for config in (space.largest(), space.smallest())]
    out.print(f"  largest {100 * ends[0]:.2f} %, smallest {100 * ends[1]:.2f} % of the held-out images")
    lap("supernet")

    out.print(f"3. search within the budget of {board}")
    with bar("searching") as update:
        found = search(
            space, HeldOutAccuracy(supernet, kept), cost, budget,
            SearchOptions(population=24, generations=4, parents=6, children=12, seed=seed),
            progress=lambda done, most, best: update(done, most, f"best {100 * best:.2f} %"),
        )  # fmt: skip
    best = found.best
    plots.plot_front(found, files["search.png"], f"{len(found.evaluated)} subnets")
    out.print(
        f"  {len(found.evaluated)} evaluated; best {100 * best.accuracy:.2f} %, {describe(best.config, best.cost)}"
    )
    lap("search")

    out.print("4. fine-tuning of the chosen subnet, on all training images")
    net = supernet.extract(best.config)
    tuning = dataclasses.replace(recipes.DEMO_FINETUNE_OPTIONS, seed=seed)
    if epochs is not None:
        tuning = dataclasses.replace(tuning, epochs=min(tuning.epochs, epochs))
    with training_bar("fine-tuning") as show:
        finetune(net, whole, tuning, progress=show)
    lap("fine-tuning")

    out.print("5. int8, in the tflite-micro interpreter, on the test images")
    test = load(DATA, "test")
    float_top1 = nas.evaluate(net, test)
    nas.save_subnet(net, files["subnet.pt"], {"class_names": list(test.class_names), "float_top1": float_top1})
    model = convert(net, whole.images[:256], board=board, class_names=test.class_names)
    model.save(files["model.tflite"])
    plot_memory_plan(model.plan, files["memory_plan.png"], "demo")
    interpreter = Interpreter(files["model.tflite"])
    logits = run_images(interpreter, test.images)
    exact = bool(np.array_equal(logits, model.reference(test.images)))
    top1, used = top1_of(logits, test.labels), interpreter.arena_used_bytes
    stock, lean = (stock_arena_bytes(net.config, **how) for how in ({}, {"route": "lean_per_tensor"}))
    lap("int8")

    total = time.perf_counter() - start
    table = Table(show_header=False)
    table.add_row("float top-1", f"{100 * float_top1:.2f} %")
    table.add_row("int8 top-1", f"{100 * top1:.2f} %, in the tflite-micro interpreter, {len(test):,} test images")
    table.add_row("kernels against reference", "every logit equal" if exact else "LOGITS DIFFER")
    arena = model.arena_bytes(board)
    table.add_row("arena", f"{arena:,} bytes of the {target.sram_budget:,} that {board} has for it; {used:,} here")
    flash = "no limit" if target.flash_budget is None else f"of the {target.flash_budget:,} that {board} has for it"
    table.add_row("model", f"{model.model_bytes:,} bytes {flash}")
    table.add_row(
        "same shape with stock tools",
        f"by formula {stock:,} bytes of arena ({stock / used:.1f} times), arranged by hand {lean:,} "
        f"({lean / used:.1f} times)",
    )
    table.add_row("time", f"{total:.0f} s; {interpreter.invoke_ms:.2f} ms an image on this machine")
    out.print(table)
    for path in files.values():
        out.print(f"wrote {path}")
    result = {
        "float_top1": float_top1, "int8_top1": top1, "exact": exact, "arena_bytes": used, "board_arena_bytes": arena,
        "model_bytes": model.model_bytes, "stock_arena_bytes": stock, "board": board, "config": net.config.to_dict(),
        "predicted": dataclasses.asdict(best.cost), "held_out_top1": best.accuracy, "supernet_top1": ends,
        "evaluated": len(found.evaluated), "visits": len(evolution.visits), "seconds": total, "seconds_of": seconds,
        "files": {name: str(path) for name, path in files.items()},
    }  # fmt: skip
    write_json(json_file, result)
    if not exact:
        raise ModelError("the kernels and the integer reference disagree; please report this with the files above")
