# SPDX-License-Identifier: Apache-2.0
"""Firmware for the cores of mcuformer/cores.py, built with their compiler and run in QEMU.

    files, include = [*sources.c_kernel_sources(), "app.c"], [sources.c_kernel_folder()]
    program = build(files, MACHINES["mps2-an386"], folder, include=include)
    print(run(program).text)

An app has a `main`, and uses firmware/board.h: text output, files, an instruction counter, a painted stack.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from mcuformer.checks import is_whole
from mcuformer.cores import CORES, KB, Core, Machine
from mcuformer.errors import ConfigError, PlanError, ToolchainError
from mcuformer.sources import firmware_folder

COMPILER, QEMU = "arm-none-eabi-gcc", "qemu-system-arm"
# The tools that build and run firmware, and Debian's package of each; debian-packages.txt lists the same.
PACKAGES = {
    "compiler": "gcc-arm-none-eabi",
    "C library": "libnewlib-arm-none-eabi",
    "C++ headers": "libstdc++-arm-none-eabi-newlib",
    "QEMU": "qemu-system-arm",
}
# Those of other architectures, by the prefix of the compiler's name: an executable, None for the C library, and its
# package.
OTHER_PACKAGES: dict[str, dict[str | None, str]] = {
    "riscv64-unknown-elf-": {
        "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
        None: "picolibc-riscv64-unknown-elf",
        "qemu-system-riscv32": "qemu-system-misc",
    },
    "xtensa-lx106-elf-": {"xtensa-lx106-elf-gcc": "gcc-xtensa-lx106", None: "picolibc-xtensa-lx106-elf"},
}
FLAGS = ("-O2", "-ffunction-sections", "-fdata-sections", "-fno-common", "-g0")
WARNINGS = ("-Wall", "-Wextra", "-Werror")
C_FLAGS = ("-std=gnu99",)  # for the firmware itself; the kernels are C99
LEAST_MEMORY = 4 * KB  # of RAM and flash, bytes

MACHINES: dict[str, Machine] = {core.machine.name: core.machine for core in CORES.values() if core.machine is not None}


def get_machine(name: str) -> Machine:
    """The machine called `name`, or that of the core of this name, key or label. ConfigError if there is none."""
    if name in MACHINES:
        return MACHINES[name]
    known = ", ".join(f"{machine.name} ({machine.core.key})" for machine in MACHINES.values())
    core = next((core for core in CORES.values() if name in (core.key, core.name, core.label)), None)
    if core is None:
        raise ConfigError(f"machine {name!r} is unknown; choose one of {known}, or the name of its core")
    if core.machine is None:
        raise ConfigError(f"core {core.name}: QEMU has no machine for it that is known here; choose one of {known}")
    return core.machine


def missing_tools(core: Core | None = None) -> str | None:
    """None if all that a core's programs need is installed, else one line that names each missing piece and its
    package. core: default a Cortex-M."""
    if core is not None and core.toolchain in OTHER_PACKAGES:
        return _missing_packages(core)
    missing = _missing(os.environ.get("PATH", ""))
    if not missing:
        return None
    pieces = ", ".join(f"{_PIECE_NAMES[piece]} ({PACKAGES[piece]})" for piece in missing)
    packages = " ".join(PACKAGES[piece] for piece in missing)
    return f"not installed: {pieces}; on Debian and Ubuntu: apt-get install {packages}"


@functools.cache
def _missing_packages(core: Core) -> str | None:
    """missing_tools of a core that is no Cortex-M."""
    compiler = f"{core.toolchain}gcc"
    missing = {}
    for program, package in OTHER_PACKAGES[core.toolchain].items():
        if program is not None and shutil.which(program) is None:
            missing[program] = package
        elif program is None and compiler not in missing and not _preprocesses("c", "string.h", compiler, *core.flags):
            missing["the C library's headers"] = package
    if not missing:
        return None
    pieces = ", ".join(f"{piece} ({package})" for piece, package in missing.items())
    return f"not installed: {pieces}; on Debian and Ubuntu: apt-get install {' '.join(missing.values())}"


@functools.cache
def _missing(path: str) -> list[str]:
    """The pieces of PACKAGES that are not found on `path`, the value of PATH."""
    return [piece for piece in PACKAGES if not _has(piece)]


_PIECE_NAMES = {
    "compiler": COMPILER, "C library": "newlib's C headers and libc.a", "C++ headers": "the C++ standard headers",
    "QEMU": QEMU,
}  # fmt: skip


def _has(piece: str) -> bool:
    if piece in ("compiler", "QEMU"):
        return shutil.which({"compiler": COMPILER, "QEMU": QEMU}[piece]) is not None
    if shutil.which(COMPILER) is None:  # then it is the compiler that is missing
        return True
    if piece == "C library":
        found = _run_tool([COMPILER, "-print-file-name=libc.a"]).stdout
        return os.sep in found and _preprocesses("c", "string.h")  # gcc returns the bare name if there is no such file
    return _preprocesses("c++", "cstddef")


def _preprocesses(language: str, header: str, compiler: str = COMPILER, *flags: str) -> bool:
    command = [compiler, *flags, "-x", language, "-E", "-", "-o", os.devnull]
    return subprocess.run(command, input=f"#include <{header}>\n", text=True, capture_output=True).returncode == 0


def require_tools(core: Core | None = None) -> None:
    """ToolchainError if something is missing that a core's programs need. core: default a Cortex-M."""
    if missing := missing_tools(core):
        raise ToolchainError(missing)


