/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_streamed_stem_s8.h"

#include <stdbool.h>
#include <string.h>

#include "mcuf_fixed_point.h"
#include "mcuf_move_up.h"
#include "mcuf_stem_levels.h"
#include "mcuf_stem_rows.h"

/* What a convolution reads outside its input: the zero point of what the one before it makes, or of its block. */
static int32_t pad_value_of(const mcuf_streamed_stem_params* p, int32_t m) {
  if (m == 0) return p->pad_value;
  const mcuf_stem_block* block = mcuf_stem_block_of(p, m - 1);
  return block != NULL ? block->zero_point : p->convs[m - 1].zero_point;
}

mcuf_stem_conv_params mcuf_stem_conv_of(const mcuf_streamed_stem_params* p, int32_t m) {
  const mcuf_streamed_stem_conv* conv = &p->convs[m];
  const bool first = m == 0, last = m + 1 == p->conv_count;
  mcuf_stem_conv_params c;
  c.height = mcuf_stem_side(p->image_height, m);
  c.width = mcuf_stem_side(p->image_width, m);
  c.in_channels = first ? p->channels : p->convs[m - 1].out_channels;
  c.out_channels = conv->out_channels;
  c.pad_value = pad_value_of(p, m);
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
    const mcuf_stem_conv_params conv = mcuf_stem_conv_of(p, m);
    const mcuf_status status = mcuf_stem_conv_s8_check(&conv);
    if (status != MCUF_OK) return status;
  }
  if (p->blocks != NULL) {
    if (p->block_kernels == NULL) return MCUF_ERROR_NULL;
    const mcuf_status status = p->block_kernels->check(p);
    if (status != MCUF_OK) return status;
  }
  const int32_t tokens = mcuf_stem_side(p->image_height, p->conv_count) * mcuf_stem_side(p->image_width, p->conv_count);
  return tokens <= MCUF_MAX_TOKENS - p->prefix_tokens ? MCUF_OK : MCUF_ERROR_SIZE;
}

/* What the rows of all levels take, and where they lie in scratch. */
typedef struct {
  int32_t block; /* bytes of the block beside the dead pairs; the pairs begin behind */
  int32_t pairs; /* of all levels: the kept rows begin behind */
  int32_t kept;  /* then the rows of blocks */
  int32_t blocks;
} stem_layout;

/* Whether scratch has a pair of the image's rows: of strips, and if the tokens that overwrite the image are made of
 * these very rows. */
static bool holds_image_rows(int32_t conv_count, bool strips) { return strips || conv_count == 1; }

/* The sizes that a layout is made of; as mcuf_streamed_stem_s8_scratch_bytes() takes them. */
typedef struct {
  const int32_t *in_channels, *hidden;
  int32_t conv_count, image_height, image_width, pixels_at_once;
} stem_sizes;

static int32_t pixel_bytes(int32_t k) { return mcuf_round_up_even(k) * (int32_t)sizeof(int16_t); }

static stem_layout layout_of(const stem_sizes* s, bool strips) {
  stem_layout layout = {0, 0, 0, 0};
  for (int32_t m = 0; m < s->conv_count; ++m) {
    const int32_t height = mcuf_stem_side(s->image_height, m), width = mcuf_stem_side(s->image_width, m);
    const int32_t c = s->in_channels[m], row = width * c, hidden = m == 0 || s->hidden == NULL ? 0 : s->hidden[m - 1];
    int32_t block = mcuf_least(s->pixels_at_once, mcuf_stem_side(width, 1)) * pixel_bytes(MCUF_STEM_TAPS * c);
    if (hidden > 0) {
      const int32_t most = mcuf_stem_block_bytes(c, hidden, mcuf_least(s->pixels_at_once, width));
      if (block < most) block = most;
      layout.blocks += mcuf_stem_kept_bytes(height, row) + mcuf_stem_ring_bytes(height, width * hidden);
    }
    const int32_t beside = block - layout.pairs; /* those so far: of levels below, dead when convolution m runs */
    if (layout.block < beside) layout.block = beside;
    if (m > 0 || holds_image_rows(s->conv_count, strips)) layout.pairs += mcuf_stem_pair_bytes(height, row);
    layout.kept += mcuf_stem_kept_bytes(height, row);
  }
  return layout;
}

static int32_t layout_bytes(const stem_layout* layout) {
  return layout->block + layout->pairs + layout->kept + layout->blocks;
}

int32_t mcuf_streamed_stem_s8_scratch_bytes(const int32_t* in_channels, const int32_t* hidden, int32_t conv_count,
                                            int32_t image_height, int32_t image_width, int32_t pixels_at_once,
                                            int32_t strips) {
  const stem_sizes sizes = {in_channels, hidden, conv_count, image_height, image_width, pixels_at_once};
  const stem_layout layout = layout_of(&sizes, strips != 0);
  return layout_bytes(&layout);
}

static MCUF_OWN_STACK stem_layout layout_for(const mcuf_streamed_stem_params* p, bool strips) {
  int32_t in_channels[MCUF_STREAMED_STEM_MAX_CONVS] = {0}, hidden[MCUF_STREAMED_STEM_MAX_CONVS] = {0};
  for (int32_t m = 0; m < p->conv_count; ++m) {
    const mcuf_stem_block* block = mcuf_stem_block_of(p, m);
    in_channels[m] = m == 0 ? p->channels : p->convs[m - 1].out_channels;
    hidden[m] = block == NULL ? 0 : block->hidden;
  }
  const stem_sizes sizes = {in_channels, hidden, p->conv_count, p->image_height, p->image_width, p->pixels_at_once};
  return layout_of(&sizes, strips);
}

