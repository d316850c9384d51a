# SPDX-License-Identifier: Apache-2.0
"""The text around a network's C: example, Makefile, CMakeLists.txt and README.md."""

from __future__ import annotations

from mcuformer.converter.export.c_sources import GENERATOR, Network
from mcuformer.converter.export.front_end import ram_bytes


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


def makefile(name: str, compiled: list[str]) -> str:
    """compiled: the sources of the library."""
    listed = " \\\n  ".join(compiled)
    return f"""# {GENERATOR}
# make               the library lib{name}.a and the example
# make CC=arm-none-eabi-gcc AR=arm-none-eabi-ar CFLAGS="-mcpu=cortex-m4 -mthumb -O2" lib{name}.a
AR ?= ar
CFLAGS ?= -O2
override CFLAGS += -std=c99 -Wall -Wextra -Werror -pedantic -ffunction-sections -fdata-sections -I. -Icore
SOURCES = {listed}
OBJECTS = $(addsuffix .o,$(SOURCES))

example: main.c lib{name}.a
\t$(CC) $(CFLAGS) $(LDFLAGS) -o $@ main.c lib{name}.a

lib{name}.a: $(OBJECTS)
\t$(AR) rcs $@ $(OBJECTS)

%.c.o: %.c
\t$(CC) $(CFLAGS) -c -o $@ $<

%.S.o: %.S
\t$(CC) $(CFLAGS) -c -o $@ $<

.PHONY: clean
clean:
\trm -f example lib{name}.a $(OBJECTS)
"""


def cmake(name: str, compiled: list[str]) -> str:
    languages = "C ASM" if any(name.endswith(".S") for name in compiled) else "C"
    listed = "\n  ".join(compiled)
    return f"""# {GENERATOR}
cmake_minimum_required(VERSION 3.13)
project({name} {languages})

add_library({name} STATIC
  {listed})
set_target_properties({name} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
target_include_directories({name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}} ${{CMAKE_CURRENT_SOURCE_DIR}}/core)
target_compile_options({name} PRIVATE -O2 -Wall -Wextra -Werror -pedantic)

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  add_executable(example main.c)
  target_link_libraries(example {name})
endif()
"""


def readme(p: Network, constant_bytes: int) -> str:
    n = p.name
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
    staged = ""
    if p.weights_bytes:
        staged = f"\n- `{n}.weights`, {p.weights_bytes:,} bytes, for external flash: `{n}_set_weights`."
    sound, raw = "", "image.raw` builds and runs the example (raw uint8 pixels)"
    if p.front_end is not None:
        raw = f"sound.raw` builds and runs the example (raw int16 samples, {p.front_end.rate:,} a second)"
        sound = (
            f"- Sound: `{n}_front_end.h` and `sound/mcuf_log_mel.h` make a row of the image from every "
            f"{p.front_end.hop} samples; a stream takes {ram_bytes(p.front_end):,} bytes of RAM.\n"
        )
    return f"""# {n}

{GENERATOR}

`{function}` runs the network on one image; see `{n}.h`. C99; from the C library only `memcpy` and `memset`.

- RAM: {p.arena_bytes:,} bytes, static (the arena). {image}
- Flash: {constant_bytes:,} bytes of constants, and the kernels in `core/`.{staged}
{sound}
`make && ./example < {raw}; `CMakeLists.txt` has the library as a
target for a larger project.
"""


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
    lines = f"""  FILE* file = fopen("{p.name}.weights", "rb");
  if (file == NULL) return 3;
  {p.name}_set_weights(weights_of_file, file);
"""
    return function, lines
