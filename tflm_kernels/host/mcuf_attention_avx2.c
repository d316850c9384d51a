/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention of many queries of one head for x86-64 with AVX2: keys and values become panels once, and the queries take
 * them a few at a time. mcuf_int_attention_s8.h specifies the arithmetic. */
#include "mcuf_dispatch.h"

#if MCUF_X86
#include "mcuf_fixed_point.h"
#include "mcuf_panel_avx2.h"
#include "mcuf_softmax_table.h"

#define STEP MCUF_PANEL_OUTPUTS_AVX2
#define QUERIES (2 * MCUF_PANEL_TOKENS_AVX2) /* that go through all steps together */
#define LEAST_QUERIES 8                      /* for fewer, making panels takes longer than it gains */
#define MOST_TOKENS 1024
#define MOST_HEAD_DIM 128
#define MOST_PANEL_BYTES (64 * 1024) /* of the keys, and of the values */

typedef char gathers_read_zeros_last[MCUF_SOFTMAX_LAST == 1023 ? 1 : -1];

typedef struct {
  int8_t keys[MOST_PANEL_BYTES] __attribute__((aligned(64)));
  int8_t values[MOST_PANEL_BYTES] __attribute__((aligned(64)));
  int16_t queries[QUERIES * MOST_HEAD_DIM] __attribute__((aligned(64)));
  int32_t scores[QUERIES * MOST_TOKENS] __attribute__((aligned(64))); /* [query][token] */
  int16_t numerators[QUERIES * MOST_TOKENS] __attribute__((aligned(64)));
  mcuf_row_scale scale[QUERIES];
} head_work;

static int32_t padded(int32_t value) { return (value + STEP - 1) / STEP * STEP; }

/* Rows of k values to panels. Where there is no row, the last one stands in for it. */
MCUF_AVX2 static void pack_rows(const int8_t* rows, int32_t count, int32_t k, int32_t stride, int8_t* panels) {
  for (int32_t first = 0; first < count; first += STEP, panels += padded(k) * STEP * 2) {
    const int8_t* sources[STEP];
    for (int32_t i = 0; i < STEP; ++i) {
      sources[i] = rows + (ptrdiff_t)(first + i < count ? first + i : count - 1) * stride;
    }
    mcuf_pack_panel_avx2(sources, k, panels);
  }
}

/* Sums of six tokens, of k values and `width` apart, with a panel. */
MCUF_AVX2_INLINE mcuf_panel_sums_avx2 sums_of(const int16_t* tokens, int32_t k, int32_t width, const int8_t* panel) {
  mcuf_panel_sums_avx2 sums;
#pragma GCC unroll 6
  for (int t = 0; t < MCUF_PANEL_TOKENS_AVX2; ++t) sums.low[t] = sums.high[t] = _mm256_setzero_si256();
  mcuf_multiply_panel_avx2(&sums, MCUF_PANEL_TOKENS_AVX2, tokens, 2 * (ptrdiff_t)width, panel, padded(k) / 2);
  return sums;
}

MCUF_AVX2 static void find_scores(const mcuf_attention_rows_shape* p, int32_t count, head_work* w) {
  const int32_t dim = p->head_dim, width = padded(p->tokens);
  const int8_t* panel = w->keys;
  for (int32_t j = 0; j < width; j += STEP, panel += padded(dim) * STEP * 2) {
    for (int32_t q = 0; q < count; q += MCUF_PANEL_TOKENS_AVX2) {
      const mcuf_panel_sums_avx2 sums = sums_of(w->queries + q * padded(dim), dim, padded(dim), panel);
      int32_t* scores = w->scores + q * width + j;
#pragma GCC unroll 6
      for (int t = 0; t < MCUF_PANEL_TOKENS_AVX2; ++t, scores += width) {
        _mm256_storeu_si256((__m256i*)scores, sums.low[t]);
        _mm256_storeu_si256((__m256i*)(scores + 8), sums.high[t]);
      }
    }
  }
}

/* What turns scores into numerators. */
typedef struct {
  __m256i max, multiplier;
  __m128i score_shift, shift; /* of scores, of numerators */
} row_constants;

/* A gather reads two entries of the table: the last two are both 0, so that nothing past its end is read. */
MCUF_AVX2_INLINE __m256i numerators_of(const row_constants* r, const int32_t* scores) {
  const __m256i below = _mm256_sll_epi32(_mm256_sub_epi32(r->max, mcuf_load_avx2(scores)), r->score_shift);
  const __m256i index =
      _mm256_min_epi32(mcuf_mulhi_round_avx2(below, r->multiplier), _mm256_set1_epi32(MCUF_SOFTMAX_LAST - 1));
  const __m256i entries = _mm256_i32gather_epi32((const int*)(const void*)mcuf_softmax_table, index, 2);
  return _mm256_srl_epi32(_mm256_and_si256(entries, _mm256_set1_epi32(0xFFFF)), r->shift);
}

MCUF_AVX2_INLINE int32_t largest(const int32_t* scores, int32_t width) {
  __m256i most = mcuf_load_avx2(scores);
  for (int32_t j = 8; j < width; j += 8) most = _mm256_max_epi32(most, mcuf_load_avx2(scores + j));
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
}

