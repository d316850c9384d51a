/* SPDX-License-Identifier: Apache-2.0
 *
 * The blocks of a streamed stem, and the order in which the rows of a stem with blocks are made.
 *
 * Rows of x of an even number wait in a row of their own, `next`, those of an odd one in their place in the pair. Row j
 * of y is made of rows j - 1, j and j + 1 of h, so as soon as row j + 1 of x is there, or the level ends. Then it
 * stands in the pair. Whatever is made of a pair is made before the next row comes to it. */
#include <stdbool.h>
#include <string.h>

#include "mcuf_depthwise_rows.h"
#include "mcuf_fixed_point.h"
#include "mcuf_hooks.h"
#include "mcuf_stem_levels.h"
#include "mcuf_stem_rows.h"
#if MCUF_MVE
#include <arm_mve.h>
#endif

static mcuf_status check_block(const mcuf_stem_block* b, int32_t c, int32_t packing) {
  if (b->hidden < 0 || b->hidden > MCUF_STEM_MAX_CHANNELS) return MCUF_ERROR_SIZE;
  if (b->hidden == 0) return MCUF_OK;
  if (b->expand_weights == NULL || b->depthwise_weights == NULL || b->project_weights == NULL ||
      b->residual_scale == NULL) {
    return MCUF_ERROR_NULL;
  }
  if (!mcuf_packing_is_known(packing, b->expand_weights) || !mcuf_packing_is_known(packing, b->project_weights) ||
      !mcuf_is_int8(b->expand_zero_point) || !mcuf_is_int8(b->depthwise_zero_point) || !mcuf_is_int8(b->zero_point)) {
    return MCUF_ERROR_VALUE;
  }
  for (int32_t i = 0; i < MCUF_STEM_TAPS * b->hidden; ++i) { /* two products with -128 do not fit where vectors add */
    if (b->depthwise_weights[i] == INT8_MIN) return MCUF_ERROR_VALUE;
  }
  mcuf_status status = mcuf_check_requantisation(b->expand_bias, b->expand_multiplier, b->hidden);
  if (status != MCUF_OK) return status;
  status = mcuf_check_requantisation(b->depthwise_bias, b->depthwise_multiplier, b->hidden);
  return status != MCUF_OK ? status : mcuf_check_requantisation(b->project_bias, b->project_multiplier, c);
}

static mcuf_status check(const mcuf_streamed_stem_params* p) {
  for (int32_t m = 0; m + 1 < p->conv_count; ++m) {
    const mcuf_status status = check_block(&p->blocks[m], p->convs[m].out_channels, p->packing);
    if (status != MCUF_OK) return status;
  }
  return MCUF_OK;
}

/* How many rows of a level there are, how many of them are final, and how many of these the next level has used. */
typedef struct {
  int16_t rows, done, used;
} progress;

/* A level, and where its rows are. */
typedef struct {
  const mcuf_stem_block* block; /* NULL: its rows are final at once */
  int32_t height, width, c;
  int8_t *pair, *kept; /* rows 2 i and 2 i + 1; row 2 i - 1 */
  int8_t *next, *ring; /* of a block: x of an even row; h of row j at j % MCUF_STEM_RING */
} level;

static ptrdiff_t row_bytes(const level* l) { return (ptrdiff_t)l->width * l->c; }

/* Where row `row` is before it is final. */
static int8_t* place_of(const level* l, int32_t row) {
  const bool waits = l->block != NULL && row % MCUF_STEM_PAIR == 0;
  return waits ? l->next : l->pair + row % MCUF_STEM_PAIR * row_bytes(l);
}

static int8_t* hidden_row(const level* l, int32_t row) {
  return l->ring + (ptrdiff_t)(row % MCUF_STEM_RING) * l->width * l->block->hidden;
}

