# SPDX-License-Identifier: Apache-2.0
"""The arena of each schedule, as the interpreter counts it: head and tail.

    python benchmarks/memory.py --json memory.json A B C

overwrite: op by op; streamed: half-layers in place on the residual stream; strips: streamed, and the image comes a
few rows at a time; staged: strips, and weights come from a file of their own, tile by tile; stm32f746: the same in
this board's arena, which saves reads. All give the same logits (checked here). B1 is B with kv_heads=1; S is
DeiT-Small's shape. Random weights (seed 0); the arena does not depend on them. Firmware, stack and camera are not
counted. Milliseconds are processor time of one image, the least of some runs, so other programs hardly count; those of
staged weights include a Python callback for every read.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import stock_network
import table
import torch

from mcuformer import Interpreter, convert, kernel_library
from mcuformer.converter.estimate.sizing import sizes
from mcuformer.converter.estimate.stock import stock_arena_bytes
from mcuformer.converter.memory.arena import plan_arena
from mcuformer.nas import build_subnet

B = stock_network.NETWORKS["B"]
CONFIGS = {
    "A": stock_network.NETWORKS["A"],
    "B": B,
    "C": stock_network.NETWORKS["C"],
    "B1": dataclasses.replace(B, kv_heads=1),
    "S": dataclasses.replace(B, embed_dim=384, num_heads=6),
}
SCHEDULES = {
    "overwrite": {"schedule": "overwrite"},
    "streamed": {"schedule": "streamed"},
    "strips": {"schedule": "streamed", "strips": True},
    "staged": {"schedule": "streamed", "strips": True, "weights": "staged"},
    "stm32f746": {"schedule": "streamed", "strips": True, "weights": "staged", "board": "stm32f746"},
}
MOST = {
    "overwrite": {"A": 40_000, "B": 214_000, "C": 174_000},
    "streamed": {"A": 36_000, "B": 168_000, "C": 167_000, "B1": 168_000, "S": 185_000},
    "strips": {"A": 17_000, "B": 106_000, "C": 44_000, "B1": 81_000, "S": 185_000},
}
MOST_TAIL, MOST_TIME, MOST_PLANNING_MS = 10_000, 1.15, 50
RUNS = 7


def milliseconds(interpreters: dict[str, Interpreter], image: np.ndarray, want: np.ndarray) -> dict[str, float]:
    """Of each schedule; they run in turn. AssertionError if logits differ."""
    times = {schedule: [] for schedule in interpreters}
    for _ in range(RUNS):
        for schedule, interpreter in interpreters.items():
            begin = time.process_time()
            logits = interpreter(image)
            times[schedule].append(1e3 * (time.process_time() - begin))
            if not np.array_equal(logits, want):
                raise AssertionError(f"the logits of {schedule} differ")
    return {schedule: min(found) for schedule, found in times.items()}


def streamed_to_overwrite(interpreters: dict[str, Interpreter], image: np.ndarray, want: np.ndarray) -> dict:
    """How many times as long as overwrite streamed takes, by each version of the kernels that this processor runs."""
    before, found = kernel_library.kernels_in_use(), {}
    two = {schedule: interpreters[schedule] for schedule in ("overwrite", "streamed")}
    for version in (version for version, runs in kernel_library.kernels().items() if runs):
        kernel_library.use_kernels(version)
        times = milliseconds(two, image, want)
        found[version] = times["streamed"] / times["overwrite"]
    kernel_library.use_kernels(before)
    return found


def measure(name: str) -> list[dict]:
    """One row per schedule."""
    config = CONFIGS[name]
    net, images = build_subnet(config), stock_network.structured_images(config, 4, 1)
    models = {schedule: convert(net, images, **options) for schedule, options in SCHEDULES.items()}
    interpreters = {schedule: Interpreter(model) for schedule, model in models.items()}
    want = models["overwrite"].reference(images[:1])
    times = milliseconds(interpreters, images[:1], want)
    ratios = streamed_to_overwrite(interpreters, images[:1], want) if name == "B" else {}
    rows = []
    for schedule, model in models.items():
        begin = time.process_time()
        plan_arena(model.graph)
        rows.append(
            {
                "network": name, "schedule": schedule, **interpreters[schedule].allocations,
                "weights_read_bytes": interpreters[schedule].weights_read[0],
                "weights_reads": interpreters[schedule].weights_read[1],
                "predicted": model.plan.arena_bytes, "ms": times[schedule],
                "planning_ms": 1e3 * (time.process_time() - begin),
                "streamed_to_overwrite": ratios if schedule == "streamed" else {},
                "paper": max(part.paper for part in sizes(config, model.plan) if part.name != "head"),
                "stock_keras": stock_arena_bytes(config), "stock_lean": stock_arena_bytes(config, "lean_per_tensor"),
            }
        )  # fmt: skip
    return rows


def requirements(rows: list[dict]) -> list[dict]:
    found = []
    by_name = {(row["network"], row["schedule"]): row for row in rows}
    for (name, schedule), row in by_name.items():
        what = f"{name} {schedule}"
        if most := MOST.get(schedule, {}).get(name):
            found.append(table.requirement(f"{what}: at most {most:,}", f"{row['total']:,}", row["total"] <= most))
        found.append(table.requirement(f"{what}: as predicted", None, row["total"] == row["predicted"]))
    if ("B", "streamed") in by_name:
        row = by_name["B", "streamed"]
        for version, ratio in row["streamed_to_overwrite"].items():
            text = f"B: streamed / overwrite at most {MOST_TIME}, kernels {version}"
            found.append(table.requirement(text, f"{ratio:.2f}", ratio <= MOST_TIME))
        found += [
            table.requirement(f"B: tail at most {MOST_TAIL:,}", f"{row['tail']:,}", row["tail"] <= MOST_TAIL),
            table.requirement(
                f"B: planned in at most {MOST_PLANNING_MS} ms", f"{row['planning_ms']:.1f} ms",
                row["planning_ms"] <= MOST_PLANNING_MS,
            ),
        ]  # fmt: skip
    return found


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(CONFIGS)} (default: all)")
    arguments = parser.parse_args()
    names = arguments.networks or list(CONFIGS)
    if unknown := [name for name in names if name not in CONFIGS]:
        parser.error(f"unknown network {unknown[0]!r}: use some of {', '.join(CONFIGS)}")
    torch.set_num_threads(1)
    rows = [row for name in names for row in measure(name)]
    columns = ["net", "schedule", "arena", "head", "tail", "weights read", "reads", "ms", "planning ms"]
    columns += ["paper's M", "stock keras", "by hand"]
    cells = [
        [
            row["network"], row["schedule"], f"{row['total']:,}", f"{row['head']:,}", f"{row['tail']:,}",
            f"{row['weights_read_bytes']:,}" if row["weights_reads"] else None, row["weights_reads"] or None,
            f"{row['ms']:.2f}", f"{row['planning_ms']:.1f}", f"{row['paper']:,}", f"{row['stock_keras']:,}",
            f"{row['stock_lean']:,}",
        ]
        for row in rows
    ]  # fmt: skip
    table.show(columns, cells)
    print("\nBytes, and milliseconds on this machine. paper's M counts the weights; stock is by formula.")
    return table.finish({"rows": rows}, requirements(rows), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
