# SPDX-License-Identifier: Apache-2.0
"""The export for Zephyr: a module with its Kconfig, and a sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mcuformer.boards import Board
from mcuformer.converter.export import c_kind, c_project
from mcuformer.converter.export.c_model import CModel
from mcuformer.converter.export.layout import Layout
from mcuformer.converter.export.registry import Result, Source
from mcuformer.converter.export.self_test import program

SAMPLE = "samples/self_test"
GENERATOR = c_kind.generator("zephyr")

PLATFORM = """static uint32_t now_us(void) { return (uint32_t)k_ticks_to_us_floor64(k_uptime_ticks()); }
static void say(const char* line) { printk("%s\\n", line); }
"""


def to_folder(sources: Sequence[Source], folder: Path, force: bool, image: str, board: Board | None) -> Result:
    layout = c_kind.kind_layout("zephyr", sources, image, board)
    files = {
        "zephyr/module.yml": _module(layout),
        "Kconfig": _kconfig(layout),
        "CMakeLists.txt": _cmake(layout),
        "README.md": _readme(layout),
        f"{SAMPLE}/CMakeLists.txt": _sample_cmake(),
        f"{SAMPLE}/prj.conf": _sample_conf(layout),
        f"{SAMPLE}/sample.yaml": _sample_yaml(layout),
        f"{SAMPLE}/src/main.c": _main(layout),
    }
    build = f"`west build -b qemu_cortex_m3 {folder}/{SAMPLE} -t run` runs the sample"
    return c_kind.write_kind(layout, folder, force, files, build)


def _module(layout: Layout) -> str:
    return f"""# {GENERATOR}
name: mcuformer_{c_kind.names(layout)[0]}
build:
  cmake: .
  kconfig: Kconfig
samples:
  - samples
"""


def _kconfig(layout: Layout) -> str:
    models = "\n".join(map(_kconfig_model, layout.models))
    return f"""# {GENERATOR}

config MCUFORMER_KERNELS
    bool
    help
      The kernels, once for all models and exports.

{models}"""


def _kconfig_model(model: CModel) -> str:
    symbol, name = f"MCUFORMER_{model.network.macro}", model.name
    return f"""menuconfig {symbol}
    bool "Vision Transformer {name} (MCUFormer)"
    select MCUFORMER_KERNELS
    help
      Takes {model.arena_bytes:,} bytes of RAM and {model.constant_bytes:,} bytes of constants beside the kernels.

if {symbol}

config {symbol}_ARENA_SECTION
    string "Section of the arena"
    help
      A section of the linker script for the static arena, such as .dtcm_noinit; empty: with other variables.

config {symbol}_CONST_SECTION
    string "Section of weights and tables"
    help
      A section of the linker script, such as one in external flash; empty: with the program.

endif
"""


def _cmake(layout: Layout) -> str:
    models = "\n".join(_cmake_model(layout, model) for model in layout.models)
    add = f"""  zephyr_library_named(mcuformer_kernels)
  zephyr_library_sources({_lines(layout.kernel_sources, "    ")})
  zephyr_library_compile_options({c_kind.OPTIMISATION})"""
    sound = ""
    if layout.sound_sources:
        sound = f"""if(NOT TARGET mcuformer_sound)
  zephyr_library_named(mcuformer_sound)
  zephyr_library_sources({_lines(layout.sound_sources, "    ")})
  zephyr_library_compile_options({c_kind.OPTIMISATION})
endif()
"""
    return f"""# {GENERATOR}
if(NOT CONFIG_MCUFORMER_KERNELS)
  return()
endif()

# The kernels, once in a project: another export may have brought them.
{c_project.cmake_once(layout.models[0].name, add)}
{sound}zephyr_include_directories({" ".join(layout.kernel_includes)})

