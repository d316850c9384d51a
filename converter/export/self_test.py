# SPDX-License-Identifier: Apache-2.0
"""A test that runs on the device: an image made by a formula, and what the integer reference computes of it.

It takes no flash for an image, and no RAM where the image has a place in the arena.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mcuformer.converter.export import c_text
from mcuformer.converter.export.c_model import CModel
from mcuformer.converter.export.c_sources import Network


def made_image(shape: Sequence[int]) -> np.ndarray:
    """The test's image, int8 of shape [1, H, W, C]: `pixel` in C."""
    index = np.arange(np.prod(shape), dtype=np.int64)
    return ((index * 7 + index // 97 * 13) % 256 - 128).astype(np.int8).reshape(shape)


def self_test_files(model: CModel, generator: str) -> dict[str, str]:
    """NAME_self_test.h and .c, for the folder of the model's other files."""
    p = model.network
    expected = p.graph.run(made_image(p.graph.tensors[p.graph.inputs[0]].shape)).reshape(-1)
    return {
        f"{p.name}_self_test.h": _header(p, generator),
        f"{p.name}_self_test.c": _source(p, expected, generator),
    }


def _header(p: Network, generator: str) -> str:
    guard = f"{p.macro}_SELF_TEST_H_"
    return f"""/* {generator} */
#ifndef {guard}
#define {guard}

#include "{p.name}.h"

#ifdef __cplusplus
extern "C" {{
#endif

/* Runs {p.name} on an image that a formula makes, in its static arena. Returns how many of its {p.length}
 * values equal what the converter's reference computed: all of them, or something is wrong with compiler or memory.
 * Below 0: minus the mcuf_status of an error. A program that does not call it does not contain it. */
int32_t {p.name}_self_test(void);

#ifdef __cplusplus
}}
#endif

#endif /* {guard} */
"""


def _source(p: Network, expected: np.ndarray, generator: str) -> str:
    n, m = p.name, p.macro
    if p.strips:
        bring = f"""static int32_t rows_of_formula(void* user, int32_t first_row, int32_t row_count, int8_t* rows) {{
  const int32_t row = {m}_IMAGE_WIDTH * {m}_IMAGE_CHANNELS;
  (void)user;
  for (int32_t i = 0; i < row_count * row; ++i) rows[i] = pixel(first_row * row + i);
  return row_count;
}}

"""
        call = f"  const mcuf_status status = {n}_invoke_strips(rows_of_formula, NULL, computed);"
    else:
        bring = "" if p.image_offset is not None else f"static int8_t image[{m}_IMAGE_BYTES];\n\n"
        place = f"  int8_t* image = {n}_image();\n" if p.image_offset is not None else ""
        call = f"""{place}  for (int32_t i = 0; i < {m}_IMAGE_BYTES; ++i) image[i] = pixel(i);
  const mcuf_status status = {n}_invoke(image, computed);"""
    return f"""/* {generator} */
#include "{n}_self_test.h"

#include <stddef.h>

#include "mcuf_place.h"

static {c_text.array("expected", expected)}
static int8_t pixel(int32_t index) {{ return (int8_t)((index * 7 + index / 97 * 13) % 256 - 128); }}

{bring}int32_t {n}_self_test(void) {{
  int8_t computed[{p.length}];
  int32_t equal = 0;
{call}
  if (status != MCUF_OK) return -(int32_t)status;
  for (int32_t i = 0; i < {p.length}; ++i) equal += computed[i] == expected[i];
  return equal;
}}
"""


def program(
    models: Sequence[CModel], generator: str, about: str, headers: Sequence[str], platform: str, entry: str
) -> str:
    """A program's main file that runs the self-tests and prints a line for each.

    platform: C that defines `uint32_t now_us(void)` and `void say(const char* line)`; entry: C that calls `NAME_test()`
    of each model.
    """
    includes = "\n".join(f"#include {header}" for header in headers)
    tests = "\n".join(
        f"""static void {m.name}_test(void) {{ report("{m.name}", {m.network.length}, {m.name}_self_test); }}"""
        for m in models
    )
    own = "\n".join(f'#include "{m.name}_self_test.h"' for m in models)
    return f"""/* {generator}
 *
 * {about} */
#include <stdint.h>
#include <stdio.h>

{includes}

{own}

{platform}
static void report(const char* name, int32_t values, int32_t (*self_test)(void)) {{
  char line[128];
  const uint32_t start = now_us();
  const int32_t equal = self_test();
  const uint32_t took = now_us() - start;
  if (equal < 0) {{
    snprintf(line, sizeof line, "%s: error %ld, see mcuf_status", name, (long)-equal);
  }} else {{
    snprintf(line, sizeof line, "%s: %ld of %ld values equal, %lu us%s", name, (long)equal, (long)values,
             (unsigned long)took, equal == values ? "" : " (WRONG)");
  }}
  say(line);
}}

{tests}

{entry}"""
