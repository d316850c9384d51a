# SPDX-License-Identifier: Apache-2.0
"""The export as a CMSIS-Pack: a .pdsc with a component for the kernels and one for each model, and a csolution example.

The elements and their order are those of Open-CMSIS-Pack's PACK.xsd.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

from mcuformer.boards import Board
from mcuformer.converter.export import c_kind, c_project
from mcuformer.converter.export.layout import Layout
from mcuformer.converter.export.registry import Result, Source
from mcuformer.converter.export.self_test import program
from mcuformer.sources import kernels_version

VENDOR = "MCUFormer"
CLASS = ("Machine Learning", "MCUFormer")  # Cclass and Cgroup of the components
KERNELS, SOUND = "Kernels", "Sound"  # Csub of the kernels, and of the front end of sound; a model's is its name
EXAMPLE = "example/self_test"
GENERATOR = c_kind.generator("cmsis-pack")
SCHEMA = "1.7.7"

PLATFORM = """/* A board's timer belongs here: the device of this example has none that all boards share. */
static uint32_t now_us(void) { return 0; }
static void say(const char* line) { puts(line); }
"""


def to_folder(
    sources: Sequence[Source], folder: Path, force: bool, image: str, board: Board | None, external_flash: bool
) -> Result:
    layout = c_kind.kind_layout("cmsis-pack", sources, image, board, external_flash)
    files = {
        f"{VENDOR}.{c_kind.names(layout)[0]}.pdsc": _description(layout),
        f"{EXAMPLE}/self_test.csolution.yml": _solution(layout),
        f"{EXAMPLE}/self_test.cproject.yml": _project(layout),
        f"{EXAMPLE}/main.c": _main(layout),
        "README.md": _readme(layout),
    }
    return c_kind.write_kind(
        layout, folder, force, files, f"`cpackget add {folder}/{VENDOR}.{c_kind.names(layout)[0]}.pdsc` adds it"
    )


def _description(layout: Layout) -> str:
    name, version = c_kind.names(layout)[0], kernels_version()
    kernels = _component(
        KERNELS, "The int8 kernels, in C99 with assembly for Cortex-M4, M7 and M55", "",
        _files(list(layout.kernel_files), layout.kernel_includes),
    )  # fmt: skip
    if layout.sound_files:
        sound = _files(list(layout.sound_files), layout.kernel_includes[:1])
        kernels += "\n" + _component(SOUND, "Rows of an image from sound", ' condition="kernels"', sound)
    models = "\n".join(
        _component(
            m.name, f"The network {m.name}: {m.arena_bytes:,} bytes of RAM, {m.constant_bytes:,} of constants",
            ' condition="kernels"',
            _files([f"{layout.model_folder(m)}/{file}" for file in m.sources], [layout.model_folder(m)]),
        )
        for m in layout.models
    )  # fmt: skip
    schema = f"https://raw.githubusercontent.com/Open-CMSIS-Pack/Open-CMSIS-Pack-Spec/v{SCHEMA}/schema/PACK.xsd"
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!-- {GENERATOR.replace("--to", "to")} -->
<package schemaVersion="{SCHEMA}" xmlns:xs="http://www.w3.org/2001/XMLSchema-instance"
  xs:noNamespaceSchemaLocation="{schema}">
  <vendor>{VENDOR}</vendor>
  <name>{name}</name>
  <description>{c_kind.SUMMARY}: {c_kind.title(layout)}</description>
  <url/>
  <license>LICENSE</license>
  <releases>
    <release version="{version}">Kernels of MCUFormer {version}</release>
  </releases>
  <conditions>
    <condition id="kernels">
      <description>The kernels that the models are made for</description>
      <require {_identity(KERNELS)} Cversion="{version}:{version}"/>
    </condition>
  </conditions>
  <components>
{kernels}
{models}
  </components>
  <examples>
    <example name="Self-test" folder="{EXAMPLE}" doc="../../README.md">
      <description>Runs each model and compares it with the converter</description>
      <project>
        <environment name="csolution" load="self_test.csolution.yml"/>
      </project>
    </example>
  </examples>
</package>
"""


