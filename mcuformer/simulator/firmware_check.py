# SPDX-License-Identifier: Apache-2.0
"""CheckModel (tflm_kernels/model_check.h) on a simulated Cortex-M: what it says of a model, and what it costs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mcuformer import sources
from mcuformer.simulator import firmware
from mcuformer.simulator.firmware import Machine

FLAGS = ("-std=c++11", "-fno-exceptions", "-fno-rtti", "-DMCUF_HOST_PLUGIN")
STACK_BYTES = 8192


@dataclass(frozen=True)
class CheckRun:
    """wrong: what CheckModel says, None if nothing is wrong; instructions of the call; code_bytes: its code and
    constants in flash; stack_bytes: the most that it used."""

    wrong: str | None
    instructions: int
    code_bytes: int
    stack_bytes: int


def _app(content: bytes) -> str:
    rows = ",\n".join(",".join(map(str, content[i : i + 32])) for i in range(0, len(content), 32))
    return f"""
#include "model_check.h"
extern "C" {{
#include "board.h"
}}
alignas(16) static const unsigned char model[] = {{
{rows}
}};
int main(void) {{
  const uint32_t here = board_stack_here();
  board_paint_stack();
  const uint32_t first = board_ticks();
  const char* wrong = mcuformer::CheckModel(model, sizeof(model));
  const uint32_t last = board_ticks();
  board_print_number(static_cast<int32_t>(board_instructions(first, last)));
  board_print(" ");
  board_print_number(static_cast<int32_t>(board_stack_used() - here));
  board_print(" ");
  board_print(wrong == nullptr ? "" : wrong);
  return 0;
}}
"""


def run_check(content: bytes, machine: Machine, folder: str | os.PathLike) -> CheckRun:
    """Runs CheckModel on the bytes of a .tflite file, which lie in flash. ToolchainError without the compiler or QEMU,
    or if the model does not fit."""
    folder, kernels = Path(folder), sources.kernels_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.cc").write_text(_app(content))
    files = [kernels / name for name in sources.listed("MCUF_CHECK_SRCS")]
    check = firmware.compile_objects(files, machine.core, folder / "check", [kernels], FLAGS)
    app = firmware.compile_objects([folder / "app.cc"], machine.core, folder / "app", [kernels], FLAGS)
    board = firmware.firmware_objects(machine, folder / "board")
    program = firmware.link(
        [*app, *check, *board], machine, folder / "check.elf", machine.most_ram_bytes, machine.most_flash_bytes,
        STACK_BYTES,
    )  # fmt: skip
    instructions, stack, wrong = firmware.run(program).text.split(" ", 2)
    code = sum(
        size
        for path in check
        for section, size in firmware.section_bytes(path, machine.core.toolchain).items()
        if section.startswith((".text", ".rodata"))
    )
    return CheckRun(wrong.strip() or None, int(instructions), code, int(stack))
