# SPDX-License-Identifier: Apache-2.0
"""The export for projects that STM32CubeMX generates: a CMake library, a fragment for its Makefile, and an example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mcuformer.boards import Board
from mcuformer.converter.export import c_kind, c_project
from mcuformer.converter.export.layout import Layout
from mcuformer.converter.export.registry import Result, Source
from mcuformer.converter.export.self_test import program

EXAMPLE = "example/mcuformer_self_test.c"
GENERATOR = c_kind.generator("stm32cube")

PLATFORM = """static uint32_t now_us(void) { return HAL_GetTick() * 1000u; }
static void say(const char* line) { printf("%s\\r\\n", line); }
"""


def to_folder(
    sources: Sequence[Source], folder: Path, force: bool, image: str, board: Board | None, external_flash: bool
) -> Result:
    layout = c_kind.kind_layout("stm32cube", sources, image, board, external_flash)
    files = {
        "CMakeLists.txt": c_project.cmake(layout, GENERATOR),
        "sources.mk": c_project.sources_mk(layout, GENERATOR),
        "stm32cube.mk": _makefile(layout),
        EXAMPLE: _example(layout),
        "README.md": _readme(layout),
    }
    return c_kind.write_kind(layout, folder, force, files, "its README.md says how it joins a project of STM32CubeMX")


def _makefile(layout: Layout) -> str:
    one = c_kind.names(layout)[0]
    return f"""# {GENERATOR}
# For the Makefile of STM32CubeMX: include this after its C_INCLUDES and before its CFLAGS. Of several exports too.
include $(dir $(lastword $(MAKEFILE_LIST)))sources.mk
{one}_C := $(filter-out $(C_SOURCES),$(filter %.c,$(MCUF_SRCS)))
{one}_S := $(filter-out $(ASMM_SOURCES),$(filter %.S,$(MCUF_SRCS)))
C_SOURCES += $({one}_C)
ASMM_SOURCES += $({one}_S)
C_INCLUDES += $(MCUF_INCLUDES)
"""


def _example(layout: Layout) -> str:
    return program(
        layout.models, GENERATOR, "Call mcuformer_self_test() from main(), once printf reaches a UART or SWO.",
        ['"main.h" /* of STM32CubeMX: the HAL */'], PLATFORM,
        f"void mcuformer_self_test(void);\n\nvoid mcuformer_self_test(void) {{\n{c_kind.calls(layout)}\n}}\n",
    )  # fmt: skip


def _readme(layout: Layout) -> str:
    one = c_kind.names(layout)[0]
    libraries = " ".join(f"mcuformer::{name}" for name in c_kind.names(layout))
    return f"""# {c_kind.title(layout)} for STM32CubeMX

{GENERATOR}

Vision Transformers as C99 for projects that STM32CubeMX generates, with any toolchain it knows.

- `mcuformer/`: the kernels, once for all models.
{c_project.readme_models(layout)}
## Into a project

Copy this folder into the project, here to `Middlewares/{one}`. CubeMX leaves what it did not write alone.

- **CMake** (Toolchain "CMake"): in the project's `CMakeLists.txt`, before `target_link_libraries`,

  ```cmake
  add_subdirectory(Middlewares/{one})
  ```

  and `{libraries}` in the list of `target_link_libraries`.
- **Makefile** (Toolchain "Makefile"): in the `Makefile`, a line before `# compile gcc flags`; CubeMX writes this file
  anew, so add it again after that:

  ```make
  include Middlewares/{one}/stm32cube.mk
  ```

  A Makefile that has no `ASMM_SOURCES` is of an older CubeMX and compiles no `.S` files: generate it with a newer one.
- **STM32CubeIDE:** add `Middlewares/{one}` as a source folder without its `example`, and to the include paths
  {", ".join(f"`Middlewares/{one}/{folder}`" for folder in c_project.includes(layout))}.

Optimise with `-O2` or more; CubeMX's Debug configuration does not.

```c
{c_kind.call_example(layout)}
```

## See it run

Add `{EXAMPLE}` to the sources, make `printf` reach a UART or SWO, and call `mcuformer_self_test();` in
`main()`, after `/* USER CODE BEGIN 2 */`. It compares each model's output, bit for bit, with the converter's:

```
{c_kind.expected_output(layout)}
```

Its time is HAL_GetTick()'s, in steps of a millisecond.

{_memory(layout)}"""


def _memory(layout: Layout) -> str:
    macro = layout.models[0].network.macro
    return f"""## Where it lies in memory

Give the compiler of the models' files `-D{macro}_ARENA='__attribute__((section(".fast")))'` for the arena, or
`-D{macro}_CONSTANT='__attribute__((section(".qspi")))'` for weights and tables, and place the section in the linker
script (`.ld`), whose `MEMORY` names the memory:

| memory | in `SECTIONS` |
|---|---|
| DTCM (F7, H7), CCM (F4, G4) | `.fast (NOLOAD) : {{ *(.fast) }} >DTCMRAM` |
| QSPI or OSPI flash, mapped to memory | `.qspi : {{ *(.qspi) }} >QSPI` |

A NOLOAD arena is not cleared at start: it need not be. Map the external flash before the first call. DMA reaches
neither an F4's CCM nor an H7's DTCM: let it fill an image elsewhere.
"""
