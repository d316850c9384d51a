# SPDX-License-Identifier: Apache-2.0
"""benchmarks/window.py and paper_rule.py: windows that are compared fairly, and the authors' formula."""

import random
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def window(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return load_script("benchmarks/window.py")


def test_every_window_moves_over_the_same_values_from_the_same_corners(window):
    """First the largest patches and the smallest beside each other, then the highest rank ratio."""
    for size in window.WINDOWS:
        space = window.space_of(size)
        evolution = space.evolution_range
        assert (len(space.rank_ratio), len(space.patch_size)) == evolution.window == size
        assert (evolution.rank_ratio, evolution.patch_size) == (window.RANKS, window.PATCHES)
        low, coarse, high = (space.window(place) for place in evolution.start)
        assert low.patch_size[0] == window.PATCHES[0] and coarse.patch_size[-1] == window.PATCHES[-1]
        assert low.rank_ratio == coarse.rank_ratio and high.rank_ratio[-1] == window.RANKS[-1]


def test_the_budget_admits_some_subnets_and_refuses_others(window):
    rng, space, board = random.Random(0), window.space_of((6, 4)), window.get_board(window.BOARD)
    drawn = [space.sample(rng) for _ in range(300)]
    share = sum(window.BUDGET.admits(window.cost_of(config, board)) for config in drawn) / len(drawn)
    assert 0.1 < share < 0.9


def test_a_gain_is_what_the_wider_window_has_right_more_often(window):
    rng = np.random.default_rng(0)
    narrow, wide = rng.random((5, 1000)) < 0.8, rng.random((5, 1000)) < 0.9
    (row,) = window.differences({window.WINDOWS[0]: narrow, window.WINDOWS[-1]: wide})
    assert row["window"] == [3, 3] and row["gain"] == pytest.approx(wide.mean() - narrow.mean())
    assert row["interval"][0] < row["gain"] < row["interval"][1] and row["interval"][0] > 0


def test_the_authors_formula(monkeypatch):
    """Width 192, MLP 4, patch 16 of 240 pixels, rank ratio 0.95: 226 tokens in and out, and the weights."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    rule = load_script("benchmarks/paper_rule.py")
    config = rule.nas.load_space(rule.SPACE).smallest()
    config = rule.dataclasses.replace(config, patch_size=16, embed_dim=192, mlp_ratio=(3.5,) * 11 + (4.0,))
    assert rule.by_authors(config, 0.95) == pytest.approx(226 * 192 + 226 * 768 + 0.95 * 192 * 768)
