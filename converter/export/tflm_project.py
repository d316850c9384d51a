# SPDX-License-Identifier: Apache-2.0
"""The build files and the README of an export for TFLM."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mcuformer.converter.export.c_project import cmake_once, make_kernels
from mcuformer.converter.export.folder import KERNELS
from mcuformer.converter.export.tflm_model import GENERATOR, TflmModel
from mcuformer.sound import LogMel
from mcuformer.sources import kernels_version

if TYPE_CHECKING:
    from mcuformer.converter.export.tflm import TflmExport

EXTERNAL_SINCE = "2022-01"  # kernels reach the external context through MicroContext


def build_files(export: TflmExport) -> dict[str, str]:
    """sources.mk, CMakeLists.txt and README.md."""
    version = kernels_version()
    return {
        "sources.mk": _sources_mk(export, version),
        "CMakeLists.txt": _cmake(export),
        "README.md": _readme(export),
    }


def _compiled(files: Iterable[str]) -> list[str]:
    return [name for name in files if name.endswith((".c", ".cc", ".S"))]


def _model_sources(export: TflmExport) -> list[str]:
    return [name for model in export.models for name in _compiled(export.model_files(model))]


def _sources_mk(export: TflmExport, version: str) -> str:
    name = export.models[0].name
    here = f"$({name}_DIR)/"
    kernels = _compiled(export.kernel_files)
    in_c, glue = ([path for path in kernels if path.endswith(".cc") == is_glue] for is_glue in (False, True))
    models, listed = ("".join(f" \\\n  {here}{path}" for path in paths) for paths in (_model_sources(export), glue))
    includes = " ".join(f"-I{here}{export.model_folder(model)}" for model in export.models)
    return f"""# {GENERATOR}
# What to compile, for make. In TFLM's own Makefile, tensorflow/lite/micro/tools/make/Makefile, the line
#   include path/to/this/sources.mk
# before "MICROLITE_LIB_OBJS :=" puts all of it into TFLM's library. Several exports may be included: they share the
# kernels.
{name}_DIR := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
{name}_SRCS :={models}
{make_kernels(name, version, here, in_c, _compiled(export.sound_files))}ifndef MCUF_TFLM_OPS
MCUF_TFLM_OPS := {name}
{name}_SRCS +={listed}
MCUF_INCLUDES += -I{here}
endif
MCUF_SRCS += $({name}_SRCS)
MCUF_INCLUDES += {includes}

# TFLM's own Makefile.
MICROLITE_CC_KERNEL_SRCS += $({name}_SRCS)
"""


def _cmake(export: TflmExport) -> str:
    project = export.models[0].name
    kernels = _compiled(export.kernel_files)
    in_c, glue = (
        "".join(f"\n    {path}" for path in kernels if path.endswith(".cc") == is_glue) for is_glue in (False, True)
    )
    models = "\n".join(
        f"""add_library(mcuformer_{model.name} STATIC {" ".join(_compiled(export.model_files(model)))})
add_library(mcuformer::{model.name} ALIAS mcuformer_{model.name})
target_include_directories(mcuformer_{model.name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}}/{export.model_folder(model)})
target_link_libraries(mcuformer_{model.name} PUBLIC mcuformer{" mcuformer_sound" if export.sound_files else ""})
"""
        for model in export.models
    )
    added = cmake_once(
        project,
        f"""  add_library(mcuformer_kernels STATIC{in_c})
  add_library(mcuformer::kernels ALIAS mcuformer_kernels)
  target_include_directories(mcuformer_kernels PUBLIC
    ${{CMAKE_CURRENT_SOURCE_DIR}}/{KERNELS} ${{CMAKE_CURRENT_SOURCE_DIR}}/{KERNELS}/core)
  target_compile_options(mcuformer_kernels PRIVATE -O3)""",
    )
    return f"""# {GENERATOR}
# add_subdirectory(this folder), of as many exports as you like: they share the kernels. Then
#   target_link_libraries(mcuformer PRIVATE the_target_that_has_TFLM)
#   target_link_libraries(your_firmware PRIVATE {" ".join(f"mcuformer::{model.name}" for model in export.models)})
cmake_minimum_required(VERSION 3.13)
project({project} C CXX ASM)

{added}

if(NOT TARGET mcuformer)
  add_library(mcuformer STATIC{glue})
  target_include_directories(mcuformer PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
  target_compile_features(mcuformer PUBLIC cxx_std_17)
  target_compile_options(mcuformer PRIVATE -O3)
  target_link_libraries(mcuformer PUBLIC mcuformer_kernels)
endif()
{_cmake_sound(export)}
{models}"""


def _cmake_sound(export: TflmExport) -> str:
    """CMake for the front end of sound, which another export may have brought, or not."""
    if not export.sound_files:
        return ""
    return f"""
if(NOT TARGET mcuformer_sound)
  add_library(mcuformer_sound STATIC {" ".join(_compiled(export.sound_files))})
  target_include_directories(mcuformer_sound PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}}/{KERNELS})
  target_compile_options(mcuformer_sound PRIVATE -O3)
