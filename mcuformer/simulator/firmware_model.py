# SPDX-License-Identifier: Apache-2.0
"""A converted model as firmware in QEMU: its logits, RAM, flash and instructions."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcuformer import sources
from mcuformer.converter.estimate.macs import op_macs
from mcuformer.converter.export import c_model
from mcuformer.converter.export.c_model import CModel
from mcuformer.converter.graph import Graph, to_int8
from mcuformer.converter.passes.staging import is_staged, weights_content
from mcuformer.converter.passes.strips import takes_strips
from mcuformer.errors import ModelError, ToolchainError
from mcuformer.simulator import block_counts, firmware
from mcuformer.simulator.block_counts import Block
from mcuformer.simulator.cycles import Code, Rules
from mcuformer.simulator.firmware import Machine, Program

APP = Path("apps") / "run_model.c"
STACK_BYTES = 4096  # reserved: networks use about a quarter, printing the rest
MODEL_FLAGS = ("-std=c99", "-pedantic")
HOOKS = '-DMCUF_HOOKS_H="hooks.h"'
RESULT_LINES = 4  # of an image
EXTERNAL = '-DMODEL_CONSTANT=__attribute__((section(".external")))'
ARENA_BESIDE = '-DMCUF_ARENA_SECTION=__attribute__((section(".psram")))'


@dataclass(frozen=True)
class OpCount:
    """One op: its output, its multiply-accumulates, its instructions and estimated cycles, the mean over the images.
    cycles: None if they were not asked for."""

    op: str
    output: str
    macs: int
    instructions: int
    cycles: int | None = None


@dataclass(frozen=True)
class FirmwareRun:
    """A program's result in QEMU. logits: int8 [n, classes]; stack_bytes: the most below the network's function;
    longest: the most instructions between two calls of a hook, which comes after each op, or inside it too."""

    logits: np.ndarray
    stack_bytes: int
    longest: int
    ops: tuple[OpCount, ...]

    @property
    def instructions(self) -> int:
        """Per image, the mean."""
        return sum(op.instructions for op in self.ops)

    @property
    def macs(self) -> int:
        return sum(op.macs for op in self.ops)

    @property
    def cycles(self) -> int | None:
        """Estimated, per image, the mean; None if they were not asked for."""
        counted = [op.cycles for op in self.ops if op.cycles is not None]
        return sum(counted) if counted else None


@dataclass(frozen=True)
class FirmwareModel:
    """A network's firmware."""

    graph: Graph
    exported: CModel
    program: Program

    def run(
        self,
        images: np.ndarray,
        timeout: float = 3600,
        progress: Callable[[int, int], None] | None = None,
        cycles: Rules | None = None,
    ) -> FirmwareRun:
        """Runs uint8 images [n, H, W, C], n >= 1, in as many QEMU processes as there are processors. cycles: also
        estimate them, by these rules.

        ModelError if a kernel refuses, ToolchainError if the program faults or the core's cycles are unknown.
        """
        code = None if cycles is None else Code.of(self.program, cycles)
        parts = np.array_split(np.arange(len(images)), min(len(images), 2 * (os.cpu_count() or 1), 64))
        done = 0

        def run_part(part: np.ndarray) -> list[dict[str, list[str]]]:
            nonlocal done
            results = self._run_part(images[part], timeout, code)
            done += len(part)
            if progress:
                progress(done, len(images))
            return results

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = [result for part in pool.map(run_part, parts) for result in part]
        logits = np.array([np.frombuffer(bytes.fromhex(result["logits"][0]), np.int8) for result in results])
        counts = _means(results, "ops")
        took = [None] * len(counts) if code is None else _means(results, "cycles")
        ops = tuple(
            OpCount(op.kind, self.graph.tensors[op.output].name, op_macs(self.graph, op), count, time)
            for op, count, time in zip(self.graph.ops, counts, took, strict=True)
        )
        stack, longest = (max(int(result[key][0]) for result in results) for key in ("stack", "longest"))
        return FirmwareRun(logits, stack, longest, ops)

    def _run_part(self, images: np.ndarray, timeout: float, code: Code | None) -> list[dict[str, list[str]]]:
        first = self.graph.ops[0]
        if takes_strips(self.graph):  # the rows that patches cover
            images = images[:, : first.module.rows_read(first.options, images.shape[1])]
        with tempfile.TemporaryDirectory(prefix="mcuformer-") as folder:
            content = struct.pack("<i", len(images)) + to_int8(images).tobytes()
            (Path(folder) / "images.bin").write_bytes(content)
            if is_staged(self.graph):
                (Path(folder) / "weights.bin").write_bytes(weights_content(self.graph))
            parts: list[list[Block]] = []
            if code is not None:
                run, parts = block_counts.run(self.program, "op_done", folder, timeout)
            else:
                run = firmware.run(self.program, folder, timeout)
        if run.status:
            raise ModelError(f"the network on {self.program.machine.name} ended with status {run.status}: {run.text}")
        lines = [line.split(" ") for line in run.text.splitlines()]
        if len(lines) != RESULT_LINES * len(images):
            raise ToolchainError(f"the program on {self.program.machine.name} printed {run.text[:200]!r}")
        results = [
            {words[0]: words[1:] for words in lines[i : i + RESULT_LINES]} for i in range(0, len(lines), RESULT_LINES)
        ]
        if code is not None:
            for result, took in zip(results, self._op_cycles(parts, len(images), code), strict=True):
                result["cycles"] = list(map(str, took))
        return results

    def _op_cycles(self, parts: list[list[Block]], images: int, code: Code) -> list[list[int]]:
        """Of each op of each image. parts: between calls of op_done(), as run_model.c makes them: two that show its
        own cycles, then for each image one before the first op and one after each."""
        ops = len(self.graph.ops)
        if len(parts) != 2 + images * (ops + 1):
            raise ToolchainError(f"op_done() was called {len(parts)} times, not {2 + images * (ops + 1)}")
        own = code.cycles(parts[0])
        return [
            [code.cycles(part) - own for part in parts[first : first + ops]] for first in range(2, len(parts), ops + 1)
        ]


