/* SPDX-License-Identifier: Apache-2.0
 *
 * StemConv: 3x3 convolution, stride 2, padding 1, batch-norm folded, activation fused: the stem for small images.
 *
 *   acc    = bias[o] + sum weights[o, y, x, c] * input[2 i + y - 1, 2 j + x - 1, c]  (+ position_scale[o] * position)
 *   output = max(act_min, sat8(zero_point + mulhi_round(acc, multiplier[o])))
 *
 * Outside the image, input is pad_value. act_min = zero_point makes a ReLU. The last one of a stem adds the position
 * table, and rows that are constants, the prefix, stand before its tokens. Output pixels are gathered in blocks of four
 * tokens of 9 in_channels inputs, then go through the fully connected layer of mcuf_in_place_fc_s8.h. */
#ifndef MCUF_STEM_CONV_S8_H_
#define MCUF_STEM_CONV_S8_H_

#include "mcuf_packing.h"
#include "mcuf_types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MCUF_STEM_TAPS 9
#define MCUF_STEM_MAX_CHANNELS 1024 /* of the input */

typedef struct {
  int32_t height, width; /* of the input, pixels, 1 .. MCUF_MAX_IMAGE_SIDE; the output has half of both, rounded up */
  int32_t in_channels;   /* 1 .. MCUF_STEM_MAX_CHANNELS */
  int32_t out_channels;  /* 1 .. MCUF_MAX_FEATURES */
  int32_t pad_value;     /* -128 .. 127 */
  int32_t zero_point;    /* of the output, -128 .. 127 */
  int32_t act_min;       /* -128 .. 127 */
  int32_t packing;       /* of weights; a row is all taps of an output: MCUF_PACKING_* */
  const int8_t* weights; /* [out_channels, 3, 3, in_channels] as packed, pairs 4-byte aligned */
  const int32_t* bias;   /* [out_channels] */
  const int32_t* multiplier;     /* [out_channels] */
  const int8_t* position;        /* [out_height * out_width, out_channels], or NULL */
  const int16_t* position_scale; /* [out_channels], NULL with position */
  int32_t prefix_tokens;         /* 0 .. MCUF_MAX_TOKENS, with the output's pixels */
  const int8_t* prefix;          /* [prefix_tokens, out_channels], copied to the front of the output; NULL without */
} mcuf_stem_conv_params;

/* Checks everything that the kernel trusts about params. */
MCUF_API mcuf_status mcuf_stem_conv_s8_check(const mcuf_stem_conv_params* params);

/* Bytes of scratch, 4-byte aligned: the inputs of four output pixels as int16. */
MCUF_API int32_t mcuf_stem_conv_s8_scratch_bytes(int32_t in_channels);

/* input [height, width, in_channels], output [prefix_tokens + ceil(height / 2) * ceil(width / 2), out_channels]. No
 * overlap. */
MCUF_API mcuf_status mcuf_stem_conv_s8(const mcuf_stem_conv_params* params, const int8_t* input, int8_t* output,
                                       void* scratch);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_STEM_CONV_S8_H_ */
