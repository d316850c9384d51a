/* SPDX-License-Identifier: Apache-2.0
 *
 * IntLayerNorm: layer normalisation of each token in integers, int8 -> int8.
 *
 *   x[c]  = (input[c] - zero_point) * factor[c]                 per-channel scales, as integer factors of one
 *   V     = d * sum x^2 - (sum x)^2 + epsilon                   d^2 times the variance, 64 bit
 *   t[c]  = (d * x[c] - sum x) / sqrt(V)                        normalised value with 10 fraction bits
 *   out   = sat8((t[c] * gamma[c] + beta[c]) >> 16)
 *
 * sqrt(V): V is shifted by an even number of bits into [2^30, 2^32), and three Heron steps r = (r + V / r) / 2 give
 * its root (MCUFormer, fixed-point iteration of the square root). Within 1 LSB of the rounded float64 result.
 *
 * An int16 input, of a wide residual stream (mcuf_wide_stream.h), has zero point 0 and no factors: x[c] = input[c]. */
#ifndef MCUF_INT_LAYER_NORM_S8_H_
#define MCUF_INT_LAYER_NORM_S8_H_

#include "mcuf_types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MCUF_LAYER_NORM_MAX_FEATURES 4096
#define MCUF_LAYER_NORM_MAX_EPSILON (INT64_C(1) << 60)
#define MCUF_LAYER_NORM_MAX_FACTOR 127   /* so that x fits int16 */
#define MCUF_LAYER_NORM_FRACTION_BITS 10 /* of the normalised value t */

/* The limits of the 16-bit loops for DSP; anything else goes through the portable loop, with the same result.
 * Channels: a multiple of four, and then |t| <= (sqrt(d) + 1) * 2^10 < 2^15. The factor of differences, d times
 * a power of two, with per-channel factors: 257 * MCUF_LAYER_NORM_MAX_FACTOR < 2^15. */
#define MCUF_LAYER_NORM_DSP_MAX_FEATURES 900
#define MCUF_LAYER_NORM_DSP_MAX_SCALE INT16_MAX
#define MCUF_LAYER_NORM_DSP_MAX_FACTOR_SCALE 257

typedef struct {
  int32_t tokens;        /* 1 .. MCUF_MAX_TOKENS */
  int32_t features;      /* d, 1 .. MCUF_LAYER_NORM_MAX_FEATURES */
  int32_t zero_point;    /* of the input, -128 .. 127 */
  int64_t epsilon;       /* d^2 * eps / scale^2, 0 .. MCUF_LAYER_NORM_MAX_EPSILON */
  const int16_t* gamma;  /* [d], round(gamma / out_scale * 2^6) */
  const int32_t* beta;   /* [d], (beta / out_scale + out_zero_point) * 2^16 + 2^15, rounded */
  const uint8_t* factor; /* [d], 1 .. MCUF_LAYER_NORM_MAX_FACTOR, or NULL for all 1 */
} mcuf_int_layer_norm_params;

/* Checks everything that the kernel trusts about params; after that no accumulator can overflow. */
MCUF_API mcuf_status mcuf_int_layer_norm_s8_check(const mcuf_int_layer_norm_params* params);

/* input, output: [tokens, features]. output may equal input; no other overlap. Needs no scratch. */
MCUF_API mcuf_status mcuf_int_layer_norm_s8(const mcuf_int_layer_norm_params* params, const int8_t* input,
                                            int8_t* output);

/* The same for an int16 input: zero_point is 0, factor NULL. */
MCUF_API mcuf_status mcuf_int_layer_norm_s16_check(const mcuf_int_layer_norm_params* params);

/* The same for an int16 input. output may have the same address as input; no other overlap. */
MCUF_API mcuf_status mcuf_int_layer_norm_s16(const mcuf_int_layer_norm_params* params, const int16_t* input,
                                             int8_t* output);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_INT_LAYER_NORM_S8_H_ */
