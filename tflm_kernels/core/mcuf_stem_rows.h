/* SPDX-License-Identifier: Apache-2.0
 *
 * Output pixels of one row of a stem convolution: what StemConv and StreamedStem share. Internal to the C kernels. */
#ifndef MCUF_STEM_ROWS_H_
#define MCUF_STEM_ROWS_H_

#include "mcuf_block.h"
#include "mcuf_stem_conv_s8.h"

/* Input rows 2 y - 1, 2 y and 2 y + 1 of output row y; NULL for those outside the image. */
typedef struct {
  const int8_t* row[3];
} mcuf_stem_rows;

/* Gathers the 3x3 neighbourhoods of `count` (1 .. 4) output pixels of one row, from column out_x on. */
void mcuf_stem_gather(const mcuf_stem_conv_params* params, const mcuf_stem_rows* rows, int32_t out_x, int16_t* block,
                      int32_t count);

/* Gathers that of one output pixel, a token of a block. */
void mcuf_stem_gather_pixel(const mcuf_stem_conv_params* params, const mcuf_stem_rows* rows, int32_t out_x,
                            const mcuf_block_token* token);

/* What the convolution makes of `count` gathered pixels. pixel: the number of the first, by which the position table
 * has it; output: its place. */
void mcuf_stem_pixels(const mcuf_stem_conv_params* params, const int16_t* block, int32_t count, int32_t pixel,
                      int8_t* output);

/* Raises values to `least`, which is a ReLU if that is their zero point. */
void mcuf_stem_raise(int8_t* values, int32_t count, int32_t least);

#endif /* MCUF_STEM_ROWS_H_ */
