# SPDX-License-Identifier: Apache-2.0
"""Trains a float network, or a supernet, on a data set: AdamW, warm-up and cosine, label smoothing, augmentation.

    net = build_subnet(config)                  # or SuperNet(space)
    result = train(net, load("fashion-mnist", "train"), TrainOptions(epochs=25), validation=held_out)

All randomness comes from TrainOptions.seed and the image's index: the same network, data, options and thread count on
one machine give the same weights. Several processes under torchrun, in a process_group(), follow one process's loss
curve up to float rounding (batch-norm statistics and the ranges of quantisation-aware training are per process).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mcuformer.converter.checked_network import unwrapped
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.data import Dataset
from mcuformer.errors import ConfigError, McuformerWarning, ModelError
from mcuformer.nas import distributed, record, relative, saved_network
from mcuformer.nas.batches import Batch, Batches
from mcuformer.nas.class_weights import class_weights
from mcuformer.nas.evaluation import calibration_images, check_fit, evaluate, mixed
from mcuformer.nas.supernet import SuperNet
from mcuformer.nas.teacher import Teacher, as_teacher
from mcuformer.nas.train_options import TrainOptions

CHECKPOINT_FORMAT = "mcuformer.training/2"
BETAS = (0.9, 0.98)
MAX_GRADIENT_NORM = 1.0
EMA_WARMUP_STEPS = 10  # the average starts short, to forget the random weights
RANDOM_SUBNETS = 2  # per step of the sandwich
TEACHER_TRIAL = 3  # images that a teacher must answer before training starts


@dataclass(frozen=True)
class TrainProgress:
    """The training's state after a step. epoch and step count from 1; loss and learning_rate are the last step's;
    seconds: spent on training."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds_left: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    top1: fraction of the validation images, from 0 to 1, None without any; for a supernet, its largest subnet's;
    losses: the mean loss of each epoch; seconds: spent on training, including those before an interruption.
    """

    top1: float | None
    losses: tuple[float, ...]
    seconds: float


def train(
    net: FloatViT | SuperNet,
    dataset: Dataset,
    options: TrainOptions,
    *,
    validation: Dataset | None = None,
    teacher: Teacher | Callable[[torch.Tensor], torch.Tensor] | None = None,
    progress: Callable[[TrainProgress], object] | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> TrainResult:
    """Trains `net` in place, leaves it in eval mode on the device it was on; calibrates a supernet's batch norm.

    dataset: images of the network's size, with its channels and classes.
    validation: its top-1 is measured once, at the end, with options.precision.
    teacher: its answers to the augmented images are learned too (nas/teacher.py); any function from float NCHW images
    in [-1, 1] to logits. A supernet's largest subnet learns from it, and with sampling "alternate" every other one.
    progress: called after every step.
    checkpoint: a file with the whole state after every epoch. If it exists, training continues from it, to the same
    weights as without the interruption.

    Trains on this process's GPU if there is one. Raises DataError if data and network do not fit, ConfigError if the
    teacher does not fit them, the checkpoint belongs to another training or the loss is no longer a number, ModelError
    if the checkpoint cannot be read.
    """
    net = net if isinstance(net, SuperNet) else unwrapped(net)
    check_fit(net, dataset)
    if validation is not None:
        check_fit(net, validation)
    home = next(net.parameters()).device
    with _threads(options.threads):
        # Its convolutions then train in 15 % less time.
        net.to(distributed.device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = Training(net, dataset, options, as_teacher(teacher))
        if checkpoint is not None and distributed.from_first(Path(checkpoint).exists()):
            run.restore(Path(checkpoint))
        while len(run.losses) < options.epochs:
            run.epoch(progress)
            if checkpoint is not None:
                run.save(Path(checkpoint))
        net.load_state_dict(run.final_weights())
        if isinstance(net, SuperNet):
            net.calibrate(calibration_images(dataset).to(distributed.device()))
        net.eval()
        top1 = None if validation is None else evaluate(net, validation, precision=options.precision)
        net.to(home, memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch declares neither
    return TrainResult(top1, tuple(run.losses), run.seconds)


class StepLoss(nn.Module):
    """One forward pass of all subnets in a step, so that DistributedDataParallel sees only one. weights: float32
    [classes], how much an image of each counts; None: all alike."""

    def __init__(
        self, net: nn.Module, options: TrainOptions, teacher: Teacher | None = None, weights: torch.Tensor | None = None
    ):
        super().__init__()
        self.net, self.options, self.teacher, self.weights = net, options, teacher, weights

    def forward(self, images, labels, other_labels, share, subnets) -> torch.Tensor:
        """The mean loss over the subnets; (None,) for a stand-alone network."""

        def cross_entropy(logits, labels):
            smoothing = self.options.label_smoothing
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
            return loss if self.weights is None else loss * self.weights[labels]

        logits = self._logits(images, subnets[0])
        loss = (share * cross_entropy(logits, labels) + (1 - share) * cross_entropy(logits, other_labels)).mean()
        if self.teacher is not None:
            weight = self.options.teacher_weight
            loss = (1 - weight) * loss + weight * self._distance(logits, self.teacher(images))
        target = logits.detach().softmax(dim=1)
        counts = 1 if self.weights is None else share * self.weights[labels] + (1 - share) * self.weights[other_labels]
        for subnet in subnets[1:]:
            loss = loss + (counts * F.cross_entropy(self._logits(images, subnet), target, reduction="none")).mean()
        return loss / len(subnets)

    def _distance(self, logits, answers) -> torch.Tensor:
        """From the teacher's answers: Kullback-Leibler, times the temperature's square so that gradients keep their
        size."""
        temperature = self.options.teacher_temperature
        mine, wanted = ((x / temperature).log_softmax(dim=1) for x in (logits, answers))
        return F.kl_div(mine, wanted, reduction="batchmean", log_target=True) * temperature**2

    def _logits(self, images, subnet) -> torch.Tensor:
        with mixed(self.options.precision, images.device):
            logits = self.net(images) if subnet is None else self.net(images, subnet)
        return logits.float()


class Training:
    """The state of one training: what a checkpoint holds, and the loop over one epoch.

    net: a FloatViT, a SuperNet, or any module with forward(images) -> logits, for which save() and restore() are not
    made.
    """

    def __init__(self, net: nn.Module, dataset: Dataset, options: TrainOptions, teacher: Teacher | None = None):
        self.net, self.dataset, self.options, self.teacher = net, dataset, options, teacher
        if teacher is not None:
            teacher.prepare(self._some_images()[:TEACHER_TRIAL], len(dataset.class_names))
        self.batches = Batches(dataset, options)
        self.steps = self.batches.steps
        self.space = net.space if isinstance(net, SuperNet) else None
        weights = class_weights(options, dataset, distributed.device())
        self.objective: nn.Module = StepLoss(net, options, teacher, weights)
        if distributed.ranks() > 1:
            # A step on one random subnet leaves whole layers without gradients.
            some_unused = self.space is not None and options.sampling == "alternate"
            self.objective = DistributedDataParallel(self.objective, find_unused_parameters=some_unused)
        self.optimiser = _optimiser(net, options)
        self.average = None if options.ema_decay is None else copy.deepcopy(net.state_dict())
        self.losses: list[float] = []
        self.seconds = 0.0

    def epoch(self, progress: Callable[[TrainProgress], object] | None) -> None:
        """One pass over the data; appends its mean loss."""
        start, total, done = time.perf_counter(), 0.0, len(self.losses) * self.steps
        self.net.train()
        with closing(self.batches.of(len(self.losses))) as batches:
            for step, batch in enumerate(batches):
                value = self._step(done + step, batch)
                total += value
                if progress is not None:
                    self._report(progress, step + 1, value, self.seconds + time.perf_counter() - start)
        self.losses.append(total / self.steps)
        self.seconds += time.perf_counter() - start

    def _step(self, step: int, batch: Batch) -> float:
        """Trains on a batch; its mean loss over all processes. step: counts from 0 over all epochs."""
        net, options = self.net, self.options
        for group in self.optimiser.param_groups:
            group["lr"] = _learning_rate(options, step, self.steps)
        loss = self.objective(*(part.to(distributed.device()) for part in batch), self._subnets(step))
        value = distributed.mean(loss.detach().clone()).item()
        if not math.isfinite(value):
            raise ConfigError(
                f"the loss became {value} in epoch {len(self.losses) + 1}, step {step % self.steps + 1} of "
                f"{self.steps}: use a learning_rate below {options.learning_rate:g}, or a longer warm-up "
                f"than warmup_epochs = {options.warmup_epochs:g}"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), MAX_GRADIENT_NORM)
        self.optimiser.step()
        if self.average is not None and options.ema_decay is not None:
            _update_average(self.average, net.state_dict(), options.ema_decay, step)
        return value

    def final_weights(self) -> dict[str, torch.Tensor]:
        return self.net.state_dict() if self.average is None else self.average

    def save(self, path: Path) -> None:
        """Writes the state after an epoch, whole or not at all; the first process does."""
        content = {
            "format": CHECKPOINT_FORMAT,
            **self._identity,
            "versions": record.versions(),
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "losses": self.losses,
            "seconds": self.seconds,
        }
        if distributed.rank() == 0:
            saved_network.write_content(path, content)

    def restore(self, path: Path) -> None:
        """Takes over the state that save() wrote; the first process reads it."""
        content = error = None
        if distributed.rank() == 0:
            try:
                content = self._read(path)
            except (ModelError, ConfigError) as found:
                error = found
        content, error = distributed.from_first((content, error))
        if error is not None:
            raise error
        try:
            self._take_over(content)
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{path}: holds no usable state ({type(error).__name__}); remove it to train from the start"
            ) from error
        if len(self.losses) > self.options.epochs:
            raise ConfigError(
                f"{path}: has {len(self.losses)} epochs already, more than epochs = {self.options.epochs}; ask for as "
                "many, or give another checkpoint"
            )

    def _take_over(self, content: dict) -> None:
        """Many kinds of error if the content is not a state of this training."""
        saved_network.check_kinds(self.net, content["net"])
        self.net.load_state_dict(content["net"])
        self.optimiser.load_state_dict(content["optimiser"])
        for parameter, kept in self.optimiser.state.items():
            for name, value in kept.items():
                if name != "step" and value.shape != parameter.shape:
                    raise ValueError(f"{name} of the optimiser has shape {tuple(value.shape)}")
        average = content["average"]
        if (average is None) != (self.average is None):
            raise ValueError("the average of the weights is missing, or one too many")
        if average is not None and self.average is not None:
            saved_network.check_kinds(self.net, average)
            if {n: v.shape for n, v in average.items()} != {n: v.shape for n, v in self.average.items()}:
                raise ValueError("the average is not of these weights")
            self.average = {name: value.to(self.average[name]) for name, value in average.items()}
        self.losses, self.seconds = [float(loss) for loss in content["losses"]], float(content["seconds"])

    def _read(self, path: Path) -> dict:
        mend = "remove it to train from the start, or give another file name"
        content = saved_network.load(path, "training checkpoint", CHECKPOINT_FORMAT, mend)
        for part, mine in self._identity.items():
            saved = content.get(part)
            saved = saved if isinstance(saved, dict) else {}
            if part == "data" and "pixels_sha256" not in saved:
                warnings.warn(
                    f"{path}: of an earlier version, it does not say which pixels it was trained on: those of "
                    f"{self.dataset.source} are believed to be the same",
                    McuformerWarning,
                    stacklevel=2,
                )
                saved = {**saved, "pixels_sha256": mine["pixels_sha256"]}
            for name in sorted({*mine, *saved}):
                if mine.get(name) != saved.get(name):
                    raise ConfigError(
                        f"{path}: belongs to another training, with {part} {name} = {saved.get(name)!r} "
                        f"instead of {mine.get(name)!r}; train with the same {part}, or give another checkpoint"
                    )
        record.warn_of_versions(path, content.get("versions"))
        return content

    @functools.cached_property
    def _identity(self) -> dict[str, dict]:
        """What a checkpoint must share; with another thread count the last bits of the weights may differ."""
        options = dataclasses.asdict(self.options)
        del options["threads"], options["workers"]
        if self.teacher is None:
            del options["teacher_weight"], options["teacher_temperature"]
        if self.options.schedule == "constant":
            del options["epochs"]
        data = {**self.dataset.identity(), "images": list(self.dataset.images.shape)}
        if isinstance(self.net, SuperNet):
            space = self.net.space.to_dict()
            for name in ("evolution", "flip"):  # they say how spaces and images are drawn
                space.pop(name, None)
            network = {"space": space}
        else:
            assert isinstance(self.net, FloatViT)
            network = {"config": self.net.config.to_dict()}
        teacher = {} if self.teacher is None else {"answers_crc32": self.teacher.answers_crc32(self._some_images())}
        return {**network, "options": options, "data": data, "teacher": teacher}

    def _some_images(self) -> torch.Tensor:
        return calibration_images(self.dataset).to(distributed.device())

    def _subnets(self, step: int) -> tuple[SubnetConfig | None, ...]:
        """The subnets of a step; drawn from seed and step only, so the same in all processes."""
        if self.space is None:
            return (None,)
        rng = random.Random(f"subnets {self.options.seed} {step}")
        if self.options.sampling == "alternate":
            return (self.space.largest() if step % 2 == 0 else self.space.sample(rng),)
        drawn = (self.space.sample(rng) for _ in range(RANDOM_SUBNETS))
        return (self.space.largest(), self.space.smallest(), *drawn)

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
                images_per_second=done * self.batches.size / seconds,
                seconds_left=left * seconds / done,
                learning_rate=_learning_rate(options, done - 1, self.steps),
                seconds=seconds,
            )
        )


def _optimiser(net: nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        positions = name.endswith(("position", "prefix")) or relative.MARK in name
        (free if parameter.ndim < 2 or positions else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=BETAS, fused=True)


def _learning_rate(options: TrainOptions, step: int, steps_per_epoch: int) -> float:
    """Linear rise, then half a cosine or none; `step` counts from 0 over all epochs."""
    warmup, total = options.warmup_epochs * steps_per_epoch, options.epochs * steps_per_epoch
    if step < warmup:
        return options.learning_rate * (step + 1) / (warmup + 1)
    if options.schedule == "constant":
        return options.learning_rate
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
    """Runs the body of the `with` statement in `count` torch threads."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
