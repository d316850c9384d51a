# SPDX-License-Identifier: Apache-2.0
"""What `mcuformer run` does with many images: in one process and in two, and what --reference takes.

    python benchmarks/many_images.py

F: 32x32x1, patch 4, 6 layers of width 96; B: DeiT-Tiny's shape. Random weights (seed 0); the time does not depend on
them. Processor time is user's and system's, so other programs hardly count; that of the busier process is what two free
cores would take. Seconds are the clock's: where other programs run, two processes gain little, and the last line tells
how many others there were. The runs take turns, and of each row the best counts.

reference: numpy on 2,000 images, and engine c on all 10,000, as `run --reference` does; numpy on all is five times its
2,000.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import sys
import time
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"

# Workers import this module too: torch is imported where it is used.
import numpy as np
import table

from mcuformer import Interpreter, workers
from mcuformer.cli.run import REFERENCE_IMAGES

if TYPE_CHECKING:
    from mcuformer import Model

IMAGES = {"F": 20_000, "B": 1_200}
REFERENCE_OF = 10_000
RUNS = 2
LEAST_GAIN = 1.8  # of two processes
MOST_REFERENCE = 0.5  # of numpy's time for all images


def made(name: str, count: int) -> tuple[Model, np.ndarray]:
    """The converted network, and so many images, made of 16."""
    import stock_network

    from mcuformer import SubnetConfig, convert
    from mcuformer.nas import build_subnet

    small = SubnetConfig(image_size=32, in_channels=1, patch_size=4, embed_dim=96, depth=6, num_heads=3, num_classes=10)
    config = small if name == "F" else stock_network.NETWORKS[name]
    images = stock_network.structured_images(config, 16, 1)
    return convert(build_subnet(config), images, schedule="streamed"), np.resize(images, (count, *images.shape[1:]))


@dataclasses.dataclass(frozen=True)
class Run:
    """seconds: by the clock; own, others: processor time of this process and of all others."""

    seconds: float
    own: float
    others: float
    logits: np.ndarray

    @property
    def busiest(self) -> float:
        """Seconds on two free cores."""
        return max(self.own, self.others)


def processor_seconds(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def timed(interpreter: Interpreter, images: np.ndarray, processes: int, reference: bool = False) -> Run:
    whos = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    before, begin = [processor_seconds(who) for who in whos], time.perf_counter()
    logits = workers.run(interpreter, images, processes, reference).logits
    seconds, after = time.perf_counter() - begin, [processor_seconds(who) for who in whos]
    return Run(seconds, after[0] - before[0], after[1] - before[1], logits)


def one_and_two(name: str) -> list[dict]:
    """A row for one process and for two."""
    model, images = made(name, IMAGES[name])
    interpreter = Interpreter(model)
    runs: dict[int, list[Run]] = {1: [], 2: []}
    for _ in range(RUNS):
        for processes, found in runs.items():
            found.append(timed(interpreter, images, processes))
            if not np.array_equal(found[-1].logits, runs[1][0].logits):
                raise AssertionError(f"{name}: the logits of {processes} processes differ")
    rows = []
    for processes, found in runs.items():
        quickest, least = min(run.seconds for run in found), min(found, key=lambda run: run.busiest)
        rows.append(
            {
                "network": name, "images": len(images), "processes": processes, "seconds": quickest,
                "own": least.own, "others": least.others, "busiest": least.busiest,
            }
        )  # fmt: skip
    return rows


def reference_rows() -> list[dict]:
    """What --reference adds to a run of REFERENCE_OF images, in one process."""
    model, images = made("F", REFERENCE_OF)
    numpy = timed(Interpreter(model), images[:REFERENCE_IMAGES], 1, reference=True)
    kernels = timed(Interpreter(model, engine="c"), images, 1)
    if not np.array_equal(numpy.logits, kernels.logits[:REFERENCE_IMAGES]):
        raise AssertionError("the kernels and the reference differ")
    return [
        {"check": f"numpy, {REFERENCE_IMAGES:,} images", "seconds": numpy.seconds, "own": numpy.own},
        {"check": f"engine c, {REFERENCE_OF:,} images", "seconds": kernels.seconds, "own": kernels.own},
    ]


def requirements(rows: list[dict], checks: list[dict]) -> list[dict]:
    found = []
    for name in IMAGES:
        one, two = (row for row in rows if row["network"] == name)
        gain = one["busiest"] / two["busiest"]
        text = f"{name}: two processes at least {LEAST_GAIN} times one, by processor time"
        found.append(table.requirement(text, f"{gain:.2f}", gain >= LEAST_GAIN))
    numpy, kernels = (row["own"] for row in checks)
    share = (numpy + kernels) / (numpy * REFERENCE_OF / REFERENCE_IMAGES)
    text = f"--reference of {REFERENCE_OF:,} images at most {MOST_REFERENCE} of numpy's time for all"
    return [*found, table.requirement(text, f"{share:.2f}", share <= MOST_REFERENCE)]


def main() -> int:
    arguments = table.parser(__doc__).parse_args()
    rows = [row for name in IMAGES for row in one_and_two(name)]
    table.show(
        ["net", "images", "processes", "seconds", "images a second", "own CPU s", "others' CPU s"],
        [
            [row["network"], f"{row['images']:,}", row["processes"], f"{row['seconds']:.1f}",
             f"{row['images'] / row['seconds']:.0f}", f"{row['own']:.1f}", f"{row['others']:.1f}"]
            for row in rows
        ],
    )  # fmt: skip
    print()
    checks = reference_rows()
    table.show(
        ["--reference, network F", "seconds", "CPU s"],
        [[row["check"], f"{row['seconds']:.1f}", f"{row['own']:.1f}"] for row in checks],
    )
    if hasattr(os, "getloadavg"):
        print(f"\nprograms that wanted a core, in the mean of the last 5 minutes: {os.getloadavg()[1]:.1f}", end="")
        print(f" of {workers.cores()} cores")
    return table.finish({"rows": rows, "reference": checks}, requirements(rows, checks), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
