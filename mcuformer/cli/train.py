# SPDX-License-Identifier: Apache-2.0
"""mcuformer train: one network, or a supernet, from images."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from mcuformer.cli.common import (
    CONSOLE,
    PATH,
    check_outputs,
    data_option,
    json_option,
    load_data,
    out,
    write_json,
)
from mcuformer.cli.curves import Curves, curve_option, tensorboard_option
from mcuformer.cli.fitting import check_before_loading, from_data, more_settings, setting_option, settings, space_for
from mcuformer.cli.progress import SILENT, Progress
from mcuformer.cli.training import (
    assignments,
    checkpoint_option,
    class_weights_option,
    front_end_option,
    held_out_option,
    read_class_weights,
    stratified_option,
    teacher_option,
    train_options,
    training_option,
)
from mcuformer.errors import ConfigError
from mcuformer.files import read_text

if TYPE_CHECKING:
    from mcuformer.converter.subnet_config import SubnetConfig
    from mcuformer.nas import SearchSpace, Teacher, TrainOptions
    from mcuformer.sound import LogMel


@dataclass(frozen=True)
class TrainedNetwork:
    """A stand-alone network, written to path. float_top1: from 0 to 1, on test_images of them; losses: the mean of each
    epoch; record: what made it, nas/record.py."""

    path: Path
    config: SubnetConfig
    float_top1: float
    test_images: int
    losses: tuple[float, ...]
    seconds: float
    record: dict

    def to_dict(self) -> dict:
        """What --json writes."""
        return {
            "float_top1": self.float_top1, "seconds": self.seconds, "losses": list(self.losses),
            "subnet": str(self.path), "config": self.config.to_dict(), "record": self.record,
        }  # fmt: skip


@dataclass(frozen=True)
class TrainedSupernet:
    """A space's supernet, written to path. held_out_top1: of its "largest" and "smallest" subnet, from 0 to 1, on the
    held-out images; losses: the mean of each epoch; record: what made it, nas/record.py."""

    path: Path
    space: SearchSpace
    held_out_top1: dict[str, float]
    losses: tuple[float, ...]
    seconds: float
    record: dict

    def to_dict(self) -> dict:
        """What --json writes."""
        return {
            "held_out_top1": self.held_out_top1,
            "seconds": self.seconds,
            "losses": list(self.losses),
            "supernet": str(self.path),
            "record": self.record,
        }


def train(
    data: str = "fashion-mnist",
    *,
    space: SearchSpace | str | os.PathLike | None = None,
    config: SubnetConfig | None = None,
    options: TrainOptions | None = None,
    limit: int | None = None,
    held_out: int | None = None,
    stratified: bool = True,
    init: str | os.PathLike | None = None,
    init_vit: str | os.PathLike | None = None,
    keep_head: bool = False,
    teacher: Teacher | str | os.PathLike | None = None,
    output: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    log: str | os.PathLike | None = None,
    tensorboard: str | os.PathLike | None = None,
    front_end: LogMel | None = None,
    progress: Progress = SILENT,
) -> TrainedNetwork | TrainedSupernet:
    """Trains a network of `config`, or with `space` a supernet, and writes it; under torchrun in all processes.

    data        as mcuformer.data.load takes it
    space       a SearchSpace, its YAML file, or the name of one of the package's, which gets classes, channels and
                size of the data; excludes config
    config      default: that of nas/recipes.py, with classes, channels and size of the data
    options     default: those of nas/recipes.py; a supernet's images are mirrored as its space says
    limit       use only so many training images
    held_out    for a supernet: training images held out for selection; default: a sixth, at most 5,000
                or 100 a class
    stratified  hold out as large a share of each class; with init as that supernet did
    init        for a supernet: start from the weights of this supernet.pt
    init_vit    for a supernet: start from this network, a subnet.pt at least as large (nas/init_vit.py)
    keep_head   with init_vit: its head too, which must be for as many classes
    teacher     whose answers are learned too: a file as nas.load_teacher takes it, or a function of images
    output      default: subnet.pt, or supernet.pt
    checkpoint  state after every epoch; training continues from it if it exists
    log         a CSV file that gets a line an epoch
    tensorboard  a folder that gets the same, for TensorBoard
    front_end   how sounds become images; default: as LogMel.of_image() of the network's size
    """
    from mcuformer import nas
    from mcuformer.nas.distributed import process_group

    start = Start(init, init_vit, keep_head, stratified)
    _check(space, config is not None, start, held_out)
    path = _output(output, space)
    check_outputs(path, checkpoint, log)
    curves = Curves(log, tensorboard, checkpoint)
    teacher = nas.load_teacher(teacher) if isinstance(teacher, str | os.PathLike) else teacher
    with process_group():
        if space is None:
            return _train_network(data, config, options, limit, teacher, path, checkpoint, front_end, progress, curves)
        return _train_supernet(
            data, space, options, limit, held_out, start, teacher, path, checkpoint, front_end, progress, curves
        )


class Start(NamedTuple):
    """Where a supernet's weights and its held-out images come from; see train()."""

    init: str | os.PathLike | None = None
    init_vit: str | os.PathLike | None = None
    keep_head: bool = False
    stratified: bool = True


