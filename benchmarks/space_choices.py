# SPDX-License-Identifier: Apache-2.0
"""What a choice in a space costs the networks without it: the space fashion-mnist, and that space with one choice more.

    python benchmarks/space_choices.py

Each supernet is trained in the same way, on one thread. The same random networks, which all of these spaces hold and
which fit 10,240 bytes of arena and 128 KB of model, are then measured with the weights of each supernet, on held-out
training images. Training takes a share of the steps for what the choice adds, and shares the weights with it.
"""

from __future__ import annotations

import dataclasses
import random
import sys

import numpy as np
import table
import torch

from mcuformer import nas
from mcuformer.data import hold_out, load
from mcuformer.nas import recipes
from mcuformer.nas.cost import Budget, cost_of
from mcuformer.nas.search import HeldOutAccuracy

SPACE = "fashion-mnist"
BUDGET = Budget(sram=10 * 1024, flash=128 * 1024)
NETWORKS = 40
EPOCHS = 12


def with_choices(space: nas.SearchSpace) -> dict[str, nas.SearchSpace]:
    """The space, and others that hold all its networks."""
    kinds = {
        "as it is": {},
        "image_sizes [24, 32]": {"image_sizes": (24, 32)},
        "stem_blocks [0, 0] beside": {"stem_blocks": ((0, 0), *space.stem_blocks)},
        "stem [patch, conv]": {"stem": ("patch", "conv")},
    }
    return {name: dataclasses.replace(space, **fields) for name, fields in kinds.items()}


def within_budget(space: nas.SearchSpace, count: int) -> list:
    """Different random networks of the space within the budget."""
    rng, drawn = random.Random(0), {}
    while len(drawn) < count:
        config = space.sample(rng)
        if BUDGET.admits(cost_of(config)):
            drawn[config] = None
    return list(drawn)


def measure(space: nas.SearchSpace, configs: list, images, kept, epochs: int) -> dict:
    """Accuracies of the networks with the weights of a supernet of the space, and of its largest."""
    supernet = nas.SuperNet(space)
    result = nas.train(supernet, images, dataclasses.replace(recipes.SUPERNET_OPTIONS, epochs=epochs))
    accuracy = HeldOutAccuracy(supernet, kept)
    scores = [accuracy(config) for config in configs]
    return {"scores": scores, "largest": accuracy(space.largest()), "seconds": result.seconds}


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("--networks", type=int, default=NETWORKS, help=f"measured (default {NETWORKS})")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"of each supernet (default {EPOCHS})")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images, kept = hold_out(load("fashion-mnist", "train"))
    spaces = with_choices(nas.load_space(SPACE))
    configs = within_budget(spaces["as it is"], arguments.networks)
    found = {}
    for name, space in spaces.items():
        print(f"{name}: {arguments.epochs} epochs of {len(images):,} images", file=sys.stderr, flush=True)
        found[name] = measure(space, configs, images, kept, arguments.epochs)
    before = np.array(found["as it is"]["scores"])
    table.show(
        [f"space {SPACE}", "mean %", "best %", "less than as it is, points", "largest %", "training"],
        [[name, f"{100 * np.mean(r['scores']):.2f}", f"{100 * max(r['scores']):.2f}",
          f"{100 * (before - r['scores']).mean():.2f}", f"{100 * r['largest']:.2f}", f"{r['seconds']:.0f} s"]
         for name, r in found.items()],
    )  # fmt: skip
    print(f"\n{len(configs)} networks within {BUDGET.sram:,} bytes of arena and {BUDGET.flash:,} of model, the same in "
          f"each row; {len(kept):,} held-out images")  # fmt: skip
    return table.finish(found, [], arguments.json)


if __name__ == "__main__":
    sys.exit(main())