@dataclass(frozen=True)
class Program:
    """A linked program (ELF). In flash: code, constants, vectors and initial values; in RAM: data and stack; in
    external flash: the section .external."""

    path: Path
    machine: Machine
    sections: dict[str, int] = field(repr=False)

    @property
    def code_bytes(self) -> int:
        return sum(self.sections.get(name, 0) for name in (".vectors", ".text", ".ARM.exidx"))

    @property
    def constant_bytes(self) -> int:
        return self.sections.get(".rodata", 0) + self.sections.get(".data", 0)

    @property
    def flash_bytes(self) -> int:
        return self.code_bytes + self.constant_bytes

    @property
    def external_bytes(self) -> int:
        """In external flash."""
        return self.sections.get(".external", 0)

    @property
    def static_bytes(self) -> int:
        """RAM without the stack."""
        return self.sections.get(".data", 0) + self.sections.get(".bss", 0)

    @property
    def stack_bytes(self) -> int:
        """Reserved for the stack."""
        return self.sections.get(".stack", 0)


@dataclass(frozen=True)
class Run:
    """What a program printed, and its exit status."""

    text: str
    status: int


def compile_objects(
    sources: Iterable[str | os.PathLike],
    core: Core,
    folder: str | os.PathLike,
    include: Sequence[str | os.PathLike] = (),
    flags: Sequence[str] = (),
) -> list[Path]:
    """Compiles C and assembly files for a core into `folder`; returns the objects, in order.

    ToolchainError with the compiler's words if one does not compile.
    """
    require_tools(core)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    include_flags = [f"-I{path}" for path in (*include, firmware_folder())]

    def compile_one(job: tuple[int, Path]) -> Path:
        index, source = job
        target = folder / f"{index}_{source.name}.o"
        command = [f"{core.toolchain}gcc", *FLAGS, *core.flags, *WARNINGS, *flags, *include_flags]
        _call([*command, "-c", source, "-o", target], source)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, enumerate(map(Path, sources))))


def run_time(machine: Machine) -> list[Path]:
    """The sources of the startup and board functions, which every program needs."""
    return [firmware_folder() / name for name in ("board.c", machine.startup)]


def firmware_objects(machine: Machine, folder: str | os.PathLike) -> list[Path]:
    """The objects of run_time()."""
    return compile_objects(run_time(machine), machine.core, folder, flags=C_FLAGS)


def link(
    objects: Iterable[str | os.PathLike],
    machine: Machine,
    target: str | os.PathLike,
    ram_bytes: int | None = None,
    flash_bytes: int | None = None,
    stack_bytes: int = 4 * KB,
    external_bytes: int = 0,
) -> Program:
    """Links objects into a program. ram_bytes, flash_bytes: hard limits; default: the machine's; external_bytes: of
    flash for the section .external.

    PlanError says by how much a program exceeds a limit.
    """
    ram = _limit(machine, "ram_bytes", ram_bytes, machine.ram_bytes, machine.most_ram_bytes)
    flash = _limit(machine, "flash_bytes", flash_bytes, machine.flash_bytes, machine.most_flash_bytes)
    if not is_whole(external_bytes, 0, machine.most_external_bytes):
        raise ConfigError(
            f"external_bytes = {external_bytes!r}: must be a whole number from 0 to {machine.most_external_bytes}, "
            f"what {machine.name} has"
        )
    if not 256 <= stack_bytes <= ram or stack_bytes % 8:
        raise ConfigError(f"stack_bytes = {stack_bytes}: must be a multiple of 8 from 256 to {ram}")
    symbols = {
        "VECTORS_ORIGIN": machine.vectors_origin, "FLASH_ORIGIN": machine.flash_origin, "FLASH_BYTES": flash,
        "RAM_ORIGIN": machine.ram_origin, "RAM_BYTES": ram, "STACK_BYTES": stack_bytes,
        "EXTERNAL_ORIGIN": machine.external_origin, "EXTERNAL_BYTES": external_bytes,
    }  # fmt: skip
    target = Path(target)
    command = [
        f"{machine.core.toolchain}gcc", *FLAGS, *machine.core.flags,
        "-nostartfiles", "-T", firmware_folder() / "link.ld", "-Wl,--gc-sections", "-Wl,--fatal-warnings",
        *(f"-Wl,--defsym={name}={value}" for name, value in symbols.items()),
        f"-Wl,-Map={_map_of(target)}", *objects, "-o", target,
    ]  # fmt: skip
    done = _run_tool(command)
    if done.returncode:
        over = {name: int(size) for name, size in re.findall(r"region `(\w+)' overflowed by (\d+) bytes", done.stderr)}
        if over:
            limits = {"RAM": ram, "FLASH": flash, "EXTERNAL": external_bytes}
            names = {"EXTERNAL": "external flash"}
            sizes = sorted(over.items())
            parts = [f"{size:,} bytes over the {limits[name]:,} of {names.get(name, name)}" for name, size in sizes]
            raise PlanError(
                f"the program does not fit {machine.name}: {' and '.join(parts)}; "
                "use a smaller network or larger limits"
            )
        raise ToolchainError(f"{target.name} does not link: {_first_line(done.stderr)}")
    return Program(target, machine, section_bytes(target, machine.core.toolchain))


