# SPDX-License-Identifier: Apache-2.0
"""How wide the window of an evolution of the space should be: one rank ratio and one patch size, or several of each.

    python benchmarks/window.py             # a quarter of an hour of one core
    python benchmarks/window.py --short     # one seed, few images: that it runs

The paper's window holds one rank ratio and one patch size, so that all subnets of a supernet share them. A wider one
lets the search choose among several, at the price of a supernet that must hold them all. Each window gets the same
visits, each of the same epochs; then the best space's supernet is trained anew, for equally many epochs; then it is
searched, with equally many evaluations, within the same budget of arena and model. What the search selected on held-out
training images is measured on the test images, with inherited weights. The intervals hold 95 % of 10,000 samples, with
replacement, of both seeds and test images.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import table
import torch
from search import interval, right

from mcuformer import nas
from mcuformer.boards import get_board
from mcuformer.cli.evolve import evolve
from mcuformer.data import hold_out, load
from mcuformer.nas import recipes
from mcuformer.nas.cost import Budget, cost_of
from mcuformer.nas.evolve_space import EvolutionOptions
from mcuformer.nas.search import HeldOutAccuracy, SearchOptions, search
from mcuformer.nas.search_space import EvolutionRange, SearchSpace

DATA, BOARD = "fashion-mnist", "nano33ble"
BUDGET = Budget(sram=10_000, flash=80_000)  # admits a third of the largest networks, and all or none by patch and rank
RANKS, PATCHES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7), (4, 5, 6, 8)
THRESHOLD = (0.05, 0.0005)
WINDOWS = ((1, 1), (3, 3))
SEEDS = range(5)
LIMIT = 5_000  # training images, of which some are held out
VISITS, EPOCHS = 7, 2  # of an evolution
FINAL_EPOCHS = 14  # of the best space's supernet
SEARCH = SearchOptions(population=40, generations=5, parents=8, children=12)  # 100 evaluations


def space_of(window: tuple[int, int]) -> SearchSpace:
    """The space whose window has that many rank ratios and patch sizes; it starts from corners, whatever its size."""
    ranks, patches = (len(axis) - count for axis, count in zip((RANKS, PATCHES), window, strict=True))  # last places
    start = ((ranks // 3, 0), (ranks // 3, patches), (ranks, 0))
    return SearchSpace(
        image_size=32, in_channels=1, num_classes=10, patch_size=PATCHES[: window[1]], embed_dim=(48, 64),
        depth=(2, 3), head_dim=16, num_heads=(2, 4), kv_heads=(1, "all"), mlp_ratio=(2.0, 4.0),
        rank_ratio=RANKS[: window[0]], evolution=EvolutionRange(RANKS, PATCHES, window, THRESHOLD, start),
    )  # fmt: skip


def found_with(window: tuple[int, int], seed: int, limit: int) -> tuple[dict, np.ndarray]:
    """(A row of the table, whether the network found is right on each test image) after evolution, training, search."""
    start, training = time.process_time(), dataclasses.replace(recipes.evolution_options(EPOCHS), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        evolved = evolve(
            space_of(window), data=DATA, board=BOARD, sram=BUDGET.sram, flash=BUDGET.flash, limit=limit,
            options=EvolutionOptions(epochs=EPOCHS, visits=VISITS), training=training, folder=Path(folder) / "visits",
            output=Path(folder) / "space.yaml",
        )  # fmt: skip
    space, visits = evolved.space, evolved.evolution.visits
    images, kept = hold_out(load(DATA, "train", limit=limit))
    supernet = nas.SuperNet(space, seed)
    epochs = FINAL_EPOCHS + EPOCHS * (VISITS - len(visits))  # what an evolution at rest did not spend
    nas.train(supernet, images, dataclasses.replace(recipes.SUPERNET_OPTIONS, epochs=epochs, seed=seed))
    accuracy = functools.cache(HeldOutAccuracy(supernet, kept))
    cost = functools.partial(cost_of, board=get_board(BOARD))
    best = search(space, accuracy, cost, BUDGET, dataclasses.replace(SEARCH, seed=seed)).best
    correct = right(supernet, best.config, load(DATA, "test"))
    ranks = sorted(set(best.config.rank_ratio))
    return {
        "window": list(window), "seed": seed, "visits": len(visits), "ranks": list(space.rank_ratio),
        "patches": list(space.patch_size), "patch": best.config.patch_size, "found_ranks": ranks,
        "held_out": best.accuracy, "test": float(correct.mean()), "sram": best.cost.sram, "flash": best.cost.flash,
        "seconds": time.process_time() - start,
    }, correct  # fmt: skip


def show(rows: list[dict]) -> None:
    table.show(
        ["window", "seed", "visits", "space: ranks", "patches", "found: ranks", "patch", "held-out %", "test %",
         "arena", "model at most", "s"],
        [["x".join(map(str, r["window"])), r["seed"], r["visits"], *(" ".join(map(str, r[key])) for key in
          ("ranks", "patches", "found_ranks")), r["patch"], f"{100 * r['held_out']:.2f}", f"{100 * r['test']:.2f}",
          f"{r['sram']:,}", f"{r['flash']:,}", f"{r['seconds']:.0f}"] for r in rows],
    )  # fmt: skip


def differences(correct: dict[tuple[int, int], np.ndarray]) -> list[dict]:
    """What each wider window gains over the paper's on test images. correct: [seeds, images] by window."""
    rows = []
    for window in WINDOWS[1:]:
        gain = correct[window].astype(float) - correct[WINDOWS[0]]
        rows.append({"window": list(window), "gain": float(gain.mean()), "interval": list(interval(gain))})
    return rows


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("--short", action="store_true", help="one seed and few images: that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds, limit = (SEEDS[:1], 1_000) if arguments.short else (SEEDS, LIMIT)
    print(
        f"{limit:,} training images, {VISITS} visits of {EPOCHS} epochs, then {FINAL_EPOCHS} epochs and "
        f"{SEARCH.evaluations} evaluations; at most {BUDGET.sram:,} bytes of arena and {BUDGET.flash:,} of model\n"
    )
    found = {window: [found_with(window, seed, limit) for seed in seeds] for window in WINDOWS}
    rows = [row for window in WINDOWS for row, _ in found[window]]
    correct = {window: np.array([right for _, right in found[window]]) for window in WINDOWS}
    show(rows)
    print()
    for window in WINDOWS:
        print(f"window {window[0]}x{window[1]}: {100 * correct[window].mean():.2f} % of the test images, mean of seeds")
    gains = differences(correct)
    for row in gains:
        low, high = row["interval"]
        print(
            f"window {row['window'][0]}x{row['window'][1]} less 1x1: {100 * row['gain']:.2f} points, 95 % interval "
            f"{100 * low:.2f} to {100 * high:.2f}"
        )
    return table.finish({"rows": rows, "gains": gains}, [], arguments.json)


if __name__ == "__main__":
    sys.exit(main())
