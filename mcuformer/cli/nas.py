# SPDX-License-Identifier: Apache-2.0
"""mcuformer train | evolve | search | finetune: from images to a subnet that fits a board."""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from mcuformer.boards import get_board
from mcuformer.cli.common import DataOption, JsonOption, app, bar, check_outputs, load_data, out, write_json
from mcuformer.errors import ConfigError
from mcuformer.files import write_bytes

SpaceOption = Annotated[
    str, typer.Option("--space", help="YAML file of a search space, or one of the package's: see nas/spaces.")
]
BoardOption = Annotated[str | None, typer.Option(help="Budget of this board (see `mcuformer boards`).")]
SramOption = Annotated[str | None, typer.Option(help="Most bytes of arena, such as 64KB.")]
FlashOption = Annotated[str | None, typer.Option(help="Most bytes of model, such as 500KB.")]
InstructionsOption = Annotated[str | None, typer.Option(help="Most instructions an image, such as 50M.")]
StripsOption = Annotated[bool, typer.Option(help="The image comes a few rows at a time; the arena holds none.")]
HeldOutOption = Annotated[
    int | None,
    typer.Option(help="Training images kept for selection; left out: a sixth, at most 5,000."),
]
TrainingOption = Annotated[
    list[str] | None,
    typer.Option("--option", help="One field of TrainOptions, such as --option learning_rate=0.002. Repeatable."),
]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="State after every epoch; training goes on from it where it exists.")
]


def assignments(pairs: list[str] | None, flag: str) -> dict:
    """["depth=4"] -> {"depth": 4}; values are JSON, or else text."""
    values = {}
    for pair in pairs or []:
        name, separator, text = pair.partition("=")
        if not separator:
            raise ConfigError(f"{flag} {pair!r}: write it as field=value, such as {flag} depth=4")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def train_options(defaults, pairs: list[str] | None, **flags):
    """defaults with the --option pairs and the flags that are not None; ConfigError where one is unknown or both."""
    known = {field.name for field in dataclasses.fields(defaults)}
    given = assignments(pairs, "--option")
    if unknown := sorted(set(given) - known):
        raise ConfigError(f"unknown option {unknown[0]!r}: known are {', '.join(sorted(known))}")
    flags = {name: value for name, value in flags.items() if value is not None}
    if twice := sorted(set(given) & set(flags)):
        raise ConfigError(f"--option {twice[0]}: give it as --{twice[0]} alone, which is {flags[twice[0]]}")
    return dataclasses.replace(defaults, **given, **flags)


def for_device(options):
    """The same options for a GPU, where there is one: sandwich, mixed precision."""
    import torch

    return (
        dataclasses.replace(options, sampling="sandwich", precision="bfloat16")
        if torch.cuda.is_available()
        else options
    )


@contextmanager
def training_bar(label: str):
    """Yields a function for train(progress=...)."""
    with bar(label) as update:

        def show(p) -> None:
            note = f"epoch {p.epoch}/{p.epochs}  loss {p.loss:.3f}  {p.images_per_second:.0f} img/s"
            update((p.epoch - 1) * p.steps + p.step, p.epochs * p.steps, note)

        yield show


def split_images(data: str, image_size: int, limit: int | None, held_out: int | None):
    """(images to train on, images to select on, plain values from which later commands make the same split)."""
    from mcuformer.data import hold_out

    whole = load_data(data, "train", image_size, limit)
    images, kept = hold_out(whole, held_out)
    notes = {
        "data": data, "limit": limit, "held_out": len(kept), "images": len(whole),
        "labels_crc32": zlib.crc32(np.ascontiguousarray(whole.labels).tobytes()),
        "class_names": list(kept.class_names),
    }  # fmt: skip
    return images, kept, notes


def split_of(supernet, path: Path, data: str | None, limit: int | None = None, held_out: int | None = None):
    """split_images() as a supernet was trained with it; ConfigError where what is given makes another: images that it
    was trained on would select."""
    notes = supernet.notes
    images, kept, made = split_images(
        data or notes.get("data", "fashion-mnist"),
        supernet.space.image_size,
        notes.get("limit") if limit is None else limit,
        notes.get("held_out") if held_out is None else held_out,
    )
    words = {"images": "images", "labels_crc32": "labels of checksum", "held_out": "images held out"}
    for name, word in words.items():
        if name in notes and notes[name] != made[name]:
            raise ConfigError(
                f"{path}: was trained with {notes[name]} {word}, here are {made[name]}: it would be judged by images "
                "it was trained on; give the same --data, --limit and --held-out"
            )
    return images, kept, made


