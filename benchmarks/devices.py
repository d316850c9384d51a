# SPDX-License-Identifier: Apache-2.0
"""Every core of mcuformer/cores.py: whether the kernels compile for it, and network A on the machine that simulates it.

Network A has random weights; two images, of which every logit is compared with the integer reference. On cores that
multiply one value at a time, two fully connected layers too; benchmarks/cortex_m.py has those of the others.
Instructions are counted in QEMU: neither cycles nor time. between hooks: the most instructions between two calls of
the hooks of tflm_kernels/core/mcuf_hooks.h. docs/devices.md shows what this printed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import stock_network
import table
from cortex_m import fully_connected

from mcuformer import convert, sources
from mcuformer.converter.graph import to_int8
from mcuformer.converter.ops.packed_weights import ROWS
from mcuformer.cores import CORES, Core
from mcuformer.nas import build_subnet
from mcuformer.simulator import firmware, firmware_model
from mcuformer.simulator.firmware_ops import run_ops

SCHEDULES = ("overwrite", "streamed")
COLUMNS = [
    "core", "compiler", "compiles", "machine", "exact", *(f"{name}, /MAC" for name in SCHEDULES), "between hooks",
]  # fmt: skip
LAYERS = ((49, 96, 384), (1, 192, 1000))  # tokens, inputs, outputs
MOST = {  # instructions by multiply-accumulate of each layer
    "m0plus": (3.5, 4.7), "m3": (1.75, 2.8), "m33-nodsp": (1.75, 2.8), "rv32imc": (2.8, 4.0), "rv32imac": (2.8, 4.0),
}  # fmt: skip
# Of network A on a core's packing of weights: any board that it fits.
BOARD = {"pairs": "nano33ble", "rows": "corstone300"}


def compiled(core: Core, folder: Path) -> list[Path]:
    """The objects of all that a program of the core has; without a machine, of the kernels."""
    if core.machine is not None:
        return firmware_model.kernel_objects(core.machine, folder)
    flags, include = firmware_model.MODEL_FLAGS, [sources.c_kernel_folder()]
    return firmware.compile_objects(sources.c_kernel_sources(), core, folder, include, flags)


def run(core: Core, schedule: str, objects: list[Path], folder: Path) -> tuple[bool, firmware_model.FirmwareRun]:
    """Network A: whether every logit is the reference's, and what it took."""
    config = stock_network.NETWORKS["A"]
    images = stock_network.structured_images(config, 4, 1)
    model = convert(build_subnet(config), images, board=BOARD[core.packing], schedule=schedule)
    built = firmware_model.build(model.graph, model.class_names, core.machine, folder, objects=objects)
    ran = built.run(images[:2])
    return np.array_equal(ran.logits, model.graph.run(to_int8(images[:2]))), ran


def layers(core: Core, objects: list[Path], folder: Path) -> list[dict]:
    """LAYERS on a core of MOST."""
    runs = run_ops([fully_connected(*shape, ROWS) for shape in LAYERS], core.machine, folder, objects)
    return [
        {"shape": shape, "exact": run.exact, "per_mac": run.instructions / int(np.prod(shape)), "most": most}
        for shape, run, most in zip(LAYERS, runs, MOST[core.key], strict=True)
    ]


def measure(core: Core, folder: Path) -> dict:
    """One row. compiles and exact are None where the compiler is not installed."""
    row = {"core": core.name, "compiler": f"{core.toolchain}gcc", "machine": core.machine and core.machine.name}
    row["layers"] = []
    if firmware.missing_tools(core) is not None:
        return {**row, "compiles": None, "exact": None, "per_mac": {}, "between_hooks": None}
    objects = compiled(core, folder / "objects")
    if core.machine is None:
        return {**row, "compiles": True, "exact": None, "per_mac": {}, "between_hooks": None}
    macs = stock_network.NETWORKS["A"].macs
    runs = {schedule: run(core, schedule, objects, folder / schedule) for schedule in SCHEDULES}
    yielding = firmware_model.kernel_objects(core.machine, folder / "yielding", yielding=True)
    hooked = {schedule: run(core, schedule, yielding, folder / f"{schedule}-yielding") for schedule in SCHEDULES}
    exact = all(equal for equal, _ in (*runs.values(), *hooked.values()))
    if core.key in MOST:
        row["layers"] = layers(core, objects, folder / "layers")
    return {
        **row,
        "compiles": True,
        "exact": exact,
        "per_mac": {schedule: ran.instructions / macs for schedule, (_, ran) in runs.items()},
        "between_hooks": max(ran.longest for _, ran in hooked.values()),
    }


def shown(row: dict) -> list[str | None]:
    words = {True: "yes", False: "NO", None: None}
    ratios = [f"{row['per_mac'][name]:.2f}" if name in row["per_mac"] else None for name in SCHEDULES]
    between = None if row["between_hooks"] is None else f"{row['between_hooks']:,}"
    return [row["core"], row["compiler"], words[row["compiles"]], row["machine"], words[row["exact"]], *ratios, between]


def layer_requirement(core: str, layer: dict) -> dict:
    tokens, inputs, outputs = layer["shape"]
    text = f"{core} FC {tokens}x{inputs}->{outputs}: at most {layer['most']:.2f} a multiply-accumulate, exact"
    return table.requirement(
        text, f"{layer['per_mac']:.2f}", bool(layer["exact"]) and layer["per_mac"] <= layer["most"]
    )


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
    requirements = [required, *(layer_requirement(row["core"], layer) for row in rows for layer in row["layers"])]
    return table.finish({"cores": rows}, requirements, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
