/* SPDX-License-Identifier: Apache-2.0
 *
 * InPlaceFC: a fully connected layer on each token, with optional GELU (a table) and residual, int8.
 *
 *   acc[t, o] = bias[o] + sum_i weights[o, i] * input[t, i]  (+ residual_scale[o] * residual[t, o])
 *   q         = sat8(zero_point + (acc * multiplier[o] + 2^31 >> 32))
 *   output    = gelu_table ? gelu_table[q + 128] : q
 *
 * The input zero point is folded into the bias. Token overwriting (MCUFormer, section on token overwriting): output
 * may equal input (same start). If rows shrink, tokens go from the first to the last; if they grow, from the last to
 * the first; and a block of four tokens is copied to scratch before its outputs are written.
 *
 * Staged weights are read once per tokens_per_read tokens, tile by tile; more tokens read less and take more scratch.
 */
#ifndef MCUF_IN_PLACE_FC_S8_H_
#define MCUF_IN_PLACE_FC_S8_H_

#include "mcuf_packing.h"
#include "mcuf_types.h"
#include "mcuf_weight_source.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  int32_t tokens;                /* 1 .. MCUF_MAX_TOKENS */
  int32_t in_features;           /* 1 .. MCUF_MAX_FEATURES */
  int32_t in_stride;             /* bytes per input token, in_features .. MCUF_MAX_STRIDE; the rest is not read */
  int32_t out_features;          /* 1 .. MCUF_MAX_FEATURES; output tokens are dense */
  int32_t zero_point;            /* of the requantised value (before the table), -128 .. 127 */
  int32_t packing;               /* of weights, MCUF_PACKING_* */
  const int8_t* weights;         /* [out_features, in_features] as packed, pairs 4-byte aligned; not read if staged */
  const int32_t* bias;           /* [out_features], |bias| <= MCUF_MAX_BIAS */
  const int32_t* multiplier;     /* [out_features], round(scale * 2^32), >= 0 */
  const int8_t* gelu_table;      /* [MCUF_GELU_TABLE_SIZE] indexed by value + 128, or NULL */
  const int16_t* residual_scale; /* [out_features], or NULL without residual */
  mcuf_staged_weights staged;    /* tile_bytes 0: none */
  int32_t tokens_per_read;       /* of the weights, 1 .. MCUF_MAX_TOKENS; only if staged */
} mcuf_in_place_fc_params;

/* Checks everything that the kernel trusts about params. has_residual: a residual tensor will be given. */
MCUF_API mcuf_status mcuf_in_place_fc_s8_check(const mcuf_in_place_fc_params* params, int32_t has_residual);

/* Bytes of scratch, 4-byte aligned: four tokens as int16; if weights are staged (tile_bytes > 0) also a tile and, for
 * more than four tokens per read, those as int8. */
MCUF_API int32_t mcuf_in_place_fc_s8_scratch_bytes(int32_t in_features, int32_t tile_bytes, int32_t tokens_per_read);

/* input [tokens, in_stride]; residual [tokens, out_features] or NULL; output [tokens, out_features].
 * output may equal input, and may equal residual; any other overlap is MCUF_ERROR_OVERLAP. */
MCUF_API mcuf_status mcuf_in_place_fc_s8(const mcuf_in_place_fc_params* params, const int8_t* input,
                                         const int8_t* residual, int8_t* output, void* scratch);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_IN_PLACE_FC_S8_H_ */
