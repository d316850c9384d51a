/* SPDX-License-Identifier: Apache-2.0
 *
 * TokenMean: mean over tokens, int8 -> int8 of its own scale (TFLM's MEAN takes more RAM, and floats on some targets).
 *
 *   acc[c] = (sum_t input[t, c] - tokens * in_zero_point) * 128
 *   out[c] = sat8(zero_point + mulhi_round(acc[c], multiplier)) */
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
  int32_t multiplier;    /* round(in_scale / (out_scale * tokens * 128) * 2^32), >= 0 */
} mcuf_token_mean_params;

/* Checks everything that the kernel trusts about params. */
MCUF_API mcuf_status mcuf_token_mean_s8_check(const mcuf_token_mean_params* params);

/* input [tokens, features], output [features]. output may equal input; no other overlap. Needs no scratch. */
MCUF_API mcuf_status mcuf_token_mean_s8(const mcuf_token_mean_params* params, const int8_t* input, int8_t* output);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_TOKEN_MEAN_S8_H_ */
