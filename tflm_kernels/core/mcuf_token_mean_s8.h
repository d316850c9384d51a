/* SPDX-License-Identifier: Apache-2.0
 *
 * TokenMean: means over one or two ranges of tokens, int8 -> int8 of their own scales (TFLM's MEAN takes more RAM, and
 * floats on some targets). For each range, of `count` tokens:
 *
 *   acc[c] = (sum_t input[t, c] - count * in_zero_point) * 128
 *   out[c] = sat8(zero_point + mulhi_round(acc[c], multiplier))
 *
 * int16 -> int16 of the same scale, on a wide residual stream (mcuf_wide_stream.h), in 64 bits, zero points 0:
 *
 *   out[c] = (sum_t input[t, c] * multiplier + 2^23) >> 24           multiplier = round(2^24 / count)
 *
 * The outputs of a second range follow those of the first. A range of one token is copied as it is if scale and zero
 * point stay. */
#ifndef MCUF_TOKEN_MEAN_S8_H_
#define MCUF_TOKEN_MEAN_S8_H_

#include "mcuf_types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  int32_t tokens;        /* 1 .. MCUF_MAX_TOKENS */
  int32_t features;      /* 1 .. MCUF_MAX_FEATURES */
  int32_t in_zero_point; /* -128 .. 127 */
  int32_t zero_point;    /* of the output, -128 .. 127 */
  int32_t multiplier;    /* of the first range, round(in_scale / (out_scale * count * 128) * 2^32), >= 0 */
  /* The ranges, inside the tokens; left at 0, one of all tokens. */
  int32_t first_token;
  int32_t token_count; /* 0: all tokens, from the first */
  int32_t second_token;
  int32_t second_count; /* 0: there is no second range */
  int32_t second_multiplier;
} mcuf_token_mean_params;

/* Checks everything that the kernel trusts about params. */
MCUF_API mcuf_status mcuf_token_mean_s8_check(const mcuf_token_mean_params* params);

/* input [tokens, features], output [features], or [2 * features] with a second range. output may equal input; no other
 * overlap. Needs no scratch. */
MCUF_API mcuf_status mcuf_token_mean_s8(const mcuf_token_mean_params* params, const int8_t* input, int8_t* output);

/* The same for int16: zero points are 0. */
MCUF_API mcuf_status mcuf_token_mean_s16_check(const mcuf_token_mean_params* params);

/* The same for int16. */
MCUF_API mcuf_status mcuf_token_mean_s16(const mcuf_token_mean_params* params, const int16_t* input, int16_t* output);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_TOKEN_MEAN_S8_H_ */