def save_first(save, *arguments) -> None:
    """Calls save(*arguments) in the first process alone."""
    from mcuformer.nas import distributed

    if distributed.rank() == 0:
        save(*arguments)


def checksum(module) -> int:
    """crc32 of all weights and buffers."""
    value = 0
    for tensor in module.state_dict().values():
        value = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), value)
    return value


@app.command()
def train(
    data: DataOption = "fashion-mnist",
    space: Annotated[
        str | None, typer.Option(help="Train a supernet: YAML file of its space, or one of the package's.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Train one network: JSON file of SubnetConfig fields; left out: the recipe's.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="One field of the config, such as --set depth=4. Repeatable.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    training: TrainingOption = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order, augmentation and subnets; left out: 0.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use only this many training images.")] = None,
    held_out: HeldOutOption = None,
    init: Annotated[Path | None, typer.Option(help="Start from the weights of this supernet.pt.")] = None,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="What is written: subnet.pt, or supernet.pt with --space.")
    ] = None,
    checkpoint: CheckpointOption = None,
    json_file: JsonOption = None,
) -> None:
    """Train one network, or with --space a supernet; under torchrun on all GPUs."""
    from mcuformer.nas.distributed import process_group

    output = output or Path("subnet.pt" if space is None else "supernet.pt")
    check_outputs(output, json_file, checkpoint)
    given = functools.partial(train_options, pairs=training, epochs=epochs, seed=seed)
    if space is not None and (config is not None or setting):
        raise ConfigError("--space with --config or --set: a supernet holds all configs of its space; leave one out")
    if space is None and (init is not None or held_out is not None):
        raise ConfigError("--init and --held-out are of a supernet: give --space too")
    with process_group():
        if space is None:
            _train_network(data, config, setting, given, limit, output, checkpoint, json_file)
        else:
            _train_supernet(data, space, given, limit, held_out, init, output, checkpoint, json_file)


def _train_network(data, config, setting, given, limit, output, checkpoint, json_file) -> None:
    from mcuformer import nas
    from mcuformer.converter.subnet_config import SubnetConfig
    from mcuformer.nas import recipes

    values = recipes.NETWORK_CONFIG.to_dict() if config is None else _read_json(config)
    values |= assignments(setting, "--set")
    subnet_config = SubnetConfig.from_dict(values)
    options = given(recipes.NETWORK_OPTIONS)
    images = load_data(data, "train", subnet_config.image_size, limit)
    test = load_data(data, "test", subnet_config.image_size)
    net = nas.build_subnet(subnet_config, options.seed)
    with training_bar("training") as show:
        result = nas.train(net, images, options, validation=test, progress=show, checkpoint=checkpoint)
    notes = {"class_names": list(test.class_names), "data": data, "float_top1": result.top1}
    save_first(nas.save_subnet, net, output, notes)
    out.print(f"float top-1 {100 * result.top1:.2f} % on {len(test)} test images, trained {result.seconds:.0f} s")
    out.print(f"wrote {output}")
    values = {
        "float_top1": result.top1, "seconds": result.seconds, "losses": list(result.losses), "subnet": str(output),
        "config": subnet_config.to_dict(),
    }  # fmt: skip
    save_first(write_json, json_file, values)


def _read_json(path: Path) -> dict:
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}, not a mapping of config fields to values")
    return values


