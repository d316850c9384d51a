# SPDX-License-Identifier: Apache-2.0
"""The processor cores that models are compiled for: one entry each, with all that is known about it.

A board has a core (mcuformer/boards.py). Its packing decides how weights lie in memory, its flags how the kernels are
compiled, its machine where firmware is simulated, its coefficients whether instructions are predicted. The last two
may be missing. docs/add_a_core.md says how to add one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from mcuformer.errors import ConfigError

KB = 1024
# Which kernels the compiler's macros choose: tflm_kernels/core/mcuf_target.h.
ISAS = ("portable", "scalar", "dsp", "mve")
PACKINGS = ("rows", "pairs")  # tflm_kernels/core/mcuf_packing.h: how weights lie in memory


@dataclass(frozen=True)
class Machine:
    """A QEMU machine, with a processor that runs a core's code. The name is unique. Sizes in bytes.

    ram_bytes, flash_bytes: default limits, those of a board with this core; most_*: what the machine has; *_origin:
    where they begin; external: memory that stands for a flash chip that is mapped to memory, 0 bytes: none; emulator:
    the program that simulates it; core: set by the Core it belongs to.
    """

    name: str
    ram_bytes: int
    flash_bytes: int
    most_ram_bytes: int
    most_flash_bytes: int
    vectors_origin: int = 0
    flash_origin: int = 0x40
    ram_origin: int = 0x20000000
    most_external_bytes: int = 0
    external_origin: int = 0
    emulator: str = "qemu-system-arm"
    arguments: tuple[str, ...] = ()
    startup: str = "startup_arm.c"
    core: Core = field(init=False, repr=False, compare=False)


@dataclass(frozen=True)
class Core:
    """A processor core.

    key           short name, unique: in JSON, and for `get_core`
    name          as data sheets write it, with its floating-point unit
    label         the same without that unit
    isa           the instruction set that the kernels use, one of ISAS
    packing       of the weights, as its kernels run fastest; one of PACKINGS
    flags         compiler flags for code that runs on it
    machine       the machine that simulates it, or None
    coefficients  its entry in converter/estimate/instruction_coefficients.json, by the key of the core that it was
                  fitted on; None: its instructions are unknown
    cycle_coefficients   the same in cycle_coefficients.json; None: Arm publishes no cycles of its instructions, or
                  they are not in mcuformer/simulator/cycles.py
    arduino_flags of its Arduino Mbed core, in place of flags; None: Arduino has none
    toolchain     prefix of the names of its compiler and tools
    """

    key: str
    name: str
    label: str
    isa: str
    packing: str
    flags: tuple[str, ...]
    machine: Machine | None = None
    coefficients: str | None = None
    arduino_flags: tuple[str, ...] | None = None
    toolchain: str = "arm-none-eabi-"
    cycle_coefficients: str | None = None

    def __post_init__(self) -> None:
        for name, legal in (("isa", ISAS), ("packing", PACKINGS)):
            if getattr(self, name) not in legal:
                raise ConfigError(f"core {self.name}: {name} {getattr(self, name)!r} must be one of {', '.join(legal)}")
        if self.machine is not None:
            machine = dataclasses.replace(self.machine)
            object.__setattr__(machine, "core", self)
            object.__setattr__(self, "machine", machine)


def _thumb(cpu: str, *floating_point: str) -> tuple[str, ...]:
    return ("-mthumb", f"-mcpu={cpu}", *floating_point)


MB = 1024 * KB
PSRAM = 16 * MB  # of the mps2 machines
HARD = "-mfloat-abi=hard"
SOFTFP = "-mfloat-abi=softfp"


def _an385(name: str, ram_bytes: int, flash_bytes: int, *arguments: str) -> Machine:
    """A Cortex-M3."""
    return Machine(
        name, ram_bytes, flash_bytes, 4 * MB, 4 * MB, most_external_bytes=PSRAM, external_origin=0x21000000,
        arguments=arguments,
    )  # fmt: skip


def _an505(name: str, *arguments: str) -> Machine:
    """A Cortex-M33, in its secure memory, where it starts."""
    return Machine(
        name, 256 * KB, 1 * MB, 4 * MB, 4 * MB, vectors_origin=0x10000000, flash_origin=0x10000040,
        ram_origin=0x38000000, most_external_bytes=PSRAM, external_origin=0x80000000, arguments=arguments,
    )  # fmt: skip


def _virt(name: str, cpu: str) -> Machine:
    """A 32-bit RISC-V; all of its memory is RAM, in two parts here."""
    return Machine(
        name, 400 * KB, 4 * MB, 32 * MB, 32 * MB, vectors_origin=0x80000000, flash_origin=0x80000040,
        ram_origin=0x82000000, most_external_bytes=PSRAM, external_origin=0x84000000,
        emulator="qemu-system-riscv32", arguments=("-M", "virt", "-bios", "none", "-cpu", cpu),
        startup="startup_riscv.c",
    )  # fmt: skip


def _risc_v(key: str, name: str, march: str, machine: Machine) -> Core:
    flags = (f"-march={march}", "-mabi=ilp32", "--specs=picolibc.specs")
    # The cores differ in atomics, which kernels do not need.
    return Core(key, name, name, "scalar", "rows", flags, machine, "rv32imc", toolchain="riscv64-unknown-elf-")


def _xtensa(key: str, name: str) -> Core:
    # Debian's compiler is for an ESP8266, an older core without windowed registers: it shows that the kernels compile.
    return Core(key, name, name, "scalar", "rows", ("-mlongcalls",), toolchain="xtensa-lx106-elf-")


_ALL = (
    # ARMv6-M code on a Cortex-M3, which has the machines' larger memory; startup_arm.c lets unaligned accesses fault.
    Core(
        "m0plus", "Cortex-M0+", "Cortex-M0+", "scalar", "rows", _thumb("cortex-m0plus"),
        machine=_an385("mps2-an385-m0plus", 256 * KB, 2 * MB, "-M", "mps2-an385"),
        coefficients="m0plus",
    ),
    Core(
        "m3", "Cortex-M3", "Cortex-M3", "scalar", "rows", _thumb("cortex-m3"),
        machine=_an385("mps2-an385", 256 * KB, 1 * MB),
        coefficients="m3",
    ),
    Core(
        "m4", "Cortex-M4F", "Cortex-M4", "dsp", "pairs", _thumb("cortex-m4", "-mfpu=fpv4-sp-d16", HARD),
        machine=Machine(
            "mps2-an386", 256 * KB, 1 * MB, 4 * MB, 4 * MB,
            most_external_bytes=PSRAM, external_origin=0x21000000,
        ),
        coefficients="m4",
        cycle_coefficients="m4",
        arduino_flags=_thumb("cortex-m4", SOFTFP, "-mfpu=fpv4-sp-d16"),  # Mbed cores 4.x, ARDUINO_NANO33BLE
    ),
    Core(
        "m7", "Cortex-M7", "Cortex-M7", "dsp", "pairs", _thumb("cortex-m7", "-mfpu=fpv5-d16", HARD),
        machine=Machine(
            "mps2-an500", 512 * KB, 2 * MB, 4 * MB, 4 * MB,
            most_external_bytes=PSRAM, external_origin=0x60000000,
        ),
        coefficients="m7",
        arduino_flags=_thumb("cortex-m7", SOFTFP, "-mfpu=fpv5-d16"),  # Mbed cores 4.x, PORTENTA_H7_M7
    ),
    # With the DSP extension, which nearly all chips with an M33 have.
    Core(
        "m33", "Cortex-M33", "Cortex-M33", "dsp", "pairs", _thumb("cortex-m33", "-mfpu=fpv5-sp-d16", HARD),
        machine=_an505("mps2-an505"),
        coefficients="m4",  # the same kernels: tools/fit_instruction_model.py checks how well they fit
    ),
    Core(
        "m33-nodsp", "Cortex-M33 without DSP", "Cortex-M33 without DSP", "scalar", "rows", _thumb("cortex-m33+nodsp"),
        machine=_an505("mps2-an505-nodsp", "-M", "mps2-an505"),
        coefficients="m3",
    ),
    # Without the hard floating-point ABI, GCC leaves the vector extension out.
    Core(
        "m55", "Cortex-M55", "Cortex-M55", "mve", "rows", _thumb("cortex-m55", HARD),
        machine=Machine(
            "mps3-an547", 4 * MB, 2 * MB, 4 * MB, 2 * MB,
            vectors_origin=0x10000000, flash_origin=0x11000000, ram_origin=0x31000000,
        ),
        coefficients="m55",
    ),
    # By its architecture, since GCC has -mcpu=cortex-m85 from version 13 only. QEMU 7.2 has no machine with it.
    Core("m85", "Cortex-M85", "Cortex-M85", "mve", "rows", ("-mthumb", "-march=armv8.1-m.main+mve.fp+fp.dp", HARD)),
    _risc_v("rv32imc", "RV32IMC", "rv32imc", _virt("virt-rv32imc", "rv32,a=false,f=false,d=false")),
    _risc_v("rv32imac", "RV32IMAC", "rv32imac", _virt("virt-rv32imac", "rv32,f=false,d=false")),
    _xtensa("lx6", "Xtensa LX6"),
    _xtensa("lx7", "Xtensa LX7"),
)  # fmt: skip

CORES: dict[str, Core] = {core.key: core for core in _ALL}


def get_core(name: str) -> Core:
    """The core whose key, name or label is `name`; if there is none, ConfigError names them all."""
    for core in CORES.values():
        if name in (core.key, core.name, core.label):
            return core
    known = ", ".join(core.name for core in CORES.values())
    raise ConfigError(f"core {name!r} is unknown; choose one of {known}, or add it to mcuformer/cores.py")
