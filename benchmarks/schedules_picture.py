# SPDX-License-Identifier: Apache-2.0
"""Draws the memory plans of stock tools and of each schedule, side by side, on one scale.

    python benchmarks/schedules_picture.py docs/schedules_A.png        # needs the bench extra (tensorflow)

The stock plan is the smallest stock route's (lean_per_tensor): the tensors and ops of its .tflite, placed by TFLM's own
greedy rule. Heads only: the tails are not drawn.
"""

from __future__ import annotations

import argparse
import sys

import stock_network
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from mcuformer import SubnetConfig, convert
from mcuformer.converter.memory.plan import Buffer, Problem, Solution, place_scratch
from mcuformer.nas import build_subnet
from mcuformer.plots import plot_plans

SCHEDULES = {
    "overwrite": {"schedule": "overwrite"},
    "streamed": {"schedule": "streamed"},
    "streamed, image in strips": {"schedule": "streamed", "strips": True},
}
SIZES = {schema.TensorType.INT8: 1, schema.TensorType.INT32: 4, schema.TensorType.FLOAT32: 4}


def stock_plan(content: bytes) -> tuple[Problem, Solution]:
    """The activations of a .tflite and where TFLM's greedy planner puts them."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = model.subgraphs
    first, last = {int(i): 0 for i in graph.inputs}, {int(i): 0 for i in graph.inputs}
    for step, op in enumerate(graph.operators, start=1):
        for i in map(int, op.inputs):
            if i in first:
                last[i] = step
        for i in map(int, op.outputs):
            first[i] = last[i] = step
    buffers = []
    for i in sorted(first):
        tensor, size = graph.tensors[i], 1
        for dimension in tensor.shape:
            size *= int(dimension)
        buffers.append(Buffer("", size * SIZES[tensor.type], first[i], last[i]))
    offsets = place_scratch(Problem((), tuple(buffers)), ())
    head = max(offset + buffer.aligned_size for offset, buffer in zip(offsets, buffers, strict=True))
    return Problem(tuple(buffers)), Solution(offsets, (), head)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="the PNG to write")
    parser.add_argument("network", nargs="?", default="A", choices=["A", "B", "C"])
    arguments = parser.parse_args()
    network = stock_network.NETWORKS[arguments.network]
    images = stock_network.structured_images(network, 4, 1)
    content = stock_network.convert(network, stock_network.random_weights(network, 0), "lean_per_tensor", images)
    plans = [("stock tools", *stock_plan(content))]
    net = build_subnet(SubnetConfig(**{name: getattr(network, name) for name in network.__dataclass_fields__}))
    for name, options in SCHEDULES.items():
        plan = convert(net, images, **options).plan
        plans.append((name, plan.problem, plan.solution))
    plot_plans([(f"{name}: head {s.head_bytes:,} bytes", p, s) for name, p, s in plans], arguments.path)
    print(f"wrote {arguments.path}: " + ", ".join(f"{name} {s.head_bytes:,}" for name, _, s in plans))
    return 0


if __name__ == "__main__":
    sys.exit(main())
