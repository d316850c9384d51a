/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_depthwise_rows.h for cores without instructions of their own for it: in C, some channels at a time. */
#include "mcuf_depthwise_rows.h"

#include "mcuf_target.h"
#include "mcuf_types.h" /* an empty translation unit is not valid C99 */

#if MCUF_PORTABLE || MCUF_SCALAR
#include "mcuf_fixed_point.h"

#define PIECE 32 /* channels; even, since a block's tokens are filled from even places on */

static inline int8_t output_of(int32_t acc, int32_t multiplier, int32_t zero_point) {
  const int8_t q = mcuf_requantise(acc, multiplier, zero_point);
  return q < zero_point ? (int8_t)zero_point : q;
}

/* Channels [at, at + n) of a pixel. */
#if MCUF_PORTABLE
static void make_channels(const mcuf_depthwise* d, const mcuf_depthwise_pixel* pixel, int32_t at, int32_t n,
                          int8_t* made) {
  int32_t acc[PIECE];
  for (int32_t i = 0; i < n; ++i) acc[i] = d->bias[at + i];
  for (int32_t tap = 0; tap < MCUF_DEPTHWISE_TAPS; ++tap) { /* compilers make vectors of channels */
    const int8_t *weights = d->weights + (ptrdiff_t)tap * d->channels + at, *values = pixel->tap[tap] + at;
    for (int32_t i = 0; i < n; ++i) acc[i] += weights[i] * values[i];
  }
  for (int32_t i = 0; i < n; ++i) made[i] = output_of(acc[i], d->multiplier[at + i], d->zero_point);
}
#else
static void make_channels(const mcuf_depthwise* d, const mcuf_depthwise_pixel* pixel, int32_t at, int32_t n,
                          int8_t* made) {
  const int32_t channels = d->channels, zero_point = d->zero_point;
  for (const int32_t end = at + n; at < end; ++at) {
    const int8_t* weight = d->weights + at;
    int32_t acc = d->bias[at];
    for (int32_t tap = 0; tap < MCUF_DEPTHWISE_TAPS; ++tap, weight += channels) acc += *weight * pixel->tap[tap][at];
    *made++ = output_of(acc, d->multiplier[at], zero_point);
  }
}
#endif

void mcuf_depthwise_pixels(const mcuf_depthwise* d, const mcuf_depthwise_rows* rows, int32_t x, int16_t* block,
                           int32_t count) {
  mcuf_block_token token = {block, d->channels, count, 0};
  for (; token.index < count; ++token.index) {
    const mcuf_depthwise_pixel pixel = mcuf_depthwise_pixel_at(d, rows, x + token.index);
    for (int32_t at = 0; at < d->channels; at += PIECE) {
      const int32_t n = d->channels - at < PIECE ? d->channels - at : PIECE;
      int8_t made[PIECE];
      make_channels(d, &pixel, at, n, made);
      mcuf_block_fill_token(&token, made, 1, at, n);
    }
  }
}
#endif /* MCUF_PORTABLE || MCUF_SCALAR */
