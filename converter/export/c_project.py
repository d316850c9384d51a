# SPDX-License-Identifier: Apache-2.0
"""The text around networks' C: examples, Makefile, CMakeLists.txt, sources.mk and README.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mcuformer.converter.export.c_sources import GENERATOR, Network, stack_bytes
from mcuformer.converter.export.folder import KERNELS
from mcuformer.converter.export.front_end import ram_bytes
from mcuformer.sources import kernels_version

if TYPE_CHECKING:
    from mcuformer.converter.export.c_model import CModel
    from mcuformer.converter.export.layout import Layout


def example(p: Network) -> str:
    n, m = p.name, p.macro
    if p.strips:
        rows_fn = f"""/* A camera's rows in a product; here raw uint8 pixels on standard input. */
static int32_t rows_of_stdin(void* user, int32_t first_row, int32_t row_count, int8_t* rows) {{
  const size_t bytes = (size_t)row_count * {m}_IMAGE_WIDTH * {m}_IMAGE_CHANNELS;
  (void)user, (void)first_row;
  if (fread(rows, 1, bytes, stdin) != bytes) return 0;
  for (size_t i = 0; i < bytes; ++i) rows[i] = (int8_t)((uint8_t)rows[i] - 128);
  return row_count;
}}

"""
        bring, call = "", f"{n}_invoke_strips(rows_of_stdin, NULL, {p.output})"
    else:
        rows_fn = "" if p.image_offset is not None else f"static int8_t image[{m}_IMAGE_BYTES];\n\n"
        place = f"  int8_t* image = {n}_image();\n" if p.image_offset is not None else ""
        bring = f"""{place}  if (fread(image, 1, {m}_IMAGE_BYTES, stdin) != {m}_IMAGE_BYTES) return 2;
  for (size_t i = 0; i < {m}_IMAGE_BYTES; ++i) image[i] = (int8_t)((uint8_t)image[i] - 128);
"""
        call = f"{n}_invoke(image, {p.output})"
    weights, set_weights = _weights_of_file(p)
    (best, result), found = _shown(p), _found(p)
    return f"""/* Example: the {found} of one image, raw uint8 pixels on standard input. */
#include <stdio.h>

#include "{n}.h"

{weights}{rows_fn}int main(void) {{
  int8_t {p.output}[{p.length}];
{best}{set_weights}{bring}  if ({call} != MCUF_OK) return 1;
{result}  return 0;
}}
"""


def build_files(layout: Layout) -> dict[str, str]:
    """Makefile, CMakeLists.txt, sources.mk and README.md of an export as plain C."""
    return {
        "Makefile": _makefile(layout),
        "CMakeLists.txt": f"{cmake(layout)}{_cmake_examples(layout)}",
        "sources.mk": sources_mk(layout),
        "README.md": _readme(layout),
    }


def includes(layout: Layout) -> list[str]:
    """The folders to include for everything: of the kernels and the models."""
    return [*layout.kernel_includes, *map(layout.model_folder, layout.models)]


def _makefile(layout: Layout) -> str:
    names = [model.name for model in layout.models]
    examples = " ".join(f"example_{name}" for name in names)
    libraries = " ".join(f"lib{name}.a" for name in names)
    sources = {"mcuformer": [*layout.kernel_sources, *layout.sound_sources]} | {
        m.name: layout.model_sources(m) for m in layout.models
    }
    lists = "\n".join(f"{name}_SOURCES = {_listed(files)}" for name, files in sources.items())
    rules = "\n".join(f"lib{name}.a: $({name}_SOURCES:%=%.o)\n\t$(AR) rcs $@ $^\n" for name in sources)
    programs = "\n".join(
        f"example_{m.name}: {layout.example_source(m)} lib{m.name}.a libmcuformer.a\n"
        f"\t$(CC) $(CFLAGS) $(INCLUDES) $(LDFLAGS) -o $@ $^\n"
        for m in layout.models
    )
    return f"""# {GENERATOR}
# make               the libraries and an example for each model
# make CC=arm-none-eabi-gcc AR=arm-none-eabi-ar CFLAGS="-mcpu=cortex-m4 -mthumb -O2" libmcuformer.a {libraries}
AR ?= ar
CFLAGS ?= -O2
override CFLAGS += -std=c99 -ffunction-sections -fdata-sections
INCLUDES = {" ".join(f"-I{folder}" for folder in includes(layout))}
{lists}

all: {examples}

