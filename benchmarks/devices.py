# SPDX-License-Identifier: Apache-2.0
"""Every core of mcuformer/cores.py: whether the kernels compile for it, and network A on the machine that simulates it.

Network A has random weights; two images, of which every logit is compared with the integer reference. Instructions are
counted in QEMU: neither cycles nor time. docs/devices.md shows what this printed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import stock_network
import table

from mcuformer import convert, sources
from mcuformer.converter.graph import to_int8
from mcuformer.cores import CORES, Core
from mcuformer.nas import build_subnet
from mcuformer.simulator import firmware, firmware_model

SCHEDULES = ("overwrite", "streamed")
COLUMNS = ["core", "compiler", "compiles", "machine", "exact", *(f"{name}, /MAC" for name in SCHEDULES)]
# Of network A on a core's packing of weights: any board that it fits.
BOARD = {"pairs": "nano33ble", "rows": "corstone300"}


def compiled(core: Core, folder: Path) -> list[Path]:
    """The objects of all that a program of the core has; without a machine, of the kernels."""
    if core.machine is not None:
        return firmware_model.kernel_objects(core.machine, folder)
    flags, include = firmware_model.MODEL_FLAGS, [sources.c_kernel_folder()]
    return firmware.compile_objects(sources.c_kernel_sources(), core, folder, include, flags)


def per_mac(core: Core, schedule: str, objects: list[Path], folder: Path) -> tuple[bool, float]:
    """Network A: whether every logit is the reference's, and instructions by multiply-accumulate."""
    config = stock_network.NETWORKS["A"]
    images = stock_network.structured_images(config, 4, 1)
    model = convert(build_subnet(config), images, board=BOARD[core.packing], schedule=schedule)
    built = firmware_model.build(model.graph, model.class_names, core.machine, folder, objects=objects)
    run = built.run(images[:2])
    return np.array_equal(run.logits, model.graph.run(to_int8(images[:2]))), run.instructions / config.macs


def measure(core: Core, folder: Path) -> dict:
    """One row. compiles and exact are None where the compiler is not installed."""
    row = {"core": core.name, "compiler": f"{core.toolchain}gcc", "machine": core.machine and core.machine.name}
    if firmware.missing_tools(core) is not None:
        return {**row, "compiles": None, "exact": None, "per_mac": {}}
    objects = compiled(core, folder / "objects")
    if core.machine is None:
        return {**row, "compiles": True, "exact": None, "per_mac": {}}
    runs = {schedule: per_mac(core, schedule, objects, folder / schedule) for schedule in SCHEDULES}
    exact = all(equal for equal, _ in runs.values())
    return {
        **row,
        "compiles": True,
        "exact": exact,
        "per_mac": {schedule: ratio for schedule, (_, ratio) in runs.items()},
    }


def shown(row: dict) -> list[str | None]:
    words = {True: "yes", False: "NO", None: None}
    ratios = [f"{row['per_mac'][name]:.2f}" if name in row["per_mac"] else None for name in SCHEDULES]
    return [row["core"], row["compiler"], words[row["compiles"]], row["machine"], words[row["exact"]], *ratios]


def main() -> int:
    arguments = table.parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(core, Path(folder) / key) for key, core in CORES.items()]
    table.show(COLUMNS, [shown(row) for row in rows])
    ran = [row for row in rows if row["exact"] is not None]
    exact = sum(row["exact"] for row in ran)
    required = table.requirement(
        "every logit of network A is the reference's", f"{exact} of {len(ran)} cores", exact == len(ran)
    )
    return table.finish({"cores": rows}, [required], arguments.json)


if __name__ == "__main__":
    sys.exit(main())