/* The surplus scores of a row are those of its last key: they change no maximum, and their numerators are taken back.
 */
MCUF_AVX2 static void softmax_row(const mcuf_attention_rows_shape* p, const int32_t* head, const int32_t* scores,
                                  int16_t* numerators, mcuf_row_scale* scale) {
  const int32_t tokens = p->tokens, width = padded(tokens);
  const row_constants r = {
      _mm256_set1_epi32(largest(scores, width)),
      _mm256_set1_epi32(head[MCUF_HEAD_SCORE_MULTIPLIER]),
      _mm_cvtsi32_si128(head[MCUF_HEAD_SCORE_SHIFT]),
      _mm_cvtsi32_si128(p->numerator_shift),
  };
  __m256i sums = _mm256_setzero_si256();
  for (int32_t j = 0; j < width; j += STEP) {
    const __m256i low = numerators_of(&r, scores + j), high = numerators_of(&r, scores + j + 8);
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xD8);
    _mm256_storeu_si256((__m256i*)(numerators + j), both);
    sums = _mm256_add_epi32(sums, _mm256_add_epi32(low, high));
  }
  uint32_t parts[8], sum = 0;
  _mm256_storeu_si256((__m256i*)parts, sums);
  for (int i = 0; i < 8; ++i) sum += parts[i];
  sum -= (uint32_t)(width - tokens) * (uint32_t)numerators[tokens - 1];
  memset(numerators + tokens, 0, (size_t)(width - tokens) * sizeof(int16_t));
  *scale = mcuf_scale_of_row(sum, head);
}

/* 16 outputs of a query. */
MCUF_AVX2_INLINE __m128i scaled(__m256i low, __m256i high, const mcuf_row_scale* scale, int32_t zero_point) {
  const __m256i multiplier = _mm256_set1_epi32(scale->multiplier), half = _mm256_set1_epi32(1 << (scale->shift - 1));
  const __m128i shift = _mm_cvtsi32_si128(scale->shift);
  low = _mm256_sra_epi32(_mm256_add_epi32(mcuf_mulhi_round_avx2(low, multiplier), half), shift);
  high = _mm256_sra_epi32(_mm256_add_epi32(mcuf_mulhi_round_avx2(high, multiplier), half), shift);
  const __m256i zero = _mm256_set1_epi32(zero_point);
  return mcuf_sat8_avx2(_mm256_add_epi32(low, zero), _mm256_add_epi32(high, zero));
}

MCUF_AVX2 static void weigh(const mcuf_attention_rows_shape* p, int32_t count, const head_work* w, int8_t* output) {
  const int32_t width = padded(p->tokens);
  const int8_t* panel = w->values;
  for (int32_t c = 0; c < p->head_dim; c += STEP, panel += width * STEP * 2) {
    const int32_t left = p->head_dim - c;
    for (int32_t first = 0; first < count; first += MCUF_PANEL_TOKENS_AVX2) {
      const mcuf_panel_sums_avx2 sums = sums_of(w->numerators + first * width, p->tokens, width, panel);
#pragma GCC unroll 6
      for (int t = 0; t < MCUF_PANEL_TOKENS_AVX2; ++t) {
        if (first + t >= count) break;
        int8_t made[STEP], *target = output + (ptrdiff_t)(first + t) * p->out_stride + c;
        _mm_storeu_si128((__m128i*)made, scaled(sums.low[t], sums.high[t], &w->scale[first + t], p->zero_point));
        if (left >= STEP) {
          memcpy(target, made, STEP);
        } else {
          memcpy(target, made, (size_t)left);
        }
      }
    }
  }
}

MCUF_AVX2 int mcuf_attention_head_avx2(const mcuf_attention_rows_shape* p, const int32_t* head, const int8_t* q,
                                       int32_t q_stride, const int8_t* keys, const int8_t* values, int32_t count,
                                       int8_t* output) {
  const int32_t dim = p->head_dim, tokens = p->tokens, width = padded(tokens);
  if (p->relative != NULL || count < LEAST_QUERIES || tokens > MOST_TOKENS || dim > MOST_HEAD_DIM ||
      width * padded(dim) * 2 > MOST_PANEL_BYTES) {
    return 0;
  }
  head_work w;
  pack_rows(keys, tokens, dim, dim, w.keys);
  pack_rows(values, dim, tokens, mcuf_round_up_even(tokens), w.values);
  for (int32_t first = 0; first < count; first += QUERIES) {
    const int32_t n = count - first < QUERIES ? count - first : QUERIES;
    for (int32_t i = 0; i < QUERIES; ++i) { /* beyond the last query, that one again */
      mcuf_expand_avx2(q + (ptrdiff_t)(first + (i < n ? i : n - 1)) * q_stride, dim, w.queries + i * padded(dim));
    }
    find_scores(p, n, &w);
    for (int32_t i = 0; i < n; ++i) {
      softmax_row(p, head, w.scores + i * width, w.numerators + i * width, &w.scale[i]);
    }
    weigh(p, n, &w, output + (ptrdiff_t)first * p->out_stride);
  }
  return 1;
}
#endif /* MCUF_X86 */
