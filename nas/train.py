# SPDX-License-Identifier: Apache-2.0
"""Trains a float network on a data set: AdamW, cosine with warm-up, label smoothing, light augmentation.

    net = build_subnet(config)
    result = train(net, load("fashion-mnist", "train"), TrainOptions(epochs=25), validation=held_out)

All randomness comes from TrainOptions.seed: the same network, data, options and thread count on the same
machine give the same weights.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from mcuformer.converter.float_vit import FloatViT
from mcuformer.data import Dataset
from mcuformer.errors import ConfigError, DataError, ModelError
from mcuformer.files import write_whole

CHECKPOINT_FORMAT = "mcuformer.training/1"
BETAS = (0.9, 0.98)
MAX_GRADIENT_NORM = 1.0
MAX_SHIFT = 1 / 32  # of the side; in short trainings twice as much cost 1.2 % top-1, none at all 2.3 %
EMA_WARMUP_STEPS = 10  # the average starts short, so that it forgets the random weights


@dataclass(frozen=True)
class TrainOptions:
    """How a network is trained.

    epochs           passes over the training images
    batch_size       images a step; a last incomplete batch is left out (the next epoch shuffles anew)
    learning_rate    its peak, reached after the warm-up; then half a cosine down to 0
    weight_decay     AdamW's, for matrices and kernels; biases, norms and the position table have none
    label_smoothing  from 0 to below 1
    warmup_epochs    epochs of linear rise, may be a fraction
    augmentation     shifts each training image by up to 1/32 of its side, edges repeated
    flip             with augmentation: mirrors half of the images; turn it off where left and right matter
    ema_decay        the network ends with an average of its weights, of this decay a step; None: the last ones
    seed             of the order of the images and of their augmentation
    threads          torch's threads while training; None: as they are set
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    warmup_epochs: float = 1.0
    augmentation: bool = True
    flip: bool = True
    ema_decay: float | None = None
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "threads"):
            value = getattr(self, name)
            if name == "threads" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} = {value!r}: must be a whole number from 1")
        ranges = {
            "learning_rate": (lambda v: 0 < v < math.inf, "above 0"),
            "weight_decay": (lambda v: 0 <= v < math.inf, "from 0"),
            "label_smoothing": (lambda v: 0 <= v < 1, "from 0 to below 1"),
            "warmup_epochs": (lambda v: 0 <= v <= self.epochs, f"from 0 to epochs = {self.epochs}"),
        }
        if self.ema_decay is not None:
            ranges["ema_decay"] = (lambda v: 0 < v < 1, "between 0 and 1, or None")
        for name, (is_valid, legal) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not is_valid(value):
                raise ConfigError(f"{name} = {value!r}: must be a number {legal}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed = {self.seed!r}: must be a whole number from 0 to 2^63 - 1")


@dataclass(frozen=True)
class TrainProgress:
    """Where the training stands, after a step. epoch and step count from 1; loss is that of the last step."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class TrainResult:
    """What a training gave.

    top1: fraction of the validation images, from 0 to 1, None without any; losses: the mean loss of each epoch;
    seconds: spent on training, those before an interruption included.
    """

    top1: float | None
    losses: tuple[float, ...]
    seconds: float


def train(
    net: FloatViT,
    dataset: Dataset,
    options: TrainOptions,
    *,
    validation: Dataset | None = None,
    progress: Callable[[TrainProgress], object] | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> TrainResult:
    """Trains `net` in place, and leaves it in eval mode.

    dataset: square images of net.config.image_size pixels, its channels and its classes.
    validation: its top-1 is measured once, at the end.
    progress: called after every step.
    checkpoint: a file that holds the whole state after every epoch. Where it exists already, training goes on
    from it, to the same weights as without the interruption.

    Raises DataError where data and network do not fit, ConfigError where the checkpoint belongs to another
    training or the loss is no longer a number, ModelError where the checkpoint cannot be read.
    """
    check_fit(net, dataset)
    if validation is not None:
        check_fit(net, validation)
    with _threads(options.threads):
        net.to(memory_format=torch.channels_last)  # its convolutions then train in 15 % less time
        run = _Run(net, dataset, options)
        if checkpoint is not None and Path(checkpoint).exists():
            run.restore(Path(checkpoint))
        while len(run.losses) < options.epochs:
            run.epoch(progress)
            if checkpoint is not None:
                run.save(Path(checkpoint))
        net.load_state_dict(run.final_weights())
        net.to(memory_format=torch.contiguous_format).eval()
        top1 = None if validation is None else evaluate(net, validation)
    return TrainResult(top1, tuple(run.losses), run.seconds)


def evaluate(net: FloatViT, dataset: Dataset, batch_size: int = 256) -> float:
    """Top-1 of `net` on all images of `dataset`, from 0 to 1. Raises DataError where they do not fit."""
    check_fit(net, dataset)
    was_training = net.training
    net.eval()
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(dataset), batch_size):
            images = torch.from_numpy(dataset.images[start : start + batch_size].copy())
            labels = torch.from_numpy(dataset.labels[start : start + batch_size].copy())
            correct += int((net(to_input(images)).argmax(dim=1) == labels).sum())
    net.train(was_training)
    return correct / len(dataset)


def to_input(images: torch.Tensor) -> torch.Tensor:
    """uint8 [n, height, width, channels] -> float [n, channels, height, width] in [-1, 1]."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1.0