endif()
"""


def _setup(model: TflmModel) -> str:
    """C++ that runs once, before the first image."""
    lines = [
        "#ifdef MCUFORMER_CHECK_MODEL",
        f"if (const char* wrong = mcuformer::CheckModel({model.name}_data, {model.name}_data_len)) {{",
        f'  MCUF_LOG(nullptr, "{model.name}: %s", wrong);',
        "  return false;",
        "}",
        "#endif",
        "static MicroMutableOpResolver<mcuformer::kOpCount> resolver;",
        "if (mcuformer::AddMcuformerOps(resolver) != kTfLiteOk) return false;",
        f"static MicroInterpreter runner(GetModel({model.name}_data), resolver, arena, sizeof(arena));",
        "interpreter = &runner;",
    ]
    if not (model.strip_rows or model.weights):
        lines.append("return runner.AllocateTensors() == kTfLiteOk;")
    else:
        rows = "ReadRows" if model.strip_rows else "nullptr"
        weights = "ReadFlash" if model.weights else "nullptr"
        lines += [
            "if (runner.AllocateTensors() != kTfLiteOk) return false;  // first: TFLM of 2023 to 2025 insists",
            "static mcuf_external_context sources = "
            f"{{MCUF_EXTERNAL_CONTEXT_MAGIC, {rows}, nullptr, {{{weights}, nullptr}}}};",
            "return runner.SetMicroExternalContext(&sources) == kTfLiteOk;",
        ]
    return "\n".join(line if line.startswith("#") else f"  {line}" for line in lines)


def _callbacks(model: TflmModel, front_end: LogMel | None) -> str:
    text = ""
    if model.strip_rows and front_end is None:
        text += f"""
// Delivers rows of the image, at most {model.strip_rows} at a time, from the first to the last; see
// mcuf_image_rows_fn.
int32_t ReadRows(void* user, int32_t first_row, int32_t row_count, int8_t* rows);
"""
    if model.weights:
        text += f"""
// Reads bytes of {model.name}.weights, which is in external flash; see mcuf_weights_fn.
int32_t ReadFlash(void* user, int32_t offset, int32_t bytes, int8_t* target);
"""
    return text


def _readme(export: TflmExport) -> str:
    one = export.models[0]
    compiled = len(_compiled(export.kernel_files)) + len(_compiled(export.sound_files)) + len(_model_sources(export))
    folders = [KERNELS, *map(export.model_folder, export.models)]
    since = EXTERNAL_SINCE if any(model.strip_rows or model.weights for model in export.models) else "2021-09"
    rows = map(_readme_model, export.models, export.front_ends, map(export.model_folder, export.models))
    models = "".join(rows)
    uses = "\n".join(_use(model, front_end) for model, front_end in zip(export.models, export.front_ends, strict=True))
    return f"""# {" and ".join(model.name for model in export.models)} for TensorFlow Lite Micro

{GENERATOR}

{models}- `{KERNELS}/`: the kernels, `op_resolver.h`, `token_overwrite_planner.h`. C99 and C++11, without heap.
  `tflm_compat.h` finds out the version of TFLM: any from {since} on.

## Build

Copy this folder into your project. Compile {compiled} files, with TFLM's own include paths, this folder and, in it,
{", ".join(f"`{folder}`" for folder in folders)}:

- make: `include path/to/this/sources.mk` gives `$(MCUF_SRCS)`; your own sources need `$(MCUF_INCLUDES)`.
- CMake: `add_subdirectory` of this folder, then link the target `mcuformer::{one.name}` (its first lines say how).
- TFLM's own Makefile, to have them in its library: the line `include path/to/this/sources.mk` before
  `MICROLITE_LIB_OBJS :=`; your firmware needs `-I` of the same folders.

Several exports go into one firmware: they share the kernels, and one resolver serves all models.

Compile with `-O2` or more, and with the same `TF_LITE_STATIC_MEMORY` and `TF_LITE_STRIP_ERROR_STRINGS` as TFLM's
library: its Makefile sets the first, and the second with `BUILD_TYPE=release`.

`-D{one.name.upper()}_CONSTANT='__attribute__((section(".qspi")))'` puts the model into a section for flash beside the
chip that is mapped to memory; place that section in your linker script.

{uses}"""


def _readme_model(model: TflmModel, front_end: LogMel | None, folder: str) -> str:
    n, known = model.name, "classes" if model.class_names else "embedding's length, scale and zero point"
    text = f"""- `{folder}/{n}.h`, `{n}.cc`: the model ({len(model.content):,} bytes of flash),
  its arena ({model.arena_bytes:,} bytes on a 32-bit board), its {known}.
