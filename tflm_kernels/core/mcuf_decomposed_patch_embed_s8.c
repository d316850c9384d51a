/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_decomposed_patch_embed_s8.h"

#include <string.h>

#include "mcuf_block.h"
#include "mcuf_fixed_point.h"
#include "mcuf_hooks.h"
#include "mcuf_move_up.h"
#include "mcuf_target.h"

static mcuf_patch_field field_of(const mcuf_decomposed_patch_embed_params* p) {
  return mcuf_patch_field_of(p->patch_height, p->patch_width);
}

/* Fields of a patch. */
static int32_t fields_of(const mcuf_decomposed_patch_embed_params* p) {
  const mcuf_patch_field field = field_of(p);
  return ((p->patch_height + field.height - 1) / field.height) * ((p->patch_width + field.width - 1) / field.width);
}

/* Rows of tokens, and tokens in a row. */
static int32_t token_rows(const mcuf_decomposed_patch_embed_params* p) {
  return (p->image_height + 2 * p->padding) / p->patch_height;
}
static int32_t token_columns(const mcuf_decomposed_patch_embed_params* p) {
  return (p->image_width + 2 * p->padding) / p->patch_width;
}

/* Inputs of a field: an even number, and so the bytes of a row of its weights in every packing. */
static int32_t field_row(const mcuf_decomposed_patch_embed_params* p) { return MCUF_FIELD_PIXELS * p->channels; }

/* Blocks of four tokens in a row of tokens. */
static int32_t blocks_in(int32_t columns) { return (columns + MCUF_TOKEN_BLOCK - 1) / MCUF_TOKEN_BLOCK; }

static bool sizes_fit(const mcuf_decomposed_patch_embed_params* p) {
  if (p->patch_height < 1 || p->patch_height > MCUF_MAX_PATCH_SIZE || p->patch_width < 1 ||
      p->patch_width > MCUF_MAX_PATCH_SIZE || p->image_height < p->patch_height ||
      p->image_height > MCUF_MAX_IMAGE_SIDE || p->image_width < p->patch_width ||
      p->image_width > MCUF_MAX_IMAGE_SIDE || p->channels < 1 || p->channels > MCUF_MAX_IMAGE_CHANNELS ||
      p->embed_dim < 1 || p->embed_dim > MCUF_MAX_FEATURES ||
      p->patch_height * p->patch_width * p->channels > MCUF_MAX_PATCH_INPUTS || p->padding < 0 ||
      p->padding >= p->patch_height || p->padding >= p->patch_width) {
    return false;
  }
  const int32_t columns = token_columns(p), tokens = token_rows(p) * columns;
  return p->prefix_tokens >= 0 && p->prefix_tokens <= MCUF_MAX_TOKENS && tokens <= MCUF_MAX_TOKENS - p->prefix_tokens &&
         p->blocks_per_read >= 1 && p->blocks_per_read <= blocks_in(columns) &&
         mcuf_staged_weights_fit(&p->staged, field_row(p), fields_of(p) * mcuf_packed_rows(p->embed_dim, p->packing));
}

static const void* prefix_of(const mcuf_decomposed_patch_embed_params* p) {
  return p->wide != NULL ? (const void*)p->wide_prefix : (const void*)p->prefix;
}

mcuf_status mcuf_decomposed_patch_embed_s8_check(const mcuf_decomposed_patch_embed_params* p) {
  if (p->weights == NULL && p->staged.tile_bytes == 0) return MCUF_ERROR_NULL;
  if (!sizes_fit(p)) return MCUF_ERROR_SIZE;
  if (!mcuf_packing_is_known(p->packing, p->weights)) return MCUF_ERROR_VALUE;
  if (!mcuf_is_int8(p->zero_point)) return MCUF_ERROR_VALUE;
  if (p->position != NULL && p->position_scale == NULL) return MCUF_ERROR_NULL;
  if (p->wide != NULL && p->zero_point != 0) return MCUF_ERROR_VALUE;
  if (p->prefix_tokens > 0 && prefix_of(p) == NULL) return MCUF_ERROR_NULL;
  if (p->padding > 0 && p->padded == NULL) return MCUF_ERROR_NULL;
  return mcuf_check_requantisation(p->bias, p->multiplier, p->embed_dim);
}

/* Of four tokens. */
static int32_t accumulator_count(int32_t embed_dim) { return MCUF_TOKEN_BLOCK * mcuf_round_up_even(embed_dim); }

