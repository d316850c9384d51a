/* SPDX-License-Identifier: Apache-2.0
 *
 * Inner products of the portable kernels: a block of four tokens against a pair of weight rows.
 * Activations are expanded to int16 once (that copy is also what makes overwriting safe); weights are expanded in
 * small pieces on the stack. Compilers turn the inner loop into 16-bit multiply-adds (PMADDWD on x86). */
#ifndef MCUF_DOT_H_
#define MCUF_DOT_H_

#include "mcuf_types.h"

#define MCUF_TOKEN_BLOCK 4
/* Weights expanded at a time: 4 bytes of stack each for a pair of rows. A microcontroller has 1 KB for a network. */
#if defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define MCUF_DOT_PIECE 48
#else
#define MCUF_DOT_PIECE 128
#endif

/* Copies count int8 values to int16, those below floor as floor (-128 keeps all). */
static inline void mcuf_expand_s16(const int8_t* source, int32_t count, int32_t floor, int16_t* target) {
  for (int32_t i = 0; i < count; ++i) target[i] = (int16_t)(source[i] < floor ? floor : source[i]);
}

/* acc[t] += sum_k rows[t * k_count + k] * weights[k] for four tokens, and acc[4 + t] the same with weights2.
 * rows: int16 [4, k_count]. With fewer than four tokens the rest is computed and unused, so all rows must be readable.
 * weights2 may equal weights where there is no second row. Weights below floor are read as floor. */
static inline void mcuf_dot_4x2(const int16_t* rows, const int8_t* weights, const int8_t* weights2, int32_t k_count,
                                int32_t floor, int32_t acc[8]) {
  const int16_t* r0 = rows;
  const int16_t* r1 = r0 + k_count;
  const int16_t* r2 = r1 + k_count;
  const int16_t* r3 = r2 + k_count;
  int32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
  int32_t b0 = acc[4], b1 = acc[5], b2 = acc[6], b3 = acc[7];
  int16_t w0[MCUF_DOT_PIECE], w1[MCUF_DOT_PIECE];
  for (int32_t start = 0; start < k_count; start += MCUF_DOT_PIECE) {
    const int32_t n = k_count - start < MCUF_DOT_PIECE ? k_count - start : MCUF_DOT_PIECE;
    mcuf_expand_s16(weights + start, n, floor, w0);
    mcuf_expand_s16(weights2 + start, n, floor, w1);
    for (int32_t k = 0; k < n; ++k) {
      const int32_t p = w0[k], q = w1[k];
      a0 += p * r0[k];
      a1 += p * r1[k];
      a2 += p * r2[k];
      a3 += p * r3[k];
      b0 += q * r0[k];
      b1 += q * r1[k];
      b2 += q * r2[k];
      b3 += q * r3[k];
    }
    r0 += n;
    r1 += n;
    r2 += n;
    r3 += n;
  }
  acc[0] = a0, acc[1] = a1, acc[2] = a2, acc[3] = a3;
  acc[4] = b0, acc[5] = b1, acc[6] = b2, acc[7] = b3;
}

#endif /* MCUF_DOT_H_ */
