# SPDX-License-Identifier: Apache-2.0
"""What a choice in a space costs the networks without it: the space fashion-mnist, and that space with one choice more.

    python benchmarks/space_choices.py

Each supernet is trained in the same way, on one thread. The same random networks, which all of these spaces hold and
which fit 10,240 bytes of arena and 128 KB of model, are then measured with the weights of each supernet, on held-out
training images. One seed. What the choice adds takes its share of the training, and shares weights with these networks.
"""

from __future__ import annotations

import dataclasses
import random
import sys

import numpy as np
import table
import torch
from search import BUDGET, SPACE

from mcuformer import SubnetConfig, nas
from mcuformer.data import Dataset, hold_out, load
from mcuformer.nas import recipes
from mcuformer.nas.cost import cost_of
from mcuformer.nas.search import HeldOutAccuracy

NETWORKS = 24
EPOCHS = 8


def with_choices(space: nas.SearchSpace) -> dict[str, nas.SearchSpace]:
    """The space, and others that hold all its networks."""
    blocks = dict.fromkeys(stem.blocks for stem in space.stems)
    return {
        "as it is": space,
        "image_sizes [24, 32]": dataclasses.replace(space, image_sizes=(24, 32)),
        "stem_blocks [0, 0] beside": dataclasses.replace(space, stem_blocks=((0, 0), *blocks)),
        "stem [patch, conv]": dataclasses.replace(space, stem=("patch", "conv")),
    }


def within_budget(space: nas.SearchSpace, count: int) -> list[SubnetConfig]:
    """Different random networks of the space within the budget."""
    rng = random.Random(0)
    drawn: dict[SubnetConfig, None] = {}
    while len(drawn) < count:
        config = space.sample(rng)
        if BUDGET.admits(cost_of(config)):
            drawn[config] = None
    return list(drawn)


def measure(space: nas.SearchSpace, configs: list[SubnetConfig], images: Dataset, kept: Dataset) -> dict:
    """Accuracies of the networks with the weights of a supernet of the space, and of its largest. images: to train on;
    kept: to measure on."""
    supernet = nas.SuperNet(space)
    result = nas.train(supernet, images, dataclasses.replace(recipes.SUPERNET_OPTIONS, epochs=EPOCHS))
    accuracy = HeldOutAccuracy(supernet, kept)
    scores = [accuracy(config) for config in configs]
    return {"scores": scores, "largest": accuracy(space.largest()), "seconds": result.seconds}


def main() -> int:
    arguments = table.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    images, kept = hold_out(load("fashion-mnist", "train"))
    spaces = with_choices(nas.load_space(SPACE))
    configs = within_budget(spaces["as it is"], NETWORKS)
    found = {}
    for name, space in spaces.items():
        print(f"{name}: {EPOCHS} epochs of {len(images):,} images", file=sys.stderr, flush=True)
        found[name] = measure(space, configs, images, kept)
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
