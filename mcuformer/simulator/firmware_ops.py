# SPDX-License-Identifier: Apache-2.0
"""Single ops on a simulated Cortex-M: their output and instructions. For tests and benchmarks of the kernels.

case = OpCase.of("IntLayerNorm", options, {"input": x}, {"gamma": gamma, "beta": beta})
[run] = run_ops([case], MACHINES["mps2-an386"], folder)
run.instructions, run.exact
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcuformer import sources
from mcuformer.converter.export import c_text
from mcuformer.converter.export.c_ops import Context, call_of
from mcuformer.converter.graph import Graph
from mcuformer.errors import ToolchainError
from mcuformer.simulator import firmware
from mcuformer.simulator.cycles import Rules, timed
from mcuformer.simulator.firmware import Machine

PLACES = ("image", "output", "added", "scratch")  # the app's static buffers


@dataclass(frozen=True)
class OpCase:
    """One op on given activations. graph: this op alone; inputs: its activations, int8 [1, ...], in order."""

    graph: Graph
    inputs: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, kind: str, options, activations: dict[str, np.ndarray], constants: dict) -> OpCase:
        """kind, options and constants: as for Graph.add_op; activations: int8 or int16 [1, ...]."""
        graph = Graph()
        indices = {name: graph.add_input(name, value.shape, dtype=value.dtype) for name, value in activations.items()}
        graph.output = graph.add_op(kind, "op", options, indices, constants)
        return cls(graph, tuple(activations.values()))

    def reference(self) -> np.ndarray:
        return self.graph.run(*self.inputs)


@dataclass(frozen=True)
class OpRun:
    """instructions: of the kernel call; exact: whether every byte of the output is the reference's; cycles: estimated,
    None if they were not asked for."""

    instructions: int
    exact: bool
    cycles: int | None = None


def run_ops(
    cases: Sequence[OpCase],
    machine: Machine,
    folder: str | os.PathLike,
    objects: Sequence[Path] | None = None,
    timeout: float = 600,
    stack_bytes: int = 8192,
    cycles: Rules | None = None,
) -> list[OpRun]:
    """Builds one program of all cases in `folder` and runs it. objects: the machine's firmware_model.kernel_objects();
    cycles: also estimate them, by these rules.

    Outputs overwrite the first input if the op allows it. Attention is compared in the columns it writes, q's.
    """
    from mcuformer.simulator.firmware_model import MODEL_FLAGS, kernel_objects

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ops.c").write_text(_app(cases), encoding="utf-8")
    compiled = firmware.compile_objects(
        [folder / "ops.c"],
        machine.core,
        folder / "objects",
        [sources.c_kernel_folder()],
        [*MODEL_FLAGS, "-Wno-overlength-strings"],
    )
    shared = list(objects) if objects is not None else kernel_objects(machine, folder / "shared")
    program = firmware.link(
        [*compiled, *shared], machine, folder / "ops.elf", machine.most_ram_bytes, machine.most_flash_bytes, stack_bytes
    )
    (folder / "inputs.bin").write_bytes(b"".join(_bytes(value) for case in cases for value in case.inputs))
    took: Sequence[int | None] = [None] * len(cases)
    if cycles is not None:
        run, took = timed(program, folder, timeout, cycles)
    else:
        run = firmware.run(program, folder, timeout)
    lines = [line.split() for line in run.text.splitlines()]
    if run.status or len(lines) != len(cases):
        raise ToolchainError(f"the ops on {machine.name} ended with status {run.status}: {run.text[:200]!r}")
    wanted = [zlib.crc32(_bytes(case.reference())) for case in cases]
    return [
        OpRun(int(count), status == "0" and int(crc) & 0xFFFFFFFF == want, time)
        for (status, count, crc), want, time in zip(lines, wanted, took, strict=True)
    ]


def _bytes(value: np.ndarray) -> bytes:
    return np.ascontiguousarray(value).tobytes()


def _app(cases: Sequence[OpCase]) -> str:
    constants: list[str] = []
    functions: list[str] = []
    sizes = dict.fromkeys(PLACES, 16)
    for index, case in enumerate(cases):
        graph, (op,) = case.graph, case.graph.ops
        names = dict(zip(graph.inputs, ("image", "added"), strict=False))
        over = graph.inputs[0] == op.inputs[op.module.OVERWRITES[0]] if op.module.OVERWRITES else False
        names[graph.output] = "image" if over else "output"
        output = graph.tensors[graph.output].bytes
        for tensor, place in names.items():
            sizes[place] = max(sizes[place], graph.tensors[tensor].bytes)
        sizes["scratch"] = max(sizes["scratch"], graph.scratch_bytes(op))

        def constant(name: str, values: np.ndarray, index=index) -> str:
            c_name = c_text.identifier(f"c{index}_{name}")
            constants.append("static " + c_text.array(c_name, values))
            return c_name

        def address(tensor: int, graph=graph, names=names) -> str:
            wide = graph.tensors[tensor].dtype == np.int16
            return f"(int16_t*)(void*){names[tensor]}" if wide else names[tensor]

        call = call_of(op, Context(graph, constant, address, "scratch", "NULL"))
        if call.params is None:
            raise ToolchainError(f"{op.kind}: has no parameters; an op in firmware needs some")
        kind, fields = call.params
        reads = "".join(
            f"  if (board_read(file, {names[tensor]}, {value.nbytes}) != 0) return 2;\n"
            for tensor, value in zip(graph.inputs, case.inputs, strict=True)
        )
        text = call.text.replace("&params", f"&params{index}")
        struct = c_text.struct(fields).replace(c_text.KEPT, " ")
        functions.append(
            f"static const {kind} params{index} = {struct};\n"
            f"static int case{index}(int32_t file) {{\n"
            f"{reads}"
            f"  const uint32_t first = board_ticks();\n  const mcuf_status status = {text};\n"
            f"  report(status, board_instructions(first, board_ticks()), {names[graph.output]}, {output});\n"
            "  return 0;\n}\n"
        )
    headers = "".join(f'#include "{path.name}"\n' for path in sorted(sources.c_kernel_folder().glob("mcuf_*_s8.h")))
    buffers = "".join(f"MCUF_ALIGNED static int8_t {place}[{size}];\n" for place, size in sizes.items())
    calls = "".join(f"  if (case{i}(file) != 0) return 3;\n" for i in range(len(cases)))
    return (
        f'#include "board.h"\n{headers}#define MCUF_ALIGNED __attribute__((aligned(16)))\n{buffers}'
        + "".join(constants)
        + _REPORT
        + "".join(functions)
        + f'int main(void) {{\n  const int32_t file = board_open("inputs.bin");\n  if (file < 0) return 2;\n{calls}'
        + "  (void)added, (void)output, (void)scratch;\n  return 0;\n}\n"
    )


_REPORT = """
static void report(mcuf_status status, uint32_t instructions, const int8_t* values, int32_t count) {
  uint32_t crc = 0xFFFFFFFFu;
  for (int32_t i = 0; i < count; ++i) {
    crc ^= (uint8_t)values[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1)));
  }
  board_print_number((int32_t)status);
  board_print(" "), board_print_number((int32_t)instructions);
  board_print(" "), board_print_number((int32_t)~crc);
  board_print("\\n");
}
"""
