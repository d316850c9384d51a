/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_decomposed_patch_embed_s8.h"

#include <string.h>

#include "mcuf_dot.h"
#include "mcuf_fixed_point.h"

#define FIELD_PIXELS (MCUF_FIELD_SIZE * MCUF_FIELD_SIZE)

mcuf_status mcuf_decomposed_patch_embed_s8_check(const mcuf_decomposed_patch_embed_params* p) {
  if (p->weights == NULL) return MCUF_ERROR_NULL;
  if (p->patch_size < 1 || p->patch_size > 256 || p->image_height < p->patch_size || p->image_height > 4096 ||
      p->image_width < p->patch_size || p->image_width > 4096 || p->channels < 1 || p->channels > 64 ||
      p->embed_dim < 1 || p->embed_dim > MCUF_MAX_FEATURES ||
      p->patch_size * p->patch_size * p->channels > MCUF_MAX_PATCH_INPUTS ||
      (p->image_height / p->patch_size) * (p->image_width / p->patch_size) > MCUF_MAX_TOKENS) {
    return MCUF_ERROR_SIZE;
  }
  if (p->zero_point < -128 || p->zero_point > 127) return MCUF_ERROR_VALUE;
  if (p->position != NULL && p->position_scale == NULL) return MCUF_ERROR_NULL;
  return mcuf_check_requantisation(p->bias, p->multiplier, p->embed_dim);
}

/* Scratch: int32 accumulators [d rounded up to even, 4], int16 fields [4, 16 * channels], int8 tokens [columns, d] */
static int32_t accumulator_count(int32_t embed_dim) { return MCUF_TOKEN_BLOCK * ((embed_dim + 1) / 2 * 2); }

int32_t mcuf_decomposed_patch_embed_s8_scratch_bytes(int32_t image_width, int32_t channels, int32_t patch_size,
                                                     int32_t embed_dim) {
  return accumulator_count(embed_dim) * (int32_t)sizeof(int32_t) +
         MCUF_TOKEN_BLOCK * FIELD_PIXELS * channels * (int32_t)sizeof(int16_t) + image_width / patch_size * embed_dim;
}

/* One 4x4 field of a patch as int16, zeros past the patch's edge. row: the field's first pixel row, at the patch's first
 * column; field_y, field_x: where the field lies in the patch. */
static void gather_field(const mcuf_decomposed_patch_embed_params* p, const int8_t* row, int32_t field_y,
                         int32_t field_x, int16_t* target) {
  const int32_t left = p->patch_size - field_x;
  const int32_t run = (left < MCUF_FIELD_SIZE ? left : MCUF_FIELD_SIZE) * p->channels;
  const int32_t width = MCUF_FIELD_SIZE * p->channels;
  for (int32_t y = 0; y < MCUF_FIELD_SIZE; ++y, target += width) {
    const int32_t used = field_y + y < p->patch_size ? run : 0;
    if (used > 0) {
      mcuf_expand_s16(row + ((ptrdiff_t)y * p->image_width + field_x) * p->channels, used, -128, target);
    }
    memset(target + used, 0, (size_t)(width - used) * sizeof(int16_t));
  }
}

/* Up to four neighbouring tokens of one row of tokens. */
typedef struct {
  int32_t first, count; /* columns */
  int32_t* acc;         /* [d rounded up to even, 4] */
} token_block;

static token_block block_at(int32_t first, int32_t columns, int32_t* acc) {
  const int32_t left = columns - first;
  const token_block b = {first, left < MCUF_TOKEN_BLOCK ? left : MCUF_TOKEN_BLOCK, acc};
  return b;
}

static void start_block(const mcuf_decomposed_patch_embed_params* p, const token_block* b) {
  for (int32_t o = 0; o < p->embed_dim; ++o) {
    for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) b->acc[MCUF_TOKEN_BLOCK * o + t] = p->bias[o];
  }
  if (p->embed_dim % 2 != 0) {
    memset(b->acc + (ptrdiff_t)MCUF_TOKEN_BLOCK * p->embed_dim, 0, MCUF_TOKEN_BLOCK * sizeof(int32_t));
  }
}