"""
    if model.weights:
        text += f"- `{n}.weights`: {len(model.weights):,} bytes of weights for external flash, read by a callback.\n"
    if front_end is not None:
        text += (
            f"- `{n}_front_end.h`, `{n}_front_end.c`: the tables that make rows of the image out of sound, by\n"
            "  `mcuformer/sound/mcuf_log_mel.h`.\n"
        )
    return text


def _sound(model: TflmModel, front_end: LogMel | None) -> str:
    """Rows of the image out of a microphone's samples, in C++."""
    if front_end is None:
        return ""
    m = f"{model.name.upper()}_FRONT_END"
    return f"""
// Waits for samples of the microphone, int16, {m}_RATE a second: at most `most`. Returns how many there are.
int32_t ReadSamples(int16_t* samples, int32_t most);

// Rows of the image: each frame of sound is one.
int32_t ReadRows(void*, int32_t, int32_t row_count, int8_t* rows) {{
  static int16_t samples[{m}_WINDOW], piece[64];
  static int32_t spectrum[{m}_FFT];
  static mcuf_log_mel_state state = {{samples, spectrum, 0}};
  for (int32_t row = 0; row < row_count; ++row) {{
    while (!mcuf_log_mel_row(&{model.name}_front_end, &state, rows + row * {m}_MELS)) {{
      const int32_t missing = {m}_WINDOW - state.filled;
      const int32_t count = ReadSamples(piece, missing < 64 ? missing : 64);
      if (count <= 0) return 0;
      mcuf_log_mel_push(&{model.name}_front_end, &state, piece, count);
    }}
  }}
  return row_count;
}}
"""


def _call(model: TflmModel, argument: str, copy: str) -> str:
    """The function that runs the model. copy: brings the image to its input."""
    n = model.name
    if model.class_names:
        return f"""int Classify({argument}) {{
{copy}  if (interpreter->Invoke() != kTfLiteOk) return -1;
  const int8_t* logits = interpreter->output(0)->data.int8;
  int best = 0;
  for (int i = 1; i < {n}_classes; ++i) best = logits[i] > logits[best] ? i : best;
  return best;  // {n}_class_names[best]
}}"""
    return f"""// int8 [{n}_embedding_length]; {n}.h says what a value is worth.
const int8_t* Embed({argument}) {{
{copy}  return interpreter->Invoke() == kTfLiteOk ? interpreter->output(0)->data.int8 : nullptr;
}}"""


def _use(model: TflmModel, front_end: LogMel | None) -> str:
    """How firmware calls the model."""
    n, title = model.name, f" {model.name}"
    context = '#include "mcuformer/external_context.h"\n' if model.strip_rows or model.weights else ""
    if front_end is not None:
        context = f'#include "{n}_front_end.h"\n{context}'
    copy = "" if model.strip_rows else f"  memcpy(interpreter->input(0)->data.int8, image, {n}_image_bytes);\n"
    argument = "" if model.strip_rows else "const int8_t* image"
    failed = "-1" if model.class_names else "nullptr"
    if front_end is not None and not model.strip_rows:
        rows = f"ReadRows(nullptr, 0, {n}_image_height, interpreter->input(0)->data.int8)"
        copy, argument = f"  if ({rows} == 0) return {failed};\n", ""
    return f"""## Use{title}

```cpp
#include <cstring>

#include "{n}.h"
{context}#include "mcuformer/model_check.h"
#include "mcuformer/op_resolver.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

using namespace tflite;
using namespace tflite::micro;  // where TFLM's names are since 2026-10

alignas(16) static uint8_t arena[{n}_arena_size];
static MicroInterpreter* interpreter;
{_sound(model, front_end)}{_callbacks(model, front_end)}
bool Setup() {{
{_setup(model)}
}}

{_call(model, argument, copy)}
```

Any resolver takes the ops: `N` of your `MicroMutableOpResolver<N>` grows by `mcuformer::kOpCount`. TFLM before 2022-09
wants an `ErrorReporter` too, as the last argument of resolver and interpreter.

With `-DMCUFORMER_CHECK_MODEL` the firmware checks the model before TFLM follows its offsets, and prints one line if
flash is damaged: its SHA-256, its structure and its memory plan. Off by default: it takes 6 KB of flash, and at the
start about 123 instructions a byte of the model on a Cortex-M4, {len(model.content) * 123 / 1e6:,.1f} million here.

The model holds its own memory plan, which TFLM honours. To have the device plan the same arena instead:

```cpp
#include "mcuformer/token_overwrite_planner.h"

static mcuformer::TokenOverwritePlanner planner({n}_data, {n}_data_len);
static MicroInterpreter runner(GetModel({n}_data), resolver, MicroAllocator::Create(arena, sizeof(arena), &planner));
```
"""
