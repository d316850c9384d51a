# SPDX-License-Identifier: Apache-2.0
"""Evolution of the search space: the window (rank ratio, tokens) moves to where supernets are accurate and subnets fit.

MCUFormer, memory-constrained search. The score of a space is S = A + eta * R: A the accuracy of its supernet, R the
share of its subnets that fit: in SRAM in the paper, in all limits given here. Around the present space,
S = w^T x + S_0 is fitted over the k nearest spaces with equally many epochs (x = rank ratio and tokens at the window's
middle), and the window moves by

    x_i <- x_i + [w_i / h_i] * delta_i        [ ]: toward zero; delta_i: to the next value; clipped to the range

The paper prints a minus; S should grow, so we use plus. A linear fit holds only locally, and accuracy rises with
epochs: hence neighbours only, and only those with equal epochs. If they are too few, or on a line, the k nearest with
fewer epochs are trained on, t epochs at a time.
"""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mcuformer.checks import finite, whole
from mcuformer.errors import ConfigError, McuformerWarning
from mcuformer.nas import distributed
from mcuformer.nas.append_log import AppendLog
from mcuformer.nas.search_space import EvolutionRange

FORMAT = "mcuformer.evolution/1"
Place = tuple[int, int]


@dataclass(frozen=True)
class EvolutionOptions:
    """eta: weight of R in S; neighbours: k, spaces per fit; epochs: t, per visit; visits: at most."""

    eta: float = 0.5
    neighbours: int = 5
    epochs: int = 2
    visits: int = 20

    def __post_init__(self) -> None:
        for name, least in (("neighbours", 3), ("epochs", 1), ("visits", 3)):
            whole(name, getattr(self, name), least)
        if not isinstance(self.eta, int | float) or not 0 <= self.eta < math.inf:
            raise ConfigError(f"eta = {self.eta!r}: must be a number from 0")


@dataclass(frozen=True)
class Visit:
    """A space after `epochs` epochs. place: its window's; x: rank ratio and tokens; score = accuracy + eta * share."""

    place: Place
    x: tuple[float, float]
    epochs: int
    accuracy: float
    share: float
    score: float


@dataclass(frozen=True)
class EvolutionResult:
    """path: the spaces of the window, in order; visits: all trainings, in order; best: the highest score among the
    spaces with as many epochs as the last of the path; converged: whether the window came to rest in time."""

    best: Visit
    path: tuple[Visit, ...]
    visits: tuple[Visit, ...]
    converged: bool


class _Spent(Exception):
    """No visits left."""


def position(evolution: EvolutionRange, tokens: Callable[[int], int], place: Place) -> tuple[float, float]:
    """x of a place: mean rank ratio and mean number of tokens of its window."""
    (rank, patch), (ranks, patches) = place, evolution.window
    ratios = evolution.rank_ratio[rank : rank + ranks]
    return sum(ratios) / ranks, sum(map(tokens, evolution.patch_size[patch : patch + patches])) / patches


def evolve(
    evolution: EvolutionRange,
    tokens: Callable[[int], int],
    measure: Callable[[Place, int], tuple[float, float]],
    options: EvolutionOptions,
    *,
    log: str | os.PathLike | None = None,
    identity: dict | None = None,
    progress: Callable[[int, int, Visit], object] | None = None,
) -> EvolutionResult:
    """Moves the window until it converges or the visits run out.

    tokens    number of tokens for a patch size
    measure   trains the supernet at a place up to that many epochs, continuing from before, and returns A and R
    log       a file that gets a line per visit; if it exists, the evolution repeats it and continues
    identity  plain values that the log must share, besides the range and all options except the number of visits
    progress  called after each visit with visits done, the most there will be, and the visit
    """
    _check_start(evolution)
    rule = dataclasses.asdict(options)
    del rule["visits"]  # visits may be added later
    known = AppendLog(
        log,
        FORMAT,
        {"range": dataclasses.asdict(evolution), "options": rule, **(identity or {})},
        _remembered,
    )
    return _Evolution(evolution, tokens, measure, options, known, progress).run()


def _remembered(entry: dict) -> tuple[tuple[Place, int], tuple[float, float]]:
    """A visit of the log. KeyError or an error of what makes no sense."""
    rank, patch = entry["place"]
    place = whole("place", rank, 0), whole("place", patch, 0)
    scores = finite("accuracy", entry["accuracy"]), finite("share", entry["share"])
    return (place, whole("epochs", entry["epochs"], 1)), scores


