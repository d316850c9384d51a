/* SPDX-License-Identifier: Apache-2.0
 *
 * Inner products for Cortex-M with vectors (MVE), and four outputs from their sums. Internal to the C kernels. */
#ifndef MCUF_DOT_MVE_H_
#define MCUF_DOT_MVE_H_

#include <arm_mve.h>
#include <stdbool.h>

#include "mcuf_types.h"

#define MCUF_VECTOR 16 /* int8 values */
#define MCUF_LANES 4   /* int32 values of a vector */

/* Sums of four tokens with rows of weights: acc int32 [rows, 4], up to end, a multiple of two rows. second: bytes from
 * the first to the second row of a pair, k, or 0 if there is one row only; pairs follow one another.
 *
 * mcuf_dot_rows_mve: int8 tokens, [k / 16][4][16], then [4][k % 16]; mcuf_dot_rows_add_mve: the same, added to acc;
 * mcuf_weigh_rows_mve: int16 tokens, [k / 8][4][8], then [4][k % 8]. */
void mcuf_dot_rows_mve(int32_t* acc, const int8_t* tokens, int32_t k, const int8_t* weights, const int32_t* end,
                       int32_t second);
void mcuf_dot_rows_add_mve(int32_t* acc, const int8_t* tokens, int32_t k, const int8_t* weights, const int32_t* end,
                           int32_t second);
void mcuf_weigh_rows_mve(int32_t* acc, const int16_t* tokens, int32_t k, const int8_t* weights, const int32_t* end,
                         int32_t second);

/* Two tokens, one after the other, added to acc: int32 [rows, 2], with the same arguments otherwise. */
void mcuf_dot_two_add_mve(int32_t* acc, const int8_t* tokens, int32_t k, const int8_t* weights, const int32_t* end,
                          int32_t second);

/* A fully connected layer of an even number of rows for four tokens as mcuf_dot_rows_mve() takes them. Passed by value,
 * since all registers are taken: the stack is where it is read. */
typedef struct {
  const int8_t* tokens;
  int32_t k;
  const int8_t* weights;
  const int32_t *bias, *bias_end, *multiplier;
  int8_t* output;
  const int8_t* residual; /* or NULL */
  const int16_t* residual_scale;
  const int8_t* gelu_table; /* or NULL */
  int32_t stride;           /* bytes from token to token of output and residual, at most MCUF_MAX_FEATURES */
  int32_t zero_point;       /* with a table, 128 more */
  int32_t last;             /* token; the tokens after it are copies of it */
} mcuf_fc_four;

void mcuf_fc_four_mve(mcuf_fc_four layer);

/* Sums of one vector of k values with four others. */
static inline int32x4_t mcuf_dot_1x4_mve(const int8_t* x, const int8_t* r0, const int8_t* r1, const int8_t* r2,
                                         const int8_t* r3, int32_t k) {
  int32_t a = 0, b = 0, c = 0, d = 0;
  const uint32_t rest = (uint32_t)k % MCUF_VECTOR;
  for (uint32_t i = (uint32_t)k / MCUF_VECTOR; i > 0; --i) {
    const int8x16_t v = vldrbq_s8(x);
    a = vmladavaq_s8(a, v, vldrbq_s8(r0));
    b = vmladavaq_s8(b, v, vldrbq_s8(r1));
    c = vmladavaq_s8(c, v, vldrbq_s8(r2));
    d = vmladavaq_s8(d, v, vldrbq_s8(r3));
    x += MCUF_VECTOR, r0 += MCUF_VECTOR, r1 += MCUF_VECTOR, r2 += MCUF_VECTOR, r3 += MCUF_VECTOR;
  }
  if (rest != 0) {
    const mve_pred16_t lanes = vctp8q(rest);
    const int8x16_t v = vldrbq_z_s8(x, lanes);
    a = vmladavaq_s8(a, v, vldrbq_z_s8(r0, lanes));
    b = vmladavaq_s8(b, v, vldrbq_z_s8(r1, lanes));
    c = vmladavaq_s8(c, v, vldrbq_z_s8(r2, lanes));
    d = vmladavaq_s8(d, v, vldrbq_z_s8(r3, lanes));
  }
  return vsetq_lane_s32(d, vsetq_lane_s32(c, vsetq_lane_s32(b, vdupq_n_s32(a), 1), 2), 3);
}

/* Saturates to [-128, 127], as mcuf_sat8() does. */
static inline int32x4_t mcuf_sat8_mve(int32x4_t values) {
  return vminq_s32(vmaxq_s32(values, vdupq_n_s32(-128)), vdupq_n_s32(127));
}

#endif /* MCUF_DOT_MVE_H_ */
