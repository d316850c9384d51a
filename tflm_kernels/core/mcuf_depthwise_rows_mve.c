/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_depthwise_rows.h for Cortex-M with vectors (MVE): eight channels of a pixel together. Products of two taps add
 * up in 16 bits, since weights are -127 .. 127. */
#include "mcuf_depthwise_rows.h"

#include "mcuf_target.h"
#include "mcuf_types.h" /* an empty translation unit is not valid C99 */

#if MCUF_MVE
#include <arm_mve.h>
#include <stdbool.h>

#define VECTOR 16
#define LANES 8

/* Sums of channels 0, 2, 4 and 6, and of 1, 3, 5 and 7. */
typedef struct {
  int32x4_t even, odd;
} sums;

static inline sums plus(sums s, int16x8_t products) {
  s.even = vaddq_s32(s.even, vmovlbq_s16(products));
  s.odd = vaddq_s32(s.odd, vmovltq_s16(products));
  return s;
}

/* Every other of eight values from `values` on. all: there are eight, known when this is compiled. */
static inline sums split(const int32_t* values, bool all, int32_t n) {
  sums s;
  if (all) {
    const int32x4x2_t both = vld2q_s32(values);
    s.even = both.val[0];
    s.odd = both.val[1];
    return s;
  }
  const uint32x4_t places = vidupq_n_u32(0, 2);
  s.even = vldrwq_gather_shifted_offset_z_s32(values, places, vctp32q((uint32_t)(n + 1) / 2));
  s.odd = vldrwq_gather_shifted_offset_z_s32(values + 1, places, vctp32q((uint32_t)n / 2));
  return s;
}

static inline int16x8_t product(const int8_t* values, const int8_t* weights, bool all, mve_pred16_t lanes) {
  if (all) return vmulq_s16(vldrbq_s16(values), vldrbq_s16(weights));
  return vmulq_s16(vldrbq_z_s16(values, lanes), vldrbq_z_s16(weights, lanes));
}

/* Channels [c, c + n), up to eight, of a pixel. */
static inline int16x8_t outputs_of(const mcuf_depthwise* d, const mcuf_depthwise_pixel* pixel, int32_t c, bool all,
                                   int32_t n, mve_pred16_t lanes) {
  const int8_t* weights = d->weights + c;
  const int32_t channels = d->channels;
  sums s = split(d->bias + c, all, n);
  for (int32_t tap = 0; tap + 1 < MCUF_DEPTHWISE_TAPS; tap += 2, weights += 2 * channels) {
    const int16x8_t first = product(pixel->tap[tap] + c, weights, all, lanes);
    s = plus(s, vaddq_s16(first, product(pixel->tap[tap + 1] + c, weights + channels, all, lanes)));
  }
  s = plus(s, product(pixel->tap[MCUF_DEPTHWISE_TAPS - 1] + c, weights, all, lanes));
  const sums m = split(d->multiplier + c, all, n);
  int16x8_t out = vqmovnbq_s32(vdupq_n_s16(0), vrmulhq_s32(s.even, m.even));
  out = vqmovntq_s32(out, vrmulhq_s32(s.odd, m.odd));
  out = vqaddq_n_s16(out, (int16_t)d->zero_point);
  return vminq_s16(vmaxq_s16(out, vdupq_n_s16((int16_t)d->zero_point)), vdupq_n_s16(127));
}

/* Where channel c of a token of a block is: see mcuf_block_mve.c. copies: the token lies there once more, so many
 * bytes behind; 0 if not. */
static inline int8_t* place_of(int8_t* block, int32_t k, int32_t count, int32_t token, int32_t c, int32_t* copies) {
  *copies = 0;
  if (count < 3) return block + (ptrdiff_t)token * k + c;
  const int32_t whole = k & ~(VECTOR - 1), start = c & ~(VECTOR - 1), width = start < whole ? VECTOR : k - whole;
  if (count == 3 && token == 2) *copies = width;
  return block + (ptrdiff_t)start * MCUF_TOKEN_BLOCK + token * width + (c - start);
}

static MCUF_OWN_STACK void one_pixel(const mcuf_depthwise* layer, const mcuf_depthwise_pixel* pixel, int8_t* block,
                                     int32_t count, int32_t token) {
  const mcuf_depthwise d = *layer; /* so that the compiler need not read it again after every store */
  int32_t c = 0, copy;
  for (; c + LANES <= d.channels; c += LANES) {
    int8_t* target = place_of(block, d.channels, count, token, c, &copy);
    const int16x8_t out = outputs_of(&d, pixel, c, true, LANES, 0);
    vstrbq_s16(target, out);
    if (copy > 0) vstrbq_s16(target + copy, out);
  }
  if (c == d.channels) return;
  const mve_pred16_t lanes = vctp16q((uint32_t)(d.channels - c));
  int8_t* target = place_of(block, d.channels, count, token, c, &copy);
  const int16x8_t out = outputs_of(&d, pixel, c, false, d.channels - c, lanes);
  vstrbq_p_s16(target, out, lanes);
  if (copy > 0) vstrbq_p_s16(target + copy, out, lanes);
}

void mcuf_depthwise_pixels(const mcuf_depthwise* d, const mcuf_depthwise_rows* rows, int32_t x, int16_t* block,
                           int32_t count) {
  for (int32_t token = 0; token < count; ++token) {
    const mcuf_depthwise_pixel pixel = mcuf_depthwise_pixel_at(d, rows, x + token);
    one_pixel(d, &pixel, (int8_t*)block, count, token);
  }
}
#endif /* MCUF_MVE */
