# SPDX-License-Identifier: Apache-2.0
"""DeiT-Tiny with a class token on an STM32F746, its weights in the 16 MB of flash beside the chip.

    python benchmarks/external_flash.py --json external_flash.json

224x224x3, patch 16, width 192, 12 layers, 3 heads, 197 tokens, 1000 classes; random weights (seed 0), so this is about
memory, instructions and bits, not about accuracy. staged: weights come from a file, tile by tile, as from a flash chip
that is not mapped to memory; read in place: constants lie in memory for a flash chip that is, here the PSRAM of QEMU's
mps2-an500. Both as firmware in that machine, a Cortex-M7, within the board's RAM and flash. The arena is that of plain
C; TFLM's is larger by its own structures. What reading takes on a board, QEMU does not show.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
import stock_network
import table
import torch

from mcuformer import Interpreter, convert
from mcuformer.boards import get_board
from mcuformer.converter.graph import to_int8
from mcuformer.nas import build_subnet
from mcuformer.simulator import firmware, firmware_model

BOARD = get_board("stm32f746")
NETWORK = dataclasses.replace(stock_network.NETWORKS["B"], prefix_tokens=1, pool="token")
WEIGHTS = {"staged": {"weights": "staged"}, "read in place": {"external_flash": True}}
IMAGES = 2


def measure(net, images: np.ndarray, weights: str, strips: bool, objects: list[Path], folder: Path) -> dict:
    """One row: the network with its weights in one way, its image whole or in strips."""
    model = convert(net, images, schedule="streamed", board=BOARD.name, strips=strips, **WEIGHTS[weights])
    staged = weights == "staged"
    external = 0 if staged else BOARD.external_flash_bytes
    built = firmware_model.build(
        model.graph, model.class_names, BOARD.core.machine, folder, BOARD.sram_bytes, BOARD.flash_bytes, objects,
        external,
    )  # fmt: skip
    run, interpreter = built.run(images), Interpreter(model)
    want = model.graph.run(to_int8(images))
    on_host = np.array_equal(interpreter(images), model.graph.logits(want))
    read, reads = interpreter.weights_read
    program = built.program
    return {
        "weights": weights, "image": "strips" if strips else "whole", "arena_bytes": built.exported.arena_bytes,
        "tflm_arena_bytes": model.arena_bytes(BOARD), "model_bytes": model.model_bytes,
        "beside_bytes": len(model.weights_content) if staged else program.external_bytes,
        "flash_bytes": program.flash_bytes, "ram_bytes": program.static_bytes + program.stack_bytes,
        "stack_bytes": run.stack_bytes, "read_bytes": read, "reads": reads, "instructions": run.instructions,
        "per_mac": run.instructions / NETWORK.macs, "exact": on_host and np.array_equal(run.logits, want),
    }  # fmt: skip


def requirements(rows: list[dict]) -> list[dict]:
    found = []
    for row in rows:
        what = f"{row['weights']}, image {row['image']}"
        for key, name in (("arena_bytes", "arena"), ("tflm_arena_bytes", "arena with TFLM")):
            text = f"{what}: {name} at most {BOARD.sram_budget:,}"
            found.append(table.requirement(text, f"{row[key]:,}", row[key] <= BOARD.sram_budget))
        beside, most = row["beside_bytes"], BOARD.external_flash_bytes
        found.append(table.requirement(f"{what}: at most {most:,} beside the chip", f"{beside:,}", beside <= most))
        found.append(table.requirement(f"{what}: every logit equals the reference", None, row["exact"]))
    return found


def main() -> int:
    arguments = table.parser(__doc__).parse_args()
    firmware.require_tools()
    torch.set_num_threads(1)
    net, images = build_subnet(NETWORK, 0), stock_network.structured_images(NETWORK, IMAGES, 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        objects = firmware_model.kernel_objects(BOARD.core.machine, folder / "shared")
        rows = [
            measure(net, images, weights, strips, objects, folder / f"{weights}{strips}")
            for weights in WEIGHTS
            for strips in (True, False)
        ]
    columns = ["weights", "image", "arena", "with TFLM", "model", "beside", "flash", "RAM", "read", "reads"]
    columns += ["instructions", "per MAC", "exact"]
    cells = [
        [
            row["weights"], row["image"], f"{row['arena_bytes']:,}", f"{row['tflm_arena_bytes']:,}",
            f"{row['model_bytes']:,}", f"{row['beside_bytes']:,}", f"{row['flash_bytes']:,}", f"{row['ram_bytes']:,}",
            f"{row['read_bytes']:,}" if row["reads"] else None, row["reads"] or None, f"{row['instructions']:,}",
            f"{row['per_mac']:.3f}", "yes" if row["exact"] else "NO",
        ]
        for row in rows
    ]  # fmt: skip
    table.show(columns, cells)
    print(
        "\nBytes; random weights. beside: in the flash chip beside the processor; flash: in the chip's own, code and\n"
        "what else there is; RAM: arena, the rest of static data and 4,096 of stack; read: of staged weights for an\n"
        "image. Instructions counted in QEMU, never cycles."
    )
    return table.finish({"rows": rows}, requirements(rows), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
