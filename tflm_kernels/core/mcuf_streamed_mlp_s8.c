/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_streamed_mlp_s8.h"

#include "mcuf_fixed_point.h"

mcuf_status mcuf_streamed_mlp_s8_check(const mcuf_streamed_mlp_params* p) {
  if (p->tokens < 1 || p->tokens > MCUF_MAX_TOKENS || p->block < 1 || p->block > MCUF_MAX_TOKENS || p->fc_count < 1 ||
      p->fc_count > MCUF_STREAMED_MLP_MAX_FCS) {
    return MCUF_ERROR_SIZE;
  }
  mcuf_int_layer_norm_params norm = p->norm;
  norm.tokens = p->tokens;
  mcuf_status status = mcuf_int_layer_norm_s8_check(&norm);
  int32_t features = p->norm.features;
  for (int32_t i = 0; i < p->fc_count && status == MCUF_OK; ++i) {
    mcuf_in_place_fc_params fc = p->fcs[i];
    if (fc.in_features != features) return MCUF_ERROR_SIZE;
    fc.tokens = p->tokens;
    fc.in_stride = fc.in_features;
    status = mcuf_in_place_fc_s8_check(&fc, i + 1 == p->fc_count);
    features = fc.out_features;
  }
  if (status == MCUF_OK && features != p->norm.features) return MCUF_ERROR_SIZE;
  return status;
}

int32_t mcuf_streamed_mlp_s8_widest(const mcuf_streamed_mlp_params* p) {
  int32_t widest = p->norm.features;
  for (int32_t i = 0; i + 1 < p->fc_count; ++i) {
    if (p->fcs[i].out_features > widest) widest = p->fcs[i].out_features;
  }
  return widest;
}

/* Scratch: that of the fully connected layers, then int8 tokens [block, widest] */
int32_t mcuf_streamed_mlp_s8_scratch_bytes(int32_t block, int32_t widest) {
  return mcuf_in_place_fc_s8_scratch_bytes(widest) + block * widest;
}

mcuf_status mcuf_streamed_mlp_s8(const mcuf_streamed_mlp_params* p, int8_t* stream, void* scratch) {
  const int32_t d = p->norm.features;
  int8_t* rows = (int8_t*)scratch + mcuf_in_place_fc_s8_scratch_bytes(mcuf_streamed_mlp_s8_widest(p));
  for (int32_t first = 0; first < p->tokens; first += p->block) {
    const int32_t left = p->tokens - first;
    const int32_t count = left < p->block ? left : p->block;
    int8_t* block = stream + (ptrdiff_t)first * d;
    mcuf_int_layer_norm_params norm = p->norm;
    norm.tokens = count;
    mcuf_status status = mcuf_int_layer_norm_s8(&norm, block, rows);
    for (int32_t i = 0; i < p->fc_count && status == MCUF_OK; ++i) {
      mcuf_in_place_fc_params fc = p->fcs[i];
      fc.tokens = count;
      fc.in_stride = fc.in_features;
      const bool last = i + 1 == p->fc_count;
      status = mcuf_in_place_fc_s8(&fc, rows, last ? block : NULL, last ? block : rows, scratch);
    }
    if (status != MCUF_OK) return status;
  }
  return MCUF_OK;
}