def _check(space: object, has_config: bool, start: Start, held_out: int | None) -> None:
    if space is not None and has_config:
        raise ConfigError("--space with --config: a supernet holds all configs of its space; leave one out")
    if space is None and (start.init is not None or held_out is not None):
        raise ConfigError("--init and --held-out need a supernet: give --space too")
    if space is None and start.init_vit is not None:
        raise ConfigError("--init-vit needs a supernet: give --space too; mcuformer finetune trains one network on")
    if start.init is not None and start.init_vit is not None:
        raise ConfigError("--init with --init-vit: a supernet starts from one of them; leave one out")
    if start.keep_head and start.init_vit is None:
        raise ConfigError("--keep-head is for the head of --init-vit: give that too")


def _output(output: str | os.PathLike | None, space: object) -> Path:
    return Path(output or ("subnet.pt" if space is None else "supernet.pt"))


def _train_network(
    data: str,
    config: SubnetConfig | None,
    options: TrainOptions | None,
    limit: int | None,
    teacher: Teacher | None,
    path: Path,
    checkpoint: str | os.PathLike | None,
    front_end: LogMel | None,
    progress: Progress,
    curves: Curves,
) -> TrainedNetwork:
    from mcuformer import nas
    from mcuformer.data.loading import absolute, outline
    from mcuformer.nas import distributed, recipes
    from mcuformer.nas.evaluation import check_has_head
    from mcuformer.nas.record import record

    options = options or recipes.NETWORK_OPTIONS
    if config is not None:
        check_has_head(config)
    found = outline(data)
    config = config or from_data(recipes.NETWORK_CONFIG, {}, found, "network")
    check_before_loading(config, found, options, limit)
    size, channels = config.image_size, config.in_channels
    images = load_data(data, "train", size, limit, front_end, channels)
    test = load_data(data, "test", size, front_end=images.front_end, channels=channels)
    net = nas.build_subnet(config, options.seed)
    with progress.training("training") as show_step, curves.following(show_step) as follow:
        result = nas.train(
            net, images, options, validation=test, teacher=teacher, progress=follow, checkpoint=checkpoint
        )
    assert result.top1 is not None  # with validation
    notes = {"class_names": list(test.class_names), "data": absolute(data), "float_top1": result.top1}
    made = record(options.seed, dataclasses.asdict(options), images.identity())
    notes |= {**recipes.mirror_notes(options), "record": made}
    if images.front_end is not None:
        notes["front_end"] = images.front_end.to_dict()
    distributed.on_first(nas.save_subnet, net, path, notes)
    return TrainedNetwork(path, config, result.top1, len(test), result.losses, result.seconds, made)


def _train_supernet(
    data: str,
    space: SearchSpace | str | os.PathLike,
    options: TrainOptions | None,
    limit: int | None,
    held_out: int | None,
    start: Start,
    teacher: Teacher | None,
    path: Path,
    checkpoint: str | os.PathLike | None,
    front_end: LogMel | None,
    progress: Progress,
    curves: Curves,
) -> TrainedSupernet:
    from mcuformer import nas
    from mcuformer.data.loading import outline
    from mcuformer.nas import distributed, recipes
    from mcuformer.nas.held_out import read_once
    from mcuformer.nas.init_vit import init_from_vit
    from mcuformer.nas.record import record
    from mcuformer.nas.split import split_images, split_of

    found = outline(data)
    made = space if isinstance(space, nas.SearchSpace) else space_for(space, {}, found)
    options = options or recipes.supernet_options(made)
    check_before_loading(made, found, options, limit, held_out)
    if start.init is None:
        supernet = nas.SuperNet(made, options.seed)
        if start.init_vit is not None:
            init_from_vit(supernet, nas.load_subnet(start.init_vit), start.init_vit, keep_head=start.keep_head)
        size, channels = made.image_size, made.in_channels
        split = split_images(data, size, limit, held_out, front_end, channels, start.stratified)
    else:
        supernet = nas.load_supernet(start.init, made)
        split = split_of(supernet, start.init, data, limit, held_out, front_end)
    supernet.to(distributed.device())
    progress.say(
        f"{made.subnets:,} subnets; {len(split.images):,} training images, {len(split.kept):,} held out for selection"
    )
    with progress.training("training") as show_step, curves.following(show_step) as follow:
        result = nas.train(supernet, split.images, options, teacher=teacher, progress=follow, checkpoint=checkpoint)
    ends = {"largest": made.largest(), "smallest": made.smallest()}
    kept = read_once(split.kept)
    scores = {
        name: nas.evaluate(supernet, kept, config=config, precision=options.precision) for name, config in ends.items()
    }
    how = record(options.seed, dataclasses.asdict(options), split.identity, made)
    notes = {**split.notes, **recipes.mirror_notes(options), "scores": scores, "record": how}
    distributed.on_first(nas.save_supernet, supernet, path, notes)
    return TrainedSupernet(path, made, scores, result.losses, result.seconds, how)


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


