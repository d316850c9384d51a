/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_block_accumulate() for x86-64 with AVX2. */
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
    static const int16_t lanes[2 * VECTOR] = {0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
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
    } else if (mcuf_pairs_are_bytes(row, k)) {
      accumulate_pair(row, k, block, width, count, acc);
    } else {
      mcuf_block_accumulate_portable(row, packing, out_features - o < 2 ? 1 : 2, k, block, count, acc);
    }
  }
}
#endif /* MCUF_X86 */
