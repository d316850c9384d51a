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

/* 16 bytes, or the first outputs of a panel that has fewer. */
MCUF_AVX2_INLINE __m128i read_outputs(const int8_t* source, int32_t outputs) {
  if (outputs == OUTPUTS) return _mm_loadu_si128((const __m128i*)source);
  int8_t all[OUTPUTS] = {0};
  memcpy(all, source, (size_t)outputs);
  return _mm_loadu_si128((const __m128i*)all);
}

MCUF_AVX2_INLINE void write_outputs(__m128i values, int8_t* target, int32_t outputs) {
  if (outputs == OUTPUTS) {
    _mm_storeu_si128((__m128i*)target, values);
  } else {
    int8_t all[OUTPUTS];
    _mm_storeu_si128((__m128i*)all, values);
    memcpy(target, all, (size_t)outputs);
  }
}

/* From sums to 16 requantised values of the token that lies `at` bytes from the first. */
MCUF_AVX2_INLINE __m128i requantise(const mcuf_panel_job* job, ptrdiff_t at, __m256i low, __m256i high) {
  const mcuf_panel* p = job->panel;
  if (job->residual != NULL) { /* products of 16 bits: the scale is not negative, so its upper half is 0 */
    const __m128i r = read_outputs(job->residual + at, job->outputs);
    const __m256i first = _mm256_cvtepi8_epi32(r), second = _mm256_cvtepi8_epi32(_mm_srli_si128(r, 8));
    low = _mm256_add_epi32(low, _mm256_madd_epi16(first, mcuf_load_avx2(p->residual_scale)));
    high = _mm256_add_epi32(high, _mm256_madd_epi16(second, mcuf_load_avx2(p->residual_scale + 8)));
  }
  const __m256i zero_point = _mm256_set1_epi32(job->zero_point);
  low = _mm256_add_epi32(mcuf_mulhi_round_avx2(low, mcuf_load_avx2(p->multiplier)), zero_point);
  high = _mm256_add_epi32(mcuf_mulhi_round_avx2(high, mcuf_load_avx2(p->multiplier + 8)), zero_point);
  return mcuf_sat8_avx2(low, high);
}

/* table[value + 128] of 32 values: all 16 parts of the table are asked for the low four bits, and the high ones choose
 * among their answers. */
MCUF_AVX2_INLINE __m256i look_up(const int8_t* table, __m256i values) {
  const __m256i low = _mm256_and_si256(values, _mm256_set1_epi8(15));
  __m256i found[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    const __m128i part = _mm_loadu_si128((const __m128i*)(table + 16 * i));
    found[i] = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(part), low);
  }
  const __m256i index = _mm256_xor_si256(values, _mm256_set1_epi8(-128));
#pragma GCC unroll 4
  for (int bit = 4; bit < 8; ++bit) { /* a blend looks at the uppermost bit of a byte */
    const __m256i chooses = _mm256_slli_epi16(index, 7 - bit);
#pragma GCC unroll 8
    for (int i = 0; i < 128 >> bit; ++i) found[i] = _mm256_blendv_epi8(found[2 * i], found[2 * i + 1], chooses);
  }
  return found[0];
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
  __m128i made[TOKENS];
#pragma GCC unroll 6
  for (int t = 0; t < tokens; ++t) made[t] = requantise(job, (ptrdiff_t)t * job->stride, sums.low[t], sums.high[t]);
  for (int t = 0; job->gelu_table != NULL && t < tokens; t += 2) {
    const int next = t + 1 < tokens ? t + 1 : t;
    const __m256i both = look_up(job->gelu_table, _mm256_set_m128i(made[next], made[t]));
    made[t] = _mm256_castsi256_si128(both);
    if (next != t) made[next] = _mm256_extracti128_si256(both, 1);
  }
  for (int t = 0; t < tokens; ++t) write_outputs(made[t], job->output + (ptrdiff_t)t * job->stride, job->outputs);
}

MCUF_AVX2 static void multiply(const mcuf_panel_job* job, int32_t tokens) {
  switch (tokens) {
    case 1:
      multiply_tokens(job, 1);
      break;
    case 2:
      multiply_tokens(job, 2);
      break;
    case 3:
      multiply_tokens(job, 3);
      break;
    case 4:
      multiply_tokens(job, 4);
      break;
    case 5:
      multiply_tokens(job, 5);
      break;
    default:
      multiply_tokens(job, TOKENS);
      break;
  }
}

const mcuf_panel_kernels mcuf_panels_avx2 = {OUTPUTS, TOKENS, 2, expand, pack, multiply};
#endif /* MCUF_X86 */
