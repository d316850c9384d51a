/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_token_mean_s8.h"

#include "mcuf_fixed_point.h"

#define SUM_SHIFT 7 /* keeps the scale below 0.5 for a single token too */

mcuf_status mcuf_token_mean_s8_check(const mcuf_token_mean_params* p) {
  if (p->tokens < 1 || p->tokens > MCUF_MAX_TOKENS || p->features < 1 || p->features > MCUF_MAX_FEATURES) {
    return MCUF_ERROR_SIZE;
  }
  if (!mcuf_is_int8(p->in_zero_point) || !mcuf_is_int8(p->zero_point) || p->multiplier < 0) return MCUF_ERROR_VALUE;
  return MCUF_OK;
}

mcuf_status mcuf_token_mean_s8(const mcuf_token_mean_params* p, const int8_t* input, int8_t* output) {
  const size_t in_bytes = (size_t)p->tokens * (size_t)p->features;
  if (output != input && mcuf_overlap(output, (size_t)p->features, input, in_bytes)) return MCUF_ERROR_OVERLAP;
  for (int32_t c = 0; c < p->features; ++c) {
    int32_t sum = -p->tokens * p->in_zero_point;
    for (int32_t t = 0; t < p->tokens; ++t) sum += input[(ptrdiff_t)t * p->features + c];
    output[c] = mcuf_requantise(sum * (1 << SUM_SHIFT), p->multiplier, p->zero_point);
  }
  return MCUF_OK;
}
