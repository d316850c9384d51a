# SPDX-License-Identifier: Apache-2.0
"""The export for PlatformIO: a library for the frameworks Arduino, ESP-IDF and Zephyr, and an example.

PlatformIO gives a library's users one folder to include, so the kernels and the models lie flat in src/.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mcuformer.boards import Board
from mcuformer.converter.export import c_folder, c_kind, c_project
from mcuformer.converter.export.folder import KERNELS, licence_file, write_folder
from mcuformer.converter.export.layout import Layout
from mcuformer.converter.export.registry import Result, Source
from mcuformer.converter.export.self_test import program
from mcuformer.sources import kernels_version

EXAMPLE = "examples/self_test"
GENERATOR = c_kind.generator("platformio")

PLATFORM = """#if defined(ARDUINO)
#include <Arduino.h>
static uint32_t now_us(void) { return micros(); }
static void say(const char* line) { Serial.println(line); }
#elif defined(ESP_PLATFORM)
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
static uint32_t now_us(void) { return (uint32_t)esp_timer_get_time(); }
static void say(const char* line) { puts(line); }
#elif defined(__ZEPHYR__)
#include <zephyr/kernel.h>
#include <zephyr/sys/printk.h>
static uint32_t now_us(void) { return (uint32_t)k_ticks_to_us_floor64(k_uptime_ticks()); }
static void say(const char* line) { printk("%s\\n", line); }
#else
#error "a framework that this example does not know: write now_us(), say() and main() for it"
#endif
"""


def to_folder(sources: Sequence[Source], folder: Path, force: bool, image: str, board: Board | None) -> Result:
    layout = c_kind.kind_layout("platformio", sources, image, board)
    files = {
        **_library_files(layout),
        "library.json": _library_json(layout),
        "README.md": _readme(layout),
        f"{EXAMPLE}/platformio.ini": _environments(layout),
        f"{EXAMPLE}/src/main.cpp": _main(layout),
        f"{EXAMPLE}/zephyr/prj.conf": f"# {GENERATOR}\nCONFIG_CPP=y\nCONFIG_PRINTK=y\nCONFIG_MAIN_STACK_SIZE=8192\n",
        f"{EXAMPLE}/zephyr/CMakeLists.txt": _zephyr_cmake(),
    }
    write_folder(folder, files, force)
    wrote = f"wrote {folder}: `pio run -d {folder}/{EXAMPLE} -e arduino -t upload -t monitor` runs the example"
    return Result(folder, (*c_folder.lines(layout), wrote), c_folder.values(layout))


def _library_files(layout: Layout) -> dict[str, str | bytes]:
    """The kernels and the models' C, flat in src/ but for src/sound/, whose code names its neighbours by ../core/."""
    files: dict[str, str | bytes] = {**licence_file()}
    for path, text in {**layout.kernel_files, **layout.sound_files}.items():
        inner = path.removeprefix(f"{KERNELS}/")
        files[f"src/{inner.removeprefix('core/')}"] = text.replace('#include "../core/', '#include "../')
    for model in layout.models:
        files |= {f"src/{name}": text for name, text in model.sources.items()}
    return files


def _library_json(layout: Layout) -> str:
    values = {
        "name": f"mcuformer_{c_kind.names(layout)[0]}",
        "version": kernels_version(),
        "description": f"{c_kind.SUMMARY}: {c_kind.title(layout)}",
        "keywords": ["tinyml", "vision transformer", "neural network", "int8"],
        "license": "Apache-2.0",
        "headers": [f"{name}.h" for name in c_kind.names(layout)],
        "frameworks": ["arduino", "espidf", "zephyr"],
        "platforms": "*",
        "examples": [{"name": "self_test", "base": EXAMPLE, "files": ["platformio.ini", "src/main.cpp"]}],
        "build": {"flags": [c_kind.OPTIMISATION]},
    }
    return json.dumps(values, indent=2) + "\n"


def _environments(layout: Layout) -> str:
    return f"""; {GENERATOR}
; An environment for each framework; take yours and name your board.
[env]
lib_deps = mcuformer_{c_kind.names(layout)[0]}=symlink://../..
monitor_speed = 115200

[env:arduino]
platform = nordicnrf52
board = nano33ble
framework = arduino

[env:espidf]
platform = espressif32
board = esp32-s3-devkitc-1
framework = espidf

[env:zephyr]
platform = nordicnrf52
board = nrf52840_dk
framework = zephyr
"""


def _zephyr_cmake() -> str:
    return f"""# {GENERATOR}
cmake_minimum_required(VERSION 3.20.0)
find_package(Zephyr REQUIRED HINTS $ENV{{ZEPHYR_BASE}})
project(self_test)
target_sources(app PRIVATE ../src/main.cpp)
"""


def _main(layout: Layout) -> str:
    entry = f"""#if defined(ARDUINO)
void setup() {{ Serial.begin(115200); }}

void loop() {{ /* again and again: a terminal may be opened at any time */
{c_kind.calls(layout)}
  delay(2000);
}}
#elif defined(ESP_PLATFORM)
static void run(void*) {{
{c_kind.calls(layout)}
  vTaskDelete(NULL);
}}

extern "C" void app_main(void) {{ xTaskCreate(run, "mcuformer", 8192, NULL, tskIDLE_PRIORITY, NULL); }}
#elif defined(__ZEPHYR__)
int main(void) {{
{c_kind.calls(layout)}
  return 0;
}}
#endif
"""
    return program(layout.models, GENERATOR, "Runs each model's self-test.", [], PLATFORM, entry)


def _readme(layout: Layout) -> str:
    folder = f"mcuformer_{c_kind.names(layout)[0]}"
    models = c_project.readme_models(layout).replace(f"`{KERNELS}/sound/", "`src/sound/")
    for name in c_kind.names(layout):
        models = models.replace(f"`models/{name}/`: ", f"`src/{name}.h`: ")
    return f"""# {c_kind.title(layout)} for PlatformIO

{GENERATOR}

Vision Transformers as C99, as a PlatformIO library for the frameworks Arduino, ESP-IDF and Zephyr.

- `src/mcuf_*`: the kernels, once for all models.
{models}
## See it run

`{EXAMPLE}/platformio.ini` has an environment for each framework; name your board there.

```
pio run -d {EXAMPLE} -e arduino -t upload -t monitor       # or espidf, zephyr
```

It compares each model's output, bit for bit, with the converter's:

```
{c_kind.expected_output(layout)}
```

## In a project of yours

In `platformio.ini`:

```ini
lib_deps = {folder}=symlink://path/to/this/folder
```

or copy this folder into the project's `lib/`.

```c
{c_kind.call_example(layout)}
```

Several exports go into one project. Each brings the kernels, and the linker takes one copy; kernels of different
versions do not link.

{_memory(layout)}"""


def _memory(layout: Layout) -> str:
    macro = layout.models[0].network.macro
    return f"""## Where it lies in memory

`{macro}_ARENA` names a section of the linker script for the arena, `{macro}_CONSTANT` one for weights and
tables. In a file `include/sections.h` of the project:

```c
#define {macro}_ARENA __attribute__((section(".ext_ram.bss")))
```

and in `platformio.ini`:

```ini
build_flags = -include $PROJECT_DIR/include/sections.h
```

A call needs no heap.
"""
