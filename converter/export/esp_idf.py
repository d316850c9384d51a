# SPDX-License-Identifier: Apache-2.0
"""The export for ESP-IDF: a component with its Kconfig, and an example app."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mcuformer.boards import Board
from mcuformer.converter.export import c_kind, c_project
from mcuformer.converter.export.c_model import CModel
from mcuformer.converter.export.layout import Layout
from mcuformer.converter.export.registry import Result, Source
from mcuformer.converter.export.self_test import program
from mcuformer.sources import kernels_version

EXAMPLE = "examples/self_test"
GENERATOR = c_kind.generator("esp-idf")
STACK_BYTES = 8192  # of the example's tasks: printf takes most of it

PLATFORM = """static uint32_t now_us(void) { return (uint32_t)esp_timer_get_time(); }
static void say(const char* line) { puts(line); }
"""


def to_folder(sources: Sequence[Source], folder: Path, force: bool, image: str, board: Board | None) -> Result:
    layout = c_kind.kind_layout("esp-idf", sources, image, board)
    files = {
        "CMakeLists.txt": _component(layout),
        "Kconfig": "\n".join(map(_kconfig, layout.models)),
        "idf_component.yml": _manifest(layout),
        "README.md": _readme(layout),
        f"{EXAMPLE}/CMakeLists.txt": _project(),
        f"{EXAMPLE}/sdkconfig.defaults": _defaults(),
        f"{EXAMPLE}/main/CMakeLists.txt": f'# {GENERATOR}\nidf_component_register(SRCS "main.c")\n',
        f"{EXAMPLE}/main/main.c": _main(layout),
    }
    build = f"`idf.py -C {folder}/{EXAMPLE} set-target esp32s3 flash monitor` runs the example"
    return c_kind.write_kind(layout, folder, force, files, build)


def _component(layout: Layout) -> str:
    models = [path for model in layout.models for path in layout.model_sources(model)]
    arenas = "\n".join(map(_arena_in_psram, layout.models))
    return f"""# {GENERATOR}
idf_component_register(
  SRCS{_quoted(models)}
  INCLUDE_DIRS{_quoted(c_project.includes(layout))})

# The kernels, once in a project: another export may have brought them.
{c_project.cmake_kernels(layout)}
target_link_libraries(${{COMPONENT_LIB}} PUBLIC {c_project.cmake_libraries(layout)})
target_compile_options(${{COMPONENT_LIB}} PRIVATE {c_kind.OPTIMISATION})
{arenas}"""


def _arena_in_psram(model: CModel) -> str:
    macro = model.network.macro
    return f"""if(CONFIG_MCUFORMER_{macro}_ARENA_PSRAM)
  target_compile_definitions(${{COMPONENT_LIB}} PRIVATE
    "{macro}_ARENA=__attribute__((section(\\".ext_ram.bss\\")))")
endif()
"""


def _quoted(paths: Sequence[str]) -> str:
    return "".join(f'\n    "{path}"' for path in paths)


def _kconfig(model: CModel) -> str:
    symbol, name = f"MCUFORMER_{model.network.macro}", model.name
    return f"""# {GENERATOR}
menu "MCUFormer: {name}"

    choice {symbol}_ARENA
        prompt "Memory of the arena, {model.arena_bytes:,} bytes"
        default {symbol}_ARENA_INTERNAL

        config {symbol}_ARENA_INTERNAL
            bool "internal SRAM"
            help
                The faster one.

        config {symbol}_ARENA_PSRAM
            bool "external PSRAM"
            depends on SPIRAM_ALLOW_BSS_SEG_EXTERNAL_MEMORY
            help
                Leaves the internal SRAM to others.

    endchoice

    config {symbol}_CORE
        int "Core of the example's task, -1 for any"
        range -1 0 if FREERTOS_UNICORE
        range -1 1
        default -1
        help
            The core that the self-test of {name} is pinned to.

endmenu
"""


def _manifest(layout: Layout) -> str:
    return f"""# {GENERATOR}
version: "{kernels_version()}"
description: "{c_kind.SUMMARY}: {c_kind.title(layout)}"
license: Apache-2.0
dependencies:
  idf: ">=5.0"
"""


def _project() -> str:
    return f"""# {GENERATOR}
cmake_minimum_required(VERSION 3.16)
set(EXTRA_COMPONENT_DIRS "${{CMAKE_CURRENT_LIST_DIR}}/../..")
include($ENV{{IDF_PATH}}/tools/cmake/project.cmake)
project(self_test)
"""


def _defaults() -> str:
    return f"""# {GENERATOR}
CONFIG_COMPILER_OPTIMIZATION_PERF=y
CONFIG_ESPTOOLPY_FLASHSIZE_4MB=y
CONFIG_PARTITION_TABLE_SINGLE_APP_LARGE=y
"""


def _main(layout: Layout) -> str:
    starts = "\n".join(
        f'  start(test_of_{m.name}, "{m.name}", CONFIG_MCUFORMER_{m.network.macro}_CORE);' for m in layout.models
    )
    tasks = "\n".join(
        f"static void test_of_{name}(void* unused) {{\n  (void)unused;\n  {name}_test();\n  vTaskDelete(NULL);\n}}\n"
        for name in c_kind.names(layout)
    )
    entry = f"""{tasks}
/* Of the idle task's priority, so that its watchdog is fed. */
static void start(TaskFunction_t task, const char* name, int core) {{
  xTaskCreatePinnedToCore(task, name, {STACK_BYTES}, NULL, tskIDLE_PRIORITY, NULL, core < 0 ? tskNO_AFFINITY : core);
}}

void app_main(void) {{
{starts}
}}
"""
    headers = ['"esp_timer.h"', '"freertos/FreeRTOS.h"', '"freertos/task.h"', '"sdkconfig.h"']
    return program(
        layout.models, GENERATOR, "Runs each model's self-test once, in a task of its own.", headers, PLATFORM, entry
    )


def _readme(layout: Layout) -> str:
    one = layout.models[0]
    return f"""# {c_kind.title(layout)} for ESP-IDF

{GENERATOR}

Vision Transformers as C99, as a component for ESP-IDF 5.0 or newer: every ESP32, RISC-V or Xtensa. The kernels are
portable C: there is no code for the vector instructions of an ESP32-S3 or -P4.

- `mcuformer/`: the kernels, once for all models.
{c_project.readme_models(layout)}
## See it run

```
. $IDF_PATH/export.sh
cd {EXAMPLE}
idf.py set-target esp32s3         # or esp32, esp32c3 ...
idf.py flash monitor
```

The board compares each model's output, bit for bit, with the converter's:

```
{c_kind.expected_output(layout)}
```

## In a project of yours

Copy this folder into the project's `components/`, under any name; `main` sees it if its `idf_component_register` has no
`REQUIRES`, else add the folder's name there.

```c
{c_kind.call_example(layout)}
```

Several exports go into one project: they share one copy of the kernels. Kernels of another version do not link.

## Where it lies in memory

`idf.py menuconfig`, Component config, MCUFormer:

- Memory of the arena: internal SRAM, or PSRAM. The second appears once PSRAM is on and
  `SPIRAM_ALLOW_BSS_SEG_EXTERNAL_MEMORY` is set.
- Core of the example's task: for firmware of yours, `CONFIG_MCUFORMER_{one.network.macro}_CORE` is there to use.

Weights are read from flash through the cache. A model that exceeds the partition needs a larger one: menuconfig,
Partition Table. A call needs no heap; `{one.name}_invoke_in` takes an arena that you allocate.
"""
