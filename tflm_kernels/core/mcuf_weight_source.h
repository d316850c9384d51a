/* SPDX-License-Identifier: Apache-2.0
 *
 * Staged weights: a callback copies weights that the processor cannot read in place (in external flash that is not
 * memory-mapped) to scratch, a tile of whole output rows at a time. */
#ifndef MCUF_WEIGHT_SOURCE_H_
#define MCUF_WEIGHT_SOURCE_H_

#include <stdbool.h>

#include "mcuf_types.h"

/* Copies bytes [offset, offset + bytes) of the weights file to target, which is 4-byte aligned. Returns the number of
 * bytes copied; anything but `bytes` is a failure. */
typedef int32_t (*mcuf_weights_fn)(void* user, int32_t offset, int32_t bytes, int8_t* target);

typedef struct {
  mcuf_weights_fn read;
  void* user; /* handed to read */
} mcuf_weight_source;

/* Where the weights of one layer, or of several adjacent ones, come from. */
typedef struct {
  const mcuf_weight_source* source; /* NULL in checks, and if tile_bytes is 0 */
  int32_t tile_bytes;               /* scratch for one tile, a multiple of 4; 0: weights are read in place */
  int32_t offset;                   /* of the layer's first row in the weights file, bytes */
} mcuf_staged_weights;

#define MCUF_MAX_TILE_BYTES (1 << 20)

/* Whether tiles of two rows fit and the sizes make sense: every staged layer needs both. */
static inline bool mcuf_staged_weights_fit(const mcuf_staged_weights* s, int32_t row_bytes, int32_t rows) {
  if (s->tile_bytes == 0) return true;
  const int64_t wide_row_bytes = row_bytes;
  return s->tile_bytes > 0 && s->tile_bytes % 4 == 0 && s->tile_bytes <= MCUF_MAX_TILE_BYTES &&
         row_bytes * (rows < 2 ? rows : 2) <= s->tile_bytes && s->offset >= 0 &&
         s->offset <= INT32_MAX - wide_row_bytes * rows;
}

/* Rows of one tile: an even number, or all. */
static inline int32_t mcuf_tile_rows(const mcuf_staged_weights* s, int32_t row_bytes, int32_t rows) {
  const int32_t most = s->tile_bytes == 0 ? rows : s->tile_bytes / row_bytes;
  return most >= rows ? rows : most / 2 * 2;
}

/* Rows [row, row + count) of a layer: in place if weights are not staged, else copied to tile. NULL if the source
 * fails. */
static inline const int8_t* mcuf_weight_rows(const mcuf_staged_weights* s, const int8_t* weights, int32_t row_bytes,
                                             int32_t row, int32_t count, int8_t* tile) {
  const ptrdiff_t wide_row = row;
  if (s->tile_bytes == 0) return weights + wide_row * row_bytes;
  if (s->source == NULL || s->source->read == NULL) return NULL;
  const int32_t bytes = count * row_bytes;
  return s->source->read(s->source->user, s->offset + row * row_bytes, bytes, tile) == bytes ? tile : NULL;
}

#endif /* MCUF_WEIGHT_SOURCE_H_ */