def build(
    sources: Iterable[str | os.PathLike],
    machine: Machine,
    folder: str | os.PathLike,
    *,
    include: Sequence[str | os.PathLike] = (),
    flags: Sequence[str] = (),
    ram_bytes: int | None = None,
    flash_bytes: int | None = None,
    stack_bytes: int = 4 * KB,
) -> Program:
    """compile_objects, firmware_objects and link in one: a program in `folder` from an app's sources."""
    folder = Path(folder)
    objects = compile_objects(sources, machine.core, folder, include, flags)
    objects += firmware_objects(machine, folder / "firmware")
    return link(objects, machine, folder / "program.elf", ram_bytes, flash_bytes, stack_bytes)


def run(
    program: Program, folder: str | os.PathLike | None = None, timeout: float = 600, plugin: str | None = None
) -> Run:
    """Runs a program in QEMU. folder: where board_open() finds files; timeout: seconds; plugin: one of QEMU's, with its
    arguments.

    ToolchainError if it ends in a fault, or not at all.
    """
    machine = program.machine
    require_tools(machine.core)
    command: list[str | os.PathLike] = [
        machine.emulator, *(machine.arguments or ("-M", machine.name)),
        "-display", "none", "-monitor", "none", "-serial", "null",
        "-semihosting-config", "enable=on,target=native", "-icount", "shift=6", "-kernel", program.path.resolve(),
        *(["-plugin", plugin] if plugin else []),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=folder,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{program.path.name} did not end within {timeout:.0f} s on {machine.name}") from error
    # QEMU's semihosting writes to its standard error.
    text = done.stdout + done.stderr
    if match := re.search(r"^fault: .*", text, flags=re.MULTILINE):
        raise ToolchainError(f"{program.path.name} on {machine.name} ended in a {match[0]}")
    if f"{machine.emulator}:" in text:
        raise ToolchainError(f"QEMU on {machine.name}: {text.strip().splitlines()[-1]}")
    return Run(text, done.returncode)


def section_bytes(path: Path, toolchain: str = "arm-none-eabi-") -> dict[str, int]:
    """Sections of an object or a program. toolchain: as Core.toolchain."""
    lines = _call([f"{toolchain}size", "-A", "-d", path], path).splitlines()
    return {words[0]: int(words[1]) for words in map(str.split, lines) if len(words) == 3 and words[1].isdigit()}


def linked_bytes(program: Program, objects: Iterable[Path]) -> int:
    """Code and constants that the program has of some of its objects; the linker leaves out what is not called."""
    kept = _map_of(program.path).read_text(encoding="utf-8").split("\nLinker script and memory map\n")[1]
    found = re.findall(r"^ \.(?:text|rodata)\S*\s+0x[0-9a-f]+ +0x([0-9a-f]+) (.+)$", kept, re.MULTILINE)
    names = set(map(str, objects))
    return sum(int(size, 16) for size, name in found if name in names)


def _map_of(program: Path) -> Path:
    """Where the linker says what it put into a program."""
    return program.with_suffix(".map")


def _limit(machine: Machine, name: str, value: int | None, default: int, most: int) -> int:
    value = default if value is None else value
    if not is_whole(value, LEAST_MEMORY, most):
        raise ConfigError(
            f"{name} = {value!r}: must be a whole number from {LEAST_MEMORY} to {most}, what {machine.name} has"
        )
    return value


def _run_tool(command: list) -> subprocess.CompletedProcess:
    try:
        return subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace")
    except FileNotFoundError as error:
        raise ToolchainError(f"{command[0]} is not installed") from error


def _call(command: list, subject) -> str:
    done = _run_tool(command)
    if done.returncode:
        raise ToolchainError(f"{subject} does not compile: {_first_line(done.stderr)}")
    return done.stdout


def _first_line(stderr: str) -> str:
    lines = stderr.strip().splitlines() or ["no message"]
    return next((line for line in lines if "error" in line or "undefined" in line), lines[-1]).strip()
