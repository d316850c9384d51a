/* SPDX-License-Identifier: Apache-2.0
 *
 * The two passes of IntLayerNorm for x86-64 with AVX2. Where channels are no whole vectors, the last few are padded. */
#include "mcuf_dispatch.h"

#if MCUF_X86
#include "mcuf_avx2.h"

#define VECTOR 16 /* channels */

/* (x - zero_point) * factor of 16 channels: it fits 16 bits. */
MCUF_AVX2_INLINE __m256i values_of(const int8_t* x, const uint8_t* factor, __m256i zero_point) {
  const __m256i value = _mm256_sub_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)x)), zero_point);
  if (factor == NULL) return value;
  return _mm256_mullo_epi16(value, _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)factor)));
}

/* A sum of two squares is below 2^31, so that sums of them are added as 64 bits without a sign. */
MCUF_AVX2_INLINE __m256i add_squares(__m256i squares, __m256i value) {
  const __m256i pairs = _mm256_madd_epi16(value, value);
  const __m256i low = _mm256_and_si256(pairs, _mm256_set1_epi64x(0xFFFFFFFF)), high = _mm256_srli_epi64(pairs, 32);
  return _mm256_add_epi64(squares, _mm256_add_epi64(low, high));
}

MCUF_AVX2 mcuf_moments mcuf_layer_norm_add_avx2(const mcuf_int_layer_norm_params* p, const int8_t* x) {
  const __m256i zero_point = _mm256_set1_epi16((int16_t)p->zero_point), ones = _mm256_set1_epi16(1);
  __m256i sum = _mm256_setzero_si256(), squares = sum;
  int32_t c = 0;
  for (; c + VECTOR <= p->features; c += VECTOR) {
    const __m256i value = values_of(x + c, p->factor == NULL ? NULL : p->factor + c, zero_point);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(value, ones));
    squares = add_squares(squares, value);
  }
  if (c < p->features) { /* channels of the value 0 add nothing */
    int8_t last[VECTOR];
    uint8_t factor[VECTOR] = {0};
    memset(last, (int8_t)p->zero_point, sizeof(last));
    memcpy(last, x + c, (size_t)(p->features - c));
    if (p->factor != NULL) memcpy(factor, p->factor + c, (size_t)(p->features - c));
    const __m256i value = values_of(last, p->factor == NULL ? NULL : factor, zero_point);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(value, ones));
    squares = add_squares(squares, value);
  }
  int32_t sums[8];
  int64_t parts[4];
  _mm256_storeu_si256((__m256i*)sums, sum);
  _mm256_storeu_si256((__m256i*)parts, squares);
  mcuf_moments m = {0, parts[0] + parts[1] + parts[2] + parts[3]};
  for (int i = 0; i < 8; ++i) m.sum += sums[i];
  return m;
}

/* Eight of the values as they leave the op, before saturation. */
MCUF_AVX2_INLINE __m256i write_eight(const mcuf_normalisation* n, __m128i value, const int16_t* gamma,
                                     const int32_t* beta) {
  const __m256i difference =
      _mm256_sub_epi32(_mm256_mullo_epi32(_mm256_cvtepi16_epi32(value), _mm256_set1_epi32((int32_t)n->scale)),
                       _mm256_set1_epi32((int32_t)n->offset));
  const __m256i normal = mcuf_mulhi_round_avx2(difference, _mm256_set1_epi32(n->multiplier));
  const __m256i scaled =
      _mm256_mullo_epi32(normal, _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i*)(const void*)gamma)));
  return _mm256_srai_epi32(_mm256_add_epi32(scaled, mcuf_load_avx2(beta)), 16);
}

MCUF_AVX2_INLINE void write_vector(const mcuf_normalisation* n, __m256i value, const int16_t* gamma,
                                   const int32_t* beta, int8_t* output) {
  const __m256i low = write_eight(n, _mm256_castsi256_si128(value), gamma, beta);
  const __m256i high = write_eight(n, _mm256_extracti128_si256(value, 1), gamma + 8, beta + 8);
  _mm_storeu_si128((__m128i*)output, mcuf_sat8_avx2(low, high));
}

MCUF_AVX2 void mcuf_layer_norm_write_avx2(const mcuf_int_layer_norm_params* p, const mcuf_normalisation* n,
                                          const int8_t* x, int8_t* output) {
  const __m256i zero_point = _mm256_set1_epi16((int16_t)p->zero_point);
  int32_t c = 0;
  for (; c + VECTOR <= p->features; c += VECTOR) {
    const __m256i value = values_of(x + c, p->factor == NULL ? NULL : p->factor + c, zero_point);
    write_vector(n, value, p->gamma + c, p->beta + c, output + c);
  }
  if (c < p->features) {
    const size_t left = (size_t)(p->features - c);
    int8_t last[VECTOR] = {0};
    uint8_t factor[VECTOR] = {0};
    int16_t gamma[VECTOR] = {0};
    int32_t beta[VECTOR] = {0};
    memcpy(last, x + c, left);
    if (p->factor != NULL) memcpy(factor, p->factor + c, left);
    memcpy(gamma, p->gamma + c, left * sizeof(int16_t));
    memcpy(beta, p->beta + c, left * sizeof(int32_t));
    write_vector(n, values_of(last, p->factor == NULL ? NULL : factor, zero_point), gamma, beta, last);
    memcpy(output + c, last, left);
  }
}
#endif /* MCUF_X86 */
