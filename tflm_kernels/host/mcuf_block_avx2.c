/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_block_accumulate() and the weighted sum of attention for x86-64 with AVX2. */
#include "mcuf_dispatch.h"

#if MCUF_X86
#include "mcuf_avx2.h"
#include "mcuf_fixed_point.h"

#define VECTOR 16 /* 16-bit values */
#define PIECE 512 /* inputs of a pair of rows that are unpacked at a time */

/* Sums of `count` tokens (a constant) with two rows, one after the other. */
typedef struct {
  __m256i first[MCUF_TOKEN_BLOCK], second[MCUF_TOKEN_BLOCK];
} sums;

MCUF_AVX2_INLINE void add_step(sums* s, int count, const int16_t* tokens, int32_t width, const int8_t* first,
                               const int8_t* second, __m256i mask) {
  const __m256i p = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)first));
  const __m256i q = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)second));
#pragma GCC unroll 4
  for (int t = 0; t < count; ++t) {
    const __m256i x = _mm256_and_si256(mcuf_load_avx2(tokens + (ptrdiff_t)t * width), mask);
    s->first[t] = _mm256_add_epi32(s->first[t], _mm256_madd_epi16(x, p));
    s->second[t] = _mm256_add_epi32(s->second[t], _mm256_madd_epi16(x, q));
  }
}

/* The last inputs, fewer than a vector, where nothing before them can be read. */
MCUF_AVX2_INLINE void add_rest(sums* s, int count, const int16_t* tokens, int32_t width, const int8_t* first,
                               const int8_t* second, int32_t n) {
  int16_t x[MCUF_TOKEN_BLOCK * VECTOR] = {0};
  int8_t p[VECTOR] = {0}, q[VECTOR] = {0};
  for (int32_t i = 0; i < n; ++i) {
    for (int t = 0; t < count; ++t) x[t * VECTOR + i] = tokens[(ptrdiff_t)t * width + i];
    p[i] = first[i];
    q[i] = second[i];
  }
  add_step(s, count, x, VECTOR, p, q, _mm256_set1_epi32(-1));
}

/* The lanes' sums of each token and row: [row][token], `count` 1, 2 or 4. */
MCUF_AVX2_INLINE __m256i add_lanes(const sums* s, int count) {
  const int last = count - 1, middle = count / 2;
  const __m256i first = _mm256_hadd_epi32(_mm256_hadd_epi32(s->first[0], s->first[count / 4]),
                                          _mm256_hadd_epi32(s->first[middle], s->first[last]));
  const __m256i second = _mm256_hadd_epi32(_mm256_hadd_epi32(s->second[0], s->second[count / 4]),
                                           _mm256_hadd_epi32(s->second[middle], s->second[last]));
  return _mm256_add_epi32(_mm256_permute2x128_si256(first, second, 0x20),
                          _mm256_permute2x128_si256(first, second, 0x31));
}

MCUF_AVX2_INLINE __m256i dot_rows(int count, const int16_t* tokens, int32_t width, const int8_t* first,
                                  const int8_t* second, int32_t n) {
  const __m256i all = _mm256_set1_epi32(-1);
  sums s;
#pragma GCC unroll 4
  for (int t = 0; t < count; ++t) s.first[t] = s.second[t] = _mm256_setzero_si256();
  int32_t i = 0;
  for (; i + VECTOR <= n; i += VECTOR) add_step(&s, count, tokens + i, width, first + i, second + i, all);
  if (i < n && n >= VECTOR) { /* the last vector once more, without what is already added */
    static const int16_t lanes[2 * VECTOR] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                              -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    const int32_t at = n - VECTOR;
    add_step(&s, count, tokens + at, width, first + at, second + at, mcuf_load_avx2(lanes + (n - i)));
  } else if (i < n) {
    add_rest(&s, count, tokens, width, first, second, n);
  }
  return add_lanes(&s, count);
}