def _train_supernet(data, space, given, limit, held_out, init, output, checkpoint, json_file) -> None:
    from mcuformer import nas
    from mcuformer.nas import distributed, recipes

    made = nas.load_space(space)
    options = given(for_device(recipes.SUPERNET_OPTIONS))
    if init is None:
        supernet = nas.SuperNet(made, options.seed)
        images, kept, split = split_images(data, made.image_size, limit, held_out)
    else:
        supernet = nas.load_supernet(init, made)
        images, kept, split = split_of(supernet, init, data, limit, held_out)
    supernet.to(distributed.device())
    out.print(f"{made.subnets:,} subnets; {len(images):,} training images, {len(kept):,} held out for selection")
    with training_bar("training") as show:
        result = nas.train(supernet, images, options, progress=show, checkpoint=checkpoint)
    ends = {name: getattr(made, name)() for name in ("largest", "smallest")}
    scores = {name: nas.evaluate(supernet, kept, config=config) for name, config in ends.items()}
    save_first(nas.save_supernet, supernet, output, {**split, "scores": scores})
    out.print(
        ", ".join(f"{name} {100 * score:.2f} %" for name, score in scores.items())
        + f" of the held-out images, trained {result.seconds:.0f} s"
    )
    out.print(f"wrote {output}")
    values = {
        "held_out_top1": scores,
        "seconds": result.seconds,
        "losses": list(result.losses),
        "supernet": str(output),
    }
    save_first(write_json, json_file, values)


def budget_of(board, **amounts: str | None):
    """The budget that --board and amounts (sram, flash, instructions) describe; ConfigError where there is none."""
    from mcuformer.nas import cost

    if board is None and not any(amounts.values()):
        raise ConfigError(f"no budget: give --board, or {' or '.join(f'--{name}' for name in amounts)}")
    limits = dict.fromkeys(("sram", "flash", "instructions"))
    for name, text in amounts.items():
        try:
            if text is not None:
                limits[name] = (cost.parse_count if name == "instructions" else cost.parse_bytes)(text)
        except ConfigError as error:
            raise ConfigError(f"--{name} {error}") from error
    return cost.board_budget(board, **limits)


def describe(config, cost) -> str:
    """One line: dimensions and cost of a subnet. Layers as query heads / key and value heads x MLP width (r rank)."""

    def mlp(layer) -> str:
        d = config.embed_dim
        pays = layer.rank is not None and layer.rank * (d + layer.mlp_dim) < d * layer.mlp_dim
        return f"{layer.mlp_dim}r{layer.rank}" if pays else str(layer.mlp_dim)

    count = "instructions unknown" if cost.instructions is None else f"{cost.instructions / 1e6:.1f} M instructions"
    layers = ", ".join(f"{layer.num_heads}/{layer.kv_heads}x{mlp(layer)}" for layer in config.layers)
    return (
        f"{config.tokens} tokens of width {config.embed_dim}, {config.depth} layers ({layers}): "
        f"arena {cost.sram:,} bytes, model at most {cost.flash:,} bytes, {count}"
    )


