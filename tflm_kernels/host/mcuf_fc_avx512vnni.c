/* SPDX-License-Identifier: Apache-2.0
 *
 * Fully connected layers of many tokens for x86-64 with AVX-512 VNNI. A unit is four inputs as bytes: VPDPBUSD
 * multiplies bytes without a sign by weights and adds the products exactly. Inputs are raised by 128 for it, and the
 * bias takes that back. */
#include "mcuf_dispatch.h"

#if MCUF_X86
#include <string.h>

#ifdef MCUF_EMULATED_AVX512 /* the test's way to run this file on any processor */
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#define VNNI
static inline __m512i _mm512_cvtepi8_epi32(__m128i bytes) { /* SIMDe 0.7 lacks it */
  int8_t from[16];
  int32_t to[16];
  _mm_storeu_si128((__m128i*)(void*)from, bytes);
  for (int i = 0; i < 16; ++i) to[i] = from[i];
  return _mm512_loadu_si512(to);
}
#else
#include <immintrin.h>
#define VNNI __attribute__((target("avx512f,avx512vnni")))
#endif
#define VNNI_INLINE static inline VNNI __attribute__((always_inline))

#define OUTPUTS 32
#define TOKENS 8
#define RAISED 128

static void expand(const int8_t* source, int32_t k, void* token) {
  uint8_t* target = (uint8_t*)token;
  for (int32_t i = 0; i < k; ++i) target[i] = (uint8_t)(source[i] + RAISED);
  for (int32_t i = k; i % MCUF_PANEL_STEP != 0; ++i) target[i] = 0;
}

VNNI_INLINE __m512i load(const void* source) { return _mm512_loadu_si512(source); }

VNNI static void lower_bias(int32_t units, mcuf_panel* panel) {
  __m512i first = _mm512_setzero_si512(), second = first;
  const __m512i raised = _mm512_set1_epi8((char)RAISED);
  for (int32_t u = 0; u < units; ++u) {
    first = _mm512_dpbusd_epi32(first, raised, load(panel->weights + 128 * (ptrdiff_t)u));
    second = _mm512_dpbusd_epi32(second, raised, load(panel->weights + 128 * (ptrdiff_t)u + 64));
  }
  _mm512_storeu_si512(panel->bias, _mm512_sub_epi32(load(panel->bias), first));
  _mm512_storeu_si512(panel->bias + 16, _mm512_sub_epi32(load(panel->bias + 16), second));
}

/* 16 inputs of four rows to four units of four outputs, which lie `apart` bytes apart. */
VNNI_INLINE void pack_four(const __m128i r[4], int8_t* target, ptrdiff_t apart) {
  const __m128i a = _mm_unpacklo_epi32(r[0], r[1]), b = _mm_unpacklo_epi32(r[2], r[3]);
  const __m128i c = _mm_unpackhi_epi32(r[0], r[1]), d = _mm_unpackhi_epi32(r[2], r[3]);
  _mm_storeu_si128((__m128i*)target, _mm_unpacklo_epi64(a, b));
  _mm_storeu_si128((__m128i*)(target + apart), _mm_unpackhi_epi64(a, b));
  _mm_storeu_si128((__m128i*)(target + 2 * apart), _mm_unpacklo_epi64(c, d));
  _mm_storeu_si128((__m128i*)(target + 3 * apart), _mm_unpackhi_epi64(c, d));
}

VNNI static void pack(const int8_t* const* rows, int32_t k, mcuf_panel* panel) {
  int8_t* target = panel->weights;
  for (int32_t i = 0; i < k; i += 16, target += 16 * OUTPUTS) {
    for (int o = 0; o < OUTPUTS; o += 4) {
      __m128i r[4];
      for (int j = 0; j < 4; ++j) {
        int8_t last[16] = {0};
        const int8_t* row = rows[o + j] + i;
        if (k - i < 16) row = (const int8_t*)memcpy(last, row, (size_t)(k - i));
        r[j] = _mm_loadu_si128((const __m128i*)(const void*)row);
      }
      pack_four(r, target + 4 * o, 128);
    }
  }
  lower_bias((k + 15) / 16 * 4, panel);
}

/* mcuf_mulhi_round() */
VNNI_INLINE __m512i mulhi_round(__m512i a, __m512i b) {
  const __m512i half = _mm512_set1_epi64((int64_t)1 << 31);
  const __m512i even = _mm512_add_epi64(_mm512_mul_epi32(a, b), half);
  const __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32)), half);
  return _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xAAAA, odd);
}

/* Outputs [first, first + count) of a token, count 1 .. 16. */
VNNI_INLINE void finish(const mcuf_panel_job* job, ptrdiff_t at, int first, int count, __m512i sum) {
  const mcuf_panel* p = job->panel;
  int8_t made[16] = {0};
  int8_t* output = job->output + at + first;
  if (job->residual != NULL) {
    memcpy(made, job->residual + at + first, (size_t)count);
    const __m512i residual = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(const void*)made));
    sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(residual, load(p->residual_scale + first)));
  }
  sum = _mm512_add_epi32(mulhi_round(sum, load(p->multiplier + first)), _mm512_set1_epi32(job->zero_point));
  _mm_storeu_si128((__m128i*)(void*)made, _mm512_cvtsepi32_epi8(sum));
  if (job->gelu_table != NULL) {
    for (int i = 0; i < 16; ++i) made[i] = job->gelu_table[made[i] + 128];
  }
  if (count == 16) {
    memcpy(output, made, 16);
  } else {
    memcpy(output, made, (size_t)count);
  }
}

VNNI_INLINE void multiply_tokens(const mcuf_panel_job* job, int tokens) {
  const int8_t *x = (const int8_t*)job->tokens, *w = job->panel->weights;
  const ptrdiff_t size = job->token_size;
  __m512i low[TOKENS], high[TOKENS];
#pragma GCC unroll 8
  for (int t = 0; t < tokens; ++t) {
    low[t] = load(job->panel->bias);
    high[t] = load(job->panel->bias + 16);
  }
  for (int32_t u = 0; u < job->units; ++u, w += 128, x += 4) {
    const __m512i first = load(w), second = load(w + 64);
#pragma GCC unroll 8
    for (int t = 0; t < tokens; ++t) {
      int32_t four;
      memcpy(&four, x + t * size, sizeof(four));
      low[t] = _mm512_dpbusd_epi32(low[t], _mm512_set1_epi32(four), first);
      high[t] = _mm512_dpbusd_epi32(high[t], _mm512_set1_epi32(four), second);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < tokens; ++t) {
    const ptrdiff_t at = (ptrdiff_t)t * job->stride;
    finish(job, at, 0, job->outputs < 16 ? job->outputs : 16, low[t]);
    if (job->outputs > 16) finish(job, at, 16, job->outputs - 16, high[t]);
  }
}

VNNI static void multiply(const mcuf_panel_job* job, int32_t tokens) {
  if (tokens == TOKENS) {
    multiply_tokens(job, TOKENS);
    return;
  }
  mcuf_panel_job one = *job;
  for (int32_t t = 0; t < tokens; ++t) {
    multiply_tokens(&one, 1);
    one.tokens = (const int8_t*)one.tokens + one.token_size;
    one.output += one.stride;
    if (one.residual != NULL) one.residual += one.stride;
  }
}

const mcuf_panel_kernels mcuf_panels_avx512vnni = {OUTPUTS, TOKENS, 1, expand, pack, multiply};
#endif /* MCUF_X86 */
