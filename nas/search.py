# SPDX-License-Identifier: Apache-2.0
"""Evolutionary search for the best subnets of a space within a budget.

Accuracy and cost are passed in as functions. Subnets over the budget are never evaluated, nothing is evaluated twice,
every loop is bounded. The result depends only on options and accuracies: the same seed gives the same result, and a
killed search continues from its log to the same result.
"""

from __future__ import annotations

import dataclasses
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from mcuformer.checks import finite, whole
from mcuformer.converter.pixels import to_float
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.data import Dataset
from mcuformer.errors import ConfigError
from mcuformer.nas import distributed
from mcuformer.nas.append_log import AppendLog
from mcuformer.nas.cost import Budget, Cost, check_reachable
from mcuformer.nas.evaluation import check_fit, mixed
from mcuformer.nas.held_out import read_once
from mcuformer.nas.predictor import Predictor
from mcuformer.nas.search_space import SearchSpace
from mcuformer.nas.supernet import SuperNet

FORMAT = "mcuformer.search/1"
TRIES = 200  # candidates drawn per subnet of the first generation,
CHILD_TRIES = 20  # and per child
MAX_DEVICE_BYTES = 4 * 2**30  # of held-out images that stay on a GPU


@dataclass(frozen=True)
class SearchOptions:
    """How the search goes.

    population    subnets of the first generation
    generations   that follow
    parents       the best so far; each following generation is made from them
    children      new subnets per generation, half by mutation, half by crossover
    mutation      probability that a choice is drawn again
    drawn         candidates per child, of which the one with the best predicted accuracy is taken. 1: no prediction;
                  with objective "front" there is none
    objective     "accuracy", or "front": parents are the subnets that no other beats in accuracy, SRAM and
                  instructions at once
    seed          of every random choice
    """

    population: int = 50
    generations: int = 10
    parents: int = 10
    children: int = 25
    mutation: float = 0.2
    drawn: int = 8
    objective: str = "accuracy"
    seed: int = 0

    def __post_init__(self) -> None:
        least_of = {"population": 1, "generations": 0, "parents": 1, "children": 1, "drawn": 1, "seed": 0}
        for name, least in least_of.items():
            whole(name, getattr(self, name), least)
        if not isinstance(self.mutation, float | int) or not 0 < self.mutation <= 1:
            raise ConfigError(f"mutation = {self.mutation!r}: must be a number above 0, at most 1")
        if self.objective not in ("accuracy", "front"):
            raise ConfigError(f"objective = {self.objective!r}: must be one of accuracy, front")

    @property
    def evaluations(self) -> int:
        """The most subnets that will be evaluated."""
        return self.population + self.generations * self.children


@dataclass(frozen=True)
class Found:
    """An evaluated subnet. accuracy: from 0 to 1."""

    config: SubnetConfig
    accuracy: float
    cost: Cost


@dataclass(frozen=True)
class SearchResult:
    """best: the most accurate (of equals, the one with less SRAM); front: those that no other beats in accuracy, SRAM
    and instructions at once, by SRAM; evaluated: all, in order; judged: candidates whose cost was computed."""

    best: Found
    front: tuple[Found, ...]
    evaluated: tuple[Found, ...]
    judged: int


def search(
    space: SearchSpace,
    accuracy: Callable[[SubnetConfig], float],
    cost: Callable[[SubnetConfig], Cost],
    budget: Budget,
    options: SearchOptions,
    *,
    log: str | os.PathLike | None = None,
    identity: dict | None = None,
    progress: Callable[[int, int, float], object] | None = None,
) -> SearchResult:
    """Searches the space. Under torchrun, in a process_group(), processes share the evaluations and all get the result.

    log       a file that gets a line per evaluation; if it exists, the search continues from it
    identity  plain values that the log must share, besides space, budget and options, such as the supernet's
    progress  called with evaluations done, the most there will be, and the best accuracy so far

    PlanError if nothing meets the budget, ConfigError if the log belongs to another search.
    """
    start = check_reachable(space, cost, budget)
    known = AppendLog(
        log,
        FORMAT,
        {
            "space": space.to_dict(),
            "budget": budget.to_dict(),
            "options": dataclasses.asdict(options),
            **(identity or {}),
        },
        _remembered,
    )
    run = _Search(space, accuracy, cost, budget, options, known, progress)
    run.evaluate(run.first(start))
    for _ in range(options.generations):
        children = run.children()
        if not children:
            break
        run.evaluate(children)
    found = run.found
    return SearchResult(min(found, key=_order), front_of(found), tuple(found), len(run.costs))


