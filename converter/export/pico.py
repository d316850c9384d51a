# SPDX-License-Identifier: Apache-2.0
"""The export for the Raspberry Pi Pico's C SDK: CMake libraries and an example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mcuformer.boards import Board
from mcuformer.converter.export import c_kind, c_project
from mcuformer.converter.export.layout import Layout
from mcuformer.converter.export.registry import Result, Source
from mcuformer.converter.export.self_test import program

EXAMPLE = "example/self_test"
GENERATOR = c_kind.generator("pico")

PLATFORM = """static uint32_t now_us(void) { return time_us_32(); }
static void say(const char* line) { puts(line); }
"""


def to_folder(sources: Sequence[Source], folder: Path, force: bool, image: str, board: Board | None) -> Result:
    layout = c_kind.kind_layout("pico", sources, image, board)
    files = {
        "CMakeLists.txt": c_project.cmake(layout, GENERATOR),
        f"{EXAMPLE}/CMakeLists.txt": _example_cmake(layout),
        f"{EXAMPLE}/main.c": _main(layout),
        "README.md": _readme(layout),
    }
    build = f"`cmake -S {folder}/{EXAMPLE} -B build -DPICO_BOARD=pico && make -C build` builds the example"
    return c_kind.write_kind(layout, folder, force, files, build)


def _example_cmake(layout: Layout) -> str:
    libraries = " ".join(f"mcuformer::{name}" for name in c_kind.names(layout))
    return f"""# {GENERATOR}
# With the environment variable PICO_SDK_PATH set to the Pico SDK.
cmake_minimum_required(VERSION 3.13)
if(NOT DEFINED ENV{{PICO_SDK_PATH}})
  message(FATAL_ERROR "PICO_SDK_PATH is not set: export PICO_SDK_PATH=, the folder of the Pico SDK")
endif()
include($ENV{{PICO_SDK_PATH}}/external/pico_sdk_import.cmake)
project(self_test C CXX ASM)
pico_sdk_init()

add_subdirectory(${{CMAKE_CURRENT_LIST_DIR}}/../.. mcuformer)

add_executable(self_test main.c)
target_link_libraries(self_test pico_stdlib {libraries})
pico_enable_stdio_usb(self_test 1)
pico_enable_stdio_uart(self_test 1)
pico_add_extra_outputs(self_test)
"""


def _main(layout: Layout) -> str:
    entry = f"""int main(void) {{
  stdio_init_all();
  for (;;) {{ /* a terminal may be opened at any time */
{c_kind.calls(layout, "    ")}
    sleep_ms(2000);
  }}
}}
"""
    return program(
        layout.models, GENERATOR, "Runs each model's self-test every two seconds, on USB and UART.",
        ['"pico/stdlib.h"'], PLATFORM, entry,
    )  # fmt: skip


def _readme(layout: Layout) -> str:
    one = c_kind.names(layout)[0]
    return f"""# {c_kind.title(layout)} for the Raspberry Pi Pico

{GENERATOR}

Vision Transformers as C99 for projects with the Pico SDK 1.5 or newer: RP2040, and RP2350 as Arm or RISC-V.

- `mcuformer/`: the kernels, once for all models.
{c_project.readme_models(layout)}
## See it run

```
export PICO_SDK_PATH=...          # where the SDK lies
cmake -S {EXAMPLE} -B build -DPICO_BOARD=pico     # or pico2, pico_w ...
make -C build
```

Hold BOOTSEL, plug the board in, copy `build/self_test.uf2` to the drive that appears, and open the serial port. The
board compares each model's output, bit for bit, with the converter's:

```
{c_kind.expected_output(layout)}
```

For the Arm cores of an RP2350 export with `--core m33`: weights then lie as its DSP instructions like them. Any core
computes the same from either.

## In a project of yours

In its `CMakeLists.txt`, after `pico_sdk_init()`:

```cmake
add_subdirectory(path/to/this/folder {one})
target_link_libraries(your_program mcuformer::{one})
```

```c
{c_kind.call_example(layout)}
```

Several exports go into one program: they share one copy of the kernels. Kernels of another version do not link.

## Where it lies in memory

Weights are read from flash through the cache. A small model is quicker from SRAM: put its constants there with

```cmake
target_compile_definitions(mcuformer_{one} PRIVATE "{one.upper()}_CONSTANT=__attribute__((section(\\".data.{one}\\")))")
```

The arena is a static array in SRAM. A call needs no heap; its stack is part of the SDK's 2,048 bytes a core
(`PICO_STACK_SIZE`).
"""
