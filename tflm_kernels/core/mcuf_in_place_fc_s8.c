/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_in_place_fc_s8.h"

#include "mcuf_dot.h"
#include "mcuf_fixed_point.h"

mcuf_status mcuf_in_place_fc_s8_check(const mcuf_in_place_fc_params* p, int32_t has_residual) {
  if (p->weights == NULL) return MCUF_ERROR_NULL;
  if (p->tokens < 1 || p->tokens > MCUF_MAX_TOKENS || p->in_features < 1 || p->in_features > MCUF_MAX_FEATURES ||
      p->out_features < 1 || p->out_features > MCUF_MAX_FEATURES || p->in_stride < p->in_features ||
      p->in_stride > 4 * MCUF_MAX_FEATURES) {
    return MCUF_ERROR_SIZE;
  }
  if (p->zero_point < -128 || p->zero_point > 127) return MCUF_ERROR_VALUE;
  if (has_residual && p->residual_scale == NULL) return MCUF_ERROR_NULL;
  return mcuf_check_requantisation(p->bias, p->multiplier, p->out_features);
}

int32_t mcuf_in_place_fc_s8_scratch_bytes(int32_t in_features) {
  return MCUF_TOKEN_BLOCK * in_features * (int32_t)sizeof(int16_t);
}

/* Outputs of tokens [first, first + count), count <= 4, whose inputs lie in scratch. */
static void finish_block(const mcuf_in_place_fc_params* p, int32_t first, int32_t count, const int16_t* rows,
                         const int8_t* residual, int8_t* output) {
  for (int32_t o = 0; o < p->out_features; o += 2) {
    const int32_t pair = o + 1 < p->out_features ? 2 : 1;
    const int8_t* weights = p->weights + (ptrdiff_t)o * p->in_features;
    int32_t acc[8];
    for (int32_t i = 0; i < 8; ++i) acc[i] = p->bias[o + (i >= 4 ? pair - 1 : 0)];
    mcuf_dot_4x2(rows, weights, weights + (pair - 1) * p->in_features, p->in_features, -128, acc);
    for (int32_t j = 0; j < pair; ++j) {
      for (int32_t t = 0; t < count; ++t) {
        const ptrdiff_t at = (ptrdiff_t)(first + t) * p->out_features + o + j;
        int32_t a = acc[4 * j + t];
        if (residual != NULL) a += (int32_t)p->residual_scale[o + j] * residual[at];
        const int8_t q = mcuf_requantise(a, p->multiplier[o + j], p->zero_point);
        output[at] = p->gelu_table != NULL ? p->gelu_table[q + 128] : q;
      }
    }
  }
}

mcuf_status mcuf_in_place_fc_s8(const mcuf_in_place_fc_params* p, const int8_t* input, const int8_t* residual,
                                int8_t* output, void* scratch) {
  const size_t in_bytes = (size_t)(p->tokens - 1) * (size_t)p->in_stride + (size_t)p->in_features;
  const size_t out_bytes = (size_t)p->tokens * (size_t)p->out_features;
  if (output != input && mcuf_overlap(output, out_bytes, input, in_bytes)) return MCUF_ERROR_OVERLAP;
  if (residual != NULL && output != residual && mcuf_overlap(output, out_bytes, residual, out_bytes)) {
    return MCUF_ERROR_OVERLAP;
  }
  int16_t* rows = (int16_t*)scratch;
  const int32_t blocks = (p->tokens + MCUF_TOKEN_BLOCK - 1) / MCUF_TOKEN_BLOCK;
  const bool grows = p->out_features > p->in_stride;
  for (int32_t b = 0; b < blocks; ++b) {
    const int32_t first = MCUF_TOKEN_BLOCK * (grows ? blocks - 1 - b : b);
    const int32_t left = p->tokens - first;
    const int32_t count = left < MCUF_TOKEN_BLOCK ? left : MCUF_TOKEN_BLOCK;
    for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) { /* a short block repeats its last token */
      const int32_t token = first + (t < count ? t : count - 1);
      mcuf_expand_s16(input + (ptrdiff_t)token * p->in_stride, p->in_features, -128, rows + (ptrdiff_t)t * p->in_features);
    }
    finish_block(p, first, count, rows, residual, output);
  }
  return MCUF_OK;
}
