# SPDX-License-Identifier: Apache-2.0
"""The log-mel front end on a simulated Cortex-M: its rows, instructions, bytes. For tests and benchmarks.

run = run_front_end(LogMel(), samples, MACHINES["mps2-an386"], folder)
run.rows, run.instructions, run.code_bytes
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcuformer import sources
from mcuformer.converter.export import front_end as c_front_end
from mcuformer.errors import ToolchainError
from mcuformer.simulator import firmware
from mcuformer.simulator.firmware import Machine
from mcuformer.simulator.firmware_model import MODEL_FLAGS
from mcuformer.sound import LogMel

PIECE = 256  # samples that arrive at a time, as a PDM microphone brings them

APP = """
#include "board.h"
#include "model_front_end.h"

static int16_t samples[MODEL_FRONT_END_WINDOW], piece[{piece}];
static int32_t spectrum[MODEL_FRONT_END_FFT];
static mcuf_log_mel_state state = {{samples, spectrum, 0}};

int main(void) {{
  const int32_t file = board_open("samples.bin");
  int8_t row[MODEL_FRONT_END_MELS];
  uint32_t instructions = 0, stack = 0;
  if (file < 0 || mcuf_log_mel_check(&model_front_end) != MCUF_OK) return 2;
  for (int32_t left = {count}; left > 0;) {{
    const int32_t count = left < {piece} ? left : {piece};
    if (board_read(file, piece, (uint32_t)count * sizeof piece[0]) != 0) return 3;
    left -= count;
    for (int32_t at = 0; at < count;) {{
      const uint32_t here = board_stack_here();
      board_paint_stack();
      const uint32_t first = board_ticks();
      at += mcuf_log_mel_push(&model_front_end, &state, piece + at, count - at);
      const int32_t made = mcuf_log_mel_row(&model_front_end, &state, row);
      instructions += board_instructions(first, board_ticks());
      if (board_stack_used() - here > stack) stack = board_stack_used() - here;
      for (int32_t i = 0; made && i < MODEL_FRONT_END_MELS; ++i) {{
        board_print_number(row[i]);
        board_print(i + 1 < MODEL_FRONT_END_MELS ? " " : "\\n");
      }}
    }}
  }}
  board_print_number((int32_t)instructions);
  board_print(" ");
  board_print_number((int32_t)stack);
  board_print("\\n");
  return 0;
}}
"""


@dataclass(frozen=True, eq=False)
class FrontEndRun:
    """rows: int8 [frames, mels]; instructions: of all calls; stack_bytes: at most, below the caller; code_bytes,
    table_bytes: of flash; ram_bytes: of one stream."""

    rows: np.ndarray
    instructions: int
    stack_bytes: int
    code_bytes: int
    table_bytes: int
    ram_bytes: int


def run_front_end(front_end: LogMel, samples: np.ndarray, machine: Machine, folder: str | os.PathLike) -> FrontEndRun:
    """Builds a program in `folder` that pushes int16 samples in pieces, and runs it. ToolchainError if it fails."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = c_front_end.model_files("model", front_end)
    files["app.c"] = APP.format(piece=PIECE, count=len(samples))
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "samples.bin").write_bytes(samples.astype("<i2").tobytes())
    kernels = sources.kernels_folder()
    paths = [*(kernels / name for name in sources.listed("MCUF_SOUND_SRCS")), folder / "model_front_end.c"]
    include = [kernels, sources.c_kernel_folder(), folder]
    objects = firmware.compile_objects(paths, machine.core, folder / "objects", include, MODEL_FLAGS)
    objects += firmware.compile_objects([folder / "app.c"], machine.core, folder, include, firmware.C_FLAGS)
    program = firmware.link([*objects, *firmware.firmware_objects(machine, folder / "board")], machine,
                            folder / "sound.elf", machine.most_ram_bytes, machine.most_flash_bytes)  # fmt: skip
    run = firmware.run(program, folder)
    lines: list[list[int]] = [list(map(int, line.split())) for line in run.text.splitlines()] or [[]]
    *rows, last = lines
    if run.status or len(last) != 2:
        raise ToolchainError(f"the front end on {machine.name} ended with status {run.status}: {run.text[:200]!r}")
    sections = [firmware.section_bytes(path, machine.core.toolchain) for path in objects[: len(paths)]]
    code = sum(size for found in sections for name, size in found.items() if name.startswith(".text"))
    made = np.array(rows, np.int8).reshape(-1, front_end.mels)
    instructions, stack = last
    tables, ram = c_front_end.table_bytes(front_end), c_front_end.ram_bytes(front_end)
    return FrontEndRun(made, instructions, stack, code, tables, ram)
