# SPDX-License-Identifier: Apache-2.0
"""Compiles an Arduino library as the Arduino Mbed cores do: its flash and RAM, and programs for QEMU."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from mcuformer.boards import Board
from mcuformer.simulator import firmware
from mcuformer.simulator.firmware import Machine, Program

# From the Mbed cores 4.x, after the processor's flags.
COMMON = ("-Os", "-funsigned-char", "-fmessage-length=0", "-fno-exceptions", "-fomit-frame-pointer")
C_FLAGS = ("-std=gnu11",)
CXX_FLAGS = ("-std=gnu++14", "-fno-rtti", "-fno-threadsafe-statics")

# Stands in for a sketch if only the network's size matters.
PROBE = """#include "MCUFormer.h"
#ifdef MODEL_CLASSES
static int8_t logits[MODEL_CLASSES];
#define RESULT model_confidence(logits, 0)
#else
static int8_t logits[MODEL_EMBEDDING_LENGTH];
#if MODEL_GALLERY
#define RESULT model_nearest(logits, 0)
#else
#define RESULT logits[0]
#endif
#endif
static const int8_t image[MODEL_IMAGE_BYTES] = {1};
#ifdef MODEL_STRIP_ROWS
static int32_t rows(void* user, int32_t first_row, int32_t row_count, int8_t* target) {
  (void)user;
  for (int32_t i = 0; i < row_count * MODEL_IMAGE_WIDTH * MODEL_IMAGE_CHANNELS; ++i) target[i] = image[first_row + i];
  return row_count;
}
int main(void) { return model_invoke_strips(rows, 0, logits) + RESULT; }
#else
int main(void) { return model_invoke(image, logits) + RESULT; }
#endif
"""


def machine_of(board: Board) -> Machine | None:
    """The QEMU machine with a board's core and its Mbed core's flags; None if Arduino has no such core."""
    if board.core.arduino_flags is None:
        return None
    return dataclasses.replace(board.core, flags=(*board.core.arduino_flags, *COMMON)).machine


def compile_library(
    library: Path, machine: Machine, objects: Path, include: Sequence[Path] = (), flags: Sequence[str] = ()
) -> list[Path]:
    """All that Arduino compiles of a library: every .c, .cpp and .S under src, with src as the only include path."""
    found = sorted((library / "src").rglob("*"))
    include = [library / "src", *include]
    compiled = []
    for number, (suffixes, standard) in enumerate((((".c", ".S"), C_FLAGS), ((".cpp",), CXX_FLAGS))):
        files = [path for path in found if path.suffix in suffixes]
        compiled += firmware.compile_objects(files, machine.core, objects / str(number), include, [*standard, *flags])
    return compiled


def measure(library: Path, board: Board, folder: Path, name: str = "model") -> Program | None:
    """The network of that name alone, linked for a board; PlanError if it exceeds the board's budgets. None: no such
    core."""
    machine = machine_of(board)
    if machine is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "probe.c").write_text(
        re.sub("model_|MODEL_", lambda found: {"m": name, "M": name.upper()}[found[0][0]] + "_", PROBE)
    )
    objects = compile_library(library, machine, folder / "library")
    objects += firmware.compile_objects([folder / "probe.c"], machine.core, folder, [library / "src"], C_FLAGS)
    objects += firmware.firmware_objects(machine, folder / "firmware")
    return firmware.link(objects, machine, folder / "probe.elf", board.sram_budget, board.flash_budget)
