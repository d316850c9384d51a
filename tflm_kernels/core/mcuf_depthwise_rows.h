/* SPDX-License-Identifier: Apache-2.0
 *
 * Output pixels of one row of a 3x3 depthwise convolution of stride 1 with a ReLU, as a block (mcuf_block.h) for the
 * layer behind it. Internal to the C kernels. mcuf_streamed_stem_s8.h specifies the arithmetic. */
#ifndef MCUF_DEPTHWISE_ROWS_H_
#define MCUF_DEPTHWISE_ROWS_H_

#include <stdbool.h>

#include "mcuf_block.h"

#define MCUF_DEPTHWISE_TAPS 9

typedef struct {
  int32_t channels;
  int32_t width;         /* pixels of a row */
  int32_t zero_point;    /* of the output, which is raised to it */
  const int8_t* weights; /* [9, channels], -127 .. 127 */
  const int32_t* bias;
  const int32_t* multiplier;
} mcuf_depthwise;

/* The rows before, at and behind the output row; NULL for those outside. outside: what every pixel out there holds,
 * [channels]. */
typedef struct {
  const int8_t* row[3];
  const int8_t* outside;
} mcuf_depthwise_rows;

/* The pixels that an output pixel is made of, tap by tap. */
typedef struct {
  const int8_t* tap[MCUF_DEPTHWISE_TAPS];
} mcuf_depthwise_pixel;

static inline mcuf_depthwise_pixel mcuf_depthwise_pixel_at(const mcuf_depthwise* d, const mcuf_depthwise_rows* rows,
                                                           int32_t x) {
  mcuf_depthwise_pixel pixel;
  for (int32_t tap = 0; tap < MCUF_DEPTHWISE_TAPS; ++tap) {
    const int8_t* row = rows->row[tap / 3];
    const int32_t column = x - 1 + tap % 3;
    const bool inside = row != NULL && column >= 0 && column < d->width;
    pixel.tap[tap] = inside ? row + (ptrdiff_t)column * d->channels : rows->outside;
  }
  return pixel;
}

/* Output pixels [x, x + count), 1 .. 4, as a block. */
void mcuf_depthwise_pixels(const mcuf_depthwise* d, const mcuf_depthwise_rows* rows, int32_t x, int16_t* block,
                           int32_t count);

#endif /* MCUF_DEPTHWISE_ROWS_H_ */