{programs}
{rules}
%.c.o: %.c
\t$(CC) $(CFLAGS) $(INCLUDES) -c -o $@ $<

%.S.o: %.S
\t$(CC) $(CFLAGS) $(INCLUDES) -c -o $@ $<

.PHONY: all clean
clean:
\trm -f {examples} libmcuformer.a {libraries} {" ".join(f"$({name}_SOURCES:%=%.o)" for name in sources)}
"""


def _listed(paths: Sequence[str], prefix: str = "") -> str:
    return "".join(f" \\\n  {prefix}{path}" for path in paths)


def cmake(layout: Layout, generator: str = GENERATOR) -> str:
    """CMakeLists.txt: the targets mcuformer::kernels, once in a project, and mcuformer::NAME for each model."""
    project = layout.models[0].name
    models = "\n".join(_cmake_model(layout, model) for model in layout.models)
    return f"""# {generator}
# Several exports may be added to a project: they share the kernels. For this one:
#   add_subdirectory(this folder)
{chr(10).join(f"#   target_link_libraries(your_firmware mcuformer::{m.name})" for m in layout.models)}
cmake_minimum_required(VERSION 3.13)
project({project} C ASM)

{cmake_kernels(layout)}

{models}"""


def cmake_kernels(layout: Layout) -> str:
    """CMake that adds mcuformer::kernels where no other export has done so; and mcuformer_sound, for sound."""
    kernels = "".join(f"\n    {path}" for path in layout.kernel_sources)
    includes = "".join(f"\n    ${{CMAKE_CURRENT_SOURCE_DIR}}/{folder}" for folder in layout.kernel_includes)
    added = cmake_once(
        layout.models[0].name,
        f"""  add_library(mcuformer_kernels STATIC{kernels})
  add_library(mcuformer::kernels ALIAS mcuformer_kernels)
  set_target_properties(mcuformer_kernels PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
  target_include_directories(mcuformer_kernels PUBLIC{includes})
  target_compile_options(mcuformer_kernels PRIVATE -O2)""",
    )
    if not layout.sound_sources:
        return added
    return f"""{added}

if(NOT TARGET mcuformer_sound)
  add_library(mcuformer_sound STATIC {" ".join(layout.sound_sources)})
  set_target_properties(mcuformer_sound PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
  target_include_directories(mcuformer_sound PUBLIC{includes})
  target_compile_options(mcuformer_sound PRIVATE -O2)
endif()"""


def cmake_libraries(layout: Layout) -> str:
    """The targets of cmake_kernels."""
    return "mcuformer_kernels mcuformer_sound" if layout.sound_sources else "mcuformer_kernels"


def cmake_once(project: str, add: str) -> str:
    """CMake that adds the target mcuformer_kernels as `add` does, unless another export of this version has done so.
    project: the first model's name, for the error."""
    version = kernels_version()
    return f"""if(TARGET mcuformer_kernels)
  get_target_property(version mcuformer_kernels MCUF_VERSION)
  if(NOT version STREQUAL "{version}")
    message(FATAL_ERROR "{project}: made by MCUFormer {version}, but the kernels that another export brings are of "
      "${{version}}; export both with one version")
  endif()
else()
{add}
  set_target_properties(mcuformer_kernels PROPERTIES MCUF_VERSION "{version}")
endif()"""


def _cmake_examples(layout: Layout) -> str:
    examples = "\n".join(
        f"  add_executable(example_{m.name} {layout.example_source(m)})\n"
        f"  target_link_libraries(example_{m.name} mcuformer::{m.name})"
        for m in layout.models
    )
    return f"""
if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
{examples}
endif()
"""


def _cmake_model(layout: Layout, model: CModel) -> str:
    name, sources = model.name, "".join(f"\n  {path}" for path in layout.model_sources(model))
    target = f"mcuformer_{name}"
    return f"""add_library({target} STATIC{sources})
add_library(mcuformer::{name} ALIAS {target})
set_target_properties({target} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
target_include_directories({target} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}}/{layout.model_folder(model)})
target_link_libraries({target} PUBLIC {cmake_libraries(layout)})
target_compile_options({target} PRIVATE -O2)
"""


def sources_mk(layout: Layout, generator: str = GENERATOR) -> str:
    """sources.mk: lists for make, which add up over several exports."""
    name, version = layout.models[0].name, kernels_version()
    here = f"$({name}_DIR)/"
    models = [path for model in layout.models for path in layout.model_sources(model)]
    return f"""# {generator}
# What to compile, for make: include path/to/this/sources.mk, of as many exports as you like, then compile $(MCUF_SRCS)
# with $(MCUF_INCLUDES). They share the kernels.
{name}_DIR := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
{name}_SRCS :={_listed(models, here)}
{make_kernels(name, version, here, layout.kernel_sources, layout.sound_sources)}MCUF_SRCS += $({name}_SRCS)
MCUF_INCLUDES += {" ".join(f"-I{here}{layout.model_folder(model)}" for model in layout.models)}
"""


def make_kernels(name: str, version: str, here: str, kernels: Sequence[str], sound: Sequence[str]) -> str:
    """For a sources.mk: adds the C kernels to NAME_SRCS, and the front end of sound if there is one, where no other
    export, of whatever kind, has done so. name: the first model's; here: what stands before each path."""
    text = f"""ifdef MCUF_KERNELS_VERSION
ifneq ($(MCUF_KERNELS_VERSION),{version})
$(error {name}: made by MCUFormer {version}, the kernels of another export by $(MCUF_KERNELS_VERSION); use one version)
endif
else
MCUF_KERNELS_VERSION := {version}
{name}_SRCS +={_listed(kernels, here)}
MCUF_INCLUDES += -I{here}{KERNELS} -I{here}{KERNELS}/core
endif
"""
    if not sound:
        return text
    return f"""{text}ifndef MCUF_SOUND
MCUF_SOUND := {name}
{name}_SRCS +={_listed(sound, here)}
MCUF_INCLUDES += -I{here}{KERNELS}
endif
"""


def _readme(layout: Layout) -> str:
    title = " and ".join(model.name for model in layout.models)
    one = layout.models[0]
    raw = "sound.raw" if one.network.front_end is not None else "image.raw"
    takes = (
        f"raw int16 samples, {one.network.front_end.rate:,} a second"
        if one.network.front_end is not None
        else "raw uint8 pixels"
    )
    return f"""# {title}

{GENERATOR}

Vision Transformers as plain C99; from the C library only `memcpy` and `memset`, no heap.

- `mcuformer/`: the kernels, once for all models.
{readme_models(layout)}
## Build

`make && ./example_{one.name} < {raw}` builds and runs the example ({takes}). In a project of yours:

- CMake: `add_subdirectory` of this folder, then link `mcuformer::{one.name}`.
- make: `include` of `sources.mk` gives `$(MCUF_SRCS)` and `$(MCUF_INCLUDES)`.
- else compile the `.c` and `.S` files of `mcuformer/` and `models/`, with {
        ", ".join(f"`-I{folder}`" for folder in includes(layout))
    }; `-O2` or more.

Several exports go into one program: they share one copy of the kernels. Kernels of another version do not link.

## Where it lies in memory

`-DMCUF_CONST_SECTION='__attribute__((section(".qspi")))'` puts all weights and tables into a section, for flash beside
the chip that is mapped to memory; `-DMCUF_ARENA_SECTION=...` the static arenas, for tightly coupled memory or PSRAM.
`-D{one.network.macro}_CONSTANT=...` and `-D{
        one.network.macro
    }_ARENA=...` do it for one model. Place the section in your
linker script.
"""


def readme_models(layout: Layout) -> str:
    """What a README says of each model: how it is called and what it takes."""
    models = "\n".join(_readme_model(layout, model) for model in layout.models)
    if len(layout.models) == 1:
        return models
    largest = max(model.arena_bytes for model in layout.models)
    return f"""{models}
Models that run one after another can share memory: one arena of {largest:,} bytes, given to the `_invoke_in` of each;
leave their `_arena.c` out.
"""


def _readme_model(layout: Layout, model: CModel) -> str:
    p = model.network
    n, folder = p.name, layout.model_folder(model)
    function = f"{n}_invoke_strips(rows_fn, user, {p.output})" if p.strips else f"{n}_invoke(image, {p.output})"
    if p.strips:
        image = "The image comes a few rows at a time through `rows_fn` and is never whole in memory."
    elif p.image_offset is not None:
        image = (
            f"`{n}_image()` is a place for the image inside the arena, so it needs no RAM of its own; a call "
            "overwrites it. An image elsewhere, such as in flash, is read in place."
        )
    else:
        image = "The image is the caller's and is read in place; the arena has no place for it."
    text = f"""- `{folder}/`: `{function}` runs the network on one image; see `{n}.h`.
  - RAM: {p.arena_bytes:,} bytes, static (the arena). {image}
  - Stack: {stack_bytes(p):,} bytes below a call.
  - Flash: {model.constant_bytes:,} bytes of constants, beside the kernels.
  - `{n}_invoke_in` does the same in an arena of yours, from any thread; `{n}_step` one op at a time, for a loop that
    must return in between. `mcuf_hooks.h` has calls of yours after each op, and inside long ones.
"""
    if p.weights_bytes:
        text += f"  - `{n}.weights`, {p.weights_bytes:,} bytes, for external flash: `{n}_set_weights`.\n"
    if p.front_end is not None:
        text += f"""  - Sound: `{n}_front_end.h` and `mcuformer/sound/mcuf_log_mel.h` make a row of the image from every
    {p.front_end.hop} samples; a stream takes {ram_bytes(p.front_end):,} bytes of RAM.
"""
    return text


def sound_example(p: Network) -> str:
    """The example of a network that takes sound."""
    n, m = p.name, p.macro
    image = call = ""
    if p.strips:
        call = f"{n}_invoke_strips(rows_of_stdin, NULL, {p.output})"
    else:
        place = f"{n}_image()" if p.image_offset is not None else "image"
        image = "" if p.image_offset is not None else f"static int8_t image[{m}_IMAGE_BYTES];\n"
        call = f"{n}_invoke({place}, {p.output})"
    bring = "" if p.strips else f"  if (rows_of_stdin(NULL, 0, {m}_IMAGE_HEIGHT, {place}) == 0) return 2;\n"
    weights, set_weights = _weights_of_file(p)
    (best, result), found = _shown(p), _found(p)
    return f"""/* Example: the {found} of a sound, raw int16 samples on standard input, {m}_FRONT_END_RATE a second. */
#include <stdio.h>

#include "{n}.h"

{weights}static int16_t samples[{m}_FRONT_END_WINDOW];
static int32_t spectrum[{m}_FRONT_END_FFT];
static mcuf_log_mel_state sound = {{samples, spectrum, 0}};
{image}
/* A microphone's samples in a product; each frame that they complete is one row of the image. */
static int32_t rows_of_stdin(void* user, int32_t first_row, int32_t row_count, int8_t* rows) {{
  int16_t piece[64];
  (void)user, (void)first_row;
  for (int32_t row = 0; row < row_count; ++row) {{
    while (!mcuf_log_mel_row(&{n}_front_end, &sound, rows + row * {m}_FRONT_END_MELS)) {{
      const int32_t missing = {m}_FRONT_END_WINDOW - sound.filled;
      const size_t count = fread(piece, sizeof piece[0], missing < 64 ? (size_t)missing : 64, stdin);
      if (count == 0) return 0;
      mcuf_log_mel_push(&{n}_front_end, &sound, piece, (int32_t)count);
    }}
  }}
  return row_count;
}}

int main(void) {{
  int8_t {p.output}[{p.length}];
{best}{set_weights}{bring}  if ({call} != MCUF_OK) return 1;
{result}  return 0;
}}
"""


def _found(p: Network) -> str:
    return "class" if p.class_names else "embedding"


def _shown(p: Network) -> tuple[str, str]:
    """How an example shows the output: a declaration, and the lines of main that print."""
    if p.class_names:
        largest = f"  for (int i = 1; i < {p.length}; ++i) best = logits[i] > logits[best] ? i : best;"
        return (
            "  int best = 0;\n",
            f"""{largest}
  const double logit = (logits[best] - {p.worth}_ZERO_POINT) * (double){p.worth}_SCALE;
  printf("%s (logit %g)\\n", {p.name}_class_names[best], logit);
""",
        )
    return (
        "",
        f"""  for (int i = 0; i < {p.length}; ++i) {{
    printf("%g\\n", (embedding[i] - {p.worth}_ZERO_POINT) * (double){p.worth}_SCALE);
  }}
""",
    )


def _weights_of_file(p: Network) -> tuple[str, str]:
    """Where staged weights come from in an example: a function, and the lines of main that set it; empty if none."""
    if not p.weights_bytes:
        return "", ""
    function = """/* An external flash in a product; here the file. */
static int32_t weights_of_file(void* user, int32_t offset, int32_t bytes, int8_t* target) {
  return fseek(user, offset, SEEK_SET) == 0 ? (int32_t)fread(target, 1, (size_t)bytes, user) : 0;
}

"""
    lines = f"""  FILE* file = fopen("models/{p.name}/{p.name}.weights", "rb");
  if (file == NULL) return 3;
  {p.name}_set_weights(weights_of_file, file);
"""
    return function, lines
