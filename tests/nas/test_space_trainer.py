# SPDX-License-Identifier: Apache-2.0
"""What the evolution asks of a space."""

import dataclasses
import random

import pytest
from spaces import CONV, digits

from mcuformer.errors import PlanError
from mcuformer.nas import TrainOptions, load_space
from mcuformer.nas.cost import Budget, cost_by_paper, cost_of
from mcuformer.nas.paper_memory import paper_sram
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
    for name in ("flash", "instructions"):
        with pytest.raises(PlanError, match="no subnet of the space has at most 1 "):
            check_reachable_somewhere(SPACE, cost_of, Budget(sram=3000, **{name: 1}))


def test_r_counts_every_limit(tmp_path):
    """Half of the subnets by one limit, and fewer by two."""
    place, rng = (0, 1), random.Random(5)
    costs = [cost_of(SPACE.window(place).sample(rng)) for _ in range(500)]
    limits = {name: sorted(cost.of(name) for cost in costs)[250] for name in ("sram", "flash", "instructions")}
    for names in (("sram",), ("flash",), ("instructions",), ("sram", "flash"), ("flash", "instructions")):
        budget = Budget(**{name: limits[name] for name in names})
        made = SpaceTrainer(SPACE, digits(0, 100), digits(300, 330), OPTIONS, tmp_path, cost_of, budget)
        _, share = made(place, 1)
        assert share == pytest.approx(sum(map(budget.admits, costs)) / 500, abs=0.1) and 0.1 < share < 0.9


def test_the_paper_s_rule_is_its_formula():
    """M = sup of h_f w_f + max(h_i w_i, h_o w_o), by hand: 225 tokens, MLP 192 -> 768 of rank 182, and dense."""
    config = load_space("mcuformer").smallest()
    config = dataclasses.replace(
        config, patch_size=16, embed_dim=192, depth=1, num_heads=3, kv_heads=1, mlp_ratio=4.0, rank_ratio=0.95
    )
    assert config.layers[0].rank == 182
    assert paper_sram(config) == 182 * (192 + 768) + 225 * 768
    assert paper_sram(dataclasses.replace(config, rank_ratio=None)) == 192 * 768 + 225 * 768
    thin = dataclasses.replace(config, rank_ratio=0.05, kv_heads=3)  # now q, k, v together: 192 -> 576
    assert thin.layers[0].rank == 10
    assert paper_sram(thin) == max(10 * (192 + 768) + 225 * 768, 192 * 576 + 225 * 576)
    few = dataclasses.replace(config, patch_size=120, rank_ratio=0.05, attention_rank_ratio=0.05)  # the head decides
    assert paper_sram(few) == 192 * 1000 + 1000


def test_by_the_paper_s_rule_a_third_fits_at_its_narrowest():
    """320 KB, patches of 16, rank ratio 0.95: width 168 fits, 192 and 216 do not, as by the authors' code."""
    space = dataclasses.replace(load_space("mcuformer"), patch_size=(16,), rank_ratio=(0.95,), evolution=None)
    rng = random.Random(0)
    drawn = [space.sample(rng) for _ in range(300)]
    fit = [config.embed_dim for config in drawn if cost_by_paper(config).sram <= 320 * 1024]
    assert set(fit) == {168} and 0.25 < len(fit) / 300 < 0.42
    exact, paper = cost_of(drawn[0]), cost_by_paper(drawn[0])
    assert (paper.flash, paper.instructions) == (exact.flash, exact.instructions) and paper.sram > exact.sram