@app.command()
def search(
    supernet: Annotated[Path, typer.Argument(help="supernet.pt, from `mcuformer train --space`.")],
    board: BoardOption = None,
    sram: SramOption = None,
    flash: FlashOption = None,
    instructions: InstructionsOption = None,
    strips: StripsOption = False,
    data: Annotated[str | None, typer.Option(help="Where the data is that it was trained on, if it moved.")] = None,
    population: Annotated[int, typer.Option(help="Subnets of the first generation.")] = 50,
    generations: Annotated[int, typer.Option(help="Generations that follow.")] = 10,
    children: Annotated[int, typer.Option(help="New subnets a generation.")] = 25,
    objective: Annotated[
        str, typer.Option(help="accuracy, or front: accuracy against SRAM and instructions.")
    ] = "accuracy",
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn.")] = 0,
    log: Annotated[
        Path | None, typer.Option("--log-file", help="A line for each evaluation; the search goes on from it.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write accuracy against SRAM here (PNG).")] = None,
    output: Annotated[Path, typer.Option("--out", "-o", help="The best subnet: weights and config.")] = Path(
        "subnet.pt"
    ),
    json_file: JsonOption = None,
) -> None:
    """Search a supernet for the most accurate subnet within a budget; under torchrun on all processes."""
    from mcuformer import nas
    from mcuformer.nas import distributed
    from mcuformer.nas.cost import cost_of
    from mcuformer.nas.plots import plot_front
    from mcuformer.nas.search import HeldOutAccuracy, SearchOptions
    from mcuformer.nas.search import search as run_search

    check_outputs(output, json_file, log, plot)
    target = None if board is None else get_board(board)
    budget = budget_of(target, sram=sram, flash=flash, instructions=instructions)
    options = SearchOptions(
        population=population, generations=generations, children=children, objective=objective, seed=seed
    )
    net = nas.load_supernet(supernet)
    _, kept, split = split_of(net, supernet, data)
    with distributed.process_group(), bar("searching") as update:
        net.to(distributed.device())
        result = run_search(
            net.space,
            HeldOutAccuracy(net, kept),
            functools.partial(cost_of, board=target, strips=strips),
            budget,
            options,
            log=log,
            identity={"supernet": checksum(net), "held_out": len(kept)},
            progress=lambda done, most, best: update(done, most, f"best {100 * best:.2f} %"),
        )
        best = result.best
        notes = {"class_names": split["class_names"], "data": split["data"], "held_out_top1": best.accuracy}
        save_first(nas.save_subnet, net.extract(best.config), output, notes)
        if plot is not None:
            save_first(plot_front, result, plot, f"{len(result.evaluated)} subnets of {supernet.name}")
    out.print(f"{result.judged:,} subnets judged, {len(result.evaluated):,} evaluated on {len(kept):,} held-out images")
    if objective == "front":
        table = Table("arena", "model at most", "M instructions", "held-out top-1 %")
        for f in result.front:
            count = "unknown" if f.cost.instructions is None else f"{f.cost.instructions / 1e6:.2f}"
            table.add_row(f"{f.cost.sram:,}", f"{f.cost.flash:,}", count, f"{100 * f.accuracy:.2f}")
        out.print(table)
    out.print(f"best: {100 * best.accuracy:.2f} %, {describe(best.config, best.cost)}")
    out.print(f"wrote {output}")

    def plain(f) -> dict:
        return {"config": f.config.to_dict(), "accuracy": f.accuracy, **dataclasses.asdict(f.cost)}

    values = {
        "best": plain(best), "front": [plain(f) for f in result.front], "evaluated": len(result.evaluated),
        "judged": result.judged, "subnet": str(output), "budget": dataclasses.asdict(budget),
    }  # fmt: skip
    save_first(write_json, json_file, values)


@app.command()
def evolve(
    space: SpaceOption,
    data: DataOption = "fashion-mnist",
    board: BoardOption = None,
    sram: SramOption = None,
    strips: StripsOption = False,
    epochs: Annotated[int, typer.Option(help="Epochs of a visit (t).")] = 2,
    visits: Annotated[int, typer.Option(help="The most visits.")] = 20,
    eta: Annotated[float, typer.Option(help="Weight, in a space's score, of the share of subnets that fit.")] = 0.5,
    neighbours: Annotated[int, typer.Option(help="Spaces in a fit (k).")] = 5,
    training: TrainingOption = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order, augmentation and subnets; left out: 0.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use only this many training images.")] = None,
    held_out: HeldOutOption = None,
    folder: Annotated[
        Path, typer.Option(help="For restore points and the log; the evolution goes on from them.")
    ] = Path("evolution"),
    plot: Annotated[Path | None, typer.Option(help="Write the path here (PNG).")] = None,
    output: Annotated[Path, typer.Option("--out", "-o", help="The best space; beside it, .pt: its supernet.")] = Path(
        "space.yaml"
    ),
    json_file: JsonOption = None,
) -> None:
    """Move a space's window of rank ratios and tokens to where supernets are accurate and subnets fit."""
    from mcuformer import nas
    from mcuformer.nas import distributed, recipes
    from mcuformer.nas.cost import Budget, cost_of
    from mcuformer.nas.evolve_space import EvolutionOptions
    from mcuformer.nas.evolve_space import evolve as run_evolution
    from mcuformer.nas.plots import plot_path
    from mcuformer.nas.search_space import space_yaml
    from mcuformer.nas.space_trainer import SpaceTrainer, check_reachable_somewhere, tokens_of

    check_outputs(output, output.with_suffix(".pt"), json_file, plot, folder / "evolution.jsonl")
    target = None if board is None else get_board(board)
    budget = budget_of(target, sram=sram)
    made = nas.load_space(space)
    if made.evolution is None:
        raise ConfigError(f"{space}: has no key evolution: where its window may move (see nas/spaces/mcuformer.yaml)")
    options = EvolutionOptions(eta=eta, neighbours=neighbours, epochs=epochs, visits=visits)
    if any(pair.startswith("schedule=") for pair in training or []):
        raise ConfigError("--option schedule: the learning rate stays, since more epochs may follow; leave it out")
    defaults = dataclasses.replace(recipes.EVOLUTION_OPTIONS, epochs=epochs, warmup_epochs=min(1.0, epochs))
    how = train_options(for_device(defaults), training, epochs=epochs, seed=seed)
    cost = functools.partial(cost_of, board=target, strips=strips)
    check_reachable_somewhere(made, cost, Budget(sram=budget.sram))
    images, kept, split = split_images(data, made.image_size, limit, held_out)
    with distributed.process_group(), training_bar("training spaces") as show:
        trainer = SpaceTrainer(made, images, kept, how, folder, cost, budget, show)

        def tell(done, most, visit) -> None:
            out.print(
                f"{done}/{most}  rank ratio {visit.x[0]:.3f}, {visit.x[1]:.1f} tokens, {visit.epochs} epochs: "
                f"A {visit.accuracy:.4f}, R {visit.share:.3f}, S {visit.score:.4f}"
            )

        result = run_evolution(
            made.evolution,
            tokens_of(made),
            trainer,
            options,
            log=folder / "evolution.jsonl",
            identity={
                "space": made.to_dict(),
                "board": board,
                "strips": strips,
                "sram": budget.sram,
                "training": dataclasses.asdict(how),
                **split,
            },
            progress=tell,
        )
        best = made.window(result.best.place)
        supernet = trainer.supernet(result.best.place, result.best.epochs)
        save_first(write_bytes, output, space_yaml(best).encode())
        save_first(nas.save_supernet, supernet, output.with_suffix(".pt"), split)
        if plot is not None:
            save_first(plot_path, result, plot, f"{len(result.visits)} visits")
    rest = "came to rest" if result.converged else "visits are spent"
    out.print(f"{rest}; best: rank ratios {list(best.rank_ratio)}, patch sizes {list(best.patch_size)}")
    out.print(f"wrote {output} and {output.with_suffix('.pt')}")
    values = {
        "best": dataclasses.asdict(result.best), "converged": result.converged, "space": best.to_dict(),
        "visits": [dataclasses.asdict(visit) for visit in result.visits],
    }  # fmt: skip
    save_first(write_json, json_file, values)


