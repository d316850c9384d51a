# SPDX-License-Identifier: Apache-2.0
"""Makers of batches: processes that decode image files while the network trains.

Threads would do for decoding, which releases the interpreter's lock, but what is left to Python would hold up the
thread that starts the GPU's kernels. The processes are torch's DataLoader's: they hold no state, and an epoch starts
new ones. A maker only decodes; it touches neither GPU nor terminal.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mcuformer.data import FileImages
from mcuformer.data.crop import Crop
from mcuformer.errors import ConfigError, McuformerError
from mcuformer.nas import augment, distributed

MOST = 16  # makers of a process, unless more are asked for
AHEAD = 2  # batches that each maker has ready or under way
SHARED = Path("/dev/shm")  # where a maker leaves its batches for the process to read


@dataclass(frozen=True)
class Crops:
    """The crops of an epoch. least: smallest share of a picture's area; flip: half of them are mirrored."""

    least: float
    flip: bool
    seed: int
    epoch: int

    def of(self, chosen: np.ndarray) -> list[Crop]:
        return augment.crops(chosen, self.least, self.flip, self.seed, self.epoch)


def decoded(
    images: FileImages, shares: list[np.ndarray], crops: Crops | None, workers: int | None
) -> Generator[np.ndarray, None, None]:
    """The images of each share, uint8 [n, height, width, channels], in order, whatever `workers` is.

    workers: processes that decode; 0: threads of this process; None: as default_workers() says. DataError if an image
    cannot be read, ConfigError if a maker dies.
    """
    if workers is None:
        workers = default_workers(max(map(len, shares), default=0) * int(np.prod(images.shape[1:])))
    workers = min(workers, len(shares))
    if workers == 0:
        for chosen in shares:
            yield images.read(chosen, None if crops is None else crops.of(chosen), os.cpu_count())
            images.tell_of_frames()
        return
    loader = DataLoader(
        _Shares(images, crops), batch_size=None, sampler=shares, num_workers=workers, prefetch_factor=AHEAD,
        worker_init_fn=_ignore_interrupts, multiprocessing_context="fork" if sys.platform == "linux" else "spawn",
        generator=torch.Generator(),  # else it draws from the one that everything shares
    )  # fmt: skip
    try:
        for made in loader:
            if isinstance(made, McuformerError):
                raise made
            pixels, frames = made
            images.tell_of_frames(frames)
            yield pixels.numpy()
    except RuntimeError as error:
        raise ConfigError(
            f"workers = {workers}: a process that decodes images ended ({str(error).splitlines()[0]}); give it more "
            f"memory, also in {SHARED}, or use fewer workers, 0 for none"
        ) from error


def default_workers(batch_bytes: int) -> int:
    """A maker for each core that is this process's on its machine, as far as there is room for their batches. Just
    Linux forks makers, fast and without a word in the user's script: elsewhere 0."""
    if sys.platform != "linux":
        return 0
    here = distributed.local_ranks()
    try:
        room = shutil.disk_usage(SHARED).free // here // max(1, (AHEAD + 1) * batch_bytes)
    except OSError:
        return 0
    return min(max(1, len(os.sched_getaffinity(0)) // here), MOST, room)


class _Shares(TorchDataset):
    """Indexed by an array of image indices: the pixels of these images, and those of their files that hold several
    pictures; or the error, which DataLoader would rewrite to many lines."""

    def __init__(self, images: FileImages, crops: Crops | None):
        self.images, self.crops = images, crops

    def __getitem__(self, chosen: np.ndarray) -> tuple[torch.Tensor, list[Path]] | McuformerError:
        try:
            pixels = self.images.read(chosen, None if self.crops is None else self.crops.of(chosen))
        except McuformerError as error:
            return error
        return torch.from_numpy(pixels), self.images.frames[:1]


def _ignore_interrupts(_worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the one that trains ends its makers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