def _remembered(entry: dict) -> tuple[SubnetConfig, float]:
    """A subnet and its accuracy, of the log. KeyError or an error of what makes no sense."""
    return SubnetConfig.from_dict(entry["config"]), finite("accuracy", entry["accuracy"])


def front_of(found: list[Found]) -> tuple[Found, ...]:
    """Those that no other beats in accuracy, SRAM and instructions at once, by SRAM."""
    first = [found[i] for i in _fronts(found, 1)[0]]
    return tuple(sorted(first, key=lambda f: (f.cost.sram, f.cost.instructions, _order(f))))


class _Search:
    """The state of one search: what was judged and evaluated, and the random source."""

    def __init__(self, space, accuracy, cost, budget, options: SearchOptions, log: AppendLog, progress):
        self.space, self.accuracy, self.cost, self.budget = space, accuracy, cost, budget
        self.options, self.log, self.progress = options, log, progress
        self.rng = random.Random(options.seed)
        self.remembered: dict[SubnetConfig, float] = dict(log.entries)
        self.costs: dict[SubnetConfig, Cost] = {}
        self.found: list[Found] = []
        self.seen: set[SubnetConfig] = set()

    def first(self, start: list[SubnetConfig]) -> list[SubnetConfig]:
        """Drawn from the whole space; if few of those fit, mutated from ones that do."""
        wanted = self.options.population
        chosen = self._draw(wanted, lambda: self.space.sample(self.rng))
        if len(chosen) < wanted:
            chosen += self._draw(
                wanted - len(chosen),
                lambda: self.space.mutate(self.rng.choice(start), self.rng, self.options.mutation),
            )
        if not chosen:
            chosen = start[:1]
            self.seen.update(chosen)
        return chosen

    def children(self) -> list[SubnetConfig]:
        """Half mutated, half crossed over; the most promising of several candidates each."""
        options, rng, parents = self.options, self.rng, self._parents()
        factor = options.drawn if options.objective == "accuracy" else 1
        crossed = options.children // 2

        def cross() -> SubnetConfig:
            return self.space.cross(rng.choice(parents), rng.choice(parents), rng)

        def mutate() -> SubnetConfig:
            return self.space.mutate(rng.choice(parents), rng, options.mutation)

        drawn = self._draw(crossed * factor, cross, CHILD_TRIES)
        chosen = self._promising(drawn, crossed)
        left = options.children - len(chosen)
        more = self._draw(left * factor, mutate, CHILD_TRIES)
        chosen = distributed.from_first(chosen + self._promising(more, left))
        self.seen.difference_update(drawn, more)
        self.seen.update(chosen)
        return chosen

    def _promising(self, configs: list[SubnetConfig], count: int) -> list[SubnetConfig]:
        """The candidates with the highest predicted accuracy."""
        if len(configs) <= count:
            return configs
        known = Predictor(self.space, [f.config for f in self.found], [f.accuracy for f in self.found])
        order = np.argsort(-known.predict(configs), kind="stable")
        return [configs[i] for i in order[:count]]

    def _draw(self, wanted: int, make: Callable[[], SubnetConfig], tries: int = TRIES) -> list[SubnetConfig]:
        """Up to `wanted` new subnets within the budget, with that many tries each."""
        chosen: list[SubnetConfig] = []
        for _ in range(wanted * tries):
            if len(chosen) == wanted:
                break
            config = make()
            if config not in self.seen and self.budget.admits(self._cost(config)):
                self.seen.add(config)
                chosen.append(config)
        return chosen

    def _cost(self, config: SubnetConfig) -> Cost:
        if config not in self.costs:
            self.costs[config] = self.cost(config)
        return self.costs[config]

    def evaluate(self, configs: list[SubnetConfig]) -> None:
        """Takes accuracies from the log, else from the function, shared among all processes."""
        new = [config for config in configs if config not in self.remembered]
        done = len(self.found) + len(configs) - len(new)
        for at in range(0, len(new), distributed.ranks()):
            mine = new[at + distributed.rank() : at + distributed.rank() + 1]
            values = distributed.from_all([float(self.accuracy(config)) for config in mine])
            for config, (value,) in zip(new[at:], [v for v in values if v], strict=False):
                self.remembered[config] = finite(f"the accuracy of {config}", value)
                self.log.append({"config": config.to_dict(), "accuracy": value})
            if self.progress is not None:
                done = min(done + distributed.ranks(), len(self.found) + len(configs))
                best = max([f.accuracy for f in self.found] + [self.remembered[c] for c in new[: at + 1]])
                self.progress(done, self.options.evaluations, best)
        self.found += [Found(config, self.remembered[config], self._cost(config)) for config in configs]

    def _parents(self) -> list[SubnetConfig]:
        count = self.options.parents
        if self.options.objective == "accuracy":
            return [found.config for found in sorted(self.found, key=_order)[:count]]
        chosen: list[SubnetConfig] = []
        for front in _fronts(self.found, count):
            members = [self.found[i] for i in front]
            spread = _crowding(members)
            order = sorted(range(len(members)), key=lambda i: (-spread[i], _order(members[i])))  # noqa: B023
            chosen += [members[i].config for i in order]
        return chosen[:count]


