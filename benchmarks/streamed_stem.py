# SPDX-License-Identifier: Apache-2.0
"""A convolution stem op by op and as one op that runs row by row: arena, logits, instructions on a Cortex-M4.

    python benchmarks/streamed_stem.py --json streamed_stem.json

op by op: a StemConv for each convolution, as models of earlier versions have it; one op: StreamedStem; strips: the
image comes two rows at a time. pixels: how many are gathered together; convert takes four, or one where scratch=LIMIT
does not allow four. scratch: what the stem takes. The arena is that of a 32-bit board with the interpreter
(`mcuformer inspect --board`); instructions are those of one image on a simulated Cortex-M4, without an interpreter.
Random weights (seed 0), schedule streamed. The layers are the same in all rows, so a difference of instructions is the
stem's.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import stock_network
import table
import torch

from mcuformer import Interpreter, SubnetConfig
from mcuformer.converter.calibrate import calibrate
from mcuformer.converter.estimate import feasibility
from mcuformer.converter.graph import Graph, to_int8
from mcuformer.converter.lower import QuantisationOptions, lower
from mcuformer.converter.memory.arena import plan_arena
from mcuformer.converter.memory.board_arena import board_arena_bytes
from mcuformer.converter.model import Model
from mcuformer.converter.ops.packed_weights import PAIRS
from mcuformer.converter.passes.packing import packed
from mcuformer.converter.passes.staging import resize
from mcuformer.converter.passes.stem import streamed_stem_of
from mcuformer.converter.passes.streamed import streamed
from mcuformer.converter.passes.strips import in_strips
from mcuformer.nas import build_subnet
from mcuformer.simulator import firmware, firmware_model

GREY = SubnetConfig(
    image_size=32, in_channels=1, patch_size=8, embed_dim=64, depth=3, num_heads=2, kv_heads=(2, 1, 2),
    mlp_ratio=(1, 2, 2), rank_ratio=(26 / 64, 38 / 64, 38 / 64), stem="conv", stem_channels=(32, 48),
)  # fmt: skip
COLOUR = SubnetConfig(
    image_size=96, in_channels=3, patch_size=16, embed_dim=96, depth=6, num_heads=3, stem="conv",
    stem_channels=(32, 48, 64),
)  # fmt: skip
NETWORKS = {"32x32x1": GREY, "96x96x3": COLOUR}
MOST = {("32x32x1", "one op"): 8_000, ("96x96x3", "one op, strips"): 18_432}  # bytes on a board
MOST_MORE_INSTRUCTIONS = 1.01
MACHINE = firmware.MACHINES["mps2-an386"]
IMAGES = 3


def ways(graph: Graph) -> dict[str, Graph]:
    """The same network in every way that is compared, from a graph with a stem of several ops."""
    one_op = streamed_stem_of(graph)
    strips = in_strips(one_op)
    found = {"op by op": graph, "one op": one_op, "one op, strips": strips}
    for pixels in (2, 1):
        found[f"one op, strips, pixels {pixels}"] = resize(strips, strips.ops[0], pixels)
    return found


def measure(name: str, folder: Path, objects: list[Path]) -> list[dict]:
    """One row per way. objects: the compiled kernels."""
    config = NETWORKS[name]
    net, images = build_subnet(config), stock_network.structured_images(config, IMAGES, 1)
    graph = streamed(packed(lower(net, calibrate(net, images), QuantisationOptions()), PAIRS))
    want, rows = graph.run(to_int8(images)), []
    names = tuple(str(i) for i in range(config.num_classes))
    for i, (way, made) in enumerate(ways(graph).items()):
        plan = plan_arena(made)
        model = Model(made, plan, config, "streamed", None, names, None)
        interpreter = Interpreter(model)
        built = firmware_model.build(
            made, names, MACHINE, folder / f"{name}{i}", MACHINE.most_ram_bytes, MACHINE.most_flash_bytes, objects
        )
        run = built.run(images)
        equal = [
            np.array_equal(interpreter(images), made.logits(want)), np.array_equal(run.logits, want),
            np.array_equal(made.run(to_int8(images)), want),
        ]  # fmt: skip
        scratch = made.scratch_bytes(made.ops[0]) if way != "op by op" else None
        stem = [op.instructions for op in run.ops if op.output == "embed" or op.output.startswith("stem.")]
        rows.append(
            {
                "network": name, "way": way, "board": board_arena_bytes(made, plan),
                "host": interpreter.arena_used_bytes, "scratch": scratch,
                "stem_instructions": sum(stem), "instructions": run.instructions, "equal": all(equal),
            }
        )  # fmt: skip
    return rows


def requirements(rows: list[dict]) -> list[dict]:
    found, by_name = [], {(row["network"], row["way"]): row for row in rows}
    for (name, way), most in MOST.items():
        board = by_name[name, way]["board"]
        found.append(table.requirement(f"{name}, {way}: at most {most:,}", f"{board:,}", board <= most))
        strips = way.endswith("strips")
        expected = feasibility.board_arena_bytes(NETWORKS[name], strips=strips)
        found.append(table.requirement(f"{name}, {way}: as predicted", f"{expected:,}", expected == board))
    for name in NETWORKS:
        ratio = by_name[name, "one op"]["instructions"] / by_name[name, "op by op"]["instructions"]
        text = f"{name}: instructions of one op / op by op at most {MOST_MORE_INSTRUCTIONS}"
        found.append(table.requirement(text, f"{ratio:.4f}", ratio <= MOST_MORE_INSTRUCTIONS))
    equal = sum(row["equal"] for row in rows)
    found.append(table.requirement("every logit equal to op by op", f"{equal} of {len(rows)}", equal == len(rows)))
    return found


def main() -> int:
    arguments = table.parser(__doc__).parse_args()
    torch.set_num_threads(1)
    firmware.require_tools()
    with tempfile.TemporaryDirectory(prefix="mcuformer-stem-") as folder:
        objects = firmware_model.kernel_objects(MACHINE, Path(folder) / "kernels")
        rows = [row for name in NETWORKS for row in measure(name, Path(folder), objects)]
    columns = ["network", "stem", "arena on a board", "on the host", "scratch", "stem, M4", "network, M4", "equal"]
    cells = [
        [
            row["network"], row["way"], f"{row['board']:,}", f"{row['host']:,}",
            f"{row['scratch']:,}" if row["scratch"] else None,
            f"{row['stem_instructions']:,}", f"{row['instructions']:,}", "yes" if row["equal"] else "NO",
        ]
        for row in rows
    ]  # fmt: skip
    table.show(columns, cells)
    print("\nBytes, and instructions of one image counted in QEMU.")
    return table.finish({"rows": rows}, requirements(rows), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
