# SPDX-License-Identifier: Apache-2.0
"""The architecture search on Fashion-MNIST: against random and exhaustive search, ranks, speed, real arenas.

    python benchmarks/search.py                                    # trains a supernet on the images in the package
    python benchmarks/search.py --supernet fashion/supernet.pt     # one that benchmarks/fashion_mnist.py made
    python benchmarks/search.py --short                            # the first table alone: a trial of 20 evaluations

Weights are inherited throughout. Search and random sampling select on the same held-out training images, with equally
many evaluations within the same budget; what each selected is then measured on the test images, which nothing was
selected on. The interval of the difference holds 95 % of 10,000 samples, with replacement, of both seeds and test
images. Kendall's tau compares the order of subnets with inherited weights and trained alone, on held-out images.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import sys
import time
from pathlib import Path

import numpy as np
import table
import torch

from mcuformer import Interpreter, convert, nas
from mcuformer.converter.pixels import to_float
from mcuformer.data import Dataset, hold_out, load
from mcuformer.data.image_files import fit_array
from mcuformer.nas import recipes
from mcuformer.nas.cost import Budget, cost_of
from mcuformer.nas.search import HeldOutAccuracy, SearchOptions, search
from mcuformer.nas.split import split_of

SPACE, SMALL_SPACE = "fashion-mnist", "exhaustible"
BUDGET = Budget(sram=10 * 1024, flash=128 * 1024)
OPTIONS = dict(population=60, generations=10, parents=10, children=18)  # 240 evaluations
SHORT_OPTIONS = dict(population=8, generations=2, parents=3, children=6)  # 20
SHORT_EPOCHS = 3
SEEDS = range(5)
DRAWN = 20_000  # subnets drawn, to estimate how many are within the budget
RANKED = 10  # subnets trained alone
ALONE_EPOCHS = 12
CONVERTED = 50
LEAST_FEASIBLE, LEAST_JUDGED, MOST_BEHIND = 100_000, 5_000, 0.003


def trained_supernet(path: Path | None, short: bool):
    """(supernet, data to train on, images to select on, images to test on)."""
    if path is not None:
        supernet = nas.load_supernet(path, nas.load_space(SPACE))
        split = split_of(supernet, path)
        return supernet, split.images, split.kept, load(supernet.notes["data"], "test")
    images, kept = hold_out(load("fashion-mnist", "train"))
    supernet = nas.SuperNet(nas.load_space(SPACE))
    options = recipes.SUPERNET_OPTIONS
    options = dataclasses.replace(options, epochs=SHORT_EPOCHS) if short else options
    result = nas.train(supernet, images, options)
    print(f"supernet: {options.epochs} epochs of {len(images):,} images in {result.seconds:.0f} s\n")
    return supernet, images, kept, load("fashion-mnist", "test")


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


def sized(images: Dataset, config) -> Dataset:
    """The images as a network takes them."""
    return dataclasses.replace(images, images=fit_array(np.array(images.images[:]), config.image_size))


def right(supernet: nas.SuperNet, config, images: Dataset) -> np.ndarray:
    """Whether a subnet is right, image by image."""
    net = supernet.extract(config)
    with torch.inference_mode():
        parts = torch.from_numpy(sized(images, config).images).split(256)
        return torch.cat([net(to_float(part)).argmax(dim=1) for part in parts]).numpy() == images.labels


def against_chance(supernet, accuracy, test: Dataset, options: dict) -> tuple[list[dict], np.ndarray]:
    """Search and random sampling with the same number of evaluations: a row for each seed, and for each seed and test
    image how often search's choice is right less how often random's is."""
    rows, differences = [], []
    for seed in SEEDS:
        result = search(supernet.space, accuracy, cost_of, BUDGET, SearchOptions(seed=seed, **options))
        rng, drawn = random.Random(1000 + seed), {}
        while len(drawn) < len(result.evaluated):
            config = supernet.space.sample(rng)
            if config not in drawn and BUDGET.admits(cost_of(config)):
                drawn[config] = accuracy(config)
        chance = max(drawn, key=drawn.__getitem__)
        found, drawn_right = (right(supernet, config, test) for config in (result.best.config, chance))
        differences.append(found.astype(float) - drawn_right)
        rows.append(
            {"seed": seed, "evaluations": len(drawn), "search": result.best.accuracy, "random": drawn[chance],
             "search_test": float(found.mean()), "random_test": float(drawn_right.mean()), **vars(result.best.cost)}
        )  # fmt: skip
    return rows, np.array(differences)


def interval(differences: np.ndarray, samples: int = 10_000) -> tuple[float, float]:
    """95 % of the mean over seeds and images, both drawn with replacement. differences: [seeds, images]."""
    rng, (seeds, images) = np.random.default_rng(0), differences.shape
    means = [
        differences[rng.integers(0, seeds, seeds)].mean(axis=0)[rng.integers(0, images, images)].mean()
        for _ in range(samples)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def against_all(accuracy) -> dict:
    """The search in a small space, against the best of the whole space."""
    space = nas.load_space(SMALL_SPACE)
    budget = Budget(sram=sorted(cost_of(config).sram for config in space.every())[space.subnets // 2])
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
        nas.train(net, sized(images, config), options)
        alone = nas.evaluate(net, sized(kept, config))
        rows.append({"macs": config.macs, "inherited": accuracy(config), "alone": alone})
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
        images = sized(kept, config).images
        model = convert(supernet.extract(config), images[:32])
        interpreter = Interpreter(model)
        interpreter(images[:1])
        rows.append((cost.sram, interpreter.arena_used_bytes, cost.flash, model.model_bytes))
    return rows


def chance_table(supernet, accuracy, test: Dataset, options: dict) -> tuple[dict, list[dict]]:
    """Search against random: prints the table; (result, requirements)."""
    rows, differences = against_chance(supernet, accuracy, test, options)
    table.show(
        ["seed", "evaluations", "search %", "random %", "search, test %", "random, test %", "arena", "model at most",
         "M instructions"],
        [[r["seed"], r["evaluations"], *(f"{100 * r[key]:.2f}" for key in ("search", "random", "search_test",
          "random_test")), f"{r['sram']:,}", f"{r['flash']:,}", f"{r['instructions'] / 1e6:.2f}"] for r in rows],
    )  # fmt: skip
    mean, (low, high) = float(differences.mean()), interval(differences)
    better, of_images = sum(r["search"] > r["random"] for r in rows), f"{len(test):,} test images"
    print(
        f"search less random on {of_images}: {100 * mean:.2f} points, 95 % interval {100 * low:.2f} to "
        f"{100 * high:.2f}\n"
    )
    return {"chance": rows, "test_margin": mean, "test_interval": [low, high]}, [
        table.requirement("never below random on held-out images", None, all(r["search"] >= r["random"] for r in rows)),
        table.requirement("above random on them in at least 3 of 5 seeds", f"{better}", better >= 3),
        table.requirement(
            f"above random on {of_images}: the interval is above 0", f"{100 * low:.2f} to {100 * high:.2f}", low > 0
        ),
    ]


def exhausted_table(accuracy) -> tuple[dict, list[dict]]:
    """Search in a small space, all of which is evaluated: prints it; (result, requirements)."""
    every = against_all(accuracy)
    print(
        f"space {SMALL_SPACE}: {every['subnets']} subnets, all {every['feasible']} within the budget evaluated: best "
        f"{100 * every['best']:.2f} %; search with at most {every['evaluations']}: "
        + ", ".join(f"{100 * score:.2f}" for score in every["search"]) + " %\n"
    )  # fmt: skip
    behind = max(every["best"] - score for score in every["search"])
    return {"exhausted": every}, [
        table.requirement(
            "within 0.3 points of the best of a small space", f"{100 * behind:.2f} points", behind <= MOST_BEHIND
        )
    ]


def rank_table(space, accuracy, images, kept) -> dict:
    """Subnets with inherited weights and trained alone: prints the table; the result."""
    ranked = ranks(space, accuracy, images, kept)
    table.show(
        ["M MACs", "inherited %", "alone %"],
        [[f"{r['macs'] / 1e6:.2f}", f"{100 * r['inherited']:.2f}", f"{100 * r['alone']:.2f}"] for r in ranked],
    )
    tau = kendall([r["inherited"] for r in ranked], [r["alone"] for r in ranked])
    print(f"Kendall's tau {tau:.2f} over {len(ranked)} subnets, each trained alone for {ALONE_EPOCHS} epochs\n")
    return {"ranks": ranked, "kendall_tau": tau}


def arena_lines(space, supernet, kept) -> tuple[dict, list[dict]]:
    """What converted subnets take, against what was predicted: prints it; (result, requirements)."""
    rows = arenas(space, supernet, kept)
    slack = [predicted - used for predicted, used, _, _ in rows]
    over = [predicted / real - 1 for _, _, predicted, real in rows]
    print(
        f"{len(rows)} random subnets converted: arena {min(slack)} to {max(slack)} bytes below the predicted; "
        f"model {100 * min(over):.1f} to {100 * max(over):.1f} % below\n"
    )
    return {"arenas": rows}, [
        table.requirement("every arena at most the predicted", f"{min(slack)} bytes spare", min(slack) >= 0),
        table.requirement("every model at most the predicted", f"{100 * min(over):.1f} % spare", min(over) >= 0),
    ]


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("--supernet", type=Path, help="of the space fashion-mnist; default: train one")
    parser.add_argument("--short", action="store_true", help="a small search against random, and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    space = nas.load_space(SPACE)
    supernet, images, kept, test = trained_supernet(arguments.supernet, arguments.short)
    accuracy = functools.cache(HeldOutAccuracy(supernet, kept))
    if arguments.short:
        result, _ = chance_table(supernet, accuracy, test, SHORT_OPTIONS)  # too few evaluations to require anything
        return table.finish(result, [], arguments.json)
    result = {"judged_per_second": speed(space), "subnets": space.subnets, "feasible": feasible(space)}
    print(
        f"space {SPACE}: {space.subnets:,} subnets, about {result['feasible']:,} within {BUDGET.sram:,} bytes of "
        f"arena and {BUDGET.flash:,} of model; {len(kept):,} held-out images\n"
    )
    chance, above_chance = chance_table(supernet, accuracy, test, OPTIONS)
    exhausted, near_best = exhausted_table(accuracy)
    ranked = rank_table(space, accuracy, images, kept)
    predicted, within = arena_lines(space, supernet, kept)
    requirements = [
        table.requirement(
            f"at least {LEAST_FEASIBLE:,} feasible subnets", f"{result['feasible']:,}",
            result["feasible"] >= LEAST_FEASIBLE,
        ),
        table.requirement(
            f"at least {LEAST_JUDGED:,} candidates judged a second of one core",
            f"{result['judged_per_second']:,.0f}", result["judged_per_second"] >= LEAST_JUDGED,
        ),
    ]  # fmt: skip
    return table.finish(
        result | chance | exhausted | ranked | predicted, requirements + above_chance + near_best + within,
        arguments.json,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