@click.command("train")
@data_option
@click.option("--space", help="Train a supernet: YAML file of its space, or one of the package's.")
@click.option("--config", type=PATH, help="Train one network: JSON file of SubnetConfig fields; default: the recipe's.")
@setting_option
@more_settings
@click.option("--epochs", type=int, help="Passes over the training images.")
@training_option
@class_weights_option
@click.option("--seed", type=int, help="Seed of weights, order, augmentation and subnets; default: 0.")
@click.option("--limit", type=int, help="Use only this many training images.")
@held_out_option
@stratified_option
@click.option("--init", type=PATH, help="Start from the weights of this supernet.pt.")
@click.option(
    "--init-vit",
    type=PATH,
    help="Start a supernet from this subnet.pt, a network at least as large as the space's largest.",
)
@click.option("--keep-head", is_flag=True, help="With --init-vit: keep its head; both have the same classes.")
@teacher_option
@click.option(
    "--out", "-o", "output", type=PATH, help="File to write; default: subnet.pt, or supernet.pt with --space."
)
@checkpoint_option
@curve_option
@tensorboard_option
@front_end_option
@json_option
def command(
    data: str, space: str | None, config: Path | None, setting: tuple[str, ...], more: tuple[str, ...],
    epochs: int | None, training: tuple[str, ...], class_weights: str | None, seed: int | None, limit: int | None,
    held_out: int | None, stratified: bool, init: Path | None, init_vit: Path | None, keep_head: bool,
    teacher: Path | None, output: Path | None, checkpoint: Path | None, log: Path | None, tensorboard: Path | None,
    front_end: tuple[str, ...], json_file: Path | None,
) -> None:  # fmt: skip
    """Train one network, or with --space a supernet; under torchrun on all GPUs."""
    from mcuformer.nas import recipes

    check_outputs(_output(output, space), json_file, checkpoint, log)
    Curves(log, tensorboard, checkpoint)  # says now if one cannot be written
    _check(space, config is not None, Start(init, init_vit, keep_head), held_out)
    fields = settings(setting, more)
    made = None if space is None else _space(space, fields, data, init)
    network = None if made is not None else _network(config, fields, data)
    defaults = recipes.NETWORK_OPTIONS if made is None else recipes.supernet_options(made)
    trained = train(
        data, space=made, config=network,
        options=train_options(
            defaults, training, epochs=epochs, seed=seed, class_weights=read_class_weights(class_weights)
        ), limit=limit, held_out=held_out, stratified=stratified, init=init,
        init_vit=init_vit, keep_head=keep_head, teacher=teacher, output=output, checkpoint=checkpoint,
        log=log, tensorboard=tensorboard, front_end=_front_end(front_end), progress=CONSOLE,
    )  # fmt: skip
    show(trained)
    write_json(json_file, trained.to_dict())


def _front_end(setting: Sequence[str] | None) -> LogMel | None:
    """The front end of --front-end; None if it is not given."""
    if not setting:
        return None
    from mcuformer.sound import LogMel

    return LogMel.from_dict(LogMel().to_dict() | assignments(setting, "--front-end"))


def _space(name: str, fields: Sequence[str], data: str, init: Path | None) -> SearchSpace:
    """The space of --space and --set; with --init that of the supernet, whatever the data say."""
    from mcuformer import nas
    from mcuformer.data.loading import outline

    given = assignments(fields, "--set")
    if init is not None:
        space = nas.load_space(name)
        return nas.SearchSpace.from_dict(space.to_dict() | given) if given else space
    return space_for(name, given, outline(data))


def _network(path: Path | None, fields: Sequence[str], data: str) -> SubnetConfig:
    """The config of --config and --set; the recipe's with what the data say."""
    from mcuformer.data.loading import outline
    from mcuformer.nas.evaluation import check_has_head

    config = read_config(path, fields)
    if path is not None:
        return config
    check_has_head(config)
    return from_data(config, assignments(fields, "--set"), outline(data), "network")


def read_config(path: Path | None, setting: Sequence[str] | None) -> SubnetConfig:
    """The config of --config, or the recipe's, with the fields of --set."""
    from mcuformer.converter.subnet_config import SubnetConfig
    from mcuformer.nas import recipes

    values = recipes.NETWORK_CONFIG.to_dict() if path is None else _read_json(path)
    given = assignments(setting, "--set")
    if given.get("stem") == "patch":
        values["stem_channels"] = values["stem_blocks"] = None  # those of another stem
    return SubnetConfig.from_dict(values | given)


def _read_json(path: Path) -> dict:
    try:
        values = json.loads(read_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}, not a mapping of config fields to values")
    return values
