/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_streamed_mlp_s8.h"

#include "mcuf_fixed_point.h"
#include "mcuf_streamed_norm.h"

mcuf_status mcuf_streamed_mlp_s8_check(const mcuf_streamed_mlp_params* p) {
  if (p->tokens < 1 || p->tokens > MCUF_MAX_TOKENS || p->block < 1 || p->block > MCUF_MAX_TOKENS || p->fc_count < 1 ||
      p->fc_count > MCUF_STREAMED_MLP_MAX_FCS) {
    return MCUF_ERROR_SIZE;
  }
  mcuf_status status = mcuf_streamed_norm_check(&p->norm, p->tokens);
  int32_t features = p->norm.features;
  for (int32_t i = 0; i < p->fc_count && status == MCUF_OK; ++i) {
    mcuf_in_place_fc_params fc = p->fcs[i];
    if (fc.in_features != features || fc.staged.tile_bytes != p->fcs[0].staged.tile_bytes) return MCUF_ERROR_SIZE;
    fc.tokens = fc.block = p->tokens;
    fc.in_stride = fc.in_features;
    status = mcuf_in_place_fc_s8_check(&fc, i + 1 == p->fc_count);
    features = fc.out_features;
  }
  if (status == MCUF_OK && features != p->norm.features) return MCUF_ERROR_SIZE;
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
  int32_t even; /* int8 [block, ..], inputs of the layers 0, 2 .. */
  int32_t odd;  /* of layers 1, 3 ..: separate only if weights are staged, else in the same place */
} mlp_parts;

static mlp_parts parts_of(int32_t block, int32_t even, int32_t odd, int32_t tile_bytes) {
  const int32_t widest = even > odd ? even : odd;
  const mlp_parts parts = {mcuf_in_place_fc_s8_scratch_bytes(widest, tile_bytes, 0),
                           block * (tile_bytes > 0 ? even : widest), tile_bytes > 0 ? block * odd : 0};
  return parts;
}

int32_t mcuf_streamed_mlp_s8_scratch_bytes(int32_t block, int32_t even, int32_t odd, int32_t tile_bytes) {
  const mlp_parts parts = parts_of(block, even, odd, tile_bytes);
  return parts.work + parts.even + parts.odd;
}

int32_t mcuf_streamed_mlp_s8_scratch_bytes_of(const mcuf_streamed_mlp_params* p) {
  return mcuf_streamed_mlp_s8_scratch_bytes(p->block, most_inputs(p, 0), most_inputs(p, 1),
                                            p->fcs[0].staged.tile_bytes);
}

mcuf_status mcuf_streamed_mlp_s8(const mcuf_streamed_mlp_params* p, int8_t* stream, void* scratch) {
  const int32_t d = p->norm.features;
  const mlp_parts size = parts_of(p->block, most_inputs(p, 0), most_inputs(p, 1), p->fcs[0].staged.tile_bytes);
  int8_t* const even = (int8_t*)scratch + size.work;
  int8_t* const odd = size.odd > 0 ? even + size.even : even;
  for (int32_t first = 0; first < p->tokens; first += p->block) {
    const int32_t left = p->tokens - first;
    const int32_t count = left < p->block ? left : p->block;
    int8_t* block = stream + (ptrdiff_t)first * d;
    mcuf_status status = mcuf_streamed_norm(&p->norm, block, count, even);
    for (int32_t i = 0; i < p->fc_count && status == MCUF_OK; ++i) {
      mcuf_in_place_fc_params fc = p->fcs[i];
      fc.tokens = fc.block = count;
      fc.in_stride = fc.in_features;
      const bool last = i + 1 == p->fc_count;
      status = mcuf_in_place_fc_s8(&fc, i % 2 == 0 ? even : odd, last ? block : NULL,
                                   last         ? block
                                   : i % 2 == 0 ? odd
                                                : even,
                                   scratch);
    }
    if (status != MCUF_OK) return status;
  }
  return MCUF_OK;
}
