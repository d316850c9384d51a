# SPDX-License-Identifier: Apache-2.0
"""Evolution of spaces whose best corner is known."""

import dataclasses
import itertools
import warnings

import numpy as np
import pytest

from mcuformer.errors import ConfigError, McuformerWarning
from mcuformer.nas import evolve_space
from mcuformer.nas.evolve_space import EvolutionOptions, Visit, evolve, fit, position, warn_of_flat
from mcuformer.nas.plots import plot_path
from mcuformer.nas.search_space import EvolutionRange

RANGE = EvolutionRange(
    rank_ratio=tuple(round(0.1 * i, 1) for i in range(1, 10)), patch_size=(8, 10, 12, 16, 19, 24, 32), window=(2, 1),
    threshold=(0.3, 0.002), start=((3, 2), (4, 2), (3, 3)),
)  # fmt: skip
OPTIONS = EvolutionOptions(eta=1.0, neighbours=4, epochs=2, visits=30)


def tokens(patch: int) -> int:
    return (96 // patch) ** 2


def corner(rank_slope: float, token_slope: float):
    """A space where S is linear, except for what epochs add: the best is at a corner."""

    def measure(place, epochs):
        rank, count = position(RANGE, tokens, place)
        return 0.5 + rank_slope * rank / 2 + 0.1 * (1 - 0.5**epochs), rank_slope * rank / 2 + token_slope * count

    return measure


def best_place(measure):
    places = itertools.product(*map(range, RANGE.places))
    return max(places, key=lambda place: sum(measure(place, 2)))


@pytest.mark.parametrize(("rank_slope", "token_slope"), [*itertools.product((0.5, -0.5), (0.005, -0.005))])
def test_the_best_corner_is_reached(rank_slope, token_slope):
    measure = corner(rank_slope, token_slope)
    result = evolve(RANGE, tokens, measure, OPTIONS)
    assert result.converged and result.best.place == best_place(measure)
    assert result.best.place in itertools.product((0, 7), (0, 6))
    assert len(result.visits) <= OPTIONS.visits


def test_a_hill_inside_the_range_is_climbed():
    """S falls off on all sides of a place: no linear fit holds everywhere, the piecewise one leads near it."""

    def measure(place, epochs):
        return 0.9 - 0.02 * ((place[0] - 6) ** 2 + 0.5 * (place[1] - 4) ** 2), 0.0

    result = evolve(dataclasses.replace(RANGE, threshold=(0.2, 0.001)), tokens, measure, OPTIONS)
    assert np.abs(np.array(result.best.place) - (6, 4)).max() <= 2
    assert result.best.score > max(visit.score for visit in result.visits[:3])


def test_steps_are_truncated_toward_zero():
    """w = 0.59 and h = 0.3: one step, not two. w = -0.59: one step back. Below h: rest."""
    for slope, steps in [(0.59, 1), (-0.59, -1), (0.29, 0), (-0.29, 0), (0.61, 2)]:

        def measure(place, epochs, slope=slope):
            return slope * position(RANGE, tokens, place)[0], 0.0

        path = evolve(RANGE, tokens, measure, dataclasses.replace(OPTIONS, visits=4)).path
        start = path[0].place
        assert (path[1].place[0] - start[0] if len(path) > 1 else 0) == steps


def test_only_spaces_of_equal_epochs_are_compared(monkeypatch):
    """On rough ground windows come back, and fits are of spaces with 2 epochs, 4, 6 ...: never of some of each."""
    compared = []
    monkeypatch.setattr(evolve_space, "fit", lambda visits: compared.append(visits) or fit(visits))
    for seed in range(10):
        rng, asked = np.random.default_rng(seed), []

        def measure(place, epochs, rng=rng, asked=asked):
            asked.append((place, epochs))
            return rng.uniform() + epochs, 0.0

        evolve(RANGE, tokens, measure, OPTIONS)
        assert len(asked) == len(set(asked))
        for place, epochs in asked:
            assert epochs == 2 or (place, epochs - 2) in asked  # t epochs at a time, from where it was left
    assert all(len({visit.epochs for visit in visits}) == 1 for visits in compared)
    assert {visits[0].epochs for visits in compared} > {2, 4}


def test_neighbours_are_trained_on_where_too_few_are_equal():
    """The window comes back to where it started: the places around are trained as long before the fit."""
    scores = {0: 0.0, 1: 0.06, 3: -0.156}  # up two places by the first fit, down two by the second

    def measure(place, epochs):
        return (scores[place[0]] if epochs == 2 else 0.5), 0.0  # then it is flat, and the window rests

    evolution = dataclasses.replace(RANGE, threshold=(0.25, 0.01), start=((0, 2), (1, 2), (0, 3)))
    result = evolve(evolution, tokens, measure, dataclasses.replace(OPTIONS, neighbours=3))
    assert [visit.place for visit in result.path] == [(1, 2), (3, 2), (1, 2)] and result.converged
    assert {visit.place for visit in result.visits if visit.epochs == 4} == {(1, 2), (0, 2), (0, 3), (3, 2)}


def test_the_log_replays_and_a_run_that_was_cut_short_goes_on(tmp_path):
    measure = corner(0.5, -0.005)
    log = tmp_path / "evolution.jsonl"
    whole = evolve(RANGE, tokens, measure, OPTIONS, log=log)

    def none(place, epochs):
        raise AssertionError("it is in the log")

    assert evolve(RANGE, tokens, none, OPTIONS, log=log) == whole
    content = log.read_bytes()
    for cut in (1, 40, 200, len(content) - 5):
        log.write_bytes(content[:-cut])
        assert evolve(RANGE, tokens, measure, OPTIONS, log=log) == whole
        assert log.read_bytes() == content
    with pytest.raises(ConfigError, match="another run, with options"):
        evolve(RANGE, tokens, measure, dataclasses.replace(OPTIONS, eta=0.1), log=log)
    few = evolve(RANGE, tokens, measure, dataclasses.replace(OPTIONS, visits=4), log=log)
    assert few.visits == whole.visits[:4]  # their number may change: a spent evolution goes on


def test_the_budget_ends_it():
    def cruel(place, epochs):
        return epochs + (place[0] * 0.5 if epochs % 4 else -place[0] * 0.5), 0.0

    result = evolve(RANGE, tokens, cruel, dataclasses.replace(OPTIONS, visits=7))
    assert len(result.visits) <= 7 and result.best in result.visits


def test_a_range_with_one_token_number_moves_along_the_other_axis():
    evolution = dataclasses.replace(RANGE, patch_size=(8,), start=((2, 0), (3, 0), (4, 0)))
    result = evolve(evolution, tokens, lambda place, epochs: (0.1 * place[0], 0.0), OPTIONS)
    assert result.converged and result.best.place == (7, 0)


def test_places_on_a_line_are_refused():
    for start in [((0, 0), (1, 1), (2, 2)), ((0, 0), (1, 0)), ()]:
        with pytest.raises(ConfigError, match="at least three places not on a line"):
            evolve(dataclasses.replace(RANGE, start=start), tokens, corner(1, 1), OPTIONS)


def warnings_of(shares: list[float], accuracies: list[float]) -> list[str]:
    visits = [Visit((0, 0), (0.5, 16.0), 2, a, r, a + r) for a, r in zip(accuracies, shares, strict=True)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_flat(visits, guess=0.1, images=900)
    assert all(issubclass(one.category, McuformerWarning) for one in caught)
    words = [str(one.message) for one in caught]
    assert all("\n" not in line for line in words)
    return words


def test_what_led_nowhere_is_said_once_each():
    """R the same in all visits; no accuracy above 0.1 by more than two errors of 0.01."""
    assert warnings_of([0.4, 0.5], [0.1, 0.13]) == []
    assert [words[:28] for words in warnings_of([0.4, 0.4], [0.1, 0.13])] == ["R is 0.400 in all 2 visits: "]
    assert [words[:31] for words in warnings_of([0.4, 0.5], [0.1, 0.12])] == ["A is at most 0.1200 in all visi"]
    assert len(warnings_of([1.0, 1.0], [0.09, 0.1])) == 2


def test_the_fit_is_the_slope():
    rng = np.random.default_rng(0)
    visits = []
    for _ in range(5):
        x = (rng.uniform(0.1, 0.9), rng.uniform(16, 144))
        visits.append(Visit((0, 0), x, 2, 0, 0, 0.3 + 0.7 * x[0] - 0.004 * x[1]))
    np.testing.assert_allclose(fit(visits), [0.7, -0.004], rtol=1e-9)


def test_the_path_is_drawn(tmp_path):
    plot_path(evolve(RANGE, tokens, corner(0.5, -0.005), OPTIONS), tmp_path / "path.png", "test")
    assert (tmp_path / "path.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("wrong", [{"eta": -1}, {"neighbours": 2}, {"epochs": 0}, {"visits": 2}])
def test_options_that_make_no_sense_are_named(wrong):
    with pytest.raises(ConfigError, match=f"^{next(iter(wrong))} = "):
        EvolutionOptions(**wrong)