/* mcuf_stem_raise() of as many values as there are hidden channels, which are many. */
static void raise_hidden(int8_t* values, int32_t count, int32_t least) {
#if MCUF_MVE
  for (; count > 0; count -= 16, values += 16) {
    const mve_pred16_t lanes = vctp8q((uint32_t)count);
    vstrbq_p_s8(values, vmaxq_s8(vldrbq_z_s8(values, lanes), vdupq_n_s8((int8_t)least)), lanes);
  }
#else
  mcuf_stem_raise(values, count, least);
#endif
}

/* Row `row` of h, of that of x. */
static MCUF_OWN_STACK void expand(const mcuf_stem_run* r, const level* l, int32_t row, const int8_t* x) {
  const mcuf_stem_block* b = l->block;
  const mcuf_fc_rows layer = {b->expand_weights, r->p->packing,        l->c, b->hidden, b->expand_zero_point,
                              b->expand_bias,    b->expand_multiplier, NULL, NULL};
  const int32_t most = mcuf_stem_at_once(r->p->pixels_at_once, l->width);
  int8_t* h = hidden_row(l, row);
  for (int32_t left = l->width, count; left > 0; left -= count, x += count * l->c, h += count * b->hidden) {
    count = mcuf_least(most, left);
    mcuf_block_fill(r->block, l->c, count, x, l->c, 0, l->c);
    mcuf_block_fc(&layer, r->block, count, NULL, h, b->hidden);
    raise_hidden(h, count * b->hidden, b->expand_zero_point);
    MCUF_YIELD();
  }
}

/* Row `row` of y. */
static MCUF_OWN_STACK void project(const mcuf_stem_run* r, const level* l, int32_t row) {
  const mcuf_stem_block* b = l->block;
  const mcuf_fc_rows layer = {b->project_weights, r->p->packing,         b->hidden,         l->c, b->zero_point,
                              b->project_bias,    b->project_multiplier, b->residual_scale, NULL};
  const mcuf_depthwise depthwise = {
      b->hidden, l->width, b->depthwise_zero_point, b->depthwise_weights, b->depthwise_bias, b->depthwise_multiplier};
  const int32_t room = mcuf_least(r->p->pixels_at_once, l->width), most = mcuf_stem_at_once(room, room);
  int8_t* outside = (int8_t*)r->block + mcuf_stem_block_bytes(l->c, b->hidden, room) - b->hidden;
  memset(outside, b->expand_zero_point, (size_t)b->hidden);
  const mcuf_depthwise_rows rows = {{row > 0 ? hidden_row(l, row - 1) : NULL, hidden_row(l, row),
                                     row + 1 < l->height ? hidden_row(l, row + 1) : NULL},
                                    outside};
  const int8_t* x = place_of(l, row);
  int8_t* y = l->pair + row % MCUF_STEM_PAIR * row_bytes(l);
  for (int32_t at = 0, count; at < l->width; at += count, x += count * l->c, y += count * l->c) {
    count = mcuf_least(most, l->width - at);
    mcuf_depthwise_pixels(&depthwise, &rows, at, r->block, count);
    MCUF_YIELD();
    mcuf_block_fc(&layer, r->block, count, x, y, l->c);
    MCUF_YIELD();
  }
}

/* Level m. pair: of level 0. */
static level level_at(const mcuf_stem_run* r, int8_t* pair, int32_t m) {
  const mcuf_streamed_stem_params* p = r->p;
  level l = {NULL, p->image_height, p->image_width, p->channels, pair, r->kept, NULL, NULL};
  int8_t *pairs = r->pairs, *blocks = r->blocks;
  for (int32_t i = 1; i <= m; ++i) {
    l.kept += mcuf_stem_kept_bytes(l.height, (int32_t)row_bytes(&l));
    l.block = mcuf_stem_block_of(p, i - 1);
    l.height = mcuf_stem_side(l.height, 1);
    l.width = mcuf_stem_side(l.width, 1);
    l.c = p->convs[i - 1].out_channels;
    l.pair = pairs;
    const int32_t bytes = (int32_t)row_bytes(&l);
    pairs += mcuf_stem_pair_bytes(l.height, bytes);
    if (l.block == NULL) continue;
    l.next = l.height > MCUF_STEM_PAIR ? blocks : l.pair;
    l.ring = blocks + mcuf_stem_kept_bytes(l.height, bytes);
    blocks = l.ring + mcuf_stem_ring_bytes(l.height, l.width * l.block->hidden);
  }
  return l;
}

