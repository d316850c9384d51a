/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_stem_conv_s8.h"

#include <stdbool.h>
#include <string.h>

#include "mcuf_fixed_point.h"
#include "mcuf_stem_rows.h"

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

/* The input rows of an output row. */
static mcuf_stem_rows rows_of(const mcuf_stem_conv_params* p, const int8_t* input, int32_t out_y) {
  mcuf_stem_rows rows;
  for (int32_t tap_y = 0; tap_y < 3; ++tap_y) {
    const int32_t y = 2 * out_y - 1 + tap_y;
    const bool outside = y < 0 || y >= p->height;
    rows.row[tap_y] = outside ? NULL : input + (ptrdiff_t)y * p->width * p->in_channels;
  }
  return rows;
}

/* A block of `count` output pixels, from this one on. */
static void gather_block(const mcuf_stem_conv_params* p, const int8_t* input, int32_t out_y, int32_t out_x,
                         int16_t* block, int32_t count) {
  mcuf_stem_rows rows = rows_of(p, input, out_y);
  if (2 * (out_x + count - 1) < p->width) {
    mcuf_stem_gather(p, &rows, out_x, block, count);
    return;
  }
  mcuf_block_token token = {block, MCUF_STEM_TAPS * p->in_channels, count, 0};
  for (; token.index < count; ++token.index, ++out_x) {
    if (2 * out_x >= p->width) {
      out_x = 0;
      rows = rows_of(p, input, ++out_y);
    }
    mcuf_stem_gather_pixel(p, &rows, out_x, &token);
  }
}

mcuf_status mcuf_stem_conv_s8(const mcuf_stem_conv_params* p, const int8_t* input, int8_t* output, void* scratch) {
  const int32_t pixels = pixels_of(p), out_width = (p->width + 1) / 2, n = p->out_channels;
  const size_t prefix_bytes = (size_t)p->prefix_tokens * (size_t)n;
  if (mcuf_overlap(output, prefix_bytes + (size_t)pixels * (size_t)n, input,
                   (size_t)p->height * (size_t)p->width * (size_t)p->in_channels)) {
    return MCUF_ERROR_OVERLAP;
  }
  if (p->prefix_tokens > 0) memcpy(output, p->prefix, prefix_bytes);
  output += prefix_bytes;
  int16_t* block = (int16_t*)scratch;
  for (int32_t first = 0; first < pixels; first += MCUF_TOKEN_BLOCK) {
    const int32_t count = pixels - first < MCUF_TOKEN_BLOCK ? pixels - first : MCUF_TOKEN_BLOCK;
    gather_block(p, input, first / out_width, first % out_width, block, count);
    mcuf_stem_pixels(p, block, count, first, output + (ptrdiff_t)first * n);
  }
  return MCUF_OK;
}
