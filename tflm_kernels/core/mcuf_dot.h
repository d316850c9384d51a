/* SPDX-License-Identifier: Apache-2.0
 *
 * Inner products in C of int16 activations and a piece of two weight rows, both already expanded. */
#ifndef MCUF_DOT_H_
#define MCUF_DOT_H_

#include "mcuf_types.h"

/* Weights expanded at a time: 4 bytes of stack each for a pair of rows. A network has 1 KB of stack. */
#if UINTPTR_MAX > UINT32_MAX
#define MCUF_DOT_PIECE 512
#else
#define MCUF_DOT_PIECE 48
#endif

static inline void mcuf_expand_s16(const int8_t* source, int32_t count, int16_t* target) {
  for (int32_t i = 0; i < count; ++i) target[i] = source[i];
}

/* acc[t] += sum_k rows[t * stride + k] * first[k] for four tokens, and acc[4 + t] the same with second. */
static inline void mcuf_dot_4x2(const int16_t* rows, int32_t stride, const int16_t* first, const int16_t* second,
                                int32_t n, int32_t acc[8]) {
  const int16_t *r0 = rows, *r1 = r0 + stride, *r2 = r1 + stride, *r3 = r2 + stride;
  int32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
  int32_t b0 = acc[4], b1 = acc[5], b2 = acc[6], b3 = acc[7];
  for (int32_t k = 0; k < n; ++k) {
    const int32_t p = first[k], q = second[k];
    a0 += p * r0[k];
    a1 += p * r1[k];
    a2 += p * r2[k];
    a3 += p * r3[k];
    b0 += q * r0[k];
    b1 += q * r1[k];
    b2 += q * r2[k];
    b3 += q * r3[k];
  }
  acc[0] = a0, acc[1] = a1, acc[2] = a2, acc[3] = a3;
  acc[4] = b0, acc[5] = b1, acc[6] = b2, acc[7] = b3;
}

/* The same for one token. */
static inline void mcuf_dot_1x2(const int16_t* row, const int16_t* first, const int16_t* second, int32_t n,
                                int32_t* acc_first, int32_t* acc_second) {
  int32_t a = *acc_first, b = *acc_second;
  for (int32_t k = 0; k < n; ++k) {
    a += (int32_t)first[k] * row[k];
    b += (int32_t)second[k] * row[k];
  }
  *acc_first = a;
  *acc_second = b;
}

#endif /* MCUF_DOT_H_ */
