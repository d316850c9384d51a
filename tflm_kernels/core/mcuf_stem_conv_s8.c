/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_stem_conv_s8.h"

#include "mcuf_block.h"
#include "mcuf_dot.h"
#include "mcuf_fixed_point.h"

mcuf_status mcuf_stem_conv_s8_check(const mcuf_stem_conv_params* p) {
  if (p->weights == NULL) return MCUF_ERROR_NULL;
  if (p->height < 1 || p->height > 4096 || p->width < 1 || p->width > 4096 || p->in_channels < 1 ||
      p->in_channels > 1024 || p->out_channels < 1 || p->out_channels > MCUF_MAX_FEATURES) {
    return MCUF_ERROR_SIZE;
  }
  if (p->zero_point < -128 || p->zero_point > 127 || p->pad_value < -128 || p->pad_value > 127 || p->act_min < -128 ||
      p->act_min > 127) {
    return MCUF_ERROR_VALUE;
  }
  if (p->position != NULL && p->position_scale == NULL) return MCUF_ERROR_NULL;
  return mcuf_check_requantisation(p->bias, p->multiplier, p->out_channels);
}

int32_t mcuf_stem_conv_s8_scratch_bytes(int32_t in_channels) {
  return MCUF_TOKEN_BLOCK * MCUF_STEM_TAPS * in_channels * (int32_t)sizeof(int16_t);
}

/* The 3x3 neighbourhood around input pixel (2 out_y, 2 out_x) as int16. */
static void gather_taps(const mcuf_stem_conv_params* p, const int8_t* input, int32_t out_y, int32_t out_x,
                        int16_t* target) {
  const int32_t c = p->in_channels;
  for (int32_t y = 2 * out_y - 1; y <= 2 * out_y + 1; ++y) {
    for (int32_t x = 2 * out_x - 1; x <= 2 * out_x + 1; ++x, target += c) {
      if (y >= 0 && y < p->height && x >= 0 && x < p->width) {
        mcuf_expand_s16(input + ((ptrdiff_t)y * p->width + x) * c, c, target);
      } else {
        for (int32_t i = 0; i < c; ++i) target[i] = (int16_t)p->pad_value;
      }
    }
  }
}

mcuf_status mcuf_stem_conv_s8(const mcuf_stem_conv_params* p, const int8_t* input, int8_t* output, void* scratch) {
  const int32_t out_height = (p->height + 1) / 2, out_width = (p->width + 1) / 2, n = p->out_channels;
  const int32_t pixels = out_height * out_width, k = MCUF_STEM_TAPS * p->in_channels;
  if (mcuf_overlap(output, (size_t)pixels * (size_t)n, input,
                   (size_t)p->height * (size_t)p->width * (size_t)p->in_channels)) {
    return MCUF_ERROR_OVERLAP;
  }
  int16_t* taps = (int16_t*)scratch;
  for (int32_t first = 0; first < pixels; first += MCUF_TOKEN_BLOCK) {
    const int32_t left = pixels - first;
    const int32_t count = left < MCUF_TOKEN_BLOCK ? left : MCUF_TOKEN_BLOCK;
    for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) { /* a short block repeats its last pixel */
      const int32_t pixel = first + (t < count ? t : count - 1);
      gather_taps(p, input, pixel / out_width, pixel % out_width, taps + (ptrdiff_t)t * k);
    }
    for (int32_t o = 0; o < n; o += 2) {
      const int32_t pair = o + 1 < n ? 2 : 1;
      const int8_t* weights = p->weights + (ptrdiff_t)o * k;
      int32_t acc[8];
      for (int32_t i = 0; i < 8; ++i) acc[i] = p->bias[o + (i >= 4 ? pair - 1 : 0)];
      for (int32_t start = 0; start < k; start += MCUF_DOT_PIECE) {
        const int32_t count = k - start < MCUF_DOT_PIECE ? k - start : MCUF_DOT_PIECE;
        int16_t rows[2][MCUF_DOT_PIECE];
        mcuf_expand_s16(weights + start, count, rows[0]);
        mcuf_expand_s16(weights + (ptrdiff_t)(pair - 1) * k + start, count, rows[1]);
        mcuf_dot_4x2(taps + start, k, rows[0], rows[1], count, acc);
      }
      for (int32_t j = 0; j < pair; ++j) {
        for (int32_t t = 0; t < count; ++t) {
          const ptrdiff_t at = (ptrdiff_t)(first + t) * n + o + j;
          int32_t a = acc[4 * j + t];
          if (p->position != NULL) a += (int32_t)p->position_scale[o + j] * p->position[at];
          const int8_t q = mcuf_requantise(a, p->multiplier[o + j], p->zero_point);
          output[at] = q < p->act_min ? (int8_t)p->act_min : q;
        }
      }
    }
  }
  return MCUF_OK;
}
