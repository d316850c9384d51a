/* SPDX-License-Identifier: Apache-2.0
 *
 * StreamedAttention: the attention half of a layer in place on the residual stream:
 *
 *   stream[t] = proj(attention(qkv(layer_norm(stream))))[t] + stream[t]
 *
 * Keys and values are computed first, kv_heads_at_once heads at a time; then queries, attention and projection, a few
 * tokens at a time. If not all heads fit at once, outputs of earlier passes wait in [tokens, their width]; those of
 * the last pass never do. Each pass computes LayerNorm again. The same bits as IntLayerNorm, InPlaceFC, IntAttention
 * and InPlaceFC in sequence. LayerNorm may be left out (post-norm networks).
 *
 * The matrices of qkv and of the projection may be two factors each (low rank): qkv_rank takes the tokens to a few
 * channels, from which q, k and v are made; proj_rank takes the outputs of attention to a few, which are projected.
 * Each pass computes the former again, as LayerNorm. */
#ifndef MCUF_STREAMED_ATTENTION_S8_H_
#define MCUF_STREAMED_ATTENTION_S8_H_

#include "mcuf_in_place_fc_s8.h"
#include "mcuf_int_attention_s8.h"
#include "mcuf_int_layer_norm_s8.h"
#include "mcuf_wide_stream.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  int32_t tokens;                  /* 1 .. MCUF_ATTENTION_MAX_TOKENS */
  int32_t tokens_at_once;          /* 1 .. MCUF_MAX_TOKENS; multiples of 4 are fastest */
  int32_t num_heads, kv_heads;     /* as in IntAttention */
  int32_t kv_heads_at_once;        /* divides kv_heads; kv_heads: all keys and values are kept */
  int32_t head_dim;                /* 1 .. MCUF_ATTENTION_MAX_HEAD_DIM */
  int32_t zero_point;              /* of the attention's output */
  const int32_t* head_params;      /* [num_heads, 4], as in IntAttention */
  mcuf_int_layer_norm_params norm; /* its tokens are not read; gamma NULL: no LayerNorm, all but features is 0 */
  mcuf_in_place_fc_params
      qkv; /* outputs [q heads | k heads | v heads]; tokens, in_stride, tokens_per_read are not read */
  mcuf_in_place_fc_params proj;      /* has a residual; the same are not read; staged as qkv is, or not */
  mcuf_in_place_fc_params qkv_rank;  /* before qkv, of 1 .. d outputs; out_features 0: none; otherwise as qkv */
  mcuf_in_place_fc_params proj_rank; /* before proj, of 1 .. d outputs; the same */
  mcuf_relative_position relative;
  const mcuf_wide_stream* wide; /* &mcuf_wide: the stream is int16, and there is a LayerNorm; NULL: int8 */
} mcuf_streamed_attention_params;

/* Checks everything that the kernel trusts about params. */
MCUF_API mcuf_status mcuf_streamed_attention_s8_check(const mcuf_streamed_attention_params* params);

/* Bytes of scratch, 4-byte aligned. d: width of the stream; tile_bytes: of all layers, 0 if weights are not staged;
 * qkv_rank: outputs of that layer, 0 without it; table_length: of relative positions, 0 without tables. */
MCUF_API int32_t mcuf_streamed_attention_s8_scratch_bytes(int32_t tokens, int32_t tokens_at_once, int32_t d,
                                                          int32_t num_heads, int32_t kv_heads, int32_t kv_heads_at_once,
                                                          int32_t head_dim, int32_t tile_bytes, int32_t qkv_rank,
                                                          int32_t table_length);

/* The same, for these params. */
MCUF_API int32_t mcuf_streamed_attention_s8_scratch_bytes_of(const mcuf_streamed_attention_params* params);

/* stream [tokens, d], overwritten: int8, or int16 if it is wide. */
MCUF_API mcuf_status mcuf_streamed_attention_s8(const mcuf_streamed_attention_params* params, void* stream,
                                                void* scratch);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_STREAMED_ATTENTION_S8_H_ */