/* Adds one row of fields (image rows field_y .. field_y + 3 of the patches) to a block. rows: the first of them. */
static void add_field_row(const mcuf_decomposed_patch_embed_params* p, const token_block* b, const int8_t* rows,
                          int32_t field_y, int16_t* fields) {
  const int32_t d = p->embed_dim, k = FIELD_PIXELS * p->channels;
  const int32_t side = (p->patch_size + MCUF_FIELD_SIZE - 1) / MCUF_FIELD_SIZE;
  const int8_t* weights = p->weights + (ptrdiff_t)(field_y / MCUF_FIELD_SIZE) * side * d * k;
  for (int32_t x = 0; x < p->patch_size; x += MCUF_FIELD_SIZE, weights += (ptrdiff_t)d * k) {
    for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) { /* a short block repeats its last token */
      const int32_t column = b->first + (t < b->count ? t : b->count - 1);
      gather_field(p, rows + (ptrdiff_t)column * p->patch_size * p->channels, field_y, x, fields + (ptrdiff_t)t * k);
    }
    for (int32_t o = 0; o < d; o += 2) {
      const int8_t* w = weights + (ptrdiff_t)o * k;
      mcuf_dot_4x2(fields, w, w + (o + 1 < d ? k : 0), k, -128, b->acc + (ptrdiff_t)MCUF_TOKEN_BLOCK * o);
    }
  }
}

/* Position table and requantisation. row: the row of tokens; tokens: int8 [columns, d] of it. */
static void finish_block(const mcuf_decomposed_patch_embed_params* p, const token_block* b, int32_t row,
                         int32_t columns, int8_t* tokens) {
  for (int32_t o = 0; o < p->embed_dim; ++o) {
    for (int32_t t = 0; t < b->count; ++t) {
      const ptrdiff_t column = b->first + t;
      int32_t a = b->acc[MCUF_TOKEN_BLOCK * o + t];
      if (p->position != NULL) {
        a += (int32_t)p->position_scale[o] * p->position[((ptrdiff_t)row * columns + column) * p->embed_dim + o];
      }
      tokens[column * p->embed_dim + o] = mcuf_requantise(a, p->multiplier[o], p->zero_point);
    }
  }
}

/* One row of tokens from its patch_size image rows. */
static void embed_token_row(const mcuf_decomposed_patch_embed_params* p, const int8_t* image_rows, int32_t row,
                            int32_t columns, int32_t* acc, int16_t* fields, int8_t* tokens) {
  for (int32_t first = 0; first < columns; first += MCUF_TOKEN_BLOCK) {
    const token_block b = block_at(first, columns, acc);
    start_block(p, &b);
    for (int32_t y = 0; y < p->patch_size; y += MCUF_FIELD_SIZE) {
      add_field_row(p, &b, image_rows + (ptrdiff_t)y * p->image_width * p->channels, y, fields);
    }
    finish_block(p, &b, row, columns, tokens);
  }
}

mcuf_status mcuf_decomposed_patch_embed_s8(const mcuf_decomposed_patch_embed_params* p, const int8_t* image,
                                           int8_t* output, void* scratch) {
  const int32_t size = p->patch_size;
  const int32_t columns = p->image_width / size, rows = p->image_height / size;
  const int32_t image_row = p->image_width * p->channels; /* bytes */
  const size_t token_row = (size_t)columns * (size_t)p->embed_dim;
  if (output != image && mcuf_overlap(output, (size_t)rows * token_row, image,
                                      (size_t)p->image_height * (size_t)image_row)) {
    return MCUF_ERROR_OVERLAP;
  }
  int32_t* acc = (int32_t*)scratch;
  int16_t* fields = (int16_t*)(acc + accumulator_count(p->embed_dim));
  int8_t* tokens = (int8_t*)(fields + (ptrdiff_t)MCUF_TOKEN_BLOCK * FIELD_PIXELS * p->channels);
  const bool grows = token_row > (size_t)size * (size_t)image_row;
  for (int32_t i = 0; i < rows; ++i) {
    const int32_t row = grows ? rows - 1 - i : i;
    embed_token_row(p, image + (ptrdiff_t)row * size * image_row, row, columns, acc, fields, tokens);
    memcpy(output + (ptrdiff_t)row * (ptrdiff_t)token_row, tokens, token_row);
  }
  return MCUF_OK;
}