/* The parts that both kernels need: int32 accumulators [4 * blocks tokens, d rounded up to even], a block of fields,
 * int8 tile */
static int32_t common_bytes(int32_t channels, int32_t embed_dim, int32_t blocks, int32_t tile_bytes) {
  return blocks * accumulator_count(embed_dim) * (int32_t)sizeof(int32_t) +
         mcuf_block_bytes(MCUF_FIELD_PIXELS * channels) + tile_bytes;
}

/* Scratch: the common parts, tokens [columns, d]; with padding two rows of them */
int32_t mcuf_decomposed_patch_embed_s8_scratch_bytes(int32_t image_width, int32_t channels, int32_t patch_width,
                                                     int32_t embed_dim, int32_t blocks_per_read, int32_t tile_bytes,
                                                     int32_t padding, int32_t output_bytes) {
  const int32_t rows = padding > 0 ? 2 : 1;
  return common_bytes(channels, embed_dim, blocks_per_read, tile_bytes) +
         rows * ((image_width + 2 * padding) / patch_width) * embed_dim * output_bytes;
}

/* Work on neighbouring blocks of four tokens in one row of tokens; the last block of a row may have fewer. */
typedef struct {
  const mcuf_decomposed_patch_embed_params* p;
  mcuf_patch_field field;
  int32_t row;           /* of tokens */
  int32_t columns;       /* tokens in a row of tokens; of all rows if blocks go across them, as if they were one */
  bool across;           /* whether they do */
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
    for (int32_t o = 0; o < d; ++o, acc += part.count) {
      const int32_t bias = r->p->bias[o];
      if (part.count == MCUF_TOKEN_BLOCK) {
        acc[0] = acc[1] = acc[2] = acc[3] = bias;
      } else {
        for (int32_t t = 0; t < part.count; ++t) acc[t] = bias;
      }
    }
    for (int32_t t = 0; d % 2 != 0 && t < part.count; ++t) *acc++ = 0;
  }
}

/* A field of the `count` neighbouring patches of a part, zeros past the patch's edge. row: the field's first pixel row,
 * at the first patch's first column; field_y, field_x: where the field lies in the patch. */
static void gather_fields(const block_run* r, const block_part* part, const int8_t* row, int32_t field_y,
                          int32_t field_x) {
  const mcuf_decomposed_patch_embed_params* p = r->p;
  const int32_t channels = p->channels, k = field_row(p), width = r->field.width * channels;
  const int32_t columns_left = p->patch_width - field_x, rows_left = p->patch_height - field_y;
  const int32_t run = columns_left < r->field.width ? columns_left * channels : width;
  const int32_t used = rows_left < r->field.height ? rows_left * width : k;
  const int32_t stride = p->patch_width * channels, image_row = p->image_width * channels;
  for (int32_t at = 0, pixel = field_x * channels; at < used; at += width, pixel += image_row) {
    mcuf_block_fill(part->fields, k, part->count, row + pixel, stride, at, run);
    if (run < width) mcuf_block_fill(part->fields, k, part->count, NULL, 0, at + run, width - run);
  }
  if (used < k) mcuf_block_fill(part->fields, k, part->count, NULL, 0, used, k - used);
}

/* y, or the nearest one from 0 to image_height. */
static int32_t clipped(const mcuf_decomposed_patch_embed_params* p, int32_t y) {
  return y < 0 ? 0 : y > p->image_height ? p->image_height : y;
}

/* The first image row, perhaps outside the image, of the run's patches from field_y on. */
static int32_t first_row(const block_run* r, int32_t field_y) {
  return r->row * r->p->patch_height - r->p->padding + field_y;
}

/* A row of a field, `width` values from `at` on: zeros, but for [from, to), which come from pixels. */
static void fill_field_row(const mcuf_block_token* token, const int8_t* pixels, int32_t at, int32_t from, int32_t to,
                           int32_t width) {
  static const int8_t zero = 0;
  if (from > 0) mcuf_block_fill_token(token, &zero, 0, at, from);
  if (from < to) mcuf_block_fill_token(token, pixels, 1, at + from, to - from);
  if (to < width) mcuf_block_fill_token(token, &zero, 0, at + to, width - to);
}

/* gather_fields() of patches that may reach over the image's edge: zeros there too. rows: the field's first image row
 * that there is, from its first pixel on. */
