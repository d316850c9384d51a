/* SPDX-License-Identifier: Apache-2.0
 *
 * Tokens times a panel of 16 rows of weights (mcuf_dispatch.h) for x86-64 with AVX2. A unit is two values as 16 bits:
 * PMADDWD multiplies and adds them exactly. Byte products (PMADDUBSW) would saturate in 16 bits; kept from that they
 * gain nothing, since each needs a PMADDWD too. */
#ifndef MCUF_PANEL_AVX2_H_
#define MCUF_PANEL_AVX2_H_

#include "mcuf_avx2.h"

#define MCUF_PANEL_OUTPUTS_AVX2 16
#define MCUF_PANEL_TOKENS_AVX2 6 /* at once: twelve sums, a unit of a token and two of weights fill the registers */

/* k values as 16 bits, and zeros up to a multiple of 16. */
MCUF_AVX2_INLINE void mcuf_expand_avx2(const int8_t* source, int32_t k, int16_t* target) {
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
MCUF_AVX2_INLINE void mcuf_pack_eight_avx2(const __m128i r[8], int8_t* target, ptrdiff_t apart) {
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

/* k inputs of 16 rows to units, and zeros up to a multiple of 16 inputs. */
MCUF_AVX2_INLINE void mcuf_pack_panel_avx2(const int8_t* const* rows, int32_t k, int8_t* target) {
  for (int32_t i = 0; i < k; i += 16, target += 16 * MCUF_PANEL_OUTPUTS_AVX2 * 2) {
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
      mcuf_pack_eight_avx2(r, target + 32 * half, 64);
    }
  }
}

/* Sums of the panel's first and second eight rows, for each token. */
typedef struct {
  __m256i low[MCUF_PANEL_TOKENS_AVX2], high[MCUF_PANEL_TOKENS_AVX2];
} mcuf_panel_sums_avx2;

/* Adds the products of so many tokens, a constant, which lie `size` bytes apart. units: a multiple of 8. */
MCUF_AVX2_INLINE void mcuf_multiply_panel_avx2(mcuf_panel_sums_avx2* sums, int count, const void* tokens,
                                               ptrdiff_t size, const int8_t* weights, int32_t units) {
  const int8_t* x = (const int8_t*)tokens;
  units &= ~7; /* lets the compiler unroll without a rest */
#pragma GCC unroll 4
  for (int32_t u = 0; u < units; ++u, weights += 64, x += 4) {
    const __m256i first = mcuf_load_avx2(weights), second = mcuf_load_avx2(weights + 32);
#pragma GCC unroll 6
    for (int t = 0; t < count; ++t) {
      int32_t unit;
      memcpy(&unit, x + t * size, sizeof(unit));
      const __m256i same = _mm256_set1_epi32(unit);
      sums->low[t] = _mm256_add_epi32(sums->low[t], _mm256_madd_epi16(same, first));
      sums->high[t] = _mm256_add_epi32(sums->high[t], _mm256_madd_epi16(same, second));
    }
  }
}

#endif /* MCUF_PANEL_AVX2_H_ */
