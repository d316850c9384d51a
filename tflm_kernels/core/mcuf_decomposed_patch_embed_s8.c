/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_decomposed_patch_embed_s8.h"

#include <string.h>

#include "mcuf_block.h"
#include "mcuf_fixed_point.h"

#define FIELD_PIXELS (MCUF_FIELD_SIZE * MCUF_FIELD_SIZE)

/* Fields of a patch, one way. */
static int32_t side_of(const mcuf_decomposed_patch_embed_params* p) {
  return (p->patch_size + MCUF_FIELD_SIZE - 1) / MCUF_FIELD_SIZE;
}

/* Inputs of a field: an even number, and so the bytes of a row of its weights in every packing. */
static int32_t field_row(const mcuf_decomposed_patch_embed_params* p) { return FIELD_PIXELS * p->channels; }

/* Blocks of four tokens in a row of tokens. */
static int32_t blocks_in(int32_t columns) { return (columns + MCUF_TOKEN_BLOCK - 1) / MCUF_TOKEN_BLOCK; }

mcuf_status mcuf_decomposed_patch_embed_s8_check(const mcuf_decomposed_patch_embed_params* p) {
  if (p->weights == NULL && p->staged.tile_bytes == 0) return MCUF_ERROR_NULL;
  if (p->patch_size < 1 || p->patch_size > MCUF_MAX_PATCH_SIZE || p->image_height < p->patch_size ||
      p->image_height > MCUF_MAX_IMAGE_SIDE || p->image_width < p->patch_size || p->image_width > MCUF_MAX_IMAGE_SIDE ||
      p->channels < 1 || p->channels > MCUF_MAX_IMAGE_CHANNELS || p->embed_dim < 1 ||
      p->embed_dim > MCUF_MAX_FEATURES || p->patch_size * p->patch_size * p->channels > MCUF_MAX_PATCH_INPUTS ||
      (p->image_height / p->patch_size) * (p->image_width / p->patch_size) > MCUF_MAX_TOKENS ||
      p->blocks_per_read < 1 || p->blocks_per_read > blocks_in(p->image_width / p->patch_size) ||
      !mcuf_staged_weights_fit(&p->staged, field_row(p),
                               side_of(p) * side_of(p) * mcuf_packed_rows(p->embed_dim, p->packing))) {
    return MCUF_ERROR_SIZE;
  }
  if (!mcuf_packing_is_known(p->packing, p->weights)) return MCUF_ERROR_VALUE;
  if (!mcuf_is_int8(p->zero_point)) return MCUF_ERROR_VALUE;
  if (p->position != NULL && p->position_scale == NULL) return MCUF_ERROR_NULL;
  return mcuf_check_requantisation(p->bias, p->multiplier, p->embed_dim);
}

/* Of four tokens. */
static int32_t accumulator_count(int32_t embed_dim) { return MCUF_TOKEN_BLOCK * mcuf_round_up_even(embed_dim); }

/* The parts that both kernels need: int32 accumulators [4 * blocks tokens, d rounded up to even], a block of fields,
 * int8 tile */
static int32_t common_bytes(int32_t channels, int32_t embed_dim, int32_t blocks, int32_t tile_bytes) {
  return blocks * accumulator_count(embed_dim) * (int32_t)sizeof(int32_t) + mcuf_block_bytes(FIELD_PIXELS * channels) +
         tile_bytes;
}

/* Scratch: the common parts, int8 tokens [columns, d] */
int32_t mcuf_decomposed_patch_embed_s8_scratch_bytes(int32_t image_width, int32_t channels, int32_t patch_size,
                                                     int32_t embed_dim, int32_t blocks_per_read, int32_t tile_bytes) {
  return common_bytes(channels, embed_dim, blocks_per_read, tile_bytes) + image_width / patch_size * embed_dim;
}

/* One 4x4 field of `count` neighbouring patches, zeros past the patch's edge. row: the field's first pixel row, at the
 * first patch's first column; field_y, field_x: where the field lies in the patch. */
static void gather_fields(const mcuf_decomposed_patch_embed_params* p, int32_t count, const int8_t* row,
                          int32_t field_y, int32_t field_x, int16_t* fields) {
  const int32_t left = p->patch_size - field_x, width = MCUF_FIELD_SIZE * p->channels;
  const int32_t run = (left < MCUF_FIELD_SIZE ? left : MCUF_FIELD_SIZE) * p->channels;
  for (int32_t y = 0; y < MCUF_FIELD_SIZE; ++y) {
    const int32_t used = field_y + y < p->patch_size ? run : 0;
    if (used > 0) {
      const int8_t* pixels = row + ((ptrdiff_t)y * p->image_width + field_x) * p->channels;
      mcuf_block_fill(fields, field_row(p), count, pixels, p->patch_size * p->channels, y * width, used);
    }
    if (used < width) mcuf_block_fill(fields, field_row(p), count, NULL, 0, y * width + used, width - used);
  }
}

