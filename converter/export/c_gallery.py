# SPDX-License-Identifier: Apache-2.0
"""Stored embeddings as C, and a function that finds the nearest by cosine, in integers alone.

A stored embedding is kept as an int8 direction: its largest value becomes 127. Its cosine with an embedding e of the
network is sum((e - zero_point) * direction) / (|e - zero_point| * |direction|). Which is nearest depends on the last
factor alone, a constant of each direction.
"""

from __future__ import annotations

import numpy as np

from mcuformer.converter.export import c_text
from mcuformer.converter.graph import Graph
from mcuformer.gallery import Gallery

RECIPROCAL_BITS = 30  # of 1 / |direction|; directions are at least 127 long, so it fits 24 bits


def directions(gallery: Gallery) -> tuple[np.ndarray, np.ndarray]:
    """int8 [n, length], and int32 [n]: 2^30 / their length, 0 for an embedding of zeros."""
    values = gallery.embeddings.astype(np.float64)
    largest = np.abs(values).max(axis=1, keepdims=True)
    rounded = np.rint(values * (127 / np.where(largest > 0, largest, 1))).astype(np.int8)
    sizes = np.linalg.norm(rounded.astype(np.float64), axis=1)
    reciprocals = np.where(sizes > 0, np.rint((1 << RECIPROCAL_BITS) / np.where(sizes > 0, sizes, 1)), 0)
    return rounded, reciprocals.astype(np.int32)


def constant_bytes(gallery: Gallery) -> int:
    """Bytes of flash: directions, reciprocals, names and pointers to them."""
    return sum(gallery.length + 4 + 4 + len(name.encode()) + 1 for name in gallery.names)


def files(graph: Graph, gallery: Gallery | None, name: str, generator: str) -> dict[str, str]:
    """NAME_gallery.h and NAME_gallery.c. Without a gallery the header says that there is none."""
    guard, macro = f"{name.upper()}_GALLERY_H_", name.upper()
    head = f"/* {generator} */\n#ifndef {guard}\n#define {guard}\n"
    if gallery is None:
        text = f"{head}\n#define {macro}_GALLERY 0 /* stored embeddings */\n\n#endif /* {guard} */\n"
        return {f"{name}_gallery.h": text}
    return {
        f"{name}_gallery.h": _header(gallery, name, head),
        f"{name}_gallery.c": _source(graph, gallery, name, generator),
    }


def _header(gallery: Gallery, name: str, head: str) -> str:
    """head: comment and include guard."""
    macro = name.upper()
    return f"""{head}
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {macro}_GALLERY {len(gallery)} /* stored embeddings */

extern const char* const {name}_gallery_names[{macro}_GALLERY];

/* The index of the stored embedding that is nearest to `embedding`, the network's int8 [{gallery.length}], by cosine;
 * the first of several. cosine: set to it in thousandths, -1000 to 1000; may be null. */
int32_t {name}_nearest(const int8_t* embedding, int32_t* cosine);

#ifdef __cplusplus
}}
#endif

#endif /* {macro}_GALLERY_H_ */
"""


def _source(graph: Graph, gallery: Gallery, name: str, generator: str) -> str:
    macro = name.upper()
    rounded, reciprocals = directions(gallery)
    rows = ",\n".join(
        "    {" + ",\n     ".join(",".join(map(str, row[i : i + 32])) for i in range(0, len(row), 32)) + "}"
        for row in rounded.tolist()
    )
    names = ",\n    ".join(map(c_text.string, gallery.names))
    factors = ",\n    ".join(map(str, reciprocals.tolist()))
    return f"""/* {generator} */
#include "{name}_gallery.h"

#define LENGTH {gallery.length}
#define ZERO_POINT ({graph.output_zero_point})

const char* const {name}_gallery_names[{macro}_GALLERY] = {{
    {names}}};

static const int8_t directions[{macro}_GALLERY][LENGTH] = {{
{rows}}};

/* 2^{RECIPROCAL_BITS} / the length of a direction. */
static const int32_t reciprocals[{macro}_GALLERY] = {{
    {factors}}};

/* The square root, rounded down. */
static uint32_t root(uint64_t square) {{
  uint64_t result = 0;
  for (uint64_t bit = (uint64_t)1 << 31; bit != 0; bit >>= 1) {{
    if ((result | bit) * (result | bit) <= square) result |= bit;
  }}
  return (uint32_t)result;
}}

int32_t {name}_nearest(const int8_t* embedding, int32_t* cosine) {{
  int32_t nearest = 0;
  int64_t most = INT64_MIN;
  for (int32_t i = 0; i < {macro}_GALLERY; ++i) {{
    int32_t dot = 0;
    for (int32_t k = 0; k < LENGTH; ++k) dot += (embedding[k] - ZERO_POINT) * directions[i][k];
    const int64_t along = (int64_t)dot * reciprocals[i]; /* 2^{RECIPROCAL_BITS} * |embedding| * cosine */
    if (along > most) {{
      most = along;
      nearest = i;
    }}
  }}
  if (cosine != 0) {{
    uint32_t square = 0;
    for (int32_t k = 0; k < LENGTH; ++k) {{
      const int32_t value = embedding[k] - ZERO_POINT;
      square += (uint32_t)(value * value);
    }}
    const int64_t size = root((uint64_t)square << 16); /* 2^8 * |embedding| */
    const int64_t parts = size == 0 ? 0 : (most / (1 << 12)) * 1000 / (size << 10);
    *cosine = (int32_t)(parts > 1000 ? 1000 : parts < -1000 ? -1000 : parts);
  }}
  return nearest;
}}
"""
