# SPDX-License-Identifier: Apache-2.0
"""What the accuracy of a supernet's subnets costs on one core: without, and with freed memory kept
(mcuformer/allocator.py) and convolutions channels last, as `mcuformer search` measures it.

Ten random subnets of the space inverted-residual, random weights, 2,048 images in batches of 256, each way in a process
of its own, the ways in turn. Processor time, the least of the rounds, and what of it the kernel took.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import table

SPACE, SUBNETS, IMAGES, BATCH = "inverted-residual", 10, 2048, 256
ROUNDS = 3
WAYS = {  # kept, channels last
    "before": (False, False), "freed memory kept": (True, False), "channels last": (False, True), "both": (True, True),
}  # fmt: skip
MOST = 0.7  # of the time before


def spent(kept: bool, channels_last: bool) -> tuple[float, float]:
    """Seconds of this process on the subnets: in all, and in the kernel."""
    import torch

    from mcuformer import nas
    from mcuformer.allocator import keep_freed_memory

    if kept and not keep_freed_memory():
        raise SystemExit("no glibc: freed memory cannot be kept")
    torch.set_num_threads(1)
    supernet = nas.SuperNet(nas.load_space(SPACE)).eval()
    if channels_last:
        supernet.to(memory_format=torch.channels_last)
    space, rng = supernet.space, random.Random(0)
    images = torch.rand(IMAGES, space.in_channels, *space.image_shape[:2], generator=torch.Generator().manual_seed(0))
    supernet.calibrate(images[:BATCH])
    configs = [space.sample(rng) for _ in range(SUBNETS)]
    with torch.inference_mode():
        supernet(images[:BATCH], space.largest())  # the memory that the others use again
        start = os.times()
        for config in configs:
            for batch in images.split(BATCH):
                supernet(batch, config)
        end = os.times()
    return end.user - start.user + end.system - start.system, end.system - start.system


def measured(way: str) -> tuple[float, float]:
    """spent() in a process of its own."""
    command = [sys.executable, __file__, "--way", way]
    return tuple(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("--way", choices=WAYS, help="print the seconds of one way alone, as JSON")
    arguments = parser.parse_args()
    if arguments.way is not None:
        print(json.dumps(spent(*WAYS[arguments.way])))
        return 0
    rounds = [{way: measured(way) for way in WAYS} for _ in range(ROUNDS)]
    rows = [{"way": way, **dict(zip(("seconds", "kernel"), min(r[way] for r in rounds), strict=True))} for way in WAYS]
    before = rows[0]["seconds"]
    table.show(
        ["way", "s", "in the kernel", "of the time before"],
        [[r["way"], f"{r['seconds']:.2f}", f"{r['kernel']:.2f}", f"{r['seconds'] / before:.2f}"] for r in rows],
    )
    share = rows[-1]["seconds"] / before
    return table.finish(
        {"rows": rows},
        [table.requirement(f"both at most {MOST} of the time before", f"{share:.2f}", share <= MOST)],
        arguments.json,
    )


if __name__ == "__main__":
    sys.exit(main())