/* Work on neighbouring blocks of four tokens in one row of tokens; the last block of a row may have fewer. */
typedef struct {
  const mcuf_decomposed_patch_embed_params* p;
  int32_t columns;       /* tokens in a row of tokens */
  int32_t first, blocks; /* the first token, a multiple of four, and how many blocks from there */
  int32_t* acc;          /* of the first token: see part_at() */
  int16_t* fields;
  int8_t* tile;
} block_run;

/* Tokens of a run that are computed together: 1, 2 or 4. */
typedef struct {
  int32_t at, count; /* the first of them, counted from the run's first */
  int32_t* acc;      /* [d rounded up to even, count] */
  int16_t* fields;
} block_part;

static block_part part_at(const block_run* r, int32_t at) {
  const int32_t tokens = MCUF_TOKEN_BLOCK * r->blocks, left = r->columns - r->first;
  block_part part;
  part.at = at;
  part.count = mcuf_block_count((tokens < left ? tokens : left) - at);
  part.acc = r->acc + (ptrdiff_t)at * mcuf_round_up_even(r->p->embed_dim);
  part.fields = r->fields + (ptrdiff_t)(at % MCUF_TOKEN_BLOCK) * field_row(r->p);
  return part;
}

/* The next part; its count is 0 if there is none. */
static block_part next_part(const block_run* r, const block_part* part) {
  const int32_t at = part->at + part->count;
  if (at < MCUF_TOKEN_BLOCK * r->blocks && r->first + at < r->columns) return part_at(r, at);
  const block_part none = {at, 0, NULL, NULL};
  return none;
}

static void start_blocks(const block_run* r) {
  const int32_t d = r->p->embed_dim;
  for (block_part part = part_at(r, 0); part.count > 0; part = next_part(r, &part)) {
    int32_t* acc = part.acc;
    for (int32_t o = 0; o < d; ++o) {
      for (int32_t t = 0; t < part.count; ++t) *acc++ = r->p->bias[o];
    }
    for (int32_t t = 0; d % 2 != 0 && t < part.count; ++t) *acc++ = 0;
  }
}

/* Adds one field of every patch, with the weights of outputs [row, row + row_count). */
static void add_field(const block_run* r, const int8_t* rows, int32_t field_y, int32_t field_x, const int8_t* weights,
                      int32_t row, int32_t row_count) {
  const mcuf_decomposed_patch_embed_params* p = r->p;
  for (block_part part = part_at(r, 0); part.count > 0; part = next_part(r, &part)) {
    if (row == 0 || r->blocks > 1) { /* else they are already there */
      const int32_t column = r->first + part.at;
      gather_fields(p, part.count, rows + (ptrdiff_t)column * p->patch_size * p->channels, field_y, field_x,
                    part.fields);
    }
    mcuf_block_accumulate(weights, p->packing, row_count, field_row(p), part.fields, part.count,
                          part.acc + (ptrdiff_t)row * part.count);
  }
}

/* Adds one row of fields (image rows field_y .. field_y + 3 of the patches). rows: the first of them. */
static mcuf_status add_field_row(const block_run* r, const int8_t* rows, int32_t field_y) {
  const mcuf_decomposed_patch_embed_params* p = r->p;
  const int32_t d = p->embed_dim, packed_rows = mcuf_packed_rows(d, p->packing);
  const int32_t tile_rows = mcuf_tile_rows(&p->staged, field_row(p), packed_rows);
  int32_t field = field_y / MCUF_FIELD_SIZE * side_of(p);
  for (int32_t x = 0; x < p->patch_size; x += MCUF_FIELD_SIZE, ++field) {
    for (int32_t row = 0; row < d; row += tile_rows) {
      const int32_t brought = packed_rows - row < tile_rows ? packed_rows - row : tile_rows;
      const int8_t* weights =
          mcuf_weight_rows(&p->staged, p->weights, field_row(p), field * packed_rows + row, brought, r->tile);
      if (weights == NULL) return MCUF_ERROR_SOURCE;
      add_field(r, rows, field_y, x, weights, row, d - row < tile_rows ? d - row : tile_rows);
    }
  }
  return MCUF_OK;
}

/* Position table and requantisation. row: the row of tokens; tokens: int8 [columns, d] of it. */
static void finish_blocks(const block_run* r, int32_t row, int8_t* tokens) {
  const mcuf_decomposed_patch_embed_params* p = r->p;
  const int32_t d = p->embed_dim;
  for (block_part part = part_at(r, 0); part.count > 0; part = next_part(r, &part)) {
    for (int32_t t = 0; t < part.count; ++t) {
      const ptrdiff_t column = r->first + part.at + t;
      const int8_t* position = p->position == NULL ? NULL : p->position + ((ptrdiff_t)row * r->columns + column) * d;
      const int32_t* acc = part.acc + t;
      int8_t* token = tokens + column * d;
      for (int32_t o = 0; o < d; ++o, acc += part.count) {
        const int32_t a = position == NULL ? *acc : *acc + (int32_t)p->position_scale[o] * position[o];
        token[o] = mcuf_requantise(a, p->multiplier[o], p->zero_point);
      }
    }
  }
}

