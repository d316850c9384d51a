/* SPDX-License-Identifier: Apache-2.0
 *
 * What the AVX2 kernels share: mcuf_fixed_point.h for eight values. */
#ifndef MCUF_AVX2_H_
#define MCUF_AVX2_H_

#include <immintrin.h>
#include <string.h>

/* The library is compiled for any x86-64: each function says what it needs. */
#define MCUF_AVX2 __attribute__((target("avx2")))
#define MCUF_AVX2_INLINE static inline __attribute__((target("avx2"), always_inline))

/* mcuf_mulhi_round() */
MCUF_AVX2_INLINE __m256i mcuf_mulhi_round_avx2(__m256i a, __m256i b) {
  const __m256i half = _mm256_set1_epi64x((int64_t)1 << 31);
  const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(a, b), half);
  const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32)), half);
  return _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}

/* mcuf_sat8() of 16 values, in order. */
MCUF_AVX2_INLINE __m128i mcuf_sat8_avx2(__m256i low, __m256i high) {
  const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xD8);
  return _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
}

MCUF_AVX2_INLINE __m256i mcuf_load_avx2(const void* source) { return _mm256_loadu_si256((const __m256i*)source); }

#endif /* MCUF_AVX2_H_ */
