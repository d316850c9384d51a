/* SPDX-License-Identifier: Apache-2.0
 *
 * StreamedStem: all convolutions of a convolution stem as one op, row by row. The same bits as a chain of StemConv ops
 * (mcuf_stem_conv_s8.h) with a ReLU after each but the last, which adds the position table and makes the tokens. Behind
 * each but the last there may be a block, an inverted residual at its resolution:
 *
 *   h = max(zero_point of h, requantise(bias + sum weights * x))           expand: of each pixel x, c -> hidden
 *   g = max(zero_point of g, requantise(bias[i] + sum weights[t, i] * h))  depthwise: 3x3 of each channel, stride 1
 *   y = requantise(bias + sum weights * g + residual_scale * x)            project: hidden -> c; y replaces x
 *
 * requantise as in mcuf_in_place_fc_s8.h. Outside the level, h and y are their zero points.
 *
 * Level 0 is the image, level m what convolution m - 1 makes. Of each level but the tokens, three rows exist at most:
 * the pair that a row of the next level covers, and the last row of the pair before, which that row needs too. As soon
 * as a pair is whole, the next level's row is made of it; then the pair is dead, and its memory serves the convolutions
 * behind it as scratch. A block has three rows of h, and one more of x: that of the next pair, which the last row of y
 * of this pair needs. */
#ifndef MCUF_STREAMED_STEM_S8_H_
#define MCUF_STREAMED_STEM_S8_H_

#include "mcuf_image_rows.h"
#include "mcuf_stem_conv_s8.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MCUF_STREAMED_STEM_MAX_CONVS 8 /* patches of 256 pixels */
#define MCUF_STREAMED_STEM_STRIP_ROWS 2

typedef struct {
  int32_t out_channels;      /* 1 .. MCUF_STEM_MAX_CHANNELS; of the last 1 .. MCUF_MAX_FEATURES */
  int32_t zero_point;        /* of the output, -128 .. 127; also what the next convolution reads outside the image */
  const int8_t* weights;     /* [out_channels, 3, 3, in_channels] as packed, pairs 4-byte aligned */
  const int32_t* bias;       /* [out_channels] */
  const int32_t* multiplier; /* [out_channels] */
} mcuf_streamed_stem_conv;

/* The block behind a convolution of c outputs. */
typedef struct {
  int32_t hidden;                      /* 1 .. MCUF_STEM_MAX_CHANNELS; 0: no block, and nothing else is read */
  int32_t expand_zero_point;           /* of h, -128 .. 127 */
  int32_t depthwise_zero_point;        /* of g, -128 .. 127 */
  int32_t zero_point;                  /* of y, -128 .. 127; also what the next convolution reads outside the level */
  const int8_t* expand_weights;        /* [hidden, c] as packed, pairs 4-byte aligned */
  const int32_t* expand_bias;          /* [hidden] */
  const int32_t* expand_multiplier;    /* [hidden] */
  const int8_t* depthwise_weights;     /* [9, hidden], -127 .. 127 */
  const int32_t* depthwise_bias;       /* [hidden] */
  const int32_t* depthwise_multiplier; /* [hidden] */
  const int8_t* project_weights;       /* [c, hidden] as packed, pairs 4-byte aligned */
  const int32_t* project_bias;         /* [c] */
  const int32_t* project_multiplier;   /* [c] */
  const int16_t* residual_scale;       /* [c] */
} mcuf_stem_block;

/* Their kernels. Params point to them, so that a program without blocks has none of their code. */
typedef struct mcuf_stem_block_kernels mcuf_stem_block_kernels;
MCUF_API extern const mcuf_stem_block_kernels mcuf_stem_blocks;

typedef struct {
  int32_t image_height, image_width; /* pixels, 1 .. MCUF_MAX_IMAGE_SIDE */
  int32_t channels;                  /* of the image, 1 .. MCUF_STEM_MAX_CHANNELS */
  int32_t pad_value;                 /* what the first convolution reads outside the image, -128 .. 127 */
  int32_t pixels_at_once;            /* output pixels that are gathered together, 1 .. 4; 4 is fastest */
  int32_t packing;                   /* of all weights; a row is all taps of an output: MCUF_PACKING_* */
  int32_t conv_count;                /* 1 .. MCUF_STREAMED_STEM_MAX_CONVS */
  mcuf_streamed_stem_conv convs[MCUF_STREAMED_STEM_MAX_CONVS];
  const int8_t* position;        /* [rows * columns of tokens, d], d = out_channels of the last; or NULL */
  const int16_t* position_scale; /* [d], NULL with position */
  int32_t prefix_tokens;         /* 0 .. MCUF_MAX_TOKENS, with the others */
  const int8_t* prefix;          /* [prefix_tokens, d], copied to the front of the output; NULL without */
  const mcuf_stem_block* blocks; /* [conv_count - 1], behind each convolution but the last; NULL: none */
  const mcuf_stem_block_kernels* block_kernels; /* &mcuf_stem_blocks; not read without blocks */
} mcuf_streamed_stem_params;

/* Checks everything that the kernel trusts about params. */
MCUF_API mcuf_status mcuf_streamed_stem_s8_check(const mcuf_streamed_stem_params* params);

/* Bytes of scratch, 4-byte aligned: the rows of all levels, and what the inputs of pixels_at_once pixels (as int16)
 * take beside the rows that are dead by then. in_channels: of each convolution; hidden: of the block behind each but
 * the last, 0 without one, or NULL; strips: whether the image comes in strips, 0 or 1; a pair of its rows is in scratch
 * then, and with one convolution alone. */
MCUF_API int32_t mcuf_streamed_stem_s8_scratch_bytes(const int32_t* in_channels, const int32_t* hidden,
                                                     int32_t conv_count, int32_t image_height, int32_t image_width,
                                                     int32_t pixels_at_once, int32_t strips);

/* The same, for these params. */
MCUF_API int32_t mcuf_streamed_stem_s8_scratch_bytes_of(const mcuf_streamed_stem_params* params, int32_t strips);

/* image [height, width, channels], output [prefix_tokens + rows * columns of tokens, d]; rows and columns are height
 * and width halved conv_count times, rounded up. output may equal image: tokens then overwrite consumed image rows. If
 * a row of tokens is larger than its image rows, the image moves first, to where the output ends; else the tokens move
 * behind the prefix when all are done. No other overlap. */
MCUF_API mcuf_status mcuf_streamed_stem_s8(const mcuf_streamed_stem_params* params, const int8_t* image, int8_t* output,
                                           void* scratch);

/* The same from an image that is never whole in memory; its rows are requested MCUF_STREAMED_STEM_STRIP_ROWS at a time,
 * the last of an odd number alone. output overlaps nothing. MCUF_ERROR_SOURCE if rows_fn fails. */
MCUF_API mcuf_status mcuf_streamed_stem_strips_s8(const mcuf_streamed_stem_params* params, mcuf_image_rows_fn rows_fn,
                                                  void* user, int8_t* output, void* scratch);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_STREAMED_STEM_S8_H_ */