/* Where convolution m puts its row `row`: a row of level m + 1, or of tokens. */
static MCUF_OWN_STACK int8_t* output_of(const mcuf_stem_run* r, int8_t* pair, int32_t m, int32_t row) {
  const level next = level_at(r, pair, m + 1);
  return m + 1 == r->p->conv_count ? r->tokens + row * row_bytes(&next) : place_of(&next, row);
}

/* Row `row` of what convolution m makes, of a pair of its level, the second row of which is then kept. */
static MCUF_OWN_STACK void convolve(const mcuf_stem_run* r, const level* l, int32_t m, int32_t row, int8_t* output) {
  const mcuf_stem_conv_params conv = mcuf_stem_conv_of(r->p, m);
  mcuf_stem_make_row(&conv, l->kept, l->pair, row, r->p->pixels_at_once, r->block, output);
  if (MCUF_STEM_PAIR * (row + 1) < l->height) memcpy(l->kept, l->pair + row_bytes(l), (size_t)row_bytes(l));
}

/* Level m has one more row, x. */
static MCUF_OWN_STACK void take(const mcuf_stem_run* r, int8_t* pair, int32_t m, progress* now, const int8_t* x) {
  const level l = level_at(r, pair, m);
  if (l.block != NULL) expand(r, &l, now->rows, x);
  ++now->rows;
  if (l.block == NULL) ++now->done;
}

/* Levels before rows 2 row and 2 row + 1 of the image came. */
static MCUF_OWN_STACK void begin(const mcuf_stem_run* r, int32_t row, progress* of) {
  for (int32_t m = 0, rows = MCUF_STEM_PAIR * row; m < r->p->conv_count; rows = of[m++].used / MCUF_STEM_PAIR) {
    const bool waits = m > 0 && rows > 0 && mcuf_stem_block_of(r->p, m - 1) != NULL;
    of[m].rows = (int16_t)rows;
    of[m].done = (int16_t)(waits ? rows - 1 : rows);
    of[m].used = (int16_t)(of[m].done & ~1);
  }
}

/* The deepest level that can make a row makes it. */
static void rise(const mcuf_stem_run* r, const int8_t* image_rows, int32_t row) {
  int8_t* pair = (int8_t*)image_rows; /* which is only read */
  progress of[MCUF_STREAMED_STEM_MAX_CONVS];
  begin(r, row, of);
  of[0].rows = of[0].done = (int16_t)mcuf_least(MCUF_STEM_PAIR * (row + 1), r->p->image_height);
  for (int32_t m = 0; m >= 0;) {
    const level l = level_at(r, pair, m);
    progress* now = &of[m];
    if (now->done - now->used == MCUF_STEM_PAIR || (now->done == l.height && now->used < l.height)) {
      const int32_t next_row = now->used / MCUF_STEM_PAIR;
      int8_t* output = output_of(r, pair, m, next_row);
      convolve(r, &l, m, next_row, output);
      now->used = (int16_t)mcuf_least(now->used + MCUF_STEM_PAIR, l.height);
      if (m + 1 < r->p->conv_count) take(r, pair, ++m, now + 1, output);
    } else if (now->done < now->rows && (now->done + 1 < now->rows || now->rows == l.height)) {
      project(r, &l, now->done++);
    } else {
      --m;
    }
  }
}

const mcuf_stem_block_kernels mcuf_stem_blocks = {check, rise};
