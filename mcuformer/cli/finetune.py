# SPDX-License-Identifier: Apache-2.0
"""mcuformer finetune: trains a chosen subnet further, alone."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mcuformer.cli.common import CONSOLE, PATH, check_outputs, json_option, load_data, out, write_json
from mcuformer.cli.curves import Curves, curve_option, tensorboard_option
from mcuformer.cli.progress import SILENT, Progress
from mcuformer.cli.training import (
    checkpoint_option,
    class_weights_option,
    read_class_weights,
    teacher_option,
    train_options,
    training_option,
)

if TYPE_CHECKING:
    from mcuformer.converter.float_vit import FloatViT
    from mcuformer.nas import Teacher, TrainOptions


DATA = "fashion-mnist"  # of a subnet that does not say what it was trained on


@dataclass(frozen=True)
class FinetunedSubnet:
    """A subnet, written to path. float_top1: from 0 to 1, on test_images of them; None without a test; record: what
    made it, nas/record.py."""

    path: Path
    float_top1: float | None
    test_images: int
    losses: tuple[float, ...]
    seconds: float
    record: dict

    def to_dict(self) -> dict:
        """What --json writes."""
        return {
            "float_top1": self.float_top1, "seconds": self.seconds, "losses": list(self.losses),
            "subnet": str(self.path), "record": self.record,
        }  # fmt: skip


def finetune(
    subnet: FloatViT | str | os.PathLike,
    *,
    data: str | None = None,
    quantised: bool = False,
    options: TrainOptions | None = None,
    limit: int | None = None,
    test: bool = False,
    teacher: Teacher | str | os.PathLike | None = None,
    output: str | os.PathLike = "finetuned.pt",
    checkpoint: str | os.PathLike | None = None,
    log: str | os.PathLike | None = None,
    tensorboard: str | os.PathLike | None = None,
    progress: Progress = SILENT,
) -> FinetunedSubnet:
    """Trains a subnet, or that of a subnet.pt, further, and writes it.

    data        default: what it was trained on
    quantised   round weights and activations as int8 will
    options     default: those of nas/finetune.py; images are mirrored only if they were when it was trained
    limit       use only so many training images
    test        also measure on the test images: once, after all choices are made
    teacher     whose answers are learned too: a file as nas.load_teacher takes it, or a function of images
    checkpoint  state after every epoch; training continues from it if it exists
    log         a CSV file that gets a line an epoch
    tensorboard  a folder that gets the same, for TensorBoard
    """
    from mcuformer import nas
    from mcuformer.converter.float_vit import FloatViT
    from mcuformer.data.loading import absolute, kept_path
    from mcuformer.nas import distributed
    from mcuformer.nas import finetune as finetuning
    from mcuformer.nas.evaluation import check_has_head
    from mcuformer.nas.record import record

    output = Path(output)
    check_outputs(output, checkpoint, log)
    curves = Curves(log, tensorboard, checkpoint)
    net = subnet if isinstance(subnet, FloatViT) else nas.load_subnet(subnet)
    check_has_head(net.config, None if isinstance(subnet, FloatViT) else subnet)
    teacher = nas.load_teacher(teacher) if isinstance(teacher, str | os.PathLike) else teacher
    spec = absolute(
        data or kept_path(net.notes.get("data"), DATA, "the subnet" if isinstance(subnet, FloatViT) else subnet)
    )
    front_end = net.notes.get("front_end")
    size, channels = net.config.image_size, net.config.in_channels
    images = load_data(spec, "train", size, limit, front_end, channels)
    unseen = load_data(spec, "test", size, front_end=front_end, channels=channels) if test else None
    options = options or finetuning.finetune_options(net)
    training = progress.training("fine-tuning")
    with distributed.process_group(), training as show_step, curves.following(show_step) as follow:
        net.to(distributed.device())
        result = finetuning.finetune(
            net, images, options, quantised=quantised, progress=follow, checkpoint=checkpoint, teacher=teacher
        )  # fmt: skip
        made = record(options.seed, {**dataclasses.asdict(options), "quantised": quantised}, images.identity())
        top1 = None if unseen is None else nas.evaluate(net, unseen, precision=options.precision)
        notes = {**net.notes, "data": spec, "float_top1": top1, "record": made}
        distributed.on_first(nas.save_subnet, net, output, notes)
    tested = 0 if unseen is None else len(unseen)
    return FinetunedSubnet(output, top1, tested, result.losses, result.seconds, made)


def show(tuned: FinetunedSubnet) -> None:
    out.print(f"loss {tuned.losses[0]:.3f} to {tuned.losses[-1]:.3f}, trained {tuned.seconds:.0f} s")
    if tuned.float_top1 is not None:
        out.print(f"float top-1 {100 * tuned.float_top1:.2f} % on {tuned.test_images} test images")
    out.print(f"wrote {tuned.path}")


@click.command("finetune")
@click.argument("subnet", type=PATH, help="subnet.pt, from `mcuformer search` or `import`.")
@click.option("--data", help="Default: the data it was trained on.")
@click.option("--epochs", type=int, help="Passes over the training images.")
@click.option("--quantised/--no-quantised", help="Quantisation-aware: round weights and activations to int8.")
@training_option
@class_weights_option
@click.option("--seed", type=int, help="Seed of order and augmentation; default: 0.")
@click.option("--limit", type=int, help="Use only this many training images.")
@click.option("--test/--no-test", help="Also measure on the test images: once, after all choices.")
@teacher_option
@click.option("--out", "-o", "output", type=PATH, default="finetuned.pt", help="The subnet.")
@checkpoint_option
@curve_option
@tensorboard_option
@json_option
def command(
    subnet: Path, data: str | None, epochs: int | None, quantised: bool, training: tuple[str, ...],
    class_weights: str | None, seed: int | None, limit: int | None, test: bool, teacher: Path | None, output: Path,
    checkpoint: Path | None, log: Path | None, tensorboard: Path | None, json_file: Path | None,
) -> None:  # fmt: skip
    """Train a chosen subnet further, alone."""
    from mcuformer import nas
    from mcuformer.data.loading import kept_path
    from mcuformer.nas.evaluation import check_has_head
    from mcuformer.nas.finetune import finetune_options

    check_outputs(output, json_file, checkpoint, log)
    net = nas.load_subnet(subnet)
    check_has_head(net.config, subnet)
    data = data or kept_path(net.notes.get("data"), DATA, subnet)
    weights = read_class_weights(class_weights)
    options = train_options(finetune_options(net), training, epochs=epochs, seed=seed, class_weights=weights)
    tuned = finetune(
        net, data=data, quantised=quantised, options=options, limit=limit, test=test, teacher=teacher, output=output,
        checkpoint=checkpoint, log=log, tensorboard=tensorboard, progress=CONSOLE,
    )  # fmt: skip
    show(tuned)
    write_json(json_file, tuned.to_dict())
