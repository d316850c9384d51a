/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_streamed_mlp_s8.h"

#include "mcuf_fixed_point.h"
#include "mcuf_streamed_norm.h"
#include "mcuf_target.h"
#ifdef MCUF_DISPATCH
#include MCUF_DISPATCH
#endif

mcuf_status mcuf_streamed_mlp_s8_check(const mcuf_streamed_mlp_params* p) {
  if (p->tokens < 1 || p->tokens > MCUF_MAX_TOKENS || p->tokens_at_once < 1 || p->tokens_at_once > MCUF_MAX_TOKENS ||
      p->fc_count < 1 || p->fc_count > MCUF_STREAMED_MLP_MAX_FCS) {
    return MCUF_ERROR_SIZE;
  }
  mcuf_status status = mcuf_streamed_norm_check(&p->norm, p->tokens, p->wide);
  int32_t features = p->norm.features;
  for (int32_t i = 0; i < p->fc_count && status == MCUF_OK; ++i) {
    mcuf_in_place_fc_params fc = p->fcs[i];
    if (fc.in_features != features || fc.staged.tile_bytes != p->fcs[0].staged.tile_bytes) return MCUF_ERROR_SIZE;
    fc.tokens = fc.tokens_per_read = p->tokens;
    fc.in_stride = fc.in_features;
    status = mcuf_in_place_fc_s8_check(&fc, i + 1 == p->fc_count);
    features = fc.out_features;
  }
  if (status == MCUF_OK && features != p->norm.features) return MCUF_ERROR_SIZE;
  if (status == MCUF_OK && p->wide != NULL) return mcuf_wide_fc_check(&p->fcs[p->fc_count - 1]);
  return status;
}

static int32_t most_inputs(const mcuf_streamed_mlp_params* p, int32_t first) {
  int32_t most = 0;
  for (int32_t i = first; i < p->fc_count; i += 2) most = p->fcs[i].in_features > most ? p->fcs[i].in_features : most;
  return most;
}

/* Sizes of the parts of scratch, in bytes and in order. */
typedef struct {
  int32_t work; /* of the fully connected layers */
  int32_t even; /* int8 [tokens_at_once, ..], inputs of the layers 0, 2 .. */
  int32_t odd;  /* of layers 1, 3 ..: separate only if weights are staged, else in the same place */
} mlp_parts;

static mlp_parts parts_of(int32_t tokens_at_once, int32_t even, int32_t odd, int32_t tile_bytes) {
  const int32_t widest = even > odd ? even : odd;
  const mlp_parts parts = {mcuf_in_place_fc_s8_scratch_bytes(widest, tile_bytes, 0),
                           tokens_at_once * (tile_bytes > 0 ? even : widest),
                           tile_bytes > 0 ? tokens_at_once * odd : 0};
  return parts;
}

int32_t mcuf_streamed_mlp_s8_scratch_bytes(int32_t tokens_at_once, int32_t even, int32_t odd, int32_t tile_bytes) {
  const mlp_parts parts = parts_of(tokens_at_once, even, odd, tile_bytes);
  return parts.work + parts.even + parts.odd;
}

int32_t mcuf_streamed_mlp_s8_scratch_bytes_of(const mcuf_streamed_mlp_params* p) {
  return mcuf_streamed_mlp_s8_scratch_bytes(p->tokens_at_once, most_inputs(p, 0), most_inputs(p, 1),
                                            p->fcs[0].staged.tile_bytes);
}

mcuf_status MCUF_PORTABLE_NAME(mcuf_streamed_mlp_s8)(const mcuf_streamed_mlp_params* p, void* stream, void* scratch) {
  const int32_t token_bytes = p->norm.features * mcuf_stream_bytes(p->wide);
  const mlp_parts size = parts_of(p->tokens_at_once, most_inputs(p, 0), most_inputs(p, 1), p->fcs[0].staged.tile_bytes);
  int8_t* const even = (int8_t*)scratch + size.work;
  int8_t* const odd = size.odd > 0 ? even + size.even : even;
  for (int32_t first = 0; first < p->tokens; first += p->tokens_at_once) {
    const int32_t left = p->tokens - first;
    const int32_t count = left < p->tokens_at_once ? left : p->tokens_at_once;
    int8_t* tokens = (int8_t*)stream + (ptrdiff_t)first * token_bytes;
    mcuf_status status = mcuf_streamed_norm(&p->norm, p->wide, tokens, count, even);
    for (int32_t i = 0; i < p->fc_count && status == MCUF_OK; ++i) {
      mcuf_in_place_fc_params fc = p->fcs[i];
      fc.tokens = fc.tokens_per_read = count;
      fc.in_stride = fc.in_features;
      const bool last = i + 1 == p->fc_count;
      if (last && p->wide != NULL) {
        status = p->wide->add_fc(&fc, i % 2 == 0 ? even : odd, (int16_t*)(void*)tokens, scratch);
        break;
      }
      status = mcuf_in_place_fc_s8(&fc, i % 2 == 0 ? even : odd, last ? tokens : NULL,
                                   last         ? tokens
                                   : i % 2 == 0 ? odd
                                                : even,
                                   scratch);
    }
    if (status != MCUF_OK) return status;
  }
  return MCUF_OK;
}
