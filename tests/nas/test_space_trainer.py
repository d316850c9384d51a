# SPDX-License-Identifier: Apache-2.0
"""What the evolution asks of a space."""

import dataclasses

import pytest
from spaces import CONV, digits

from mcuformer.errors import PlanError
from mcuformer.nas import TrainOptions
from mcuformer.nas.cost import Budget, cost_of
from mcuformer.nas.search_space import EvolutionRange
from mcuformer.nas.space_trainer import SpaceTrainer, check_reachable_somewhere

EVOLUTION = EvolutionRange((0.25, 0.5, 1.0), (2, 4), (2, 1), (0.01, 0.001), ((0, 0), (0, 1), (1, 0)))
SPACE = dataclasses.replace(CONV, rank_ratio=(0.25, 0.5), depth=(1,), evolution=EVOLUTION)
OPTIONS = TrainOptions(batch_size=50, warmup_epochs=0, learning_rate=5e-3, threads=1)


def trainer(folder) -> SpaceTrainer:
    return SpaceTrainer(SPACE, digits(0, 300), digits(300, 500), OPTIONS, folder, cost_of, Budget(sram=3000))


def test_a_score_is_that_of_its_epochs_whatever_was_trained_before(tmp_path):
    """Back to fewer epochs, on from more, and in any order: as trained from the start."""
    place, kept = (0, 1), trainer(tmp_path / "kept")
    found = {epochs: kept(place, epochs) for epochs in (1, 3, 2)}
    assert found == {epochs: trainer(tmp_path / f"new-{epochs}")(place, epochs) for epochs in (1, 2, 3)}
    assert kept(place, 1) == found[1] and found[1] != found[3]


def test_more_epochs_go_on_from_fewer(tmp_path):
    seen, one = [], trainer(tmp_path)
    one.progress = lambda state: seen.append(state.epoch)
    one.supernet((0, 0), 1)
    one.supernet((0, 0), 3)
    assert sorted(set(seen)) == [1, 2, 3] and seen.count(1) == 6


def test_a_budget_that_no_place_meets_ends_before_any_training():
    check_reachable_somewhere(SPACE, cost_of, Budget(sram=3000))
    smallest = min(cost_of(SPACE.window((rank, patch)).smallest()).sram for rank in range(2) for patch in range(2))
    check_reachable_somewhere(SPACE, cost_of, Budget(sram=smallest))
    with pytest.raises(PlanError, match=f"the smallest has {smallest:,} "):
        check_reachable_somewhere(SPACE, cost_of, Budget(sram=smallest - 1))
