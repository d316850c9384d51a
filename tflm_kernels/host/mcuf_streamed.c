/* SPDX-License-Identifier: Apache-2.0
 *
 * The Streamed ops for processors with panels (mcuf_dispatch.h), which gain with the number of tokens. A
 * microcontroller takes a few tokens through all steps of an op at once, so that they need little scratch; here many go
 * together, in memory beside the arena, whose scratch is then not touched. Only where weights are staged does the
 * model's number of tokens stand: it says how often they are read. */
#include <stdlib.h>

#include "mcuf_dispatch.h"

#define MOST_TOKENS 256

/* Tokens to take at once, in groups of equal size, or nearly; 0: as the model says. */
static int32_t many_tokens(int32_t tokens, int32_t at_once, int32_t tile_bytes) {
  const int32_t groups = (tokens + MOST_TOKENS - 1) / MOST_TOKENS, most = (tokens + groups - 1) / groups;
  return mcuf_host_kernels_in_use()->panels != NULL && tile_bytes == 0 && most > at_once ? most : 0;
}

mcuf_status mcuf_streamed_mlp_s8(const mcuf_streamed_mlp_params* p, void* stream, void* scratch) {
  mcuf_streamed_mlp_params many = *p;
  many.tokens_at_once = many_tokens(p->tokens, p->tokens_at_once, p->fcs[0].staged.tile_bytes);
  void* own = many.tokens_at_once > 0 ? malloc((size_t)mcuf_streamed_mlp_s8_scratch_bytes_of(&many)) : NULL;
  const mcuf_status status =
      mcuf_streamed_mlp_s8_portable(own == NULL ? p : &many, stream, own == NULL ? scratch : own);
  free(own);
  return status;
}

mcuf_status mcuf_streamed_attention_s8(const mcuf_streamed_attention_params* p, void* stream, void* scratch) {
  mcuf_streamed_attention_params many = *p;
  many.tokens_at_once = many_tokens(p->tokens, p->tokens_at_once, p->qkv.staged.tile_bytes);
  many.kv_heads_at_once = p->kv_heads;
  void* own = many.tokens_at_once > 0 ? malloc((size_t)mcuf_streamed_attention_s8_scratch_bytes_of(&many)) : NULL;
  const mcuf_status status =
      mcuf_streamed_attention_s8_portable(own == NULL ? p : &many, stream, own == NULL ? scratch : own);
  free(own);
  return status;
}
