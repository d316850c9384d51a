/* SPDX-License-Identifier: Apache-2.0
 *
 * StreamedMLP: the MLP half of a layer in place on the residual stream, a few tokens at a time:
 *
 *   stream[t] = fcs(layer_norm(stream[t])) + stream[t]
 *
 * The chain of fully connected layers has a GELU table where the network has its GELU, and a residual at its end. Only
 * tokens_at_once tokens ever exist between LayerNorm and residual. The same bits as IntLayerNorm and InPlaceFC in
 * sequence. LayerNorm may be left out (post-norm networks). */
#ifndef MCUF_STREAMED_MLP_S8_H_
#define MCUF_STREAMED_MLP_S8_H_

#include "mcuf_in_place_fc_s8.h"
#include "mcuf_int_layer_norm_s8.h"
#include "mcuf_wide_stream.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MCUF_STREAMED_MLP_MAX_FCS 4 /* both matrices as two factors */

typedef struct {
  int32_t tokens;                  /* 1 .. MCUF_MAX_TOKENS */
  int32_t tokens_at_once;          /* 1 .. MCUF_MAX_TOKENS; multiples of 4 are fastest */
  mcuf_int_layer_norm_params norm; /* its tokens are not read; gamma NULL: no LayerNorm, all but features is 0 */
  int32_t fc_count; /* 1 .. MCUF_STREAMED_MLP_MAX_FCS; tokens, in_stride, tokens_per_read of the layers are not read */
  mcuf_in_place_fc_params fcs[MCUF_STREAMED_MLP_MAX_FCS]; /* the last has a residual; all staged, or none */
  const mcuf_wide_stream* wide; /* &mcuf_wide: the stream is int16, and there is a LayerNorm; NULL: int8 */
} mcuf_streamed_mlp_params;

/* Checks everything that the kernel trusts about params. */
MCUF_API mcuf_status mcuf_streamed_mlp_s8_check(const mcuf_streamed_mlp_params* params);

/* Bytes of scratch, 4-byte aligned. even, odd: the most input channels of layers 0, 2 .. and 1, 3 ..; tile_bytes: 0 if
 * weights are not staged. */
MCUF_API int32_t mcuf_streamed_mlp_s8_scratch_bytes(int32_t tokens_at_once, int32_t even, int32_t odd,
                                                    int32_t tile_bytes);

/* The same, for these params. */
MCUF_API int32_t mcuf_streamed_mlp_s8_scratch_bytes_of(const mcuf_streamed_mlp_params* params);

/* stream [tokens, d], overwritten: int8, or int16 if it is wide. */
MCUF_API mcuf_status mcuf_streamed_mlp_s8(const mcuf_streamed_mlp_params* params, void* stream, void* scratch);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_STREAMED_MLP_S8_H_ */
