# SPDX-License-Identifier: Apache-2.0
"""The architecture search on Fashion-MNIST: against random and exhaustive search, ranks, speed, real arenas.

    python benchmarks/search.py                                    # trains a supernet on the images in the package
    python benchmarks/search.py --supernet fashion/supernet.pt     # one that benchmarks/fashion_mnist.py made

Validation accuracy throughout: held-out training images, inherited weights, the same for search and random sampling.
Columns: search, random: the best of equally many evaluations within the same budget. Kendall's tau compares the order
of subnets with inherited weights and trained alone.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np
import table
import torch

from mcuformer import Interpreter, convert, nas
from mcuformer.data import hold_out, load
from mcuformer.nas import recipes
from mcuformer.nas.cost import Budget, cost_of
from mcuformer.nas.search import HeldOutAccuracy, SearchOptions, search
from mcuformer.nas.split import split_of

SPACE, SMALL_SPACE = "fashion-mnist", "exhaustible"
BUDGET = Budget(sram=32 * 1024, flash=128 * 1024)
OPTIONS = dict(population=60, generations=10, parents=10, children=18)  # 240 evaluations
SEEDS = range(5)
DRAWN = 20_000  # subnets drawn, to estimate how many are within the budget
RANKED = 10  # subnets trained alone
ALONE_EPOCHS = 12
CONVERTED = 50
LEAST_FEASIBLE, LEAST_JUDGED, MOST_BEHIND = 100_000, 5_000, 0.003


def trained_supernet(path: Path | None):
    """(supernet, data to train on, images to select on)."""
    if path is not None:
        supernet = nas.load_supernet(path, nas.load_space(SPACE))
        split = split_of(supernet, path)
        return supernet, split.images, split.kept
    images, kept = hold_out(load("fashion-mnist", "train"))
    supernet = nas.SuperNet(nas.load_space(SPACE))
    result = nas.train(supernet, images, recipes.SUPERNET_OPTIONS)
    print(f"supernet: {recipes.SUPERNET_OPTIONS.epochs} epochs of {len(images):,} images in {result.seconds:.0f} s\n")
    return supernet, images, kept


def speed(space) -> float:
    """Candidates drawn and judged per second of one core's time."""
    rng, count = random.Random(1), 10_000
    start = time.process_time()
    for _ in range(count):
        BUDGET.admits(cost_of(space.sample(rng)))
    return count / (time.process_time() - start)


def feasible(space) -> int:
    """How many subnets are within the budget, estimated."""
    rng = random.Random(2)
    return round(space.subnets * sum(BUDGET.admits(cost_of(space.sample(rng))) for _ in range(DRAWN)) / DRAWN)


def against_chance(space, accuracy) -> list[dict]:
    """Search and random sampling with the same number of evaluations, for each seed."""
    rows = []
    for seed in SEEDS:
        result = search(space, accuracy, cost_of, BUDGET, SearchOptions(seed=seed, **OPTIONS))
        rng, drawn = random.Random(1000 + seed), set()
        while len(drawn) < len(result.evaluated):
            config = space.sample(rng)
            if BUDGET.admits(cost_of(config)):
                drawn.add(config)
        chance = max(map(accuracy, drawn))
        rows.append(
            {"seed": seed, "evaluations": len(drawn), "search": result.best.accuracy, "random": chance,
             **vars(result.best.cost)}
        )  # fmt: skip
    return rows


