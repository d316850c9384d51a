/* SPDX-License-Identifier: Apache-2.0
 *
 * All that one run of an exported model reads and writes, which is the caller's: so several models may share an arena,
 * and several threads may run one model. */
#ifndef MCUF_RUN_H_
#define MCUF_RUN_H_

#include "mcuf_image_rows.h"
#include "mcuf_types.h"
#include "mcuf_weight_source.h"

typedef struct {
  int8_t* arena;              /* 4-byte aligned; 16 is fastest */
  int32_t arena_bytes;        /* at least the model's NAME_ARENA_BYTES */
  const int8_t* image;        /* in the arena at NAME_IMAGE_OFFSET, or outside it; unused in strips */
  mcuf_image_rows_fn rows_fn; /* of an image in strips; else unused */
  void* user;                 /* handed to rows_fn */
  mcuf_weight_source weights; /* of staged weights; else unused */
  int8_t* output;             /* logits or embedding, outside the arena */
} mcuf_run;

#endif /* MCUF_RUN_H_ */
