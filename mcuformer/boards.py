# SPDX-License-Identifier: Apache-2.0
"""Boards, and the memory that their firmware leaves for a model.

All sizes are in bytes, 1 KB = 1024 bytes. `reserved_*` is what the surrounding firmware takes: rough estimates with a
reason beside each, not measurements of yours. Replace them if you know better:

    dataclasses.replace(get_board("nano33ble"), reserved_sram_bytes=48 * 1024)

A board that is not here is a YAML file: get_board("my_board.yaml") (docs/add_a_board.md).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from mcuformer.checks import shown
from mcuformer.cores import KB, Core, get_core
from mcuformer.errors import ConfigError

MB = 1024 * KB
CYCLES_ARE = (
    "cycles are those that Arm publishes of each instruction, without the wait states of flash and cache misses, for "
    "which a board's file can have cycle_factor"
)


@dataclass(frozen=True)
class Measurement:
    """What a board took for a model, as `mcuformer check-board --board my_board.yaml` keeps it.

    model: the file's name; sha256: of its bytes; instructions: of an image, predicted for the board's core, None: it
    has no model of them; ms: of an image, the median of `images`; version: of the kernels; date: 2026-12-24.
    """

    model: str
    sha256: str
    instructions: int | None
    ms: float
    images: int
    version: str
    date: str


@dataclass(frozen=True)
class Board:
    """One board: its memory, and how much of it the firmware keeps.

    core is a Core, or the name of one in mcuformer/cores.py. sram_bytes and flash_bytes are the chip's own memory that
    a model can use; flash_bytes is None if the board has no flash of its own (a simulator). external_flash_bytes is a
    flash chip beside it that is mapped to memory, such as QSPI; 0: none. external_ram_bytes is slower RAM beside the
    chip, PSRAM or SDRAM, in which an arena can be placed; no budget counts it. clock_mhz is None if a clock means
    nothing. source says where the sizes are from; measured, what it took for models; cycle_factor, what estimated
    cycles are multiplied by for the wait states and cache misses that they leave out. ConfigError for a core that is
    not known, or a reserve outside the memory.
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
    external_ram_bytes: int = 0
    source: str = ""
    measured: tuple[Measurement, ...] = ()
    cycle_factor: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.core, str):
            object.__setattr__(self, "core", get_core(self.core))
        _check_reserve(self.name, "SRAM", self.reserved_sram_bytes, self.sram_bytes)
        if self.flash_bytes is not None:
            _check_reserve(self.name, "flash", self.reserved_flash_bytes, self.flash_bytes)

    def measured_ms(self, sha256: str) -> float | None:
        """Milliseconds of an image of the model with this checksum; None: not measured."""
        return next((one.ms for one in self.measured if one.sha256 == sha256), None)

    def _like(self, instructions: int | None) -> tuple[Measurement, float] | None:
        """The measured model whose instructions are nearest to these, as a ratio, and that ratio; None if there is
        none, or they are unknown."""
        known = [(one, instructions / one.instructions) for one in self.measured if one.instructions and instructions]
        return min(known, key=lambda like: abs(math.log(like[1])), default=None)

    def estimated_ms(self, instructions: int | None, cycles: int | None = None) -> float | None:
        """Milliseconds of an image of so many predicted instructions and cycles, an estimate: those of the measured
        model of the nearest instructions, in the ratio of these; where nothing was measured, cycles * cycle_factor /
        clock; None where that is unknown too."""
        if (found := self._like(instructions)) is not None:
            return found[0].ms * found[1]
        return None if cycles is None or self.clock_mhz is None else cycles * self.cycle_factor / self.clock_mhz / 1000

    def estimate_rule(self, instructions: int | None, cycles: int | None = None) -> str:
        """estimated_ms() and how it comes about, one line; empty without one."""
        if (ms := self.estimated_ms(instructions, cycles)) is None:
            return ""
        if (found := self._like(instructions)) is None:
            factor = "" if self.cycle_factor == 1 else f" times {self.cycle_factor:g}, its cycle_factor,"
            at = f"{cycles:,} cycles{factor} at {self.clock_mhz} MHz"
            return f"{self.name}: about {ms:.3f} ms an image, an estimate: {at}; {CYCLES_ARE}"
        like, ratio = found
        return (
            f"{self.name}: about {like.ms * ratio:.3f} ms an image, an estimate: {like.ms:.3f} ms measured for "
            f"{like.model}, times {instructions:,} predicted instructions over its {like.instructions:,}"
        )

    @property
    def how_estimated(self) -> str:
        """The rule of estimated_ms() for many models, one line."""
        if any(one.instructions for one in self.measured):
            return f"ms are estimates: those measured on {self.name}, in the ratio of predicted instructions"
        factor = "" if self.cycle_factor == 1 else f", times {self.cycle_factor:g}, its cycle_factor"
        return f"ms are estimates: cycles at the {self.clock_mhz} MHz of {self.name}{factor}; {CYCLES_ARE}"

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
        source="https://docs.zephyrproject.org/boards/arduino/nano_33_ble/doc/index.html",
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
        source="https://docs.zephyrproject.org/boards/arduino/portenta_h7/doc/index.html",
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
        source="https://www.st.com/resource/en/datasheet/stm32f427vg.pdf",
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
        source="https://docs.zephyrproject.org/boards/st/stm32f746g_disco/doc/index.html",
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
        source="https://www.st.com/resource/en/datasheet/stm32h743vi.pdf",
    ),
    Board(
        name="pico",
        mcu="RP2040",
        core=get_core("Cortex-M0+"),
        clock_mhz=133,
        sram_bytes=264 * KB,
        flash_bytes=2 * MB,
        # The SDK's data, USB, two stacks; its code, interpreter, kernels. The flash is a QSPI chip, read in place.
        reserved_sram_bytes=40 * KB,
        reserved_flash_bytes=256 * KB,
        note="Raspberry Pi Pico and Pico W",
        source="https://datasheets.raspberrypi.com/rp2040/rp2040-datasheet.pdf",
    ),  # fmt: skip
    Board(
        name="pico2",
        mcu="RP2350",
        core=get_core("Cortex-M33"),
        clock_mhz=150,
        sram_bytes=520 * KB,
        flash_bytes=4 * MB,
        # As above.
        reserved_sram_bytes=40 * KB,
        reserved_flash_bytes=256 * KB,
        note="Raspberry Pi Pico 2, its Arm cores",
        source="https://datasheets.raspberrypi.com/rp2350/rp2350-datasheet.pdf",
    ),  # fmt: skip
    Board(
        name="pico2-riscv",
        mcu="RP2350",
        core=get_core("RV32IMAC"),
        clock_mhz=150,
        sram_bytes=520 * KB,
        flash_bytes=4 * MB,
        # As above.
        reserved_sram_bytes=40 * KB,
        reserved_flash_bytes=256 * KB,
        note="Raspberry Pi Pico 2, its RISC-V cores (Hazard3)",
        source="https://datasheets.raspberrypi.com/rp2350/rp2350-datasheet.pdf",
    ),  # fmt: skip
    Board(
        name="nrf5340dk",
        mcu="nRF5340",
        core=get_core("Cortex-M33"),
        clock_mhz=128,
        sram_bytes=512 * KB,
        flash_bytes=1 * MB,
        # Zephyr with Bluetooth: its stacks, buffers and code.
        reserved_sram_bytes=96 * KB,
        reserved_flash_bytes=256 * KB,
        external_flash_bytes=8 * MB,
        note="the application core; also 8 MB QSPI flash",
        source="https://docs.zephyrproject.org/boards/nordic/nrf5340dk/doc/index.html",
    ),  # fmt: skip
    Board(
        name="nrf52840dk",
        mcu="nRF52840",
        core=get_core("Cortex-M4F"),
        clock_mhz=64,
        sram_bytes=256 * KB,
        flash_bytes=1 * MB,
        # As above.
        reserved_sram_bytes=64 * KB,
        reserved_flash_bytes=256 * KB,
        external_flash_bytes=8 * MB,
        note="also 8 MB QSPI flash",
        source="https://docs.zephyrproject.org/boards/nordic/nrf52840dk/doc/index.html",
    ),  # fmt: skip
    Board(
        name="b-u585i",
        mcu="STM32U585",
        core=get_core("Cortex-M33"),
        clock_mhz=160,
        sram_bytes=768 * KB,
        flash_bytes=2 * MB,
        # Bare-metal firmware: stack, drivers and their DMA buffers, a few camera rows; interpreter and kernels.
        reserved_sram_bytes=32 * KB,
        reserved_flash_bytes=128 * KB,
        note="B-U585I-IOT02A; SRAM1 to SRAM3 adjoin",
        source="https://probe.rs/targets/master/STM32U585CIUx",
    ),  # fmt: skip
    Board(
        name="nucleo-h563zi",
        mcu="STM32H563",
        core=get_core("Cortex-M33"),
        clock_mhz=250,
        sram_bytes=640 * KB,
        flash_bytes=2 * MB,
        # As above.
        reserved_sram_bytes=32 * KB,
        reserved_flash_bytes=128 * KB,
        note="SRAM1 to SRAM3 adjoin",
        source="https://www.st.com/resource/en/user_manual/um3115-stm32h5-nucleo144-board-mb1404-stmicroelectronics.pdf",
    ),  # fmt: skip
    Board(
        name="blackpill-f411",
        mcu="STM32F411",
        core=get_core("Cortex-M4F"),
        clock_mhz=100,
        sram_bytes=128 * KB,
        flash_bytes=512 * KB,
        # As above, with one DMA buffer.
        reserved_sram_bytes=24 * KB,
        reserved_flash_bytes=96 * KB,
        note="WeAct Black Pill V2.0",
        source="https://docs.zephyrproject.org/boards/weact/blackpill_f411ce/doc/index.html",
    ),  # fmt: skip
    Board(
        name="nucleo-h743zi",
        mcu="STM32H743",
        core=get_core("Cortex-M7"),
        clock_mhz=480,
        sram_bytes=512 * KB,
        flash_bytes=2 * MB,
        # Bare-metal firmware: stack, drivers and their DMA buffers, a few camera rows; interpreter and kernels.
        reserved_sram_bytes=32 * KB,
        reserved_flash_bytes=128 * KB,
        note="512 KB is the AXI SRAM, of 1 MB in all",
        source="https://docs.zephyrproject.org/boards/st/nucleo_h743zi/doc/index.html",
    ),  # fmt: skip
    Board(
        name="giga-r1",
        mcu="STM32H747",
        core=get_core("Cortex-M7"),
        clock_mhz=480,
        sram_bytes=512 * KB,
        flash_bytes=2 * MB,
        # As Portenta H7.
        reserved_sram_bytes=96 * KB,
        reserved_flash_bytes=512 * KB,
        external_flash_bytes=16 * MB,
        external_ram_bytes=8 * MB,
        note="512 KB is the AXI SRAM, of 1 MB in all; also 16 MB QSPI flash and 8 MB SDRAM",
        source="https://docs.zephyrproject.org/boards/arduino/giga_r1/doc/index.html",
    ),  # fmt: skip
    Board(
        name="nicla-vision",
        mcu="STM32H747",
        core=get_core("Cortex-M7"),
        clock_mhz=480,
        sram_bytes=512 * KB,
        flash_bytes=2 * MB,
        # As Portenta H7. A camera frame does not count: put it into the other SRAM banks.
        reserved_sram_bytes=96 * KB,
        reserved_flash_bytes=512 * KB,
        external_flash_bytes=16 * MB,
        note="512 KB is the AXI SRAM, of 1 MB in all; also 16 MB QSPI flash",
        source="https://docs.zephyrproject.org/boards/arduino/nicla_vision/doc/index.html",
    ),  # fmt: skip
    Board(
        name="openmv-h7",
        mcu="STM32H743",
        core=get_core("Cortex-M7"),
        clock_mhz=480,
        sram_bytes=512 * KB,
        flash_bytes=2 * MB,
        # Firmware of your own, in place of OpenMV's.
        reserved_sram_bytes=32 * KB,
        reserved_flash_bytes=128 * KB,
        note="OpenMV Cam H7; 512 KB is the AXI SRAM, of 1 MB in all",
        source="https://openmv.io/products/openmv-cam-h7",
    ),  # fmt: skip
    Board(
        name="uno-r4",
        mcu="RA4M1",
        core=get_core("Cortex-M4F"),
        clock_mhz=48,
        sram_bytes=32 * KB,
        flash_bytes=256 * KB,
        # The Arduino core's data, stacks and heap; its code, interpreter, kernels and the sketch.
        reserved_sram_bytes=12 * KB,
        reserved_flash_bytes=80 * KB,
        note="Arduino UNO R4 Minima and WiFi",
        source="https://docs.zephyrproject.org/boards/arduino/uno_r4/doc/index.html",
    ),  # fmt: skip
    Board(
        name="nano-esp32",
        mcu="ESP32-S3",
        core=get_core("Xtensa LX7"),
        clock_mhz=240,
        sram_bytes=512 * KB,
        flash_bytes=16 * MB,
        # ESP-IDF keeps code, caches and its heap in the same SRAM; without Wi-Fi. Its application, and the bootloader.
        reserved_sram_bytes=256 * KB,
        reserved_flash_bytes=1 * MB,
        external_ram_bytes=8 * MB,
        note="Arduino Nano ESP32; also 8 MB PSRAM",
        source="https://docs.arduino.cc/resources/datasheets/ABX00083-datasheet.pdf",
    ),  # fmt: skip
    Board(
        name="esp32-s3",
        mcu="ESP32-S3",
        core=get_core("Xtensa LX7"),
        clock_mhz=240,
        sram_bytes=512 * KB,
        flash_bytes=8 * MB,
        # As above.
        reserved_sram_bytes=256 * KB,
        reserved_flash_bytes=1 * MB,
        external_ram_bytes=8 * MB,
        note="ESP32-S3-DevKitC-1 N8R8; also 8 MB PSRAM",
        source="https://docs.espressif.com/projects/esp-idf/en/latest/esp32s3/hw-reference/esp32s3/user-guide-devkitc-1.html",
    ),  # fmt: skip
    Board(
        name="xiao-esp32s3-sense",
        mcu="ESP32-S3",
        core=get_core("Xtensa LX7"),
        clock_mhz=240,
        sram_bytes=512 * KB,
        flash_bytes=8 * MB,
        # As above.
        reserved_sram_bytes=256 * KB,
        reserved_flash_bytes=1 * MB,
        external_ram_bytes=8 * MB,
        note="Seeed XIAO ESP32S3 Sense; also 8 MB PSRAM",
        source="https://docs.zephyrproject.org/boards/seeed/xiao_esp32s3/doc/index.html",
    ),  # fmt: skip
    Board(
        name="esp32-c3",
        mcu="ESP32-C3",
        core=get_core("RV32IMC"),
        clock_mhz=160,
        sram_bytes=400 * KB,
        flash_bytes=4 * MB,
        # As above.
        reserved_sram_bytes=200 * KB,
        reserved_flash_bytes=1 * MB,
        note="ESP32-C3-DevKitM-1 and others with 4 MB",
        source="https://www.espressif.com/sites/default/files/documentation/esp32-c3_datasheet_en.pdf",
    ),  # fmt: skip
    Board(
        name="alif-e3",
        mcu="Ensemble E3",
        core=get_core("Cortex-M55"),
        clock_mhz=400,
        sram_bytes=4 * MB,
        flash_bytes=5632 * KB,
        # Bare-metal firmware: stack, drivers and their DMA buffers, a few camera rows; interpreter and kernels.
        reserved_sram_bytes=64 * KB,
        reserved_flash_bytes=256 * KB,
        note="the high-performance core; SRAM0 and 5.5 MB MRAM of the largest part",
        source="https://alifsemi.com/whitepaper/alif-mcu-ram-regions-and-linker-files/",
    ),  # fmt: skip
    Board(
        name="ek-ra8m1",
        mcu="RA8M1",
        core=get_core("Cortex-M85"),
        clock_mhz=480,
        sram_bytes=896 * KB,
        flash_bytes=2 * MB,
        # As above.
        reserved_sram_bytes=32 * KB,
        reserved_flash_bytes=128 * KB,
        note="1 MB with the tightly-coupled memory",
        source="https://docs.zephyrproject.org/boards/renesas/ek_ra8m1/doc/index.html",
    ),  # fmt: skip
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
        source="https://developer.arm.com/documentation/dai0547",
    ),
)

BOARDS: dict[str, Board] = {board.name: board for board in _ALL}


def is_board_file(name: object) -> bool:
    """Whether a --board names a YAML file, not a board of the table."""
    return isinstance(name, str) and name.lower().endswith((".yaml", ".yml"))


def get_board(name: str) -> Board:
    """The board called `name`, or that of a YAML file, if it ends in .yaml or .yml (docs/add_a_board.md). ConfigError
    if there is none, or the file is no board's."""
    if is_board_file(name):
        from mcuformer.board_file import read_board

        return read_board(name)
    if not isinstance(name, str) or name not in BOARDS:
        raise ConfigError(f"board {shown(name)} is unknown; choose one of {', '.join(BOARDS)}, or give a YAML file")
    return BOARDS[name]
