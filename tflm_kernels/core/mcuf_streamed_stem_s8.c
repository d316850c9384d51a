/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_streamed_stem_s8.h"

#include <stdbool.h>
#include <string.h>

#include "mcuf_fixed_point.h"
#include "mcuf_move_up.h"
#include "mcuf_stem_rows.h"

#define PAIR MCUF_STREAMED_STEM_STRIP_ROWS /* rows of a level that one row of the next covers */

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

/* A side of a level, pixels, by that of the image: halved `level` times, rounded up. */
static int32_t side_of(int32_t image_side, int32_t level) { return (image_side + (1 << level) - 1) >> level; }

/* Convolution m by itself. */
static mcuf_stem_conv_params conv_of(const mcuf_streamed_stem_params* p, int32_t m) {
  const mcuf_streamed_stem_conv* conv = &p->convs[m];
  const bool first = m == 0, last = m + 1 == p->conv_count;
  mcuf_stem_conv_params c;
  c.height = side_of(p->image_height, m);
  c.width = side_of(p->image_width, m);
  c.in_channels = first ? p->channels : p->convs[m - 1].out_channels;
  c.out_channels = conv->out_channels;
  c.pad_value = first ? p->pad_value : p->convs[m - 1].zero_point;
  c.zero_point = conv->zero_point;
  c.act_min = last ? INT8_MIN : conv->zero_point;
  c.packing = p->packing;
  c.weights = conv->weights;
  c.bias = conv->bias;
  c.multiplier = conv->multiplier;
  c.position = last ? p->position : NULL;
  c.position_scale = last ? p->position_scale : NULL;
  c.prefix_tokens = last ? p->prefix_tokens : 0;
  c.prefix = last ? p->prefix : NULL;
  return c;
}

mcuf_status mcuf_streamed_stem_s8_check(const mcuf_streamed_stem_params* p) {
  if (p->conv_count < 1 || p->conv_count > MCUF_STREAMED_STEM_MAX_CONVS || p->pixels_at_once < 1 ||
      p->pixels_at_once > MCUF_TOKEN_BLOCK || p->image_height < 1 || p->image_height > MCUF_MAX_IMAGE_SIDE ||
      p->image_width < 1 || p->image_width > MCUF_MAX_IMAGE_SIDE) {
    return MCUF_ERROR_SIZE;
  }
  for (int32_t m = 0; m < p->conv_count; ++m) {
    const mcuf_stem_conv_params conv = conv_of(p, m);
    const mcuf_status status = mcuf_stem_conv_s8_check(&conv);
    if (status != MCUF_OK) return status;
  }
  const int32_t tokens = side_of(p->image_height, p->conv_count) * side_of(p->image_width, p->conv_count);
  return tokens <= MCUF_MAX_TOKENS - p->prefix_tokens ? MCUF_OK : MCUF_ERROR_SIZE;
}

/* Bytes of a level's rows, of `row` bytes each, of which it has `height`: a pair, and the row before it, which a pair
 * that no other follows does not leave behind. */
static int32_t pair_bytes(int32_t height, int32_t row) { return least(height, PAIR) * row; }
static int32_t kept_bytes(int32_t height, int32_t row) { return height > PAIR ? row : 0; }

/* What the rows of all levels take, and where they lie in scratch. */
typedef struct {
  int32_t block; /* bytes of the block beside the dead pairs; the pairs begin behind */
  int32_t pairs; /* of all levels: the kept rows begin behind */
  int32_t kept;
} stem_layout;

/* Whether scratch has a pair of the image's rows: of strips, and if the tokens that overwrite the image are made of
 * these very rows. */
static bool holds_image_rows(int32_t conv_count, bool strips) { return strips || conv_count == 1; }

