/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_depthwise_rows.h for Cortex-M with the DSP extension. Four pixels together, in mcuf_depthwise_dsp.S: of a word
 * of four channels the first and third become halfwords, then the second and fourth. Each of the six by three pixels
 * that four outputs are made of is expanded once for up to three of them. */
#include "mcuf_depthwise_rows.h"

#include "mcuf_target.h"
#include "mcuf_types.h" /* an empty translation unit is not valid C99 */

#if MCUF_DSP
#include <stdbool.h>

#include "mcuf_fixed_point.h"

#define COLUMNS (MCUF_TOKEN_BLOCK + 2)

/* Of mcuf_depthwise_dsp.S, which knows the offsets. Channels are a multiple of 4, at least 4. */
typedef struct {
  const int8_t* at[3 * COLUMNS];              /*   0  pixels */
  const int8_t* weights[MCUF_DEPTHWISE_TAPS]; /*  72 */
  const int32_t* bias;                        /* 108 */
  const int32_t* multiplier;                  /* 112 */
  int32_t zero_point;                         /* 116 */
  uint32_t least;                             /* 120  the zero point, in both halfwords */
  int16_t* block;                             /* 124 */
  int32_t channels;                           /* 128 */
} depthwise_args;

#define OFFSET_IS(field, offset) \
  typedef char field##_lies_elsewhere[offsetof(depthwise_args, field) == (offset) ? 1 : -1]
OFFSET_IS(weights, 72);
OFFSET_IS(bias, 108);
OFFSET_IS(channels, 128);

void mcuf_depthwise4_dsp(depthwise_args* args);

/* One channel of a pixel. */
static int32_t channel_of(const mcuf_depthwise* d, const mcuf_depthwise_pixel* pixel, int32_t c) {
  const int8_t* weight = d->weights + c;
  int32_t acc = d->bias[c];
  for (int32_t tap = 0; tap < MCUF_DEPTHWISE_TAPS; ++tap, weight += d->channels) acc += *weight * pixel->tap[tap][c];
  const int32_t q = mcuf_requantise(acc, d->multiplier[c], d->zero_point);
  return q < d->zero_point ? d->zero_point : q;
}

/* Channels from `from` on of one pixel, a token of a block of `lanes` tokens. */
static MCUF_OWN_STACK void one_pixel(const mcuf_depthwise* d, const mcuf_depthwise_rows* rows, int32_t x, int32_t from,
                                     int16_t* token, int32_t lanes) {
  const mcuf_depthwise_pixel pixel = mcuf_depthwise_pixel_at(d, rows, x);
  for (int32_t c = from; c < d->channels; c += 2) {
    int16_t* pair = token + c * lanes;
    pair[0] = (int16_t)channel_of(d, &pixel, c);
    pair[1] = c + 1 < d->channels ? (int16_t)channel_of(d, &pixel, c + 1) : 0;
  }
}

/* The first `whole` channels of up to four pixels; those that are missing are made of nothing, and not needed. */
static MCUF_OWN_STACK void four_pixels(const mcuf_depthwise* d, const mcuf_depthwise_rows* rows, int32_t x,
                                       int16_t* block, int32_t whole) {
  depthwise_args args;
  const int8_t** at = args.at;
  for (int32_t y = 0; y < 3; ++y) {
    for (int32_t column = x - 1; column < x - 1 + COLUMNS; ++column) {
      const bool inside = rows->row[y] != NULL && column >= 0 && column < d->width;
      *at++ = inside ? rows->row[y] + (ptrdiff_t)column * d->channels : rows->outside;
    }
  }
  const int8_t* weights = d->weights;
  for (int32_t tap = 0; tap < MCUF_DEPTHWISE_TAPS; ++tap, weights += d->channels) args.weights[tap] = weights;
  args.bias = d->bias;
  args.multiplier = d->multiplier;
  args.zero_point = d->zero_point;
  args.least = (uint32_t)(uint16_t)d->zero_point * 0x10001u;
  args.block = block;
  args.channels = whole;
  mcuf_depthwise4_dsp(&args);
}

void mcuf_depthwise_pixels(const mcuf_depthwise* d, const mcuf_depthwise_rows* rows, int32_t x, int16_t* block,
                           int32_t count) {
  const int32_t lanes = count == 3 ? MCUF_TOKEN_BLOCK : count;
  const int32_t whole = lanes == MCUF_TOKEN_BLOCK ? d->channels & ~3 : 0;
  if (whole > 0) four_pixels(d, rows, x, block, whole);
  for (int32_t t = 0; t < count && whole < d->channels; ++t) one_pixel(d, rows, x + t, whole, block + 2 * t, lanes);
}
#endif /* MCUF_DSP */