class _Evolution:
    def __init__(self, evolution, tokens, measure, options: EvolutionOptions, log: AppendLog, progress):
        self.evolution, self.tokens, self.measure, self.options = evolution, tokens, measure, options
        self.log, self.progress = log, progress
        self.remembered: dict[tuple[Place, int], tuple[float, float]] = dict(log.entries)
        self.visits: list[Visit] = []
        self.at: dict[tuple[Place, int], Visit] = {}  # by place and epochs
        self.epochs: dict[Place, int] = {}  # that each place has now

    def run(self) -> EvolutionResult:
        path, converged = [], False
        try:
            starts = [self._visit(place) for place in self.evolution.start]
            path.append(max(starts, key=_order))
            while not converged:
                place = self._step(path[-1])
                if place == path[-1].place:
                    converged = True
                else:
                    path.append(self._visit(place))
        except _Spent:
            if not path:
                path.append(max(self.visits, key=_order))
        rivals = [visit for visit in self.visits if visit.epochs == path[-1].epochs]
        return EvolutionResult(max(rivals, key=_order), tuple(path), tuple(self.visits), converged)

    def _visit(self, place: Place) -> Visit:
        """Trains the space at a place for t more epochs, and scores it."""
        if len(self.visits) == self.options.visits:
            raise _Spent
        epochs = self.epochs.get(place, 0) + self.options.epochs
        if (place, epochs) in self.remembered:
            accuracy, share = self.remembered[place, epochs]
        else:
            accuracy, share = distributed.from_first(tuple(map(float, self.measure(place, epochs))))
            for name, value in (("accuracy", accuracy), ("share", share)):
                finite(f"{name} of place {place}", value)
            self.log.append({"place": place, "epochs": epochs, "accuracy": accuracy, "share": share})
        x = position(self.evolution, self.tokens, place)
        visit = Visit(place, x, epochs, accuracy, share, accuracy + self.options.eta * share)
        self.visits.append(visit)
        self.epochs[place] = epochs
        self.at[place, epochs] = visit
        if self.progress is not None:
            self.progress(len(self.visits), self.options.visits, visit)
        return visit

    def _step(self, now: Visit) -> Place:
        """The place that the fit around `now` leads to."""
        slope = fit(self._neighbours(now))
        moved = []
        # Tokens fall as the patch size rises.
        for axis, sign in ((0, 1), (1, -1)):
            steps = math.trunc(slope[axis] / self.evolution.threshold[axis])
            most = self.evolution.places[axis] - 1
            moved.append(min(max(now.place[axis] + sign * steps, 0), most))
        return distributed.from_first(tuple(moved))

    def _neighbours(self, now: Visit) -> list[Visit]:
        """The k nearest spaces with as many epochs, `now` among them."""
        found = self._nearest(now)
        if not spans(found, self.evolution):
            fewer = sorted((p for p, e in self.epochs.items() if e < now.epochs), key=lambda p: _distance(p, now.place))
            for place in fewer[: self.options.neighbours]:
                while self.epochs[place] < now.epochs:
                    self._visit(place)
            found = self._nearest(now)
        return found

    def _nearest(self, now: Visit) -> list[Visit]:
        """The k nearest with as many epochs; more if those are on a line."""
        equal = [visit for (_, epochs), visit in self.at.items() if epochs == now.epochs]
        equal.sort(key=lambda visit: _distance(visit.place, now.place))
        count = min(self.options.neighbours, len(equal))
        while count < len(equal) and not spans(equal[:count], self.evolution):
            count += 1
        return equal[:count]


def warn_of_flat(visits: Sequence[Visit], guess: float, images: int) -> None:
    """A McuformerWarning for each part of S that led nowhere: R the same in all visits, or no A above chance.

    guess: the share of the held-out images that who always names their commonest class has right; images: how many
    they are. A is at chance up to two standard errors above it.
    """
    if len({visit.share for visit in visits}) == 1:
        warnings.warn(
            f"R is {visits[0].share:.3f} in all {len(visits)} visits: the limits decided nothing, accuracy alone led "
            "the window; give limits that some subnets meet and others do not",
            McuformerWarning,
            stacklevel=2,
        )
    best = max(visit.accuracy for visit in visits)
    if best <= guess + 2 * math.sqrt(guess * (1 - guess) / images):
        warnings.warn(
            f"A is at most {best:.4f} in all visits, no better than guessing ({guess:.4f} of {images:,} held-out "
            "images): accuracy did not lead the window; give more epochs, or more images",
            McuformerWarning,
            stacklevel=2,
        )


def fit(visits: list[Visit]) -> np.ndarray:
    """w of S = w^T x + S_0 by least squares; if the places do not determine it, the smallest w, in places."""
    x = np.array([visit.x for visit in visits])
    scale = np.where(np.ptp(x, axis=0) > 0, np.ptp(x, axis=0), 1.0)
    columns = np.column_stack([(x - x[0]) / scale, np.ones(len(x))])
    solution, *_ = np.linalg.lstsq(columns, np.array([visit.score for visit in visits]), rcond=1e-9)
    return solution[:2] / scale


def spans(visits: list[Visit], evolution: EvolutionRange) -> bool:
    """Whether the places determine a slope along every axis on which a window can move."""
    return _rank([visit.place for visit in visits]) >= sum(count > 1 for count in evolution.places)


def _check_start(evolution: EvolutionRange) -> None:
    if _rank(list(evolution.start)) < sum(count > 1 for count in evolution.places):
        raise ConfigError(
            f"evolution.start = {[list(place) for place in evolution.start]}: give at least three places not on a line"
        )


def _rank(places: list[Place]) -> int:
    return int(np.linalg.matrix_rank(np.array(places) - np.array(places[:1]))) if places else 0


def _distance(a: Place, b: Place) -> tuple:
    return math.dist(a, b), a


def _order(visit: Visit) -> tuple:
    return visit.score, tuple(-at for at in visit.place)