def augment(images: torch.Tensor, shift: int, flip: bool, generator: torch.Generator) -> torch.Tensor:
    """Moves each image by up to `shift` pixels along both sides, edges repeated, and mirrors half of them.

    images: [n, height, width, channels], any type; returns the same shape and type.
    """
    n, height, width, _ = images.shape
    down, right = torch.randint(-shift, shift + 1, (2, n, 1), generator=generator)
    rows = (torch.arange(height) + down).clamp_(0, height - 1)
    columns = (torch.arange(width) + right).clamp_(0, width - 1)
    if flip:
        mirrored = torch.rand((n, 1), generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    return images[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def check_fit(net: FloatViT, dataset: Dataset) -> None:
    """Raises DataError where images or classes of `dataset` are not those `net` was built for."""
    config = net.config
    where = f"{dataset.source} ({dataset.split})"
    if dataset.images.ndim != 4 or dataset.images.dtype != "uint8" or not len(dataset):
        raise DataError(
            f"{where}: images are {dataset.images.dtype} {list(dataset.images.shape)}; "
            f"give uint8 [n, height, width, channels], at least one image"
        )
    _, height, width, channels = dataset.images.shape
    if (height, width) != (config.image_size, config.image_size):
        raise DataError(
            f"{where}: images are {height}x{width} pixels, the network takes "
            f"{config.image_size}x{config.image_size}; load them with image_size={config.image_size}, or build "
            f"the network for theirs"
        )
    if channels != config.in_channels:
        raise DataError(
            f"{where}: images have {channels} channel{'s' if channels > 1 else ''}, the network takes "
            f"{config.in_channels}; build it with in_channels={channels}, or give other images"
        )
    if len(dataset.class_names) != config.num_classes:
        raise DataError(
            f"{where}: has {len(dataset.class_names)} classes, the network {config.num_classes}; "
            f"build it with num_classes={len(dataset.class_names)}, or give other images"
        )
    if dataset.labels.min() < 0 or dataset.labels.max() >= config.num_classes:
        raise DataError(
            f"{where}: labels run from {dataset.labels.min()} to {dataset.labels.max()}, outside 0 to "
            f"{config.num_classes - 1}; number the classes from 0"
        )


class _Run:
    """The state of one training: what a checkpoint holds, and the loop over one epoch."""

    def __init__(self, net: FloatViT, dataset: Dataset, options: TrainOptions):
        self.net, self.dataset, self.options = net, dataset, options
        self.batch_size = min(options.batch_size, len(dataset))
        self.steps = len(dataset) // self.batch_size
        self.optimiser = _optimiser(net, options)
        self.average = None if options.ema_decay is None else copy.deepcopy(net.state_dict())
        self.generator = torch.Generator().manual_seed(options.seed)
        self.losses: list[float] = []
        self.seconds = 0.0

    def epoch(self, progress: Callable[[TrainProgress], object] | None) -> None:
        """One pass over the data; appends its mean loss."""
        net, options = self.net, self.options
        start, total, done = time.perf_counter(), 0.0, len(self.losses) * self.steps
        net.train()
        for step, (images, labels) in enumerate(self._batches()):
            rate = _learning_rate(options, done + step, self.steps)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            loss = F.cross_entropy(net(images), labels, label_smoothing=options.label_smoothing)
            value = loss.item()
            if not math.isfinite(value):
                raise ConfigError(
                    f"the loss became {value} in epoch {len(self.losses) + 1}, step {step + 1} of "
                    f"{self.steps}: use a learning_rate below {options.learning_rate:g}, or a longer warm-up "
                    f"than warmup_epochs = {options.warmup_epochs:g}"
                )
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), MAX_GRADIENT_NORM)
            self.optimiser.step()
            if self.average is not None:
                _update_average(self.average, net.state_dict(), options.ema_decay, done + step)
            total += value
            if progress is not None:
                self._report(progress, step + 1, value, self.seconds + time.perf_counter() - start)
        self.losses.append(total / self.steps)
        self.seconds += time.perf_counter() - start

    def final_weights(self) -> dict[str, torch.Tensor]:
        return self.net.state_dict() if self.average is None else self.average

    def save(self, path: Path) -> None:
        """Writes the state after an epoch, whole or not at all."""
        content = {
            "format": CHECKPOINT_FORMAT,
            **self._identity(),
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "generator": self.generator.get_state(),
            "losses": self.losses,
            "seconds": self.seconds,
        }
        write_whole(path, lambda file: torch.save(content, file))

    def restore(self, path: Path) -> None:
        """Takes over the state that save() wrote."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for damaged files
            raise ModelError(
                f"{path}: not a readable checkpoint ({type(error).__name__}); remove it to train from the start"
            ) from error
        if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
            raise ModelError(
                f"{path}: not a training checkpoint (format {CHECKPOINT_FORMAT!r} not found); give another file name"
            )
        for part, mine in self._identity().items():
            saved = content.get(part)
            saved = saved if isinstance(saved, dict) else {}
            for name in sorted({*mine, *saved}):
                if mine.get(name) != saved.get(name):
                    raise ConfigError(
                        f"{path}: belongs to another training, with {part} {name} = {saved.get(name)!r} "
                        f"instead of {mine.get(name)!r}; train with the same {part}, or give another checkpoint"
                    )
        try:
            self.net.load_state_dict(content["net"])
            self.optimiser.load_state_dict(content["optimiser"])
            self.generator.set_state(content["generator"])
            self.average = content["average"]
            self.losses, self.seconds = list(content["losses"]), float(content["seconds"])
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{path}: holds no usable state ({type(error).__name__}); remove it to train from the start"
            ) from error

    def _identity(self) -> dict[str, dict]:
        """What a checkpoint must agree with; with another thread count the last bits of the weights may differ."""
        options = dataclasses.asdict(self.options)
        del options["threads"]
        data = {
            "images": list(self.dataset.images.shape),
            "labels_crc32": zlib.crc32(self.dataset.labels.tobytes()),
        }
        return {"config": self.net.config.to_dict(), "options": options, "data": data}

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Float NCHW images in [-1, 1] and int64 labels, shuffled."""
        options, dataset = self.options, self.dataset
        order = torch.randperm(len(dataset), generator=self.generator).numpy()
        shift = round(self.net.config.image_size * MAX_SHIFT)
        for start in range(0, self.steps * self.batch_size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            images = torch.from_numpy(dataset.images[chosen])
            if options.augmentation:
                images = augment(images, shift, options.flip, self.generator)
            yield to_input(images), torch.from_numpy(dataset.labels[chosen])

    def _report(self, progress, step: int, loss: float, seconds: float) -> None:
        options = self.options
        done = len(self.losses) * self.steps + step
        left = options.epochs * self.steps - done
        progress(
            TrainProgress(
                epoch=len(self.losses) + 1,
                epochs=options.epochs,
                step=step,
                steps=self.steps,
                loss=loss,
                images_per_second=done * self.batch_size / seconds,
                seconds_left=left * seconds / done,
            )
        )


def _optimiser(net: FloatViT, options: TrainOptions) -> torch.optim.AdamW:
    decayed, free = [], []
    for name, parameter in net.named_parameters():
        (free if parameter.ndim < 2 or name == "position" else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=BETAS)


def _learning_rate(options: TrainOptions, step: int, steps_per_epoch: int) -> float:
    """Linear rise, then half a cosine; `step` counts from 0 over all epochs."""
    warmup, total = options.warmup_epochs * steps_per_epoch, options.epochs * steps_per_epoch
    if step < warmup:
        return options.learning_rate * (step + 1) / (warmup + 1)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


def _update_average(average: dict, weights: dict, decay: float, step: int) -> None:
    """average += (1 - decay) * (weights - average); integer counters are copied."""
    decay = min(decay, (1 + step) / (EMA_WARMUP_STEPS + step))
    for name, value in weights.items():
        if value.is_floating_point():
            average[name].lerp_(value, 1.0 - decay)
        else:
            average[name].copy_(value)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Runs the block with `count` torch threads."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