static void gather_padded_fields(const block_run* r, const block_part* part, const int8_t* rows, int32_t field_y,
                                 int32_t field_x) {
  const mcuf_decomposed_patch_embed_params* p = r->p;
  const int32_t top = first_row(r, field_y), width = r->field.width * p->channels;
  const int32_t columns_left = p->patch_width - field_x;
  mcuf_block_token token = {part->fields, field_row(p), part->count, 0};
  for (; token.index < part->count; ++token.index) {
    const int32_t x = (r->first + part->at + token.index) * p->patch_width - p->padding + field_x;
    int32_t from = x < 0 ? -x : 0, to = columns_left < r->field.width ? columns_left : r->field.width;
    if (to > p->image_width - x) to = p->image_width - x;
    if (from >= to) from = to = 0;
    const int32_t first = to > 0 ? x + from : 0;
    from *= p->channels;
    to *= p->channels;
    for (int32_t i = 0; i < r->field.height; ++i) {
      const int32_t y = top + i;
      const bool inside = field_y + i < p->patch_height && y >= 0 && y < p->image_height;
      const int32_t row = inside ? y - clipped(p, top) : 0;
      fill_field_row(&token, rows + ((ptrdiff_t)row * p->image_width + first) * p->channels, i * width,
                     inside ? from : 0, inside ? to : 0, width);
    }
  }
}

struct mcuf_patch_padding {
  void (*gather_fields)(const block_run* r, const block_part* part, const int8_t* rows, int32_t field_y,
                        int32_t field_x);
};
const mcuf_patch_padding mcuf_padded_patches = {gather_padded_fields};

/* Whether blocks of four tokens go across rows of tokens, so that but the last is full. The packing says whether the
 * kernels are those that gain by it; strips and staged weights come by rows of tokens. */
static bool goes_across(const mcuf_decomposed_patch_embed_params* p) {
  return p->packing == MCUF_PACKING_PAIRS && p->padding == 0 && p->staged.tile_bytes == 0 &&
         token_columns(p) % MCUF_TOKEN_BLOCK != 0;
}

/* gather_fields() of patches of which some may be in the next row of patches. rows: as in add_field(). */
static void gather_fields_across(const block_run* r, const block_part* part, const int8_t* rows, int32_t field_y,
                                 int32_t field_x) {
  const mcuf_decomposed_patch_embed_params* p = r->p;
  const int32_t columns = token_columns(p), width = r->field.width * p->channels;
  const ptrdiff_t image_row = (ptrdiff_t)p->image_width * p->channels, patch_row = p->patch_height * image_row;
  const int32_t columns_left = p->patch_width - field_x;
  const int32_t run = columns_left < r->field.width ? columns_left * p->channels : width;
  int32_t row = (r->first + part->at) / columns, column = r->first + part->at - row * columns;
  if (column + part->count <= columns) {
    gather_fields(r, part, rows + row * patch_row + (ptrdiff_t)column * p->patch_width * p->channels, field_y, field_x);
    return;
  }
  mcuf_block_token token = {part->fields, field_row(p), part->count, 0};
  for (; token.index < part->count; ++token.index, ++column) {
    if (column == columns) {
      column = 0;
      ++row;
    }
    const int8_t* pixels = rows + row * patch_row + ((ptrdiff_t)column * p->patch_width + field_x) * p->channels;
    for (int32_t i = 0; i < r->field.height; ++i) {
      const bool inside = field_y + i < p->patch_height;
      fill_field_row(&token, pixels + (inside ? i * image_row : 0), i * width, 0, inside ? run : 0, width);
    }
  }
}

/* Adds one field of every patch, with the weights of outputs [row, row + row_count). */
static void add_field(const block_run* r, const int8_t* rows, int32_t field_y, int32_t field_x, const int8_t* weights,
                      int32_t row, int32_t row_count) {
  const mcuf_decomposed_patch_embed_params* p = r->p;
  for (block_part part = part_at(r, 0); part.count > 0; part = next_part(r, &part)) {
    if (row == 0 || r->blocks > 1) { /* else they are already there */
      const int32_t column = r->first + part.at;
      if (p->padding > 0) {
        p->padded->gather_fields(r, &part, rows, field_y, field_x);
      } else if (r->across) {
        gather_fields_across(r, &part, rows, field_y, field_x);
      } else {
        gather_fields(r, &part, rows + (ptrdiff_t)column * p->patch_width * p->channels, field_y, field_x);
      }
    }
    mcuf_block_accumulate(weights, p->packing, row_count, field_row(p), part.fields, part.count,
                          part.acc + (ptrdiff_t)row * part.count);
    MCUF_YIELD();
  }
}

