/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_stem_conv_s8.h"

#include <stdbool.h>
#include <string.h>

#include "mcuf_block.h"
#include "mcuf_fixed_point.h"

/* Pixels of the output. */
static int32_t pixels_of(const mcuf_stem_conv_params* p) { return (p->height + 1) / 2 * ((p->width + 1) / 2); }

mcuf_status mcuf_stem_conv_s8_check(const mcuf_stem_conv_params* p) {
  if (p->weights == NULL) return MCUF_ERROR_NULL;
  if (p->height < 1 || p->height > MCUF_MAX_IMAGE_SIDE || p->width < 1 || p->width > MCUF_MAX_IMAGE_SIDE ||
      p->in_channels < 1 || p->in_channels > MCUF_STEM_MAX_CHANNELS || p->out_channels < 1 ||
      p->out_channels > MCUF_MAX_FEATURES || p->prefix_tokens < 0 || p->prefix_tokens > MCUF_MAX_TOKENS) {
    return MCUF_ERROR_SIZE;
  }
  const bool makes_tokens = p->position != NULL || p->prefix_tokens > 0;
  if (makes_tokens && pixels_of(p) > MCUF_MAX_TOKENS - p->prefix_tokens) return MCUF_ERROR_SIZE;
  if (!mcuf_packing_is_known(p->packing, p->weights)) return MCUF_ERROR_VALUE;
  if (!mcuf_is_int8(p->zero_point) || !mcuf_is_int8(p->pad_value) || !mcuf_is_int8(p->act_min)) return MCUF_ERROR_VALUE;
  if (p->position != NULL && p->position_scale == NULL) return MCUF_ERROR_NULL;
  if (p->prefix_tokens > 0 && p->prefix == NULL) return MCUF_ERROR_NULL;
  return mcuf_check_requantisation(p->bias, p->multiplier, p->out_channels);
}

int32_t mcuf_stem_conv_s8_scratch_bytes(int32_t in_channels) { return mcuf_block_bytes(MCUF_STEM_TAPS * in_channels); }

/* An output pixel becomes a token: the 3x3 neighbourhood of input pixel (2 out_y, 2 out_x), one run of input per row,
 * and padding outside the image. */
static void gather_pixel(const mcuf_stem_conv_params* p, const int8_t* input, int32_t out_y, int32_t out_x,
                         const mcuf_block_token* token) {
  const int32_t c = p->in_channels, row = 3 * c;
  const int32_t left = out_x == 0 ? c : 0, right = 2 * out_x + 1 < p->width ? 0 : c;
  const int8_t pad = (int8_t)p->pad_value;
  for (int32_t tap_y = 0; tap_y < 3; ++tap_y) {
    const int32_t y = 2 * out_y - 1 + tap_y, at = tap_y * row;
    if (y < 0 || y >= p->height) {
      mcuf_block_fill_token(token, &pad, 0, at, row);
      continue;
    }
    const int8_t* run = input + (((ptrdiff_t)y * p->width + 2 * out_x - 1) * c + left);
    if (left > 0) mcuf_block_fill_token(token, &pad, 0, at, left);
    mcuf_block_fill_token(token, run, 1, at + left, row - left - right);
    if (right > 0) mcuf_block_fill_token(token, &pad, 0, at + row - right, right);
  }
}

/* A block of `count` output pixels, from this one on. */
static void gather_block(const mcuf_stem_conv_params* p, const int8_t* input, int32_t out_y, int32_t out_x,
                         int16_t* block, int32_t count) {
  const int32_t c = p->in_channels, row = 3 * c, k = MCUF_STEM_TAPS * c;
  const bool padded = out_y == 0 || 2 * out_y + 1 >= p->height || out_x == 0;
  if (!padded &&
      2 * (out_x + count - 1) + 1 < p->width) { /* all in one row and inside the image: together, which is faster */
    for (int32_t tap_y = 0; tap_y < 3; ++tap_y) {
      const int8_t* run = input + ((ptrdiff_t)(2 * out_y - 1 + tap_y) * p->width + 2 * out_x - 1) * c;
      mcuf_block_fill(block, k, count, run, 2 * c, tap_y * row, row);
    }
    return;
  }
  mcuf_block_token token = {block, k, count, 0};
  for (; token.index < count; ++token.index, ++out_x) {
    if (2 * out_x >= p->width) {
      out_x = 0;
      ++out_y;
    }
    gather_pixel(p, input, out_y, out_x, &token);
  }
}

static void raise_to(int8_t* values, int32_t count, int32_t least) {
  for (int32_t i = 0; i < count; ++i) values[i] = values[i] < least ? (int8_t)least : values[i];
}

mcuf_status mcuf_stem_conv_s8(const mcuf_stem_conv_params* p, const int8_t* input, int8_t* output, void* scratch) {
  const int32_t pixels = pixels_of(p), out_width = (p->width + 1) / 2, n = p->out_channels;
  const int32_t k = MCUF_STEM_TAPS * p->in_channels;
  const size_t prefix_bytes = (size_t)p->prefix_tokens * (size_t)n;
  if (mcuf_overlap(output, prefix_bytes + (size_t)pixels * (size_t)n, input,
                   (size_t)p->height * (size_t)p->width * (size_t)p->in_channels)) {
    return MCUF_ERROR_OVERLAP;
  }
  const mcuf_fc_rows rows = {
      p->weights, p->packing, k, n, p->zero_point, p->bias, p->multiplier, p->position_scale, NULL,
  };
  if (p->prefix_tokens > 0) memcpy(output, p->prefix, prefix_bytes);
  output += prefix_bytes;
  int16_t* block = (int16_t*)scratch;
  for (int32_t first = 0; first < pixels; first += MCUF_TOKEN_BLOCK) {
    const int32_t count = pixels - first < MCUF_TOKEN_BLOCK ? pixels - first : MCUF_TOKEN_BLOCK;
    const ptrdiff_t at = (ptrdiff_t)first * n;
    gather_block(p, input, first / out_width, first % out_width, block, count);
    mcuf_block_fc(&rows, block, count, p->position == NULL ? NULL : p->position + at, output + at, n);
    if (p->act_min > -128) raise_to(output + at, count * n, p->act_min);
  }
  return MCUF_OK;
}