int32_t mcuf_streamed_stem_s8_scratch_bytes_of(const mcuf_streamed_stem_params* p, int32_t strips) {
  const stem_layout layout = layout_for(p, strips != 0);
  return layout_bytes(&layout);
}

void mcuf_stem_make_row(const mcuf_stem_conv_params* conv, const int8_t* kept, const int8_t* pair, int32_t row,
                        int32_t pixels_at_once, int16_t* block, int8_t* output) {
  const int32_t columns = mcuf_stem_side(conv->width, 1), most = mcuf_stem_at_once(pixels_at_once, columns);
  const int8_t* second = pair + (ptrdiff_t)conv->width * conv->in_channels;
  const bool is_last = MCUF_STEM_PAIR * row + 1 >= conv->height;
  const mcuf_stem_rows rows = {{row == 0 ? NULL : kept, pair, is_last ? NULL : second}};
  for (int32_t x = 0; x < columns; x += most) {
    const int32_t count = mcuf_least(most, columns - x);
    mcuf_stem_gather(conv, &rows, x, block, count);
    mcuf_stem_pixels(conv, block, count, row * columns + x, output + (ptrdiff_t)x * conv->out_channels);
  }
}

/* Without blocks. Image rows 2 row and 2 row + 1 are there: makes the rows of all levels that follow from them. */
static void rise(const mcuf_stem_run* r, const int8_t* pair, int32_t row) {
  const mcuf_streamed_stem_params* p = r->p;
  int8_t *kept = r->kept, *next = r->pairs;
  for (int32_t m = 0; m < p->conv_count; ++m) {
    const mcuf_stem_conv_params conv = mcuf_stem_conv_of(p, m);
    const int32_t bytes = conv.width * conv.in_channels, rows = mcuf_stem_side(conv.height, 1);
    const int32_t made = mcuf_stem_side(conv.width, 1) * conv.out_channels;
    const bool last = m + 1 == p->conv_count;
    int8_t* output = last ? r->tokens + (ptrdiff_t)row * made : next + (ptrdiff_t)(row % MCUF_STEM_PAIR) * made;
    mcuf_stem_make_row(&conv, kept, pair, row, p->pixels_at_once, r->block, output);
    if (row + 1 < rows) memcpy(kept, pair + bytes, (size_t)bytes);
    if (last || (row + 1 < rows && row % MCUF_STEM_PAIR == 0)) return; /* or half of a pair */
    kept += mcuf_stem_kept_bytes(conv.height, bytes);
    pair = next;
    next += mcuf_stem_pair_bytes(rows, made);
    row /= MCUF_STEM_PAIR;
  }
}

static void rise_of(const mcuf_stem_run* r, const int8_t* pair, int32_t row) {
  if (r->p->blocks != NULL) {
    r->p->block_kernels->rise(r, pair, row);
  } else {
    rise(r, pair, row);
  }
}

/* Bytes of the prefix, of a row of tokens and of all of them. */
static size_t prefix_bytes(const mcuf_streamed_stem_params* p) {
  return (size_t)p->prefix_tokens * (size_t)p->convs[p->conv_count - 1].out_channels;
}
static size_t token_row_bytes(const mcuf_streamed_stem_params* p) {
  return (size_t)mcuf_stem_side(p->image_width, p->conv_count) * (size_t)p->convs[p->conv_count - 1].out_channels;
}
static size_t token_bytes(const mcuf_streamed_stem_params* p) {
  return (size_t)mcuf_stem_side(p->image_height, p->conv_count) * token_row_bytes(p);
}

static size_t image_row_bytes(const mcuf_streamed_stem_params* p) {
  return (size_t)p->image_width * (size_t)p->channels;
}

/* pairs: of level 1 on, where they begin. */
static mcuf_stem_run run_of(const mcuf_streamed_stem_params* p, const stem_layout* layout, int8_t* pairs,
                            int8_t* tokens, void* scratch) {
  int8_t* kept = (int8_t*)scratch + layout->block + layout->pairs;
  const mcuf_stem_run r = {p, (int16_t*)scratch, pairs, kept, kept + layout->kept, tokens};
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
  const mcuf_stem_run r =
      run_of(p, &layout, (int8_t*)scratch + layout.block, moves ? output : output + prefix, scratch);
  const int32_t rows = mcuf_stem_side(p->image_height, 1);
  for (int32_t row = 0; row < rows; ++row) {
    const int8_t* pair = image + (size_t)row * MCUF_STEM_PAIR * image_row;
    if (holds_image_rows(p->conv_count, false)) {
      const int32_t held = mcuf_least(MCUF_STEM_PAIR, p->image_height - MCUF_STEM_PAIR * row);
      pair = (const int8_t*)memcpy(r.pairs, pair, (size_t)held * image_row);
    }
    rise_of(&r, pair, row);
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
  int8_t* pairs = pair + mcuf_stem_pair_bytes(p->image_height, (int32_t)image_row_bytes(p));
  const mcuf_stem_run r = run_of(p, &layout, pairs, output + prefix_bytes(p), scratch);
  copy_prefix(p, output);
  for (int32_t first = 0; first < p->image_height; first += MCUF_STEM_PAIR) {
    const int32_t count = mcuf_least(MCUF_STEM_PAIR, p->image_height - first);
    if (rows_fn(user, first, count, pair) != count) return MCUF_ERROR_SOURCE;
    rise_of(&r, pair, first / MCUF_STEM_PAIR);
  }
  return MCUF_OK;
}