def against_all(accuracy) -> dict:
    """The search in a small space, against the best of the whole space."""
    space = nas.load_space(SMALL_SPACE)
    budget = Budget(flash=sorted(cost_of(config).flash for config in space.every())[space.subnets // 2])
    scores = [accuracy(config) for config in space.every() if budget.admits(cost_of(config))]
    options = SearchOptions(population=20, generations=5, parents=6, children=8)
    found = [search(space, accuracy, cost_of, budget, SearchOptions(**{**vars(options), "seed": s})) for s in SEEDS]
    return {
        "subnets": space.subnets, "feasible": len(scores), "evaluations": options.evaluations, "best": max(scores),
        "search": [result.best.accuracy for result in found],
    }  # fmt: skip


def ranks(space, accuracy, images, kept) -> list[dict]:
    """Subnets from the smallest to the largest: with inherited weights, and trained alone."""
    rng = random.Random(3)
    drawn = sorted((space.sample(rng) for _ in range(200)), key=lambda config: config.macs)
    chosen = [drawn[i] for i in np.linspace(0, len(drawn) - 1, RANKED - 2).astype(int)]
    rows = []
    for config in [space.smallest(), *chosen, space.largest()]:
        net = nas.build_subnet(config)
        options = nas.TrainOptions(epochs=ALONE_EPOCHS, learning_rate=2e-3)
        nas.train(net, images, options)
        rows.append(
            {"macs": config.macs, "inherited": accuracy(config), "alone": nas.evaluate(net, kept)},
        )
    return rows


def kendall(a: list[float], b: list[float]) -> float:
    """Kendall's tau-b: of all pairs, those in the same order less those in the opposite one; ties count as neither."""
    x, y = (np.sign(np.subtract.outer(v, v))[np.triu_indices(len(v), 1)] for v in (a, b))
    return float((x * y).sum() / np.sqrt((x != 0).sum() * (y != 0).sum()))


def arenas(space, supernet, kept) -> list[tuple[int, int, int, int]]:
    """(predicted arena, used, predicted model bytes, real) of random subnets within the budget, converted."""
    rng, rows = random.Random(4), []
    while len(rows) < CONVERTED:
        config = space.sample(rng)
        cost = cost_of(config)
        if not BUDGET.admits(cost):
            continue
        model = convert(supernet.extract(config), kept.images[:32])
        interpreter = Interpreter(model)
        interpreter(kept.images[:1])
        rows.append((cost.sram, interpreter.arena_used_bytes, cost.flash, model.model_bytes))
    return rows


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("--supernet", type=Path, help="of the space fashion-mnist; default: train one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    space = nas.load_space(SPACE)
    supernet, images, kept = trained_supernet(arguments.supernet)
    accuracy = HeldOutAccuracy(supernet, kept)
    memory = {}

    def remembered(config) -> float:
        if config not in memory:
            memory[config] = accuracy(config)
        return memory[config]

    result = {"judged_per_second": speed(space), "subnets": space.subnets, "feasible": feasible(space)}
    print(
        f"space {SPACE}: {space.subnets:,} subnets, about {result['feasible']:,} within {BUDGET.sram:,} bytes of "
        f"arena and {BUDGET.flash:,} of model; {len(kept):,} held-out images\n"
    )
    chance = result["chance"] = against_chance(space, remembered)
    table.show(
        ["seed", "evaluations", "search %", "random %", "arena", "model at most", "M instructions"],
        [[r["seed"], r["evaluations"], f"{100 * r['search']:.2f}", f"{100 * r['random']:.2f}", f"{r['sram']:,}",
          f"{r['flash']:,}", f"{r['instructions'] / 1e6:.2f}"] for r in chance],
    )  # fmt: skip
    every = result["exhausted"] = against_all(remembered)
    print(
        f"\nspace {SMALL_SPACE}: {every['subnets']} subnets, all {every['feasible']} within the budget evaluated: best "
        f"{100 * every['best']:.2f} %; search with at most {every['evaluations']}: "
        + ", ".join(f"{100 * score:.2f}" for score in every["search"]) + " %\n"
    )  # fmt: skip
    ranked = result["ranks"] = ranks(space, remembered, images, kept)
    table.show(
        ["M MACs", "inherited %", "alone %"],
        [[f"{r['macs'] / 1e6:.2f}", f"{100 * r['inherited']:.2f}", f"{100 * r['alone']:.2f}"] for r in ranked],
    )
    tau = result["kendall_tau"] = kendall([r["inherited"] for r in ranked], [r["alone"] for r in ranked])
    print(f"Kendall's tau {tau:.2f} over {len(ranked)} subnets, each trained alone for {ALONE_EPOCHS} epochs\n")
    rows = result["arenas"] = arenas(space, supernet, kept)
    slack = [predicted - used for predicted, used, _, _ in rows]
    over = [predicted / real - 1 for _, _, predicted, real in rows]
    print(
        f"{len(rows)} random subnets converted: arena {min(slack)} to {max(slack)} bytes below the predicted; "
        f"model {100 * min(over):.1f} to {100 * max(over):.1f} % below\n"
    )
    better = sum(r["search"] > r["random"] for r in chance)
    behind = max(every["best"] - score for score in every["search"])
    return table.finish(
        result,
        [
            table.requirement(
                f"at least {LEAST_FEASIBLE:,} feasible subnets", f"{result['feasible']:,}",
                result["feasible"] >= LEAST_FEASIBLE,
            ),
            table.requirement(
                f"at least {LEAST_JUDGED:,} candidates judged a second of one core",
                f"{result['judged_per_second']:,.0f}", result["judged_per_second"] >= LEAST_JUDGED,
            ),
            table.requirement("never below random", None, all(r["search"] >= r["random"] for r in chance)),
            table.requirement("above random in at least 3 of 5 seeds", f"{better}", better >= 3),
            table.requirement(
                "within 0.3 points of the best of a small space", f"{100 * behind:.2f} points", behind <= MOST_BEHIND
            ),
            table.requirement("every arena at most the predicted", f"{min(slack)} bytes spare", min(slack) >= 0),
            table.requirement("every model at most the predicted", f"{100 * min(over):.1f} % spare", min(over) >= 0),
        ],
        arguments.json,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