static stem_layout layout_of(const int32_t* in_channels, int32_t conv_count, int32_t image_height, int32_t image_width,
                             int32_t pixels_at_once, bool strips) {
  stem_layout layout = {0, 0, 0};
  for (int32_t m = 0; m < conv_count; ++m) {
    const int32_t height = side_of(image_height, m), width = side_of(image_width, m);
    const int32_t pixels = least(pixels_at_once, side_of(width, 1));
    const int32_t block = pixels * mcuf_round_up_even(MCUF_STEM_TAPS * in_channels[m]) * (int32_t)sizeof(int16_t);
    const int32_t beside = block - layout.pairs; /* those so far: of levels below, dead when convolution m runs */
    if (layout.block < beside) layout.block = beside;
    if (m > 0 || holds_image_rows(conv_count, strips)) layout.pairs += pair_bytes(height, width * in_channels[m]);
    layout.kept += kept_bytes(height, width * in_channels[m]);
  }
  return layout;
}

int32_t mcuf_streamed_stem_s8_scratch_bytes(const int32_t* in_channels, int32_t conv_count, int32_t image_height,
                                            int32_t image_width, int32_t pixels_at_once, int32_t strips) {
  const stem_layout layout = layout_of(in_channels, conv_count, image_height, image_width, pixels_at_once, strips != 0);
  return layout.block + layout.pairs + layout.kept;
}

static stem_layout layout_for(const mcuf_streamed_stem_params* p, bool strips) {
  int32_t in_channels[MCUF_STREAMED_STEM_MAX_CONVS] = {0};
  for (int32_t m = 0; m < p->conv_count; ++m) in_channels[m] = m == 0 ? p->channels : p->convs[m - 1].out_channels;
  return layout_of(in_channels, p->conv_count, p->image_height, p->image_width, p->pixels_at_once, strips);
}

int32_t mcuf_streamed_stem_s8_scratch_bytes_of(const mcuf_streamed_stem_params* p, int32_t strips) {
  const stem_layout layout = layout_for(p, strips != 0);
  return layout.block + layout.pairs + layout.kept;
}

/* Row `row` of what a convolution makes: of a pair of its input's rows, and the one kept before it. */
static void make_row(const mcuf_stem_conv_params* conv, const int8_t* kept, const int8_t* pair, int32_t row,
                     int32_t pixels_at_once, int16_t* block, int8_t* output) {
  const int32_t columns = side_of(conv->width, 1);
  const int8_t* second = pair + (ptrdiff_t)conv->width * conv->in_channels;
  const mcuf_stem_rows rows = {{row == 0 ? NULL : kept, pair, PAIR * row + 1 < conv->height ? second : NULL}};
  const int32_t room = least(pixels_at_once, columns);
  const int32_t most = room == 3 ? 2 : room; /* three pixels would take the room of four */
  for (int32_t x = 0; x < columns; x += most) {
    const int32_t count = least(most, columns - x);
    mcuf_stem_gather(conv, &rows, x, block, count);
    mcuf_stem_pixels(conv, block, count, row * columns + x, output + (ptrdiff_t)x * conv->out_channels);
  }
}

/* A run: where the rows of all levels lie. */
typedef struct {
  const mcuf_streamed_stem_params* p;
  int16_t* block;
  int8_t* pairs; /* of level 1 on */
  int8_t* kept;
  int8_t* tokens; /* of the image */
} stem_run;

/* Image rows 2 row and 2 row + 1 are there: makes the rows of all levels that follow from them. */
static void rise(const stem_run* r, const int8_t* pair, int32_t row) {
  const mcuf_streamed_stem_params* p = r->p;
  int8_t *kept = r->kept, *next = r->pairs;
  for (int32_t m = 0; m < p->conv_count; ++m) {
    const mcuf_stem_conv_params conv = conv_of(p, m);
    const int32_t bytes = conv.width * conv.in_channels, rows = side_of(conv.height, 1);
    const int32_t made = side_of(conv.width, 1) * conv.out_channels;
    const bool last = m + 1 == p->conv_count;
    int8_t* output = last ? r->tokens + (ptrdiff_t)row * made : next + (ptrdiff_t)(row % PAIR) * made;
    make_row(&conv, kept, pair, row, p->pixels_at_once, r->block, output);
    if (row + 1 < rows) memcpy(kept, pair + bytes, (size_t)bytes);
    if (last || (row + 1 < rows && row % PAIR == 0)) return; /* or half of a pair */
    kept += kept_bytes(conv.height, bytes);
    pair = next;
    next += pair_bytes(rows, made);
    row /= PAIR;
  }
}

