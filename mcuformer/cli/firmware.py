# SPDX-License-Identifier: Apache-2.0
"""mcuformer run --on: a model as firmware in QEMU, compared with the host."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from mcuformer.boards import get_board
from mcuformer.cli.common import out
from mcuformer.cli.progress import SILENT, Progress
from mcuformer.errors import ConfigError
from mcuformer.simulator.firmware import MACHINES, Machine, get_machine

if TYPE_CHECKING:
    import numpy as np

    from mcuformer.interpreter import Interpreter
    from mcuformer.simulator.firmware_model import FirmwareModel, FirmwareRun

IMAGES = 16  # run without --limit


def choose_machine(
    on: str | None, board: str | None, ram_bytes: int | None, flash_bytes: int | None, external_flash: bool = False
) -> tuple[Machine, int, int, int]:
    """The machine, and the limits of RAM, flash and external flash: as given, else the board's, else the machine's. The
    last is 0 without external_flash."""
    machine, external_bytes = None if on is None else get_machine(on), 0
    if board is not None:
        limits = get_board(board)
        fitting = limits.core.machine
        if fitting is None:
            simulated = ", ".join(f"{m.name} ({m.core.label})" for m in MACHINES.values())
            raise ConfigError(
                f"--board {board} has a {limits.core.name}, which nothing here simulates; "
                f"leave --board out and give --on one of {simulated}"
            )
        if machine is not None and machine.name != fitting.name:
            raise ConfigError(
                f"--on {machine.name} has a {machine.core.label}, board {board} a {limits.core.name}: "
                f"use --on {fitting.name}"
            )
        machine = fitting
        ram_bytes = limits.sram_bytes if ram_bytes is None else ram_bytes
        if flash_bytes is None and limits.flash_bytes is not None:
            flash_bytes = limits.flash_bytes
        if external_flash:
            external_bytes = limits.with_external_flash().external_flash_bytes
    if machine is None:
        raise ConfigError("nothing to run on: give --on or --board")
    if external_flash:
        external_bytes = min(external_bytes or machine.most_external_bytes, machine.most_external_bytes)
        if external_bytes == 0:
            having = ", ".join(m.name for m in MACHINES.values() if m.most_external_bytes)
            raise ConfigError(f"--external-flash: {machine.name} has no memory for it; use one of {having}")
    ram_bytes = machine.ram_bytes if ram_bytes is None else ram_bytes
    flash_bytes = machine.flash_bytes if flash_bytes is None else flash_bytes
    for option, size in (("--ram-bytes", ram_bytes), ("--flash-bytes", flash_bytes)):
        if size < 1:
            raise ConfigError(f"{option} {size}: must be a number of bytes, at least 1")
    return machine, ram_bytes, flash_bytes, external_bytes


@dataclass(frozen=True, eq=False)
class Simulated:
    """A machine's run of the images. ram_bytes, flash_bytes, external_bytes: its limits; logits: float [n, classes]."""

    machine: Machine
    ram_bytes: int
    flash_bytes: int
    built: FirmwareModel
    result: FirmwareRun
    logits: np.ndarray
    external_bytes: int = 0


def run_on(
    interpreter: Interpreter,
    images: np.ndarray,
    machine: Machine,
    ram_bytes: int,
    flash_bytes: int,
    progress: Progress = SILENT,
    external_bytes: int = 0,
) -> Simulated:
    """Builds the model, its weights packed for the machine's core, and runs it on the images. external_bytes: of flash
    beside the chip, in which its constants then lie."""
    from mcuformer.converter.repack import repacked_graph
    from mcuformer.simulator import firmware_model

    with tempfile.TemporaryDirectory(prefix="mcuformer-firmware-") as folder, progress.bar("simulating") as update:
        update(0, len(images), "building")
        built = firmware_model.build(
            repacked_graph(interpreter.graph, machine.core),
            interpreter.class_names,
            machine,
            Path(folder),
            ram_bytes,
            flash_bytes,
            external_bytes=external_bytes,
        )
        result = built.run(images, progress=update)
    logits = interpreter.graph.logits(result.logits)
    return Simulated(machine, ram_bytes, flash_bytes, built, result, logits, external_bytes)


def show(simulated: Simulated) -> None:
    """Prints what each op and the whole network take."""
    machine, ram_bytes, flash_bytes = simulated.machine, simulated.ram_bytes, simulated.flash_bytes
    built, result = simulated.built, simulated.result
    program = built.program
    listing = Table("op", "output", "MACs", "instructions", "per MAC")
    for op in result.ops:
        ratio = f"{op.instructions / op.macs:.2f}" if op.macs else ""
        listing.add_row(op.op, op.output, f"{op.macs:,}", f"{op.instructions:,}", ratio)
    out.print(listing)
    arena = built.exported.arena_bytes
    out.print(
        f"{machine.name}, RAM {program.static_bytes + result.stack_bytes:,} of {ram_bytes:,} bytes: static "
        f"{program.static_bytes:,} (arena {arena:,}), stack {result.stack_bytes:,}"
    )
    network = f"weights and tables of the network {built.exported.constant_bytes:,}"
    constants = f"{program.constant_bytes:,}" if simulated.external_bytes else f"{program.constant_bytes:,} ({network})"
    out.print(
        f"flash {program.flash_bytes:,} of {flash_bytes:,} bytes: code {program.code_bytes:,}, constants {constants}"
    )
    if simulated.external_bytes:
        out.print(f"external flash {program.external_bytes:,} of {simulated.external_bytes:,} bytes: {network}")
    out.print(
        f"{result.instructions:,} instructions per image, {result.instructions / result.macs:.3f} per MAC "
        "(counted in QEMU: neither cycles nor time)"
    )


def to_dict(simulated: Simulated) -> dict:
    """Its part of what --json writes."""
    machine, ram_bytes, flash_bytes = simulated.machine, simulated.ram_bytes, simulated.flash_bytes
    built, result = simulated.built, simulated.result
    program, arena, limit = built.program, built.exported.arena_bytes, simulated.external_bytes
    return {
        "machine": machine.name, "core": machine.core.key, "ram_bytes": program.static_bytes + result.stack_bytes,
        "static_bytes": program.static_bytes, "static_arena_bytes": arena, "stack_bytes": result.stack_bytes,
        "flash_bytes": program.flash_bytes, "code_bytes": program.code_bytes, "constant_bytes": program.constant_bytes,
        "ram_limit": ram_bytes, "flash_limit": flash_bytes, "instructions": result.instructions, "macs": result.macs,
        "instructions_per_mac": result.instructions / result.macs,
        "per_op": [dataclasses.asdict(op) for op in result.ops],
        **({"external_bytes": program.external_bytes, "external_limit": limit} if limit else {}),
    }  # fmt: skip
