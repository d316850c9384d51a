# SPDX-License-Identifier: Apache-2.0
"""Sketches of a packaged library, compiled with the board's core's flags and run in QEMU."""

from pathlib import Path

from mcuformer import sources
from mcuformer.simulator import arduino_build, firmware

HERE = Path(__file__).resolve().parent
STUBS = HERE / "stubs"


def compile_sketch(library: Path, name: str, machine, work: Path, include=(), define="") -> list[Path]:
    """As Arduino does: Arduino.h before the sketch, C++. define: a macro."""
    source = library / "examples" / name / f"{name}.ino"
    target = work / name / f"{name}.ino.cpp"
    target.parent.mkdir(exist_ok=True)
    target.write_text(f'#include <Arduino.h>\n#line 1 "{source}"\n{source.read_text()}')
    flags = [*arduino_build.CXX_FLAGS, *([f"-D{define}"] if define else [])]
    found = [library / "src", source.parent, STUBS, *include]
    return firmware.compile_objects([target], machine.core, target.parent, found, flags)


def link_sketch(objects: list[Path], board, machine, work: Path) -> firmware.Program:
    """Linked within the board's memory; runs setup() once and loop() once. objects: of library and sketch."""
    work.mkdir(exist_ok=True)
    include = [STUBS, sources.firmware_folder()]
    run_time = [HERE / "qemu_arduino.c", *firmware.run_time(machine)]
    objects = [*objects, *firmware.compile_objects(run_time, machine.core, work / "c", include, firmware.C_FLAGS)]
    serial = [HERE / "serial.cpp"]
    objects += firmware.compile_objects(serial, machine.core, work / "cpp", include, arduino_build.CXX_FLAGS)
    return firmware.link(objects, machine, work / "sketch.elf", board.sram_budget, board.flash_budget)
