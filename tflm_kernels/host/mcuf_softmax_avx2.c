/* SPDX-License-Identifier: Apache-2.0
 *
 * The softmax of attention for x86-64 with AVX2: four rows at once. */
#include "mcuf_dispatch.h"

#if MCUF_X86
#include "mcuf_avx2.h"
#include "mcuf_fixed_point.h"
#include "mcuf_softmax_table.h"

#define STEP 8 /* tokens */

/* What turns scores into numerators. */
typedef struct {
  __m256i max;                /* of the four rows, twice */
  __m128i score_shift, shift; /* of scores, of numerators */
  __m256i multiplier;
} row_constants;

/* Scores of two tokens of four rows. A gather reads two entries of the table: the last two are both 0, so that nothing
 * past its end is read. */
MCUF_AVX2_INLINE __m256i numerators_of(const row_constants* r, const int32_t* scores) {
  const __m256i below = _mm256_sll_epi32(_mm256_sub_epi32(r->max, mcuf_load_avx2(scores)), r->score_shift);
  const __m256i index =
      _mm256_min_epi32(mcuf_mulhi_round_avx2(below, r->multiplier), _mm256_set1_epi32(MCUF_SOFTMAX_LAST - 1));
  const __m256i entries = _mm256_i32gather_epi32((const int*)(const void*)mcuf_softmax_table, index, 2);
  return _mm256_srl_epi32(_mm256_and_si256(entries, _mm256_set1_epi32(0xFFFF)), r->shift);
}

/* Scores of eight tokens of four rows to numerators, `tokens` apart from row to row. Adds them to sum. */
MCUF_AVX2_INLINE __m256i step(const row_constants* r, const int32_t* scores, int16_t* numerators, int32_t tokens,
                              __m256i sum) {
  const __m256i e01 = numerators_of(r, scores), e23 = numerators_of(r, scores + 8);
  const __m256i e45 = numerators_of(r, scores + 16), e67 = numerators_of(r, scores + 24);
  const __m256i left = _mm256_packs_epi32(e01, e23), right = _mm256_packs_epi32(e45, e67);
  const __m128i a = _mm256_castsi256_si128(left), b = _mm256_extracti128_si256(left, 1);
  const __m128i c = _mm256_castsi256_si128(right), d = _mm256_extracti128_si256(right, 1);
  const __m128i t01 = _mm_unpacklo_epi16(a, b), t23 = _mm_unpackhi_epi16(a, b);
  const __m128i t45 = _mm_unpacklo_epi16(c, d), t67 = _mm_unpackhi_epi16(c, d);
  const __m128i r01 = _mm_unpacklo_epi32(t01, t23), r23 = _mm_unpackhi_epi32(t01, t23);
  const __m128i s01 = _mm_unpacklo_epi32(t45, t67), s23 = _mm_unpackhi_epi32(t45, t67);
  _mm_storeu_si128((__m128i*)numerators, _mm_unpacklo_epi64(r01, s01));
  _mm_storeu_si128((__m128i*)(numerators + tokens), _mm_unpackhi_epi64(r01, s01));
  _mm_storeu_si128((__m128i*)(numerators + 2 * (ptrdiff_t)tokens), _mm_unpacklo_epi64(r23, s23));
  _mm_storeu_si128((__m128i*)(numerators + 3 * (ptrdiff_t)tokens), _mm_unpackhi_epi64(r23, s23));
  return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_add_epi32(e01, e23), _mm256_add_epi32(e45, e67)));
}

MCUF_AVX2_INLINE __m128i largest(const int32_t* scores, int32_t tokens) {
  __m256i most = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)scores));
  int32_t j = 0;
  for (; j + 2 <= tokens; j += 2) most = _mm256_max_epi32(most, mcuf_load_avx2(scores + 4 * (ptrdiff_t)j));
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  if (j < tokens) four = _mm_max_epi32(four, _mm_loadu_si128((const __m128i*)(scores + 4 * (ptrdiff_t)j)));
  return four;
}

MCUF_AVX2 void mcuf_softmax_rows_avx2(const mcuf_attention_rows_shape* p, const int32_t* scores, int32_t rows,
                                      const int32_t* head, int16_t* numerators, mcuf_row_scale* scale) {
  if (rows != MCUF_TOKEN_BLOCK) {
    mcuf_softmax_rows_portable(p, scores, rows, head, numerators, scale);
    return;
  }
  const int32_t tokens = mcuf_round_up_even(p->tokens);
  const row_constants r = {
      _mm256_broadcastsi128_si256(largest(scores, p->tokens)),
      _mm_cvtsi32_si128(head[MCUF_HEAD_SCORE_SHIFT]),
      _mm_cvtsi32_si128(p->numerator_shift),
      _mm256_set1_epi32(head[MCUF_HEAD_SCORE_MULTIPLIER]),
  };
  __m256i sum = _mm256_setzero_si256();
  int32_t j = 0;
  for (; j + STEP <= p->tokens; j += STEP) sum = step(&r, scores + 4 * (ptrdiff_t)j, numerators + j, tokens, sum);
  uint32_t sums[4];
  _mm_storeu_si128((__m128i*)sums, _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1)));
  if (j < tokens) {
    const int32_t left = p->tokens - j;
    int32_t last[4 * STEP];
    int16_t made[4 * STEP];
    for (int32_t i = 0; i < STEP; ++i) memcpy(last + 4 * i, scores + 4 * (ptrdiff_t)(i < left ? j + i : j), 16);
    step(&r, last, made, STEP, sum);
    for (int32_t t = 0; t < 4; ++t) {
      for (int32_t i = 0; i < tokens - j; ++i) {
        const int16_t numerator = i < left ? made[t * STEP + i] : 0;
        numerators[(ptrdiff_t)t * tokens + j + i] = numerator;
        sums[t] += (uint32_t)numerator;
      }
    }
  }
  for (int32_t t = 0; t < 4; ++t) scale[t] = mcuf_scale_of_row(sums[t], head);
}
#endif /* MCUF_X86 */
