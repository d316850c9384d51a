/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_stem_rows.h"

#include <stdbool.h>
#include <string.h>

#include "mcuf_hooks.h"

void mcuf_stem_gather_pixel(const mcuf_stem_conv_params* p, const mcuf_stem_rows* rows, int32_t out_x,
                            const mcuf_block_token* token) {
  const int32_t c = p->in_channels, row = 3 * c;
  const int32_t left = out_x == 0 ? c : 0, right = 2 * out_x + 1 < p->width ? 0 : c;
  const int8_t pad = (int8_t)p->pad_value;
  for (int32_t tap_y = 0; tap_y < 3; ++tap_y) {
    const int32_t at = tap_y * row;
    if (rows->row[tap_y] == NULL) {
      mcuf_block_fill_token(token, &pad, 0, at, row);
      continue;
    }
    const int8_t* run = rows->row[tap_y] + ((ptrdiff_t)(2 * out_x - 1) * c + left);
    if (left > 0) mcuf_block_fill_token(token, &pad, 0, at, left);
    mcuf_block_fill_token(token, run, 1, at + left, row - left - right);
    if (right > 0) mcuf_block_fill_token(token, &pad, 0, at + row - right, right);
  }
}

/* Whether the left edge of `count` pixels of c channels is filled without mcuf_stem_gather_pixel(). */
static bool fills_left(int32_t c, int32_t count) {
  return MCUF_DSP && count == MCUF_TOKEN_BLOCK && (c == 1 || c % 2 == 0);
}

/* A row of the neighbourhoods of `count` pixels that are filled together, which is faster. */
static void gather_row(const mcuf_stem_conv_params* p, const int8_t* row, int32_t out_x, int16_t* block, int32_t count,
                       int32_t at) {
  const int32_t c = p->in_channels;
  mcuf_block_token token = {block, MCUF_STEM_TAPS * c, count, 0};
  const int8_t pad = (int8_t)p->pad_value;
  if (row == NULL) {
    for (; token.index < count; ++token.index) mcuf_block_fill_token(&token, &pad, 0, at, 3 * c);
    return;
  }
#if MCUF_DSP
  if (out_x == 0) {
    mcuf_block_fill_left(block, at, c, row, pad);
    return;
  }
  if (c == 1 && count == MCUF_TOKEN_BLOCK) {
    mcuf_block_fill_threes(block, at, row + 2 * out_x - 1);
    return;
  }
#endif
  mcuf_block_fill(block, token.k, count, row + (ptrdiff_t)(2 * out_x - 1) * c, 2 * c, at, 3 * c);
}

void mcuf_stem_gather(const mcuf_stem_conv_params* p, const mcuf_stem_rows* rows, int32_t out_x, int16_t* block,
                      int32_t count) {
  const int32_t c = p->in_channels;
  if (2 * (out_x + count - 1) + 1 < p->width && (out_x > 0 || fills_left(c, count))) {
    for (int32_t tap_y = 0; tap_y < 3; ++tap_y) gather_row(p, rows->row[tap_y], out_x, block, count, tap_y * 3 * c);
    return;
  }
  mcuf_block_token token = {block, MCUF_STEM_TAPS * c, count, 0};
  for (; token.index < count; ++token.index) mcuf_stem_gather_pixel(p, rows, out_x + token.index, &token);
}

void mcuf_stem_raise(int8_t* values, int32_t count, int32_t least) {
  int32_t i = 0;
#if MCUF_DSP
  const uint32_t four = 0x01010101u * (uint8_t)least;
  for (; i + 4 <= count; i += 4) {
    uint32_t word;
    memcpy(&word, values + i, sizeof(word));
    __asm__("ssub8 r12, %0, %1\n\tsel %0, %0, %1" : "+r"(word) : "r"(four) : "r12", "cc");
    memcpy(values + i, &word, sizeof(word));
  }
#endif
  for (; i < count; ++i) values[i] = values[i] < least ? (int8_t)least : values[i];
}

void mcuf_stem_pixels(const mcuf_stem_conv_params* p, const int16_t* block, int32_t count, int32_t pixel,
                      int8_t* output) {
  const int32_t n = p->out_channels;
  const mcuf_fc_rows rows = {
      p->weights,        p->packing, MCUF_STEM_TAPS * p->in_channels, n, p->zero_point, p->bias, p->multiplier,
      p->position_scale, NULL,
  };
  const int8_t* position = p->position == NULL ? NULL : p->position + (ptrdiff_t)pixel * n;
  mcuf_block_fc(&rows, block, count, position, output, n);
  if (p->act_min > -128) mcuf_stem_raise(output, count * n, p->act_min);
  MCUF_YIELD();
}
