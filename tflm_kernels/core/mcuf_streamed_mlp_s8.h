/* SPDX-License-Identifier: Apache-2.0
 *
 * StreamedMLP: the MLP half of a layer in place on the residual stream, a block of tokens at a time:
 *
 *   stream[t] = fcs(layer_norm(stream[t])) + stream[t]
 *
 * The chain of fully connected layers has a GELU table where the network has its GELU, and a residual at its end. Only
 * a block of tokens ever exists between LayerNorm and residual. The same arithmetic, bit for bit, as IntLayerNorm and
 * InPlaceFC one after the other. */
#ifndef MCUF_STREAMED_MLP_S8_H_
#define MCUF_STREAMED_MLP_S8_H_

#include "mcuf_in_place_fc_s8.h"
#include "mcuf_int_layer_norm_s8.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MCUF_STREAMED_MLP_MAX_FCS 4 /* both matrices as two factors */

typedef struct {
  int32_t tokens;                    /* 1 .. MCUF_MAX_TOKENS */
  int32_t block;                     /* tokens at a time, 1 .. MCUF_MAX_TOKENS; multiples of 4 are fastest */
  mcuf_int_layer_norm_params norm;   /* its tokens are not read */
  int32_t fc_count;                  /* 1 .. MCUF_STREAMED_MLP_MAX_FCS */
  mcuf_in_place_fc_params fcs[MCUF_STREAMED_MLP_MAX_FCS]; /* tokens and in_stride are not read; the last has a residual */
} mcuf_streamed_mlp_params;

/* Everything the kernel trusts about params. */
MCUF_API mcuf_status mcuf_streamed_mlp_s8_check(const mcuf_streamed_mlp_params* params);

/* Bytes of scratch, 4-byte aligned. widest: the most channels of a token between LayerNorm and the last layer. */
MCUF_API int32_t mcuf_streamed_mlp_s8_scratch_bytes(int32_t block, int32_t widest);

/* The widest of params, for mcuf_streamed_mlp_s8_scratch_bytes. */
MCUF_API int32_t mcuf_streamed_mlp_s8_widest(const mcuf_streamed_mlp_params* params);

/* stream [tokens, d], overwritten. */
MCUF_API mcuf_status mcuf_streamed_mlp_s8(const mcuf_streamed_mlp_params* params, int8_t* stream, void* scratch);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_STREAMED_MLP_S8_H_ */
