/* SPDX-License-Identifier: Apache-2.0
 *
 * Fully connected layers of many tokens for x86-64 with AVX2. */
#include "mcuf_dispatch.h"

#if MCUF_X86
#include "mcuf_panel_avx2.h"

#define OUTPUTS MCUF_PANEL_OUTPUTS_AVX2
#define TOKENS MCUF_PANEL_TOKENS_AVX2

MCUF_AVX2 static void expand(const int8_t* source, int32_t k, void* token) {
  mcuf_expand_avx2(source, k, (int16_t*)token);
}

MCUF_AVX2 static void pack(const int8_t* const* rows, int32_t k, mcuf_panel* panel) {
  mcuf_pack_panel_avx2(rows, k, panel->weights);
}

/* From sums to 16 outputs of a token. */
MCUF_AVX2_INLINE void finish(const mcuf_panel_job* job, ptrdiff_t at, __m256i low, __m256i high) {
  const mcuf_panel* p = job->panel;
  int8_t made[OUTPUTS];
  int8_t* output = job->output + at;
  if (job->residual != NULL) {
    const int8_t* residual = job->residual + at;
    if (job->outputs < OUTPUTS) {
      memset(made, 0, sizeof(made));
      memcpy(made, residual, (size_t)job->outputs);
      residual = made;
    }
    const __m128i r = _mm_loadu_si128((const __m128i*)residual);
    low = _mm256_add_epi32(low, _mm256_mullo_epi32(_mm256_cvtepi8_epi32(r), mcuf_load_avx2(p->residual_scale)));
    high = _mm256_add_epi32(
        high, _mm256_mullo_epi32(_mm256_cvtepi8_epi32(_mm_srli_si128(r, 8)), mcuf_load_avx2(p->residual_scale + 8)));
  }
  const __m256i zero_point = _mm256_set1_epi32(job->zero_point);
  low = _mm256_add_epi32(mcuf_mulhi_round_avx2(low, mcuf_load_avx2(p->multiplier)), zero_point);
  high = _mm256_add_epi32(mcuf_mulhi_round_avx2(high, mcuf_load_avx2(p->multiplier + 8)), zero_point);
  const __m128i q = mcuf_sat8_avx2(low, high);
  if (job->outputs == OUTPUTS && job->gelu_table == NULL) {
    _mm_storeu_si128((__m128i*)output, q);
    return;
  }
  _mm_storeu_si128((__m128i*)made, q);
  for (int32_t i = 0; i < job->outputs; ++i) {
    output[i] = job->gelu_table == NULL ? made[i] : job->gelu_table[made[i] + 128];
  }
}

MCUF_AVX2_INLINE void multiply_tokens(const mcuf_panel_job* job, int tokens) {
  const mcuf_panel* p = job->panel;
  mcuf_panel_sums_avx2 sums;
#pragma GCC unroll 6
  for (int t = 0; t < tokens; ++t) {
    sums.low[t] = mcuf_load_avx2(p->bias);
    sums.high[t] = mcuf_load_avx2(p->bias + 8);
  }
  mcuf_multiply_panel_avx2(&sums, tokens, job->tokens, job->token_size, p->weights, job->units);
#pragma GCC unroll 6
  for (int t = 0; t < tokens; ++t) finish(job, (ptrdiff_t)t * job->stride, sums.low[t], sums.high[t]);
}

MCUF_AVX2 static void multiply(const mcuf_panel_job* job, int32_t tokens) {
  switch (tokens) {
    case 1: multiply_tokens(job, 1); break;
    case 2: multiply_tokens(job, 2); break;
    case 3: multiply_tokens(job, 3); break;
    case 4: multiply_tokens(job, 4); break;
    case 5: multiply_tokens(job, 5); break;
    default: multiply_tokens(job, TOKENS); break;
  }
}

const mcuf_panel_kernels mcuf_panels_avx2 = {OUTPUTS, TOKENS, 2, expand, pack, multiply};
#endif /* MCUF_X86 */