/* One row of tokens from its patch_size image rows, `most` blocks at a time. */
static mcuf_status embed_token_row(block_run r, int32_t most, const int8_t* image_rows, int32_t row, int8_t* tokens) {
  const mcuf_decomposed_patch_embed_params* p = r.p;
  for (r.first = 0; r.first < r.columns; r.first += MCUF_TOKEN_BLOCK * most) {
    r.blocks = blocks_in(r.columns - r.first);
    if (r.blocks > most) r.blocks = most;
    start_blocks(&r);
    for (int32_t y = 0; y < p->patch_size; y += MCUF_FIELD_SIZE) {
      const mcuf_status status = add_field_row(&r, image_rows + (ptrdiff_t)y * p->image_width * p->channels, y);
      if (status != MCUF_OK) return status;
    }
    finish_blocks(&r, row, tokens);
  }
  return MCUF_OK;
}

/* The common parts of scratch, with accumulators for `blocks`. */
static block_run place(const mcuf_decomposed_patch_embed_params* p, int32_t blocks, void* scratch) {
  block_run r;
  r.p = p;
  r.columns = p->image_width / p->patch_size;
  r.first = 0;
  r.blocks = blocks;
  r.acc = (int32_t*)scratch;
  r.fields = (int16_t*)(r.acc + (ptrdiff_t)blocks * accumulator_count(p->embed_dim));
  r.tile = (int8_t*)r.fields + mcuf_block_bytes(field_row(p));
  return r;
}

mcuf_status mcuf_decomposed_patch_embed_s8(const mcuf_decomposed_patch_embed_params* p, const int8_t* image,
                                           int8_t* output, void* scratch) {
  const int32_t size = p->patch_size, rows = p->image_height / size;
  const int32_t image_row = p->image_width * p->channels; /* bytes */
  const block_run r = place(p, p->blocks_per_read, scratch);
  const size_t token_row = (size_t)r.columns * (size_t)p->embed_dim;
  if (output != image &&
      mcuf_overlap(output, (size_t)rows * token_row, image, (size_t)p->image_height * (size_t)image_row)) {
    return MCUF_ERROR_OVERLAP;
  }
  int8_t* tokens = r.tile + p->staged.tile_bytes;
  const bool grows = token_row > (size_t)size * (size_t)image_row;
  for (int32_t i = 0; i < rows; ++i) {
    const int32_t row = grows ? rows - 1 - i : i;
    const mcuf_status status =
        embed_token_row(r, p->blocks_per_read, image + (ptrdiff_t)row * size * image_row, row, tokens);
    if (status != MCUF_OK) return status;
    memcpy(output + (ptrdiff_t)row * (ptrdiff_t)token_row, tokens, token_row);
  }
  return MCUF_OK;
}

/* Blocks with accumulators: if a strip is less than whole patches, all blocks of a row of tokens. */
static int32_t strip_blocks(int32_t columns, int32_t patch_size, int32_t blocks_per_read, int32_t strip_rows) {
  return strip_rows >= patch_size ? blocks_per_read : blocks_in(columns);
}

/* Scratch: the common parts, int8 strip */
int32_t mcuf_decomposed_patch_embed_strips_s8_scratch_bytes(int32_t image_width, int32_t channels, int32_t patch_size,
                                                            int32_t embed_dim, int32_t blocks_per_read,
                                                            int32_t tile_bytes, int32_t strip_rows) {
  const int32_t all = strip_blocks(image_width / patch_size, patch_size, blocks_per_read, strip_rows);
  const int32_t rows = strip_rows < patch_size ? strip_rows : patch_size;
  return common_bytes(channels, embed_dim, all, tile_bytes) + rows * image_width * channels;
}

mcuf_status mcuf_decomposed_patch_embed_strips_s8(const mcuf_decomposed_patch_embed_params* p, int32_t strip_rows,
                                                  mcuf_image_rows_fn rows_fn, void* user, int8_t* output,
                                                  void* scratch) {
  const int32_t size = p->patch_size, rows = p->image_height / size;
  const block_run r = place(p, strip_blocks(p->image_width / size, size, p->blocks_per_read, strip_rows), scratch);
  if (rows_fn == NULL) return MCUF_ERROR_SOURCE;
  int8_t* strip = r.tile + p->staged.tile_bytes;
  for (int32_t row = 0; row < rows; ++row) {
    int8_t* tokens = output + (ptrdiff_t)row * r.columns * p->embed_dim;
    if (strip_rows >= size) {
      if (rows_fn(user, row * size, size, strip) != size) return MCUF_ERROR_SOURCE;
      const mcuf_status status = embed_token_row(r, p->blocks_per_read, strip, row, tokens);
      if (status != MCUF_OK) return status;
      continue;
    }
    start_blocks(&r);
    for (int32_t y = 0; y < size; y += MCUF_FIELD_SIZE) {
      const int32_t count = size - y < MCUF_FIELD_SIZE ? size - y : MCUF_FIELD_SIZE;
      if (rows_fn(user, row * size + y, count, strip) != count) return MCUF_ERROR_SOURCE;
      const mcuf_status status = add_field_row(&r, strip, y);
      if (status != MCUF_OK) return status;
    }
    finish_blocks(&r, row, tokens);
  }
  return MCUF_OK;
}