@app.command()
def finetune(
    subnet: Annotated[Path, typer.Argument(help="subnet.pt, from `mcuformer search`.")],
    data: Annotated[str | None, typer.Option(help="Left out: the data it was trained on.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    quantised: Annotated[bool, typer.Option(help="Quantisation-aware: round weights and activations to int8.")] = False,
    training: TrainingOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of order and augmentation; left out: 0.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only this many training images.")] = None,
    test: Annotated[bool, typer.Option(help="Look at the test images too: once, at the end of all choices.")] = False,
    output: Annotated[Path, typer.Option("--out", "-o", help="The subnet.")] = Path("finetuned.pt"),
    checkpoint: CheckpointOption = None,
    json_file: JsonOption = None,
) -> None:
    """Train a chosen subnet further, on its own."""
    from mcuformer import nas
    from mcuformer.nas import distributed
    from mcuformer.nas import finetune as finetuning

    check_outputs(output, json_file, checkpoint)
    net = nas.load_subnet(subnet)
    spec = data or net.notes.get("data", "fashion-mnist")
    options = train_options(finetuning.FINETUNE_OPTIONS, training, epochs=epochs, seed=seed)
    images = load_data(spec, "train", net.config.image_size, limit)
    unseen = load_data(spec, "test", net.config.image_size) if test else None
    with distributed.process_group(), training_bar("fine-tuning") as show:
        net.to(distributed.device())
        result = finetuning.finetune(net, images, options, quantised=quantised, progress=show, checkpoint=checkpoint)
        top1 = None if unseen is None else nas.evaluate(net, unseen)
        save_first(nas.save_subnet, net, output, {**net.notes, "data": spec, "float_top1": top1})
    out.print(f"loss {result.losses[0]:.3f} to {result.losses[-1]:.3f}, trained {result.seconds:.0f} s")
    if unseen is not None:
        out.print(f"float top-1 {100 * top1:.2f} % on {len(unseen)} test images")
    out.print(f"wrote {output}")
    values = {"float_top1": top1, "seconds": result.seconds, "losses": list(result.losses), "subnet": str(output)}
    save_first(write_json, json_file, values)