/* Adds to acc [2, count]. */
MCUF_AVX2 static void accumulate_rows(int32_t count, const int16_t* tokens, int32_t width, const int8_t* first,
                                      const int8_t* second, int32_t n, int32_t* acc) {
  if (count == 4) {
    const __m256i sum = dot_rows(4, tokens, width, first, second, n);
    _mm256_storeu_si256((__m256i*)acc, _mm256_add_epi32(mcuf_load_avx2(acc), sum));
    return;
  }
  int32_t sum[8];
  _mm256_storeu_si256((__m256i*)sum, count == 2 ? dot_rows(2, tokens, width, first, second, n)
                                                : dot_rows(1, tokens, width, first, second, n));
  acc[0] += sum[0];
  if (count == 2) acc[1] += sum[2];
  acc[count] += sum[4];
  if (count == 2) acc[3] += sum[6];
}

MCUF_AVX2 static void accumulate_pair(const int8_t* pair, int32_t k, const int16_t* block, int32_t width, int32_t count,
                                      int32_t* acc) {
  int8_t first[PIECE], second[PIECE];
  for (int32_t start = 0; start < k; start += PIECE, pair += 2 * PIECE) {
    const int32_t n = k - start < PIECE ? k - start : PIECE;
    for (int32_t i = 0; i < n; ++i) {
      first[i] = pair[2 * i];
      second[i] = (int8_t)(pair[2 * i + 1] + (pair[2 * i] < 0));
    }
    accumulate_rows(count, block + start, width, first, second, n, acc);
  }
}

MCUF_AVX2 void mcuf_block_accumulate_avx2(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k,
                                          const int16_t* block, int32_t count, int32_t* acc) {
  const int32_t width = mcuf_round_up_even(k);
  for (int32_t o = 0; o < out_features; o += 2, acc += 2 * count) {
    const int8_t* row = weights + mcuf_packed_offset(o, k, packing);
    if (packing == MCUF_PACKING_ROWS) {
      accumulate_rows(count, block, width, row, row + (o + 1 < out_features ? k : 0), k, acc);
    } else {
      accumulate_pair(row, k, block, width, count, acc);
    }
  }
}

/* Scaled outputs of two channels, [channel][row], in the low half of each lane. */
MCUF_AVX2_INLINE __m128i scaled(__m256i sum, __m256i multiplier, __m256i shift, __m256i half, __m256i zero_point) {
  const __m256i high = _mm256_add_epi32(mcuf_mulhi_round_avx2(sum, multiplier), half);
  const __m256i value = _mm256_add_epi32(_mm256_srav_epi32(high, shift), zero_point);
  return mcuf_sat8_avx2(value, value);
}

MCUF_AVX2 void mcuf_weigh_rows_avx2(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values,
                                    int32_t rows, const mcuf_row_scale* scale, int8_t* output) {
  if (rows != MCUF_TOKEN_BLOCK) {
    mcuf_weigh_rows_portable(p, numerators, values, rows, scale, output);
    return;
  }
  const int32_t tokens = mcuf_round_up_even(p->tokens);
  int32_t multipliers[8], shifts[8];
  for (int32_t i = 0; i < 8; ++i) {
    multipliers[i] = scale[i % 4].multiplier;
    shifts[i] = scale[i % 4].shift;
  }
  const __m256i multiplier = mcuf_load_avx2(multipliers), shift = mcuf_load_avx2(shifts);
  const __m256i half = _mm256_sllv_epi32(_mm256_set1_epi32(1), _mm256_sub_epi32(shift, _mm256_set1_epi32(1)));
  const __m256i zero_point = _mm256_set1_epi32(p->zero_point);
  for (int32_t c = 0; c < p->head_dim; c += 2, values += 2 * (ptrdiff_t)tokens) {
    const int pair = c + 1 < p->head_dim;
    const __m256i sum = dot_rows(4, numerators, tokens, values, values + (pair ? tokens : 0), tokens);
    int8_t made[16];
    _mm_storeu_si128((__m128i*)made, scaled(sum, multiplier, shift, half, zero_point));
    for (int32_t t = 0; t < 4; ++t) {
      int8_t* target = output + (ptrdiff_t)t * p->out_stride + c;
      target[0] = made[t];
      if (pair) target[1] = made[4 + t];
    }
  }
}
#endif /* MCUF_X86 */
