# SPDX-License-Identifier: Apache-2.0
"""The search's question, "how much arena would this config take?", against the full plan, and how long it takes.

    python benchmarks/feasibility.py --json feasibility.json

Random configs are converted (random weights), and every schedule, strips and staged weights planned in full: head and
tail, on the host and on a board. Each answer of converter/estimate/feasibility.py, from the dimensions alone, must be
equal.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import table
import torch
from rich.progress import track

from mcuformer import SubnetConfig
from mcuformer.converter.calibrate import calibrate
from mcuformer.converter.estimate import feasibility
from mcuformer.converter.lower import QuantisationOptions, lower
from mcuformer.converter.memory.arena import plan_arena
from mcuformer.converter.memory.board_arena import board_arena_bytes
from mcuformer.converter.passes.staging import staged
from mcuformer.converter.passes.stem import streamed_stem_of
from mcuformer.converter.passes.streamed import streamed
from mcuformer.converter.passes.strips import in_strips
from mcuformer.converter.subnet_config import FINAL_NORMS, NORMS, POOLS
from mcuformer.nas import build_subnet, load_space

MOST_MS = 0.2
TIMED = 2000  # answers timed, of configs never asked before


def random_config(seed: int) -> SubnetConfig:
    """Images of 4 to 224 pixels, 1 to 256 tokens, widths 8 to 400, 1 to 6 layers, each of its own shape."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 7))
    conv = bool(rng.random() < 0.2)
    if conv:
        patch, size = int(rng.choice([2, 4, 8])), int(rng.integers(8, 41))
    else:
        grid, patch = int(rng.integers(1, 17)), int(rng.choice([1, 2, 3, 4, 5, 7, 8, 14, 16, 32]))
        size = min(grid * patch + int(rng.integers(patch)), 224)
        size = max(size, patch, 2)
    heads = [int(rng.integers(1, 9)) for _ in range(depth)]
    divisors = [[d for d in range(1, h + 1) if h % d == 0] for h in heads]
    return SubnetConfig(
        image_size=size,
        in_channels=int(rng.choice([1, 3])),
        patch_size=patch,
        embed_dim=int(rng.integers(8, 401 if rng.random() < 0.2 else 129)),
        depth=depth,
        num_heads=tuple(heads),
        head_dim=int(rng.integers(1, 65)),
        kv_heads=tuple(int(rng.choice(d)) for d in divisors),
        mlp_ratio=tuple(float(rng.uniform(0.5, 4)) for _ in range(depth)),
        rank_ratio=None if rng.random() < 0.5 else tuple(float(rng.uniform(0.05, 1)) for _ in range(depth)),
        num_classes=int(rng.integers(2, 1001)),
        stem="conv" if conv else "patch",
    )


def with_options(config: SubnetConfig, seed: int) -> SubnetConfig:
    """The config, every other one with prefix tokens, another pooling and other norms, a rectangle, no head,
    or low rank around attention."""
    rng = np.random.default_rng([seed, 1])
    if rng.random() < 0.5:
        return config
    prefix = int(rng.integers(0, 6))
    pools = [pool for pool in POOLS if pool.split("+").count("token") <= prefix]
    height, width = config.image_shape[:2]
    size = (height, width + int(rng.integers(1, 9))) if rng.random() < 0.5 else config.image_size
    return dataclasses.replace(
        config, prefix_tokens=prefix, pool=str(rng.choice(pools)), final_norm=str(rng.choice(FINAL_NORMS)),
        norm_pre=bool(rng.random() < 0.3), norm=str(rng.choice(NORMS)), image_size=size,
        num_classes=0 if rng.random() < 0.2 else config.num_classes,
        attention_rank_ratio=float(rng.uniform(0.05, 1)) if rng.random() < 0.5 else None,
    )  # fmt: skip


def differences(seed: int) -> tuple[int, str | None]:
    """Plans compared for one config, and the first difference."""
    torch.set_num_threads(1)
    config = with_options(random_config(seed), seed)
    image = np.random.default_rng(seed).integers(0, 256, (1, *config.image_shape), dtype=np.uint8)
    net = build_subnet(config)
    graph = streamed_stem_of(lower(net, calibrate(net, image), QuantisationOptions()))
    count = 0
    for schedule, scheduled in (("overwrite", graph), ("streamed", streamed(graph))):
        for strips in (False, True):
            source = in_strips(scheduled) if strips else scheduled
            for weights, final in (("xip", source), ("staged", staged(source))):
                plan = plan_arena(final)
                arguments = (config, schedule, strips, weights)
                answers = (feasibility.arena_bytes(*arguments), feasibility.board_arena_bytes(*arguments))
                full = (plan.arena_bytes, board_arena_bytes(final, plan))
                count += 1
                if answers != full:
                    return count, f"seed {seed}, {arguments}: {answers}, full plan {full}"
    return count, None


def answer_ms() -> float:
    """Median milliseconds of an answer, over configs that were never asked before."""
    configs = [random_config(10**6 + i) for i in range(TIMED)]
    taken = []
    for config in configs:
        start = time.perf_counter()
        feasibility.fits(config, 1 << 18)
        taken.append(time.perf_counter() - start)
    return 1e3 * float(np.median(taken))


def search_answer_ms() -> float:
    """Milliseconds of an answer in a search: subnets of a space, whose layers come again and again."""
    rng, space = random.Random(0), load_space("fashion-mnist")
    configs = [space.sample(rng) for _ in range(TIMED)]
    start = time.perf_counter()
    for config in configs:
        feasibility.fits(config, 1 << 18)
    return 1e3 * (time.perf_counter() - start) / len(configs)


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("--configs", type=int, default=10_000, help="random configs to compare (default: 10000)")
    arguments = parser.parse_args()
    milliseconds, in_search = answer_ms(), search_answer_ms()
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        work = pool.imap_unordered(differences, range(arguments.configs), chunksize=8)
        found = list(track(work, "comparing", total=arguments.configs, transient=True, disable=not sys.stderr.isatty()))
    plans = sum(count for count, _ in found)
    wrong = [difference for _, difference in found if difference]
    for difference in wrong[:5]:
        print(difference)
    print(f"{arguments.configs:,} random configs, {plans:,} full plans; {TIMED:,} answers timed on this machine")
    print(f"an answer takes {milliseconds:.3f} ms for a config never seen, {in_search:.3f} ms in a search of a space")
    requirements = [
        table.requirement("every answer equals the full plan", f"{len(wrong):,} differ", not wrong),
        table.requirement(f"an answer in at most {MOST_MS} ms", f"{milliseconds:.3f} ms", milliseconds <= MOST_MS),
    ]
    result = {
        "configs": arguments.configs,
        "plans": plans,
        "answer_ms": milliseconds,
        "search_answer_ms": in_search,
        "differences": wrong,
    }
    return table.finish(result, requirements, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