{models}"""


def _cmake_model(layout: Layout, model: CModel) -> str:
    symbol, macro = f"CONFIG_MCUFORMER_{model.network.macro}", model.network.macro
    sections = "\n".join(
        f"""  if({symbol}_{kind}_SECTION)
    zephyr_library_compile_definitions(
      "{macro}_{own}=__attribute__((section(\\"${{{symbol}_{kind}_SECTION}}\\")))")
  endif()"""
        for kind, own in (("ARENA", "ARENA"), ("CONST", "CONSTANT"))
    )
    return f"""if({symbol})
  zephyr_library_named(mcuformer_{model.name})
  zephyr_library_sources({_lines(layout.model_sources(model), "    ")})
  zephyr_library_compile_options({c_kind.OPTIMISATION})
  zephyr_include_directories({layout.model_folder(model)})
{sections}
endif()
"""


def _lines(paths: Sequence[str], indent: str) -> str:
    return "".join(f"\n{indent}{path}" for path in paths)


def _sample_cmake() -> str:
    return f"""# {GENERATOR}
cmake_minimum_required(VERSION 3.20.0)
list(APPEND ZEPHYR_EXTRA_MODULES ${{CMAKE_CURRENT_SOURCE_DIR}}/../..)
find_package(Zephyr REQUIRED HINTS $ENV{{ZEPHYR_BASE}})
project(self_test)

target_sources(app PRIVATE src/main.c)
"""


def _sample_conf(layout: Layout) -> str:
    models = "\n".join(f"CONFIG_MCUFORMER_{model.network.macro}=y" for model in layout.models)
    return f"# {GENERATOR}\n{models}\nCONFIG_PRINTK=y\nCONFIG_MAIN_STACK_SIZE=8192\n"


def _sample_yaml(layout: Layout) -> str:
    lines = "\n".join(f'        - "{name}: (\\\\d+) of \\\\1 values equal"' for name in c_kind.names(layout))
    return f"""# {GENERATOR}
sample:
  name: MCUFormer self-test
  description: Runs {c_kind.title(layout)} and compares with the converter
common:
  harness: console
  harness_config:
    type: multi_line
    ordered: true
    regex:
{lines}
tests:
  sample.mcuformer.self_test:
    platform_allow:
      - qemu_cortex_m3
      - nrf5340dk/nrf5340/cpuapp
    integration_platforms:
      - qemu_cortex_m3
"""


def _main(layout: Layout) -> str:
    return program(
        layout.models, GENERATOR, "Runs each model's self-test once.",
        ["<zephyr/kernel.h>", "<zephyr/sys/printk.h>"], PLATFORM,
        f"int main(void) {{\n{c_kind.calls(layout)}\n  return 0;\n}}\n",
    )  # fmt: skip


def _readme(layout: Layout) -> str:
    symbols = [f"CONFIG_MCUFORMER_{model.network.macro}=y" for model in layout.models]
    macro = layout.models[0].network.macro
    return f"""# {c_kind.title(layout)} for Zephyr

{GENERATOR}

Vision Transformers as C99, as a module for Zephyr 3.4 or newer.

- `mcuformer/`: the kernels, once for all models.
{c_project.readme_models(layout)}
## See it run

In a Zephyr workspace, with this folder anywhere:

```
west build -p -b qemu_cortex_m3 path/to/this/folder/{SAMPLE} -t run
west build -p -b nrf5340dk/nrf5340/cpuapp path/to/this/folder/{SAMPLE} && west flash
```

It compares each model's output, bit for bit, with the converter's (QEMU's microseconds are not a device's):

```
{c_kind.expected_output(layout)}
```

`qemu_cortex_m3` has 64 KB of RAM and 256 KB of flash: a larger network needs another board. Zephyr before 3.7 calls the
second board `nrf5340dk_nrf5340_cpuapp`.

## In an application of yours

In its `CMakeLists.txt`, before `find_package(Zephyr ...)`:

```cmake
list(APPEND ZEPHYR_EXTRA_MODULES path/to/this/folder)
```

(or a project of your `west.yml`), and in `prj.conf`, since Zephyr gives `main` a stack of 1,024 bytes, which is too
little for a call:

```
CONFIG_MAIN_STACK_SIZE=4096
{chr(10).join(symbols)}
```

```c
{c_kind.call_example(layout)}
```

Several exports go into one application: they share one copy of the kernels. Kernels of another version do not link.

## Where it lies in memory

`CONFIG_MCUFORMER_{macro}_ARENA_SECTION=".dtcm_noinit"` puts the static arena into a section of Zephyr's linker script,
`CONFIG_MCUFORMER_{macro}_CONST_SECTION` weights and tables. A call needs no heap.
"""
