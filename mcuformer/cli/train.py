# SPDX-License-Identifier: Apache-2.0
"""mcuformer train: one network, or a supernet, from images."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mcuformer.cli.common import (
    CONSOLE,
    DataOption,
    JsonOption,
    app,
    check_has_head,
    check_outputs,
    load_data,
    out,
    write_json,
)
from mcuformer.cli.progress import SILENT, Progress
from mcuformer.cli.training import CheckpointOption, HeldOutOption, TrainingOption, assignments, train_options
from mcuformer.errors import ConfigError

if TYPE_CHECKING:
    from mcuformer.converter.subnet_config import SubnetConfig
    from mcuformer.nas import SearchSpace, TrainOptions


@dataclass(frozen=True)
class TrainedNetwork:
    """A stand-alone network, written to path. float_top1: from 0 to 1, on test_images of them; losses: the mean of each
    epoch."""

    path: Path
    config: SubnetConfig
    float_top1: float
    test_images: int
    losses: tuple[float, ...]
    seconds: float

    def to_dict(self) -> dict:
        """What --json writes."""
        return {
            "float_top1": self.float_top1, "seconds": self.seconds, "losses": list(self.losses),
            "subnet": str(self.path), "config": self.config.to_dict(),
        }  # fmt: skip


@dataclass(frozen=True)
class TrainedSupernet:
    """A space's supernet, written to path. held_out_top1: of its "largest" and "smallest" subnet, from 0 to 1, on the
    held-out images; losses: the mean of each epoch."""

    path: Path
    space: SearchSpace
    held_out_top1: dict[str, float]
    losses: tuple[float, ...]
    seconds: float

    def to_dict(self) -> dict:
        """What --json writes."""
        return {
            "held_out_top1": self.held_out_top1,
            "seconds": self.seconds,
            "losses": list(self.losses),
            "supernet": str(self.path),
        }


def train(
    data: str = "fashion-mnist",
    *,
    space: SearchSpace | str | os.PathLike | None = None,
    config: SubnetConfig | None = None,
    options: TrainOptions | None = None,
    limit: int | None = None,
    held_out: int | None = None,
    init: str | os.PathLike | None = None,
    output: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    progress: Progress = SILENT,
) -> TrainedNetwork | TrainedSupernet:
    """Trains a network of `config`, or with `space` a supernet, and writes it; under torchrun in all processes.

    data        as mcuformer.data.load takes it
    space       a SearchSpace, its YAML file, or the name of one of the package's; excludes config
    config      default: that of nas/recipes.py
    options     default: those of nas/recipes.py
    limit       use only so many training images
    held_out    for a supernet: training images held out for selection; default: a sixth, at most 5,000
    init        for a supernet: start from the weights of this supernet.pt
    output      default: subnet.pt, or supernet.pt
    checkpoint  state after every epoch; training continues from it if it exists
    """
    from mcuformer.nas.distributed import process_group

    _check(space, config is not None, init, held_out)
    path = _output(output, space)
    check_outputs(path, checkpoint)
    with process_group():
        if space is None:
            return _train_network(data, config, options, limit, path, checkpoint, progress)
        return _train_supernet(data, space, options, limit, held_out, init, path, checkpoint, progress)


def _check(space: object, has_config: bool, init: object, held_out: int | None) -> None:
    if space is not None and has_config:
        raise ConfigError("--space with --config or --set: a supernet holds all configs of its space; leave one out")
    if space is None and (init is not None or held_out is not None):
        raise ConfigError("--init and --held-out need a supernet: give --space too")


def _output(output: str | os.PathLike | None, space: object) -> Path:
    return Path(output or ("subnet.pt" if space is None else "supernet.pt"))


def _train_network(
    data: str,
    config: SubnetConfig | None,
    options: TrainOptions | None,
    limit: int | None,
    path: Path,
    checkpoint: str | os.PathLike | None,
    progress: Progress,
) -> TrainedNetwork:
    from mcuformer import nas
    from mcuformer.nas import distributed, recipes

    config = config or recipes.NETWORK_CONFIG
    check_has_head(config, "train")
    options = options or recipes.NETWORK_OPTIONS
    images = load_data(data, "train", config.image_size, limit)
    test = load_data(data, "test", config.image_size)
    net = nas.build_subnet(config, options.seed)
    with progress.training("training") as show_step:
        result = nas.train(net, images, options, validation=test, progress=show_step, checkpoint=checkpoint)
    assert result.top1 is not None  # with validation
    notes = {"class_names": list(test.class_names), "data": data, "float_top1": result.top1}
    distributed.on_first(nas.save_subnet, net, path, notes)
    return TrainedNetwork(path, config, result.top1, len(test), result.losses, result.seconds)


def _train_supernet(
    data: str,
    space: SearchSpace | str | os.PathLike,
    options: TrainOptions | None,
    limit: int | None,
    held_out: int | None,
    init: str | os.PathLike | None,
    path: Path,
    checkpoint: str | os.PathLike | None,
    progress: Progress,
) -> TrainedSupernet:
    from mcuformer import nas
    from mcuformer.nas import distributed, recipes
    from mcuformer.nas.split import split_images, split_of

    made = space if isinstance(space, nas.SearchSpace) else nas.load_space(space)
    options = options or recipes.for_device(recipes.SUPERNET_OPTIONS)
    if init is None:
        supernet = nas.SuperNet(made, options.seed)
        split = split_images(data, made.image_size, limit, held_out)
    else:
        supernet = nas.load_supernet(init, made)
        split = split_of(supernet, init, data, limit, held_out)
    supernet.to(distributed.device())
    progress.say(
        f"{made.subnets:,} subnets; {len(split.images):,} training images, {len(split.kept):,} held out for selection"
    )
    with progress.training("training") as show_step:
        result = nas.train(supernet, split.images, options, progress=show_step, checkpoint=checkpoint)
    ends = {"largest": made.largest(), "smallest": made.smallest()}
    scores = {name: nas.evaluate(supernet, split.kept, config=config) for name, config in ends.items()}
    distributed.on_first(nas.save_supernet, supernet, path, {**split.notes, "scores": scores})
    return TrainedSupernet(path, made, scores, result.losses, result.seconds)


def show(trained: TrainedNetwork | TrainedSupernet) -> None:
    if isinstance(trained, TrainedNetwork):
        out.print(
            f"float top-1 {100 * trained.float_top1:.2f} % on {trained.test_images} test images, trained "
            f"{trained.seconds:.0f} s"
        )
    else:
        out.print(
            ", ".join(f"{name} {100 * score:.2f} %" for name, score in trained.held_out_top1.items())
            + f" of the held-out images, trained {trained.seconds:.0f} s"
        )
    out.print(f"wrote {trained.path}")


@app.command("train")
def command(
    data: DataOption = "fashion-mnist",
    space: Annotated[
        str | None, typer.Option(help="Train a supernet: YAML file of its space, or one of the package's.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Train one network: JSON file of SubnetConfig fields; default: the recipe's.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="One field of the config, such as --set depth=4. Repeatable.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    training: TrainingOption = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order, augmentation and subnets; default: 0.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use only this many training images.")] = None,
    held_out: HeldOutOption = None,
    init: Annotated[Path | None, typer.Option(help="Start from the weights of this supernet.pt.")] = None,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; default: subnet.pt, or supernet.pt with --space.")
    ] = None,
    checkpoint: CheckpointOption = None,
    json_file: JsonOption = None,
) -> None:
    """Train one network, or with --space a supernet; under torchrun on all GPUs."""
    from mcuformer.nas import recipes

    check_outputs(_output(output, space), json_file, checkpoint)
    _check(space, config is not None or bool(setting), init, held_out)
    defaults = recipes.NETWORK_OPTIONS if space is None else recipes.for_device(recipes.SUPERNET_OPTIONS)
    trained = train(
        data, space=space, config=_config(config, setting) if space is None else None,
        options=train_options(defaults, training, epochs=epochs, seed=seed), limit=limit, held_out=held_out, init=init,
        output=output, checkpoint=checkpoint, progress=CONSOLE,
    )  # fmt: skip
    show(trained)
    write_json(json_file, trained.to_dict())


def _config(path: Path | None, setting: list[str] | None) -> SubnetConfig:
    """The config of --config, or the recipe's, with the fields of --set."""
    from mcuformer.converter.subnet_config import SubnetConfig
    from mcuformer.nas import recipes

    values = recipes.NETWORK_CONFIG.to_dict() if path is None else _read_json(path)
    return SubnetConfig.from_dict(values | assignments(setting, "--set"))


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
