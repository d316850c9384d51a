# SPDX-License-Identifier: Apache-2.0
"""How often a program executes each of its instructions in QEMU, by a plugin: firmware/block_counts.c.

    run, parts = block_counts.run(program, "op_done", folder)

parts[i] is what was executed from the i-th call of the function to the next, or to the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mcuformer.errors import ToolchainError
from mcuformer.simulator import firmware
from mcuformer.simulator.firmware import Program, Run
from mcuformer.sources import firmware_folder

COMPILERS = ("cc", "gcc", "clang")  # of the host
SOURCE = "block_counts.c"


@dataclass(frozen=True)
class Block:
    """Instructions that follow each other. executed: times; jumped_to: those that began by a jump; jumped_away: those
    that ended in one."""

    address: int
    instructions: int
    executed: int
    jumped_to: int
    jumped_away: int


def run(
    program: Program, function: str, folder: str | os.PathLike | None = None, timeout: float = 600
) -> tuple[Run, list[list[Block]]]:
    """firmware.run() with counts, between calls of a function of the program.

    ToolchainError if the host has no C compiler or QEMU was built without plugins, or the program faults.
    """
    with tempfile.TemporaryDirectory(prefix="mcuformer-counts-") as work:
        plugin, out = Path(work) / "block_counts.so", Path(work) / "counts"
        _compile(plugin)
        argument = f"{plugin},mark={_address(program, function):#x},out={out}"
        result = firmware.run(program, folder, timeout, plugin=argument)
        return result, _read(out.read_text(encoding="ascii"))


def instructions(part: list[Block]) -> int:
    """All that were executed in a part."""
    return sum(block.instructions * block.executed for block in part)


def _compile(target: Path) -> None:
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise ToolchainError(f"cycles need a C compiler of the host: none of {', '.join(COMPILERS)} is installed")
    command = [compiler, "-std=c11", "-O2", "-shared", "-fPIC", firmware_folder() / SOURCE, "-o", target]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise ToolchainError(f"{SOURCE} does not compile: {done.stderr.strip()[:200]}")


def _address(program: Program, function: str) -> int:
    command = [f"{program.machine.core.toolchain}nm", str(program.path)]
    listed = subprocess.run(command, capture_output=True, text=True, errors="replace").stdout.splitlines()
    found = [int(words[0], 16) for words in map(str.split, listed) if words[1:] in (["T", function], ["t", function])]
    if len(found) != 1:
        raise ToolchainError(f"{program.path.name} has {len(found)} functions {function}, not one")
    return found[0]


def _read(text: str) -> list[list[Block]]:
    parts: list[list[Block]] = []
    for line in text.splitlines():
        if line == "mark":
            parts.append([])
        else:
            address, *counts = line.split()
            parts[-1].append(Block(int(address, 16), *map(int, counts)))
    return parts