def _identity(sub: str) -> str:
    return f'Cclass="{CLASS[0]}" Cgroup="{CLASS[1]}" Csub="{sub}"'


def _components(layout: Layout) -> list[str]:
    """What a project selects."""
    sound = [SOUND] if layout.sound_files else []
    return [f"{VENDOR}::{':'.join(CLASS)}:{sub}" for sub in [KERNELS, *sound, *c_kind.names(layout)]]


def _component(sub: str, description: str, condition: str, files: str) -> str:
    return f"""    <component {_identity(sub)} Cversion="{kernels_version()}"{condition}>
      <description>{description}</description>
      <files>
{files}
      </files>
    </component>"""


def _files(paths: Sequence[str], includes: Sequence[str]) -> str:
    """The elements of folders to include, and of files."""
    categories = {".c": "sourceC", ".S": "sourceAsm", ".h": "header"}
    listed = [("include", f"{folder}/") for folder in includes]
    listed += [(categories[Path(path).suffix], path) for path in sorted(paths)]
    return "\n".join(f'        <file category="{category}" name={quoteattr(path)}/>' for category, path in listed)


def _solution(layout: Layout) -> str:
    return f"""# {GENERATOR}
solution:
  compiler: GCC
  packs:
    - pack: {VENDOR}::{c_kind.names(layout)[0]}
      path: ../..
    - pack: ARM::CMSIS
    - pack: ARM::Cortex_DFP
  target-types:
    - type: CM4
      device: ARM::ARMCM4
    - type: CM55
      device: ARM::ARMCM55
  build-types:
    - type: Release
      optimize: speed
  projects:
    - project: self_test.cproject.yml
"""


def _project(layout: Layout) -> str:
    own = "\n".join(f"    - component: {component}" for component in _components(layout))
    return f"""# {GENERATOR}
project:
  groups:
    - group: Source
      files:
        - file: main.c
  components:
    - component: ARM::CMSIS:CORE
    - component: ARM::Device:Startup&C Startup
{own}
  misc:
    - for-compiler: GCC
      Link:
        - --specs=rdimon.specs
"""


def _main(layout: Layout) -> str:
    return program(
        layout.models, GENERATOR, "Runs each model's self-test once; printf goes to the debugger, by semihosting.", [],
        PLATFORM, f"int main(void) {{\n{c_kind.calls(layout)}\n  return 0;\n}}\n",
    )  # fmt: skip


def _readme(layout: Layout) -> str:
    one = c_kind.names(layout)[0]
    pack, macro = f"{VENDOR}.{one}.pdsc", one.upper()
    components = "\n".join(f"    - component: {component}" for component in _components(layout))
    return f"""# {c_kind.title(layout)} as a CMSIS-Pack

{GENERATOR}

Vision Transformers as C99, as components for csolution projects (CMSIS-Toolbox 2, Keil Studio) and Keil MDK.

- `mcuformer/`: the kernels, the component `{KERNELS}`.
{c_project.readme_models(layout)}
## Into a project

In your `csolution.yml`:

```yaml
  packs:
    - pack: {VENDOR}::{one}
      path: path/to/this/folder
```

and in your `cproject.yml`:

```yaml
  components:
{components}
```

```c
{c_kind.call_example(layout)}
```

For a tool that wants installed packs: `cpackget add path/to/this/folder/{pack}`. Optimise with `optimize: speed`.

Of several exports take the component `{KERNELS}` once, and `{SOUND}`, of networks that take sound: they are the same in
all. To export the models together is simpler. Kernels of another version do not link.

## See it run

```
cbuild {EXAMPLE}/self_test.csolution.yml --packs
```

builds it for a Cortex-M4 and a Cortex-M55 with GCC. By semihosting, in a debugger or in a simulator, it compares each
model's output, bit for bit, with the converter's:

```
{c_kind.expected_output(layout).replace("12345", "0")}
```

(0 us: write `now_us()` for your board.)

## Where it lies in memory

`{macro}_ARENA` and `{macro}_CONSTANT`, under `define:` of your `cproject.yml`, name a section for the arena and for
weights and tables, such as `__attribute__((section(".dtcm")))`. A call needs no heap.
"""