def _order(found: Found) -> tuple:
    return (-found.accuracy, found.cost.sram, found.cost.instructions, found.config.to_json())


def _values(found: list[Found]) -> np.ndarray:
    return np.array([(-f.accuracy, f.cost.sram, f.cost.instructions or 0) for f in found], float)  # 0: unknown for all


def _fronts(found: list[Found], count: int) -> list[np.ndarray]:
    """Indices by front, the best first, until `count` are in them."""
    values, left = _values(found), np.arange(len(found))
    fronts: list[np.ndarray] = []
    while len(left) and sum(map(len, fronts)) < count:
        v = values[left]
        beaten = ((v[:, None] <= v[None]).all(2) & (v[:, None] < v[None]).any(2)).any(0)
        fronts.append(left[~beaten])
        left = left[beaten]
    return fronts


def _crowding(found: list[Found]) -> np.ndarray:
    """How far apart a member's neighbours on the front are; infinite at its ends (NSGA-II)."""
    values, distance = _values(found), np.zeros(len(found))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if span > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


class HeldOutAccuracy:
    """Top-1 of a supernet's subnets, with inherited weights, on images that it was not trained on.

    precision: as TrainOptions has it. Images in files are decoded once; on a GPU they stay if they need at most
    MAX_DEVICE_BYTES. The supernet's kernels are kept channels last from now on, in which convolutions are quicker
    (benchmarks/evaluation_time.py).
    """

    def __init__(self, supernet: SuperNet, held_out: Dataset, batch_size: int = 256, precision: str = "float32"):
        check_fit(supernet, held_out)
        supernet.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.supernet, self.precision, self.batch_size = supernet, precision, batch_size
        self.where = next(supernet.parameters()).device
        self.images = read_once(held_out).images
        self.labels = torch.from_numpy(np.array(held_out.labels)).to(self.where)
        self.stay = math.prod(self.images.shape) <= MAX_DEVICE_BYTES
        self.batches = list(self._batches()) if self.stay else None

    def _batches(self) -> Iterator[torch.Tensor]:
        """uint8, on the network's device."""
        for start in range(0, len(self.labels), self.batch_size):
            yield torch.from_numpy(np.array(self.images[start : start + self.batch_size])).to(self.where)

    def __call__(self, config: SubnetConfig) -> float:
        correct = 0
        with torch.inference_mode(), mixed(self.precision, self.where):
            for x, y in zip(self.batches or self._batches(), self.labels.split(self.batch_size), strict=True):
                correct += int((self.supernet(to_float(x), config).argmax(1) == y).sum())
        return correct / len(self.labels)