/* Blocks of accumulators: one where a strip holds whole patches, else all of a row of tokens. */
static int32_t strip_blocks(int32_t columns, int32_t patch_size, int32_t strip_rows) {
  return strip_rows >= patch_size ? 1 : (columns + MCUF_TOKEN_BLOCK - 1) / MCUF_TOKEN_BLOCK;
}

/* Scratch: int32 accumulators [blocks, d rounded up to even, 4], int16 fields [4, 16 * channels], int8 strip */
int32_t mcuf_decomposed_patch_embed_strips_s8_scratch_bytes(int32_t image_width, int32_t channels, int32_t patch_size,
                                                            int32_t embed_dim, int32_t strip_rows) {
  const int32_t blocks = strip_blocks(image_width / patch_size, patch_size, strip_rows);
  const int32_t rows = strip_rows < patch_size ? strip_rows : patch_size;
  return blocks * accumulator_count(embed_dim) * (int32_t)sizeof(int32_t) +
         MCUF_TOKEN_BLOCK * FIELD_PIXELS * channels * (int32_t)sizeof(int16_t) + rows * image_width * channels;
}

mcuf_status mcuf_decomposed_patch_embed_strips_s8(const mcuf_decomposed_patch_embed_params* p, int32_t strip_rows,
                                                  mcuf_image_rows_fn rows_fn, void* user, int8_t* output,
                                                  void* scratch) {
  const int32_t size = p->patch_size, per_block = accumulator_count(p->embed_dim);
  const int32_t columns = p->image_width / size, rows = p->image_height / size;
  const int32_t blocks = strip_blocks(columns, size, strip_rows);
  if (rows_fn == NULL) return MCUF_ERROR_SOURCE;
  int32_t* acc = (int32_t*)scratch;
  int16_t* fields = (int16_t*)(acc + (ptrdiff_t)blocks * per_block);
  int8_t* strip = (int8_t*)(fields + (ptrdiff_t)MCUF_TOKEN_BLOCK * FIELD_PIXELS * p->channels);
  for (int32_t row = 0; row < rows; ++row) {
    int8_t* tokens = output + (ptrdiff_t)row * columns * p->embed_dim;
    if (strip_rows >= size) {
      if (rows_fn(user, row * size, size, strip) != size) return MCUF_ERROR_SOURCE;
      embed_token_row(p, strip, row, columns, acc, fields, tokens);
      continue;
    }
    for (int32_t i = 0; i < blocks; ++i) {
      const token_block b = block_at(MCUF_TOKEN_BLOCK * i, columns, acc + (ptrdiff_t)i * per_block);
      start_block(p, &b);
    }
    for (int32_t y = 0; y < size; y += MCUF_FIELD_SIZE) {
      const int32_t count = size - y < MCUF_FIELD_SIZE ? size - y : MCUF_FIELD_SIZE;
      if (rows_fn(user, row * size + y, count, strip) != count) return MCUF_ERROR_SOURCE;
      for (int32_t i = 0; i < blocks; ++i) {
        const token_block b = block_at(MCUF_TOKEN_BLOCK * i, columns, acc + (ptrdiff_t)i * per_block);
        add_field_row(p, &b, strip, y, fields);
      }
    }
    for (int32_t i = 0; i < blocks; ++i) {
      const token_block b = block_at(MCUF_TOKEN_BLOCK * i, columns, acc + (ptrdiff_t)i * per_block);
      finish_block(p, &b, row, columns, tokens);
    }
  }
  return MCUF_OK;
}
