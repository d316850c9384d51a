# SPDX-License-Identifier: Apache-2.0
"""Batches: the training images, shuffled per epoch, augmented, and shared among all processes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

import numpy as np
import torch

from mcuformer.converter.pixels import to_float
from mcuformer.data import Dataset, FileImages
from mcuformer.errors import ConfigError
from mcuformer.nas import augment, distributed, makers
from mcuformer.nas.train_options import TrainOptions

MAX_SHIFT = 1 / 32  # of each side; in short trainings, twice as much lost 1.2 % top-1, none at all 2.3 %

# Float NCHW images in [-1, 1], their labels, those of the images mixed in, and the share of the first.
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Made = TypeVar("Made")


class Batches:
    """This process's share of each batch, on its device. size: of a whole batch, over all processes; steps: per epoch.

    Images in files are decoded once an epoch, by options.workers processes, cropped and mirrored as they are decoded,
    and reach the device as uint8; there they are normalised and mixed with others of the batch. Randomness depends only
    on seed, epoch, image index and order: not on workers, and not on how many processes share a batch, if the shares
    are even or nothing is mixed. ConfigError if the processes cannot share a batch.
    """

    def __init__(self, dataset: Dataset, options: TrainOptions):
        self.dataset, self.options, self.device = dataset, options, distributed.device()
        self.size = min(options.batch_size, len(dataset))
        if self.size % distributed.ranks():
            raise ConfigError(f"batch_size = {self.size}: must be a multiple of the {distributed.ranks()} processes")
        self.steps = len(dataset) // self.size

    def of(self, epoch: int) -> Generator[Batch, None, None]:
        """The batches of an epoch (counted from 0); each is made while the one before is trained on."""
        order = np.random.default_rng((self.options.seed, epoch)).permutation(len(self.dataset))
        share = self.size // distributed.ranks()
        starts = range(distributed.rank() * share, self.steps * self.size, self.size)
        return one_ahead(lambda: self._made(epoch, [order[start : start + share] for start in starts]))

    def _made(self, epoch: int, shares: list[np.ndarray]) -> Generator[Batch, None, None]:
        with closing(self._pixels(epoch, shares)) as pixels:
            for chosen, images in zip(shares, pixels, strict=True):
                yield self._batch(epoch, chosen, torch.from_numpy(images))

    def _pixels(self, epoch: int, shares: list[np.ndarray]) -> Generator[np.ndarray, None, None]:
        """uint8 [n, height, width, channels] of each share."""
        images, options = self.dataset.images, self.options
        if not isinstance(images, FileImages):
            return (images[chosen] for chosen in shares)
        crops = None
        if options.augmentation and options.crop is not None:
            crops = makers.Crops(options.crop, options.flip, options.seed, epoch)
        return makers.decoded(images, shares, crops, options.workers)

    def _batch(self, epoch: int, chosen: np.ndarray, pixels: torch.Tensor) -> Batch:
        options = self.options
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        images = self._augmented(epoch, chosen, pixels.to(self.device, non_blocking=True))
        labels = torch.from_numpy(self.dataset.labels[chosen]).to(self.device)
        if not options.mixup and not options.cutmix:
            return images, labels, labels, torch.ones(len(chosen), device=self.device)
        others = augment.partners(len(chosen)).to(self.device)
        images, first = augment.mix(images, images[others], chosen, options.mixup, options.cutmix, options.seed, epoch)
        return images, labels, labels[others], first

    def _augmented(self, epoch: int, chosen: np.ndarray, images: torch.Tensor) -> torch.Tensor:
        """images: uint8 [n, height, width, channels]."""
        options = self.options
        is_done = options.crop is not None and isinstance(self.dataset.images, FileImages)
        if is_done or not options.augmentation:
            return to_float(images)
        _, height, width, _ = images.shape
        shift = round(height * MAX_SHIFT), round(width * MAX_SHIFT)
        flip = options.flip and self.dataset.front_end is None  # low and high tones are not alike
        images = to_float(augment.shift_and_flip(images, chosen, shift, flip, options.seed, epoch))
        if options.crop is not None:
            images = augment.random_crop(images, chosen, options.crop, options.seed, epoch)
        return images


def one_ahead(make: Callable[[], Generator[Made, None, None]]) -> Generator[Made, None, None]:
    """What make() yields, each made in another thread while the one before is used."""
    items = make()
    try:
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(next, items, None)
            while (item := following.result()) is not None:
                following = pool.submit(next, items, None)
                yield item
    finally:
        items.close()