def _means(results: list[dict[str, list[str]]], key: str) -> list[int]:
    """Of each op over all images, rounded."""
    counts = np.array([[int(word) for word in result[key]] for result in results])
    return [int(round(mean)) for mean in counts.mean(axis=0)]


def kernel_objects(machine: Machine, folder: str | os.PathLike, yielding: bool = False) -> list[Path]:
    """The objects that all programs on a machine share: kernels, startup, board. yielding: the kernels call the hook
    inside long ops."""
    objects = firmware.compile_objects(
        sources.c_kernel_sources(),
        machine.core,
        Path(folder) / "kernels",
        include=[sources.c_kernel_folder(), sources.firmware_folder() / APP.parent],
        flags=[*MODEL_FLAGS, *([HOOKS] if yielding else [])],
    )
    return objects + firmware.firmware_objects(machine, Path(folder) / "firmware")


def build(
    graph: Graph,
    class_names: Sequence[str],
    machine: Machine,
    folder: str | os.PathLike,
    ram_bytes: int | None = None,
    flash_bytes: int | None = None,
    objects: Sequence[Path] | None = None,
    external_bytes: int = 0,
    arena_beside: bool = False,
) -> FirmwareModel:
    """The firmware of a graph, in `folder`. objects: kernel_objects(), if they already exist; external_bytes: of memory
    beside the chip, in which the network's constants then lie; arena_beside: the arena too.

    PlanError if it exceeds ram_bytes or flash_bytes (default: the machine's) or external_bytes; it says by how much.
    """
    firmware.require_tools(machine.core)
    folder = Path(folder)
    exported = c_model.generate(graph, list(class_names), core=machine.core)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    for name, text in exported.sources.items():
        (folder / "model" / name).write_text(text, encoding="utf-8")
    apps = sources.firmware_folder() / APP.parent
    include = [folder / "model", sources.c_kernel_folder(), apps]
    files = [folder / "model" / name for name in exported.c_files]
    placed = [*([EXTERNAL] if external_bytes else []), *([ARENA_BESIDE] if arena_beside else [])]
    flags = [*MODEL_FLAGS, HOOKS, *placed]
    compiled = firmware.compile_objects(files, machine.core, folder / "objects", include, flags)
    compiled += firmware.compile_objects(
        [sources.firmware_folder() / APP], machine.core, folder / "app", include, firmware.C_FLAGS
    )
    shared = list(objects) if objects is not None else kernel_objects(machine, folder / "shared")
    program = firmware.link(
        [*compiled, *shared], machine, folder / "program.elf", ram_bytes, flash_bytes, STACK_BYTES, external_bytes
    )
    return FirmwareModel(graph, exported, program)
