# SPDX-License-Identifier: Apache-2.0
"""TrainOptions: how a network or a supernet is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mcuformer.checks import is_number, whole
from mcuformer.errors import ConfigError

BALANCED = "balanced"
SAMPLINGS = ("alternate", "sandwich")


@dataclass(frozen=True)
class TrainOptions:
    """How a network, or a supernet, is trained.

    epochs           passes over the training images
    batch_size       images per step, over all processes; an incomplete last one is dropped (each epoch shuffles again)
    learning_rate    its peak, reached after the warm-up
    schedule         then "cosine": half a cosine down to 0; "constant": it stays, and more epochs may follow
    weight_decay     AdamW's, for matrices and kernels; biases, norms, positions and prefix have none
    label_smoothing  from 0 to below 1
    class_weights    how much an image of each class counts in the loss: "balanced" (each class as much as any other,
                     however many images it has) or a number above 0 for each class; scaled to a mean of 1 over the
                     images; None: all alike
    warmup_epochs    epochs of linear rise, may be a fraction
    augmentation     shifts each training image by up to 1/32 of its sides, edges repeated
    flip             with augmentation: mirrors half of the images, never those of sounds; turn it off if left and right
                     matter
    crop             with augmentation: smallest area share of a random crop, enlarged to the whole; None: off. Of a set
                     too large for memory it is cut from the file's own pixels, up to 4/3 wider or higher than the
                     image, and not shifted
    mixup, cutmix    probability that an image is blended with its neighbour in the batch, or has a box of it pasted in
    ema_decay        the network ends with an average of its weights, with this decay per step; None: the last ones
    sampling         of a supernet's subnets: "alternate" (the largest and a random one in turn; the best use of a CPU's
                     time) or "sandwich" (each step trains the largest, the smallest and two random ones; these learn
                     from the largest: in-place distillation)
    teacher_weight   with a teacher: the share of the loss that is learned from its answers, above 0 to 1; the rest is
                     learned from the labels
    teacher_temperature  its logits and the network's are divided by it first; above 1, more is learned of the classes
                     that it thinks less likely
    precision        "float32", or "bfloat16": mixed precision, for GPUs
    seed             of image order, augmentation and subnets
    threads          torch's threads while training; None: as set
    workers          of a set too large for memory: processes that decode images for each process that trains, 0: none,
                     its own threads do; None: one for each of its cores on Linux, else 0; the result does not depend
                     on it
    """

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 2e-3
    schedule: str = "cosine"
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    class_weights: str | tuple[float, ...] | None = None
    warmup_epochs: float = 1.0
    augmentation: bool = True
    flip: bool = True
    crop: float | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    ema_decay: float | None = None
    sampling: str = "alternate"
    teacher_weight: float = 0.5
    teacher_temperature: float = 2.0
    precision: str = "float32"
    seed: int = 0
    threads: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "threads"):
            value = getattr(self, name)
            if name != "threads" or value is not None:
                whole(name, value, 1)
        if self.workers is not None:
            whole("workers", self.workers, 0)
        ranges = {
            "learning_rate": (lambda v: 0 < v < math.inf, "above 0"),
            "weight_decay": (lambda v: 0 <= v < math.inf, "from 0"),
            "label_smoothing": (lambda v: 0 <= v < 1, "from 0 to below 1"),
            "warmup_epochs": (lambda v: 0 <= v <= self.epochs, f"from 0 to epochs = {self.epochs}"),
            "teacher_weight": (lambda v: 0 < v <= 1, "above 0 to 1"),
            "teacher_temperature": (lambda v: 0 < v < math.inf, "above 0"),
            "mixup": (lambda v: 0 <= v <= 1, "from 0 to 1"),
            "cutmix": (lambda v: 0 <= v <= 1 - self.mixup, "from 0 to 1, with mixup at most 1 together"),
        }
        if self.ema_decay is not None:
            ranges["ema_decay"] = (lambda v: 0 < v < 1, "between 0 and 1, or None")
        if self.crop is not None:
            ranges["crop"] = (lambda v: 0 < v <= 1, "above 0 to 1, or None")
        for name, (is_valid, legal) in ranges.items():
            value = getattr(self, name)
            if not is_number(value) or not is_valid(value):
                raise ConfigError(f"{name} = {value!r}: must be a number {legal}")
        for name in ("augmentation", "flip"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} = {getattr(self, name)!r}: must be true or false")
        self._check_class_weights()
        words = {"schedule": ("cosine", "constant"), "sampling": SAMPLINGS, "precision": ("float32", "bfloat16")}
        for name, choices in words.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: must be one of {', '.join(choices)}")
        whole("seed", self.seed, 0, 2**63 - 1)

    def _check_class_weights(self) -> None:
        given = self.class_weights
        if given is None or given == BALANCED:
            return
        if not isinstance(given, list | tuple) or not all(is_number(w) and 0 < w < math.inf for w in given):
            raise ConfigError(
                f"class_weights = {given!r}: must be {BALANCED}, or a number above 0 for each class, such as [1, 2.5]"
            )
        object.__setattr__(self, "class_weights", tuple(map(float, given)))