/* Bytes of the prefix, of a row of tokens and of all of them. */
static size_t prefix_bytes(const mcuf_streamed_stem_params* p) {
  return (size_t)p->prefix_tokens * (size_t)p->convs[p->conv_count - 1].out_channels;
}
static size_t token_row_bytes(const mcuf_streamed_stem_params* p) {
  return (size_t)side_of(p->image_width, p->conv_count) * (size_t)p->convs[p->conv_count - 1].out_channels;
}
static size_t token_bytes(const mcuf_streamed_stem_params* p) {
  return (size_t)side_of(p->image_height, p->conv_count) * token_row_bytes(p);
}

static size_t image_row_bytes(const mcuf_streamed_stem_params* p) {
  return (size_t)p->image_width * (size_t)p->channels;
}

/* pairs: of level 1 on, where they begin. */
static stem_run run_of(const mcuf_streamed_stem_params* p, const stem_layout* layout, int8_t* pairs, int8_t* tokens,
                       void* scratch) {
  const stem_run r = {p, (int16_t*)scratch, pairs, (int8_t*)scratch + layout->block + layout->pairs, tokens};
  return r;
}

static void copy_prefix(const mcuf_streamed_stem_params* p, int8_t* output) {
  if (p->prefix_tokens > 0) memcpy(output, p->prefix, prefix_bytes(p));
}

mcuf_status mcuf_streamed_stem_s8(const mcuf_streamed_stem_params* p, const int8_t* image, int8_t* output,
                                  void* scratch) {
  const size_t image_row = image_row_bytes(p), image_bytes = (size_t)p->image_height * image_row;
  const size_t prefix = prefix_bytes(p), tokens = token_bytes(p);
  const bool in_place = output == image;
  if (!in_place && mcuf_overlap(output, prefix + tokens, image, image_bytes)) return MCUF_ERROR_OVERLAP;
  const bool grows = token_row_bytes(p) > image_row << p->conv_count;
  if (in_place && grows) { /* then all tokens take more than the image, and no row of them comes up to the next rows */
    const size_t lead = prefix + tokens - image_bytes;
    mcuf_move_up(output, image_bytes, lead);
    image = output + lead;
  }
  /* Else, in place, behind the prefix they would overwrite image rows that are still to be read. */
  const bool moves = in_place && !grows;
  const stem_layout layout = layout_for(p, false);
  const stem_run r = run_of(p, &layout, (int8_t*)scratch + layout.block, moves ? output : output + prefix, scratch);
  const int32_t rows = side_of(p->image_height, 1);
  for (int32_t row = 0; row < rows; ++row) {
    const int8_t* pair = image + (size_t)row * PAIR * image_row;
    if (holds_image_rows(p->conv_count, false)) {
      const int32_t held = least(PAIR, p->image_height - PAIR * row);
      pair = (const int8_t*)memcpy(r.pairs, pair, (size_t)held * image_row);
    }
    rise(&r, pair, row);
  }
  if (moves) mcuf_move_up(output, tokens, prefix);
  copy_prefix(p, output);
  return MCUF_OK;
}

mcuf_status mcuf_streamed_stem_strips_s8(const mcuf_streamed_stem_params* p, mcuf_image_rows_fn rows_fn, void* user,
                                         int8_t* output, void* scratch) {
  if (rows_fn == NULL) return MCUF_ERROR_SOURCE;
  const stem_layout layout = layout_for(p, true);
  int8_t* pair = (int8_t*)scratch + layout.block;
  int8_t* pairs = pair + pair_bytes(p->image_height, (int32_t)image_row_bytes(p));
  const stem_run r = run_of(p, &layout, pairs, output + prefix_bytes(p), scratch);
  copy_prefix(p, output);
  for (int32_t first = 0; first < p->image_height; first += PAIR) {
    const int32_t count = least(PAIR, p->image_height - first);
    if (rows_fn(user, first, count, pair) != count) return MCUF_ERROR_SOURCE;
    rise(&r, pair, first / PAIR);
  }
  return MCUF_OK;
}
