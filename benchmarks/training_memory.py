# SPDX-License-Identifier: Apache-2.0
"""Memory per image that a training step of the paper's supernet keeps for its backward pass: most of a GPU's memory.

Counted on the CPU, in the forward pass of one step, from what autograd saves; each storage once. Weights, their
gradients, the two moments of AdamW and the average of the weights come on top, once.
"""

from __future__ import annotations

import json
import random
import sys

import table
import torch

from mcuformer import nas
from mcuformer.files import write_bytes
from mcuformer.nas.train import StepLoss

SPACE, IMAGES = "mcuformer", 2


def kept_bytes(supernet, subnets, precision: str) -> int:
    """Bytes per image that autograd saves for one step on the subnets."""
    space = supernet.space
    loss = StepLoss(supernet, nas.TrainOptions(precision=precision))
    images = torch.zeros(IMAGES, space.in_channels, *space.image_shape[:2])
    labels, weights, saved = torch.zeros(IMAGES, dtype=torch.long), set(), {}
    weights = {p.untyped_storage().data_ptr() for p in supernet.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss(images, labels, labels, torch.ones(IMAGES), subnets)
    total = sum(saved.values())
    del value
    return total // IMAGES


def main() -> int:
    parser = table.parser(__doc__)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    space = nas.load_space(SPACE)
    supernet = nas.SuperNet(space).train()
    rng = random.Random(0)
    steps = {
        "largest alone": (space.largest(),),
        "sandwich": (space.largest(), space.smallest(), space.sample(rng), space.sample(rng)),
    }
    rows = []
    for precision in ("float32", "bfloat16"):
        for name, subnets in steps.items():
            rows.append({"step": name, "precision": precision, "bytes": kept_bytes(supernet, subnets, precision)})
    table.show(
        ["step", "precision", "MB an image", "GB of 128 images"],
        [[r["step"], r["precision"], f"{r['bytes'] / 1e6:.0f}", f"{128 * r['bytes'] / 1e9:.1f}"] for r in rows],
    )
    count = sum(p.numel() for p in supernet.parameters())
    print(f"\nweights: {count:,}; with gradients, moments and average {5 * 4 * count / 1e9:.2f} GB")
    if arguments.json is not None:
        write_bytes(arguments.json, json.dumps({"rows": rows, "weights": count}).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
