# SPDX-License-Identifier: Apache-2.0
"""Runs models in many threads at once and compares every result with the integer reference.

    python tools/run_in_threads.py --count 2000

For each engine, and for weights in the model, staged weights and strips: `count` images through one interpreter that
8 threads share, then count / 20 interpreters made, run and read by 8 threads. Prints how many were right, wrong, or
ended in an error. Exits with 1 if one was not right.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from mcuformer import Interpreter, SubnetConfig, convert, engines
from mcuformer.nas import build_subnet

CONFIG = SubnetConfig(image_size=16, in_channels=1, patch_size=4, embed_dim=24, depth=2, num_heads=2, head_dim=12)
KINDS = {"in the model": {}, "staged": {"weights": "staged"}, "strips": {"weights": "staged", "strips": True}}
THREADS = 8


def outcomes(act: Callable[[int], bool], count: int) -> Counter[str]:
    def one(i: int) -> str:
        try:
            return "right" if act(i) else "wrong"
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
            return "crashed"

    with ThreadPoolExecutor(THREADS) as pool:
        return Counter(pool.map(one, range(count)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    count = parser.parse_args().count
    torch.set_num_threads(1)
    sys.setswitchinterval(1e-6)  # threads take turns as often as possible
    images = np.random.default_rng(0).integers(0, 256, (32, *CONFIG.image_shape)).astype(np.uint8)
    net, bad = build_subnet(CONFIG), 0
    print(f"{'engine':8}{'weights':14}{'interpreter':14}{'tried':>7}{'right':>7}{'wrong':>7}{'crashed':>9}")
    for engine in ("tflm", "c") if engines.choose(None) == "tflm" else ("c",):
        for kind, options in KINDS.items():
            model = convert(net, images, **options)
            want, shared = model.reference(images), Interpreter(model, engine=engine)

            def run_shared(i: int, shared=shared, want=want) -> bool:
                return np.array_equal(shared(images[i % 32])[0], want[i % 32])

            def run_own(i: int, model=model, engine=engine, want=want, bytes_=shared.arena_used_bytes) -> bool:
                own = Interpreter(model, engine=engine)
                return np.array_equal(own(images[i % 32])[0], want[i % 32]) and own.arena_used_bytes == bytes_

            for name, act, tries in (("shared", run_shared, count), ("its own", run_own, count // 20)):
                found = outcomes(act, tries)
                row = (
                    f"{engine:8}{kind:14}{name:14}{tries:>7}{found['right']:>7}{found['wrong']:>7}{found['crashed']:>9}"
                )
                print(row, flush=True)
                bad += tries - found["right"]
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
