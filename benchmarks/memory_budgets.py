# SPDX-License-Identifier: Apache-2.0
"""What more memory finds: the same supernet searched within 8, 16 and 32 KB of arena.

    python benchmarks/memory_budgets.py                # trains supernets of tiny and fashion-mnist
    python benchmarks/memory_budgets.py supernet.pt    # those that are given

Those that it trains see the images in the package. On one thread, with the search's default options, as
`mcuformer search supernet.pt --sram 8KB`. Selection is on held-out training images; the test images, of which the table
says what each network reaches with inherited weights, have no part in it.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
import table
import torch
from search import right

from mcuformer import nas
from mcuformer.data import load
from mcuformer.nas import recipes
from mcuformer.nas.cost import Budget, cost_of
from mcuformer.nas.search import HeldOutAccuracy, SearchOptions, search
from mcuformer.nas.split import DATA, Split, split_images, split_of

SPACES = ("tiny", "fashion-mnist")
KIB = (8, 16, 32)


def trained(name: str) -> tuple[nas.SuperNet, Split]:
    """A supernet of a space of the package."""
    supernet = nas.SuperNet(nas.load_space(name))
    split = split_images(DATA, supernet.space.image_size)
    options = recipes.SUPERNET_OPTIONS
    print(f"{name}: {options.epochs} epochs of {len(split.images):,} images", file=sys.stderr, flush=True)
    nas.train(supernet, split.images, options)
    return supernet, split


def given(path: Path) -> tuple[nas.SuperNet, Split]:
    supernet = nas.load_supernet(path)
    return supernet, split_of(supernet, path)


def measure(name: str, supernet: nas.SuperNet, split: Split) -> list[dict]:
    """The network found within each budget."""
    accuracy = functools.cache(HeldOutAccuracy(supernet, split.kept))
    test = load(supernet.notes.get("data", DATA), "test", image_size=supernet.space.image_size)
    rows = []
    for kib in KIB:
        print(f"{name}: {kib} KB", file=sys.stderr, flush=True)
        best = search(supernet.space, accuracy, cost_of, Budget(sram=kib * 1024), SearchOptions()).best
        found = best.config
        rows.append(
            {"supernet": name, "kib": kib, "held_out": best.accuracy, "arena": best.cost.sram,
             "test": float(np.mean(right(supernet, found, test))), "config": found.to_dict()}
        )  # fmt: skip
    return rows


def grows(rows: list[dict]) -> bool:
    """Whether each budget has a network of its own, no less accurate than that of the budget before."""
    pairs = list(zip(rows, rows[1:], strict=False))
    return all(
        less["held_out"] <= more["held_out"] and less["config"] != more["config"] and less["arena"] < more["arena"]
        for less, more in pairs
    )


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("supernets", nargs="*", type=Path, help="files of mcuformer train --space; default: train two")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sources = {str(path): (given, path) for path in arguments.supernets} or {n: (trained, n) for n in SPACES}
    found = {name: measure(name, *make(source)) for name, (make, source) in sources.items()}
    table.show(
        ["supernet", "KB", "held out %", "test %", "arena", "pixels", "convolutions", "layers"],
        [[row["supernet"], row["kib"], f"{100 * row['held_out']:.2f}", f"{100 * row['test']:.2f}", f"{row['arena']:,}",
          row["config"]["image_size"], "-".join(map(str, row["config"].get("stem_channels", ()))) or "-",
          row["config"]["depth"]]
         for rows in found.values() for row in rows],
    )  # fmt: skip
    return table.finish(
        {"found": found},
        [
            table.requirement(
                f"{name}: {', '.join(map(str, KIB))} KB find different networks, each as good as the last or better",
                ", ".join(f"{row['arena']:,}" for row in rows), grows(rows),
            )
            for name, rows in found.items()
        ],
        arguments.json,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
