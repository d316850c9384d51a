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

/* A row of taps, channels [0, n): compilers make vectors of channels. */
static inline void add_row(const int8_t* a, const int8_t* b, const int8_t* c, const int8_t* weights, int32_t channels,
                           int32_t n, int32_t* acc) {
  const int8_t *wa = weights, *wb = wa + channels, *wc = wb + channels;
  for (int32_t i = 0; i < n; ++i) acc[i] += wa[i] * a[i] + wb[i] * b[i] + wc[i] * c[i];
}

/* Channels [at, at + n) of a pixel. */
static MCUF_OWN_STACK void make_channels(const mcuf_depthwise* d, const mcuf_depthwise_pixel* pixel, int32_t at,
                                         int32_t n, int8_t* made) {
  const int8_t* weights = d->weights + at;
  const int32_t *bias = d->bias + at, *multiplier = d->multiplier + at, zero_point = d->zero_point;
  int32_t acc[PIECE];
  for (int32_t i = 0; i < n; ++i) acc[i] = bias[i];
  for (const int8_t *const *tap = pixel->tap, *const *end = tap + MCUF_DEPTHWISE_TAPS; tap != end; tap += 3) {
    add_row(tap[0] + at, tap[1] + at, tap[2] + at, weights, d->channels, n, acc);
    weights += 3 * (ptrdiff_t)d->channels;
  }
  for (int32_t i = 0; i < n; ++i) made[i] = output_of(acc[i], multiplier[i], zero_point);
}

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
