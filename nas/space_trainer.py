# SPDX-License-Identifier: Apache-2.0
"""SpaceTrainer: a space's supernet accuracy, and the share of its subnets that fit: what the evolution needs."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.data import Dataset
from mcuformer.errors import PlanError
from mcuformer.files import write_bytes
from mcuformer.nas import distributed
from mcuformer.nas.cost import NAMES, Budget, Cost, check_reachable
from mcuformer.nas.held_out import read_once
from mcuformer.nas.search import HeldOutAccuracy
from mcuformer.nas.search_space import SearchSpace
from mcuformer.nas.supernet import SuperNet
from mcuformer.nas.train import TrainProgress, train
from mcuformer.nas.train_options import TrainOptions

ACCURACY_SUBNETS = 8  # drawn per space, for A
SHARE_SUBNETS = 500  # and for R


class SpaceTrainer:
    """trainer(place, epochs) -> (A, R): the mean held-out top-1 of some subnets of the space's supernet after that many
    epochs, and the share of a few hundred subnets within the budget.

    folder: gets restore points, one per space and number of epochs. options: their epochs are replaced; the schedule
    is constant, since more epochs may follow.
    """

    def __init__(
        self, space: SearchSpace, dataset: Dataset, held_out: Dataset, options: TrainOptions, folder: Path,
        cost: Callable[[SubnetConfig], Cost], budget: Budget,
        progress: Callable[[TrainProgress], object] | None = None,
    ):  # fmt: skip
        self.space, self.dataset, self.held_out, self.folder = space, dataset, read_once(held_out), folder
        self.options = dataclasses.replace(options, schedule="constant")
        self.cost, self.budget, self.progress = cost, budget, progress

    def __call__(self, place: tuple[int, int], epochs: int) -> tuple[float, float]:
        supernet = self.supernet(place, epochs)
        rng = random.Random(f"space {self.options.seed} {place}")
        accuracy = HeldOutAccuracy(supernet, self.held_out, precision=self.options.precision)
        scores = [accuracy(supernet.space.sample(rng)) for _ in range(ACCURACY_SUBNETS)]
        fitting = [self.budget.admits(self.cost(supernet.space.sample(rng))) for _ in range(SHARE_SUBNETS)]
        return sum(scores) / len(scores), sum(fitting) / len(fitting)

    def supernet(self, place: tuple[int, int], epochs: int) -> SuperNet:
        """The space's supernet after that many epochs, trained on from the nearest restore point."""
        supernet = SuperNet(self.space.window(place), self.options.seed).to(distributed.device())
        options = dataclasses.replace(self.options, epochs=epochs)
        checkpoint = self.folder / f"space-{place[0]}-{place[1]}" / f"{epochs}-epochs.pt"
        if distributed.rank() == 0 and not checkpoint.exists():
            _start_from_fewer(checkpoint, epochs)
        train(supernet, self.dataset, options, checkpoint=checkpoint, progress=self.progress)
        return supernet


def _start_from_fewer(checkpoint: Path, epochs: int) -> None:
    """Copies the restore point with the most epochs below `epochs`, if there is one."""
    fewer = [n for n in range(1, epochs) if checkpoint.with_name(f"{n}-epochs.pt").exists()]
    if fewer:
        write_bytes(checkpoint, checkpoint.with_name(f"{fewer[-1]}-epochs.pt").read_bytes())


def check_reachable_somewhere(
    space: SearchSpace, cost: Callable[[SubnetConfig], Cost], budget: Budget, names: dict[str, str] = NAMES
) -> None:
    """PlanError, naming the smallest subnet, if no place of the window has one within the budget. names: as
    check_reachable takes them."""
    errors = []
    places = space.evolution_range.every()
    for place in sorted(places, key=lambda at: (at[0], -at[1])):  # the smallest rank ratio and the fewest tokens first
        try:
            check_reachable(space.window(place), cost, budget, names)
            return
        except PlanError as error:
            errors.append(error)
    raise errors[0]


def tokens_of(space: SearchSpace) -> Callable[[int], int]:
    """The number of tokens for a patch size."""

    def tokens(patch_size: int) -> int:
        return dataclasses.replace(space, patch_size=(patch_size,)).largest().tokens

    return tokens
