# SPDX-License-Identifier: Apache-2.0
"""Boards, and the memory that their firmware leaves for a model.

All sizes are in bytes, 1 KB = 1024 bytes. `reserved_*` is what the surrounding firmware takes: rough estimates with a
reason beside each, not measurements of yours. Replace them if you know better:

    dataclasses.replace(get_board("nano33ble"), reserved_sram_bytes=48 * 1024)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mcuformer.checks import shown
from mcuformer.cores import KB, Core, get_core
from mcuformer.errors import ConfigError

MB = 1024 * KB


@dataclass(frozen=True)
class Board:
    """One board: its memory, and how much of it the firmware keeps.

    core is a Core, or the name of one in mcuformer/cores.py. sram_bytes and flash_bytes are the chip's own memory that
    a model can use; flash_bytes is None if the board has no flash of its own (a simulator). external_flash_bytes is a
    flash chip beside it that is mapped to memory, such as QSPI; 0: none. clock_mhz is None if a clock means nothing.
    ConfigError for a core that is not known, or a reserve outside the memory.
    """

    name: str
    mcu: str
    core: Core
    clock_mhz: int | None
    sram_bytes: int
    flash_bytes: int | None
    reserved_sram_bytes: int
    reserved_flash_bytes: int
    note: str = ""
    external_flash_bytes: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.core, str):
            object.__setattr__(self, "core", get_core(self.core))
        _check_reserve(self.name, "SRAM", self.reserved_sram_bytes, self.sram_bytes)
        if self.flash_bytes is not None:
            _check_reserve(self.name, "flash", self.reserved_flash_bytes, self.flash_bytes)

    @property
    def sram_budget(self) -> int:
        """Bytes of SRAM left for the tensor arena."""
        return self.sram_bytes - self.reserved_sram_bytes

    @property
    def flash_budget(self) -> int | None:
        """Bytes of flash left for the model file; None: the board has no flash, so no limit."""
        return None if self.flash_bytes is None else self.flash_bytes - self.reserved_flash_bytes

    @property
    def flash_fix(self) -> str:
        """What to do about a model that is larger than its flash, if there is more beside it; else empty."""
        if self.flash_budget is None or self.external_flash_bytes <= self.flash_budget:
            return ""
        return f"put it into the {self.external_flash_bytes // MB} MB of flash beside the chip (--external-flash), or "

    def with_external_flash(self) -> Board:
        """The same board for a model whose constants lie in its external flash. ConfigError if it has none."""
        if self.external_flash_bytes == 0:
            having = ", ".join(board.name for board in BOARDS.values() if board.external_flash_bytes)
            raise ConfigError(
                f"board {self.name} has no external flash that is mapped to memory; use one of {having}, or staged "
                "weights"
            )
        return dataclasses.replace(self, flash_bytes=self.external_flash_bytes, reserved_flash_bytes=0)


def _check_reserve(board: str, memory: str, reserved: int, total: int) -> None:
    if not 0 <= reserved <= total:
        raise ConfigError(
            f"board {board}: reserved {memory} of {reserved} bytes is outside the {total} bytes it has; "
            f"give a value from 0 to {total}"
        )


_ALL = (
    Board(
        name="nano33ble",
        mcu="nRF52840",
        core=get_core("Cortex-M4F"),
        clock_mhz=64,
        sram_bytes=256 * KB,
        flash_bytes=1 * MB,
        # The Arduino core (Mbed OS, USB, its stacks and heap) takes about 45 KB before a sketch does anything;
        # the rest is for the sketch itself: its stack and a few camera rows.
        reserved_sram_bytes=64 * KB,
        # Arduino core about 90 KB, interpreter and kernels, and the sketch.
        reserved_flash_bytes=192 * KB,
        note="Arduino Nano 33 BLE and Nano 33 BLE Sense",
    ),
    Board(
        name="portenta-h7",
        mcu="STM32H747",
        core=get_core("Cortex-M7"),
        clock_mhz=480,
        sram_bytes=512 * KB,
        flash_bytes=2 * MB,
        # The Arduino core keeps its data, stacks and heap in the same AXI SRAM as the arena. A camera frame
        # does not count: put it into the other SRAM banks or SDRAM.
        reserved_sram_bytes=96 * KB,
        # The bootloader takes the first 256 KB; Arduino core, interpreter, kernels and sketch another 256 KB.
        reserved_flash_bytes=512 * KB,
        note="512 KB is the AXI SRAM, of 1 MB in all; also 16 MB QSPI flash; choose the flash split "
        "that gives all 2 MB to the M7",
        external_flash_bytes=16 * MB,
    ),
    Board(
        name="stm32f427",
        mcu="STM32F427",
        core=get_core("Cortex-M4F"),
        clock_mhz=180,
        sram_bytes=256 * KB,
        flash_bytes=1 * MB,
        # The 64 KB of core-coupled memory do not adjoin the other 192 KB, and an arena is one piece: use them
        # for the firmware's stack and data.
        reserved_sram_bytes=64 * KB,
        # Bare-metal firmware: drivers, interpreter and kernels.
        reserved_flash_bytes=128 * KB,
        note="192 KB SRAM and 64 KB core-coupled memory",
    ),
    Board(
        name="stm32f746",
        mcu="STM32F746",
        core=get_core("Cortex-M7"),
        clock_mhz=216,
        sram_bytes=320 * KB,
        flash_bytes=1 * MB,
        # Bare-metal firmware: stack, drivers and their DMA buffers, a few camera rows.
        reserved_sram_bytes=32 * KB,
        # Bare-metal firmware: drivers, interpreter and kernels.
        reserved_flash_bytes=128 * KB,
        note="also 16 MB QSPI flash on the Discovery kit",
        external_flash_bytes=16 * MB,
    ),
    Board(
        name="stm32h743",
        mcu="STM32H743",
        core=get_core("Cortex-M7"),
        clock_mhz=480,
        sram_bytes=512 * KB,
        flash_bytes=2 * MB,
        # As above; less if the linker script puts stack and data into tightly-coupled memory.
        reserved_sram_bytes=32 * KB,
        reserved_flash_bytes=128 * KB,
        note="512 KB is the AXI SRAM, of 1 MB in all",
    ),
    Board(
        name="corstone300",
        mcu="simulated",
        core=get_core("Cortex-M55"),
        clock_mhz=None,
        sram_bytes=4 * MB,
        flash_bytes=None,
        # Startup code, stack and the test's own data; program and model have their own memory.
        reserved_sram_bytes=32 * KB,
        reserved_flash_bytes=0,
        note="Arm Corstone-300, for instruction counts in a simulator",
    ),
)

BOARDS: dict[str, Board] = {board.name: board for board in _ALL}


def get_board(name: str) -> Board:
    """The board called `name`; if there is none, ConfigError names all boards."""
    if not isinstance(name, str) or name not in BOARDS:
        raise ConfigError(f"board {shown(name)} is unknown; choose one of {', '.join(BOARDS)}")
    return BOARDS[name]