/* Adds one row of fields, the patches' image rows from field_y on. rows: the first of them that there is. */
static mcuf_status add_field_row(const block_run* r, const int8_t* rows, int32_t field_y) {
  const mcuf_decomposed_patch_embed_params* p = r->p;
  const int32_t d = p->embed_dim, packed_rows = mcuf_packed_rows(d, p->packing);
  const int32_t tile_rows = mcuf_tile_rows(&p->staged, field_row(p), packed_rows);
  int32_t field = field_y / r->field.height * ((p->patch_width + r->field.width - 1) / r->field.width);
  for (int32_t x = 0; x < p->patch_width; x += r->field.width, ++field) {
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

static size_t token_bytes(const mcuf_decomposed_patch_embed_params* p) {
  return (size_t)(p->embed_dim * mcuf_stream_bytes(p->wide));
}

/* Position table and requantisation of token t of a part. */
static void finish_token(const block_run* r, const block_part* part, int32_t t, int8_t* token) {
  const mcuf_decomposed_patch_embed_params* p = r->p;
  const int32_t d = p->embed_dim;
  const ptrdiff_t column = r->first + part->at + t;
  const int8_t* position = p->position == NULL ? NULL : p->position + ((ptrdiff_t)r->row * r->columns + column) * d;
  const int32_t* acc = part->acc + t;
  if (p->wide != NULL) {
    const mcuf_wide_token wide = {d, acc, part->count, position, p->position_scale, p->multiplier};
    p->wide->embed(&wide, (int16_t*)(void*)token);
    return;
  }
  const int16_t* scale = p->position_scale;
  const int32_t *multiplier = p->multiplier, count = part->count, zero_point = p->zero_point;
  for (int32_t o = 0; o < d; ++o, acc += count) {
    const int32_t a = position == NULL ? *acc : *acc + (int32_t)scale[o] * position[o];
    token[o] = mcuf_requantise(a, multiplier[o], zero_point);
  }
}

/* tokens: [columns, d] of the row. */
static void finish_blocks(const block_run* r, int8_t* tokens) {
  for (block_part part = part_at(r, 0); part.count > 0; part = next_part(r, &part)) {
    for (int32_t t = 0; t < part.count; ++t) {
      finish_token(r, &part, t, tokens + (size_t)(r->first + part.at + t) * token_bytes(r->p));
    }
  }
}

/* finish_blocks() of a block that goes across rows of tokens. row: [columns, d], moved to its place in output as
 * soon as it is whole: before tokens of the next row (or, backwards, of the one before) overwrite it. */
static void finish_across(const block_run* r, bool backwards, int8_t* row, int8_t* output) {
  const int32_t columns = token_columns(r->p), left = r->columns - r->first;
  const size_t bytes = token_bytes(r->p);
  const int32_t count = left < MCUF_TOKEN_BLOCK ? left : MCUF_TOKEN_BLOCK;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t at = backwards ? count - 1 - i : i, column = (r->first + at) % columns;
    block_part part = part_at(r, 0);
    if (at >= part.count) part = part_at(r, part.count);
    finish_token(r, &part, at - part.at, row + (size_t)column * bytes);
    if (column == (backwards ? 0 : columns - 1)) {
      memcpy(output + (size_t)(r->first + at - column) * bytes, row, (size_t)columns * bytes);
    }
  }
}

/* One row of tokens from its image rows, `most` blocks at a time. image_rows: the first of them that there is. */
static mcuf_status embed_token_row(block_run r, int32_t most, const int8_t* image_rows, int8_t* tokens) {
  const mcuf_decomposed_patch_embed_params* p = r.p;
  const int32_t held = clipped(p, first_row(&r, 0));
  for (r.first = 0; r.first < r.columns; r.first += MCUF_TOKEN_BLOCK * most) {
    r.blocks = blocks_in(r.columns - r.first);
    if (r.blocks > most) r.blocks = most;
    start_blocks(&r);
    for (int32_t y = 0; y < p->patch_height; y += r.field.height) {
      const ptrdiff_t row = clipped(p, first_row(&r, y)) - held;
      const mcuf_status status = add_field_row(&r, image_rows + row * p->image_width * p->channels, y);
      if (status != MCUF_OK) return status;
    }
    finish_blocks(&r, tokens);
  }
  return MCUF_OK;
}

/* All tokens of an image, in blocks that go across rows of tokens. row: int8 [columns, d] of scratch. */
static mcuf_status embed_across(block_run r, bool backwards, const int8_t* image, int8_t* row, int8_t* output) {
  const mcuf_decomposed_patch_embed_params* p = r.p;
  r.across = true;
  r.columns *= token_rows(p);
  const int32_t blocks = blocks_in(r.columns);
  for (int32_t i = 0; i < blocks; ++i) {
    r.first = MCUF_TOKEN_BLOCK * (backwards ? blocks - 1 - i : i);
    start_blocks(&r);
    for (int32_t y = 0; y < p->patch_height; y += r.field.height) {
      const mcuf_status status = add_field_row(&r, image + (ptrdiff_t)y * p->image_width * p->channels, y);
      if (status != MCUF_OK) return status;
    }
    finish_across(&r, backwards, row, output);
  }
  return MCUF_OK;
}

/* The common parts of scratch, with accumulators for `blocks`. */
static block_run place(const mcuf_decomposed_patch_embed_params* p, int32_t blocks, void* scratch) {
  block_run r;
  r.p = p;
  r.field = field_of(p);
  r.row = 0;
  r.columns = token_columns(p);
  r.across = false;
  r.first = 0;
  r.blocks = blocks;
  r.acc = (int32_t*)scratch;
  r.fields = (int16_t*)(r.acc + (ptrdiff_t)blocks * accumulator_count(p->embed_dim));
  r.tile = (int8_t*)r.fields + mcuf_block_bytes(field_row(p));
  return r;
}

static size_t prefix_bytes(const mcuf_decomposed_patch_embed_params* p) {
  return (size_t)p->prefix_tokens * token_bytes(p);
}

static void copy_prefix(const mcuf_decomposed_patch_embed_params* p, int8_t* output) {
  if (p->prefix_tokens > 0) memcpy(output, prefix_of(p), prefix_bytes(p));
}

/* All tokens of an image, row by row. tokens: a row of them, with padding two, in scratch. */
static mcuf_status embed_rows(block_run r, bool backwards, const int8_t* image, int8_t* tokens, int8_t* output) {
  const mcuf_decomposed_patch_embed_params* p = r.p;
  const int32_t rows = token_rows(p);
  const size_t token_row = (size_t)r.columns * token_bytes(p);
  /* Padding shifts the patches up, so that a row of tokens may be larger than the image rows read by then. Going
   * forward, it waits in scratch until the next is there: (row + 1) rows of patches hold more than the padding. */
  const int32_t waits = p->padding > 0 && !backwards ? 1 : 0;
  for (int32_t i = 0; i < rows + waits; ++i) {
    if (i < rows) {
      r.row = backwards ? rows - 1 - i : i;
      const int8_t* image_rows = image + (ptrdiff_t)clipped(p, first_row(&r, 0)) * p->image_width * p->channels;
      const mcuf_status status =
          embed_token_row(r, p->blocks_per_read, image_rows, tokens + (size_t)(i & waits) * token_row);
      if (status != MCUF_OK) return status;
    }
    if (i < waits) continue;
    const int32_t done = backwards ? r.row : i - waits;
    memcpy(output + (ptrdiff_t)done * (ptrdiff_t)token_row, tokens + (size_t)(done & waits) * token_row, token_row);
  }
  return MCUF_OK;
}

mcuf_status mcuf_decomposed_patch_embed_s8(const mcuf_decomposed_patch_embed_params* p, const int8_t* image,
                                           void* result, void* scratch) {
  int8_t* output = (int8_t*)result;
  const int32_t rows = token_rows(p);
  const int32_t image_row = p->image_width * p->channels; /* bytes */
  block_run r = place(p, p->blocks_per_read, scratch);
  const size_t token_row = (size_t)r.columns * token_bytes(p), all_rows = (size_t)rows * token_row;
  const bool in_place = output == image;
  if (!in_place &&
      mcuf_overlap(output, prefix_bytes(p) + all_rows, image, (size_t)p->image_height * (size_t)image_row)) {
    return MCUF_ERROR_OVERLAP;
  }
  int8_t* tokens = r.tile + p->staged.tile_bytes;
  const bool grows = token_row > (size_t)p->patch_height * (size_t)image_row;
  /* Going forward in place, behind the prefix tokens would overwrite image rows that are still to be read. */
  const bool moves = in_place && !grows;
  int8_t* first = moves ? output : output + prefix_bytes(p);
  const mcuf_status status = goes_across(p) ? embed_across(place(p, 1, scratch), grows, image, tokens, first)
                                            : embed_rows(r, grows, image, tokens, first);
  if (status != MCUF_OK) return status;
  if (moves) mcuf_move_up(output, all_rows, prefix_bytes(p));
  copy_prefix(p, output);
  return MCUF_OK;
}

/* Blocks with accumulators: if a strip is less than whole patches, all blocks of a row of tokens. */
static int32_t strip_blocks(int32_t columns, int32_t patch_height, int32_t blocks_per_read, int32_t strip_rows) {
  return strip_rows >= patch_height ? blocks_per_read : blocks_in(columns);
}

/* Scratch: the common parts, int8 strip */
int32_t mcuf_decomposed_patch_embed_strips_s8_scratch_bytes(int32_t image_width, int32_t channels, int32_t patch_height,
                                                            int32_t patch_width, int32_t embed_dim,
                                                            int32_t blocks_per_read, int32_t tile_bytes,
                                                            int32_t strip_rows, int32_t padding) {
  const int32_t columns = (image_width + 2 * padding) / patch_width;
  const int32_t all = strip_blocks(columns, patch_height, blocks_per_read, strip_rows);
  const int32_t rows = strip_rows < patch_height ? strip_rows : patch_height;
  return common_bytes(channels, embed_dim, all, tile_bytes) + rows * image_width * channels;
}

static bool strip_rows_fit(const mcuf_decomposed_patch_embed_params* p, int32_t strip_rows) {
  return strip_rows == p->patch_height || strip_rows == field_of(p).height;
}

mcuf_status mcuf_decomposed_patch_embed_strips_s8_check(const mcuf_decomposed_patch_embed_params* p,
                                                        int32_t strip_rows) {
  const mcuf_status status = mcuf_decomposed_patch_embed_s8_check(p);
  if (status != MCUF_OK) return status;
  return strip_rows_fit(p, strip_rows) ? MCUF_OK : MCUF_ERROR_SIZE;
}

/* Brings the `count` image rows from field_y on, those that there are. */
static mcuf_status bring_rows(const block_run* r, int32_t field_y, int32_t count, mcuf_image_rows_fn rows_fn,
                              void* user, int8_t* strip) {
  const int32_t y = first_row(r, field_y), first = clipped(r->p, y), held = clipped(r->p, y + count) - first;
  return held == 0 || rows_fn(user, first, held, strip) == held ? MCUF_OK : MCUF_ERROR_SOURCE;
}

/* One row of tokens from strips of one row of fields; r has accumulators for all of them. */
static mcuf_status embed_strips(const block_run* r, mcuf_image_rows_fn rows_fn, void* user, int8_t* strip,
                                int8_t* tokens) {
  const int32_t height = r->p->patch_height;
  start_blocks(r);
  for (int32_t y = 0; y < height; y += r->field.height) {
    const int32_t count = height - y < r->field.height ? height - y : r->field.height;
    mcuf_status status = bring_rows(r, y, count, rows_fn, user, strip);
    if (status == MCUF_OK) status = add_field_row(r, strip, y);
    if (status != MCUF_OK) return status;
  }
  finish_blocks(r, tokens);
  return MCUF_OK;
}

mcuf_status mcuf_decomposed_patch_embed_strips_s8(const mcuf_decomposed_patch_embed_params* p, int32_t strip_rows,
                                                  mcuf_image_rows_fn rows_fn, void* user, void* output, void* scratch) {
  if (!strip_rows_fit(p, strip_rows)) return MCUF_ERROR_SIZE;
  if (rows_fn == NULL) return MCUF_ERROR_SOURCE;
  const int32_t height = p->patch_height, rows = token_rows(p);
  block_run r = place(p, strip_blocks(token_columns(p), height, p->blocks_per_read, strip_rows), scratch);
  int8_t* strip = r.tile + p->staged.tile_bytes;
  copy_prefix(p, (int8_t*)output);
  int8_t* tokens = (int8_t*)output + prefix_bytes(p);
  for (; r.row < rows; ++r.row, tokens += (size_t)r.columns * token_bytes(p)) {
    mcuf_status status = MCUF_OK;
    if (strip_rows < height) {
      status = embed_strips(&r, rows_fn, user, strip, tokens);
    } else {
      status = bring_rows(&r, 0, height, rows_fn, user, strip);
      if (status == MCUF_OK) status = embed_token_row(r, p->blocks_per_read, strip, tokens);
    }
    if (status != MCUF_OK) return status;
  }
  return MCUF_OK;
}
