# SPDX-License-Identifier: Apache-2.0
"""How many subnets of the paper's space fit 320 KB: by the paper's rule, by the authors' code, and by what they take.

    python benchmarks/paper_rule.py

R of `mcuformer evolve` for subnets of nas/spaces/mcuformer.yaml with one rank ratio and one patch size, as in the
paper. The paper's rule is that of `--rule paper` (nas/paper_memory.py). The authors' released code has another formula,
of which it prints R alone: with one more token than patches, a layer's input *and* output, and the weights of one MLP
matrix, dense, times the rank ratio. The arena is exact, weights stay in flash; whole: the image lies in it, too.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import sys

import table

from mcuformer import nas
from mcuformer.boards import get_board
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.nas.cost import cost_of
from mcuformer.nas.paper_memory import paper_sram

SPACE, BOARD, LIMIT = "mcuformer", "stm32f746", 320 * 1024
SUBNETS = 2_000
RANKS, PATCHES = (0.4, 0.6, 0.8, 0.9, 0.95), (16, 20, 24)
RANK, PATCH, LEAST, MOST = 0.95, 16, 0.28, 0.42


def by_authors(config: SubnetConfig, rank_ratio: float) -> float:
    """Bytes by the formula of the authors' code."""
    d, mlp, tokens = config.embed_dim, max(config.mlp_ratio), (config.image_size / config.patch_size) ** 2 + 1
    return d * tokens + d * mlp * tokens + d * d * mlp * rank_ratio


def shares(rank_ratio: float, patch_size: int) -> dict:
    """R by each formula."""
    space = nas.load_space(SPACE)
    space = dataclasses.replace(space, rank_ratio=(rank_ratio,), patch_size=(patch_size,), evolution=None)
    rng, board = random.Random(0), get_board(BOARD)
    drawn = [space.sample(rng) for _ in range(SUBNETS)]
    formulas = {
        "paper": paper_sram,
        "authors": functools.partial(by_authors, rank_ratio=rank_ratio),
        "whole": lambda config: cost_of(config, board).sram,
        "strips": lambda config: cost_of(config, board, strips=True).sram,
    }
    found = {name: sum(formula(config) <= LIMIT for config in drawn) / SUBNETS for name, formula in formulas.items()}
    return {"rank_ratio": rank_ratio, "patch_size": patch_size, **found}


def main() -> int:
    arguments = table.parser(__doc__).parse_args()
    rows = [shares(rank, patch) for patch in PATCHES for rank in RANKS]
    print(f"share of {SUBNETS:,} random subnets of the space {SPACE} within {LIMIT:,} bytes (arena: on {BOARD})\n")
    table.show(
        ["patch", "rank ratio", "paper's rule", "authors' code", "arena, whole", "arena, strips"],
        [[r["patch_size"], r["rank_ratio"], *(f"{r[key]:.3f}" for key in ("paper", "authors", "whole", "strips"))]
         for r in rows],
    )  # fmt: skip
    (row,) = (r for r in rows if (r["rank_ratio"], r["patch_size"]) == (RANK, PATCH))
    return table.finish(
        {"rows": rows},
        [
            table.requirement(
                f"patch {PATCH}, rank ratio {RANK}: R near .35 by the paper's rule", f"{row['paper']:.3f}",
                LEAST <= row["paper"] <= MOST,
            )
        ],
        arguments.json,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
