/* SPDX-License-Identifier: Apache-2.0
 *
 * Fully connected layers of many tokens for x86-64 with AVX2. A unit is two inputs as 16 bits: PMADDWD multiplies and
 * adds them exactly. Byte products (PMADDUBSW) would saturate in 16 bits, and kept from that they gain nothing: they
 * need a PMADDWD too. */
#include "mcuf_dispatch.h"

#if MCUF_X86
#include "mcuf_avx2.h"

#define OUTPUTS 16
#define TOKENS 6

MCUF_AVX2 static void expand(const int8_t* source, int32_t k, void* token) {
  int16_t* target = (int16_t*)token;
  int32_t i = 0;
  for (; i + 16 <= k; i += 16) {
    _mm256_storeu_si256((__m256i*)(target + i), _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(source + i))));
  }
  if (i < k) {
    int8_t last[16] = {0};
    memcpy(last, source + i, (size_t)(k - i));
    _mm256_storeu_si256((__m256i*)(target + i), _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)last)));
  }
}

/* 16 inputs of eight rows to eight units of eight outputs, which lie `apart` bytes apart. */
MCUF_AVX2_INLINE void pack_eight(const __m128i r[8], int8_t* target, ptrdiff_t apart) {
  __m128i a[8], b[8];
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
    a[4 + i] = _mm_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 4; ++i) { /* b[i], b[i + 2]: units 2 i and 2 i + 1 of rows 0 .. 3 and 4 .. 7 */
    const int at = i < 2 ? i : i + 2;
    const __m128i even = _mm_unpacklo_epi64(b[at], b[at + 2]), odd = _mm_unpackhi_epi64(b[at], b[at + 2]);
    _mm256_storeu_si256((__m256i*)(target + 2 * i * apart), _mm256_cvtepi8_epi16(even));
    _mm256_storeu_si256((__m256i*)(target + (2 * i + 1) * apart), _mm256_cvtepi8_epi16(odd));
  }
}

MCUF_AVX2 static void pack(const int8_t* const* rows, int32_t k, mcuf_panel* panel) {
  int8_t* target = panel->weights;
  for (int32_t i = 0; i < k; i += 16, target += 16 * OUTPUTS * 2) {
    for (int half = 0; half < 2; ++half) {
      __m128i r[8];
      for (int o = 0; o < 8; ++o) {
        const int8_t* row = rows[8 * half + o] + i;
        if (k - i >= 16) {
          r[o] = _mm_loadu_si128((const __m128i*)row);
        } else {
          int8_t last[16] = {0};
          memcpy(last, row, (size_t)(k - i));
          r[o] = _mm_loadu_si128((const __m128i*)last);
        }
      }
      pack_eight(r, target + 32 * half, 64);
    }
  }
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
  const int8_t *x = (const int8_t*)job->tokens, *w = job->panel->weights;
  const ptrdiff_t size = job->token_size;
  __m256i low[TOKENS], high[TOKENS];
#pragma GCC unroll 6
  for (int t = 0; t < tokens; ++t) {
    low[t] = mcuf_load_avx2(job->panel->bias);
    high[t] = mcuf_load_avx2(job->panel->bias + 8);
  }
  for (int32_t u = 0; u < job->units; ++u, w += 64, x += 4) {
    const __m256i first = mcuf_load_avx2(w), second = mcuf_load_avx2(w + 32);
#pragma GCC unroll 6
    for (int t = 0; t < tokens; ++t) {
      int32_t pair;
      memcpy(&pair, x + t * size, sizeof(pair));
      const __m256i both = _mm256_set1_epi32(pair);
      low[t] = _mm256_add_epi32(low[t], _mm256_madd_epi16(both, first));
      high[t] = _mm256_add_epi32(high[t], _mm256_madd_epi16(both, second));
    }
  }
#pragma GCC unroll 6
  for (int t = 0; t < tokens; ++t) finish(job, (ptrdiff_t)t * job->stride, low[t], high[t]);
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
