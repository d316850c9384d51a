/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_attention_rows.h for Cortex-M with vectors (MVE). Numerators of four rows are a block of int16, with n tokens
 * rounded up to even: [n / 8][4][8], then [4][n % 8]; those of one row are [n]. A surplus token's are 0. */
#include "mcuf_attention_rows.h"
#include "mcuf_target.h"
#include "mcuf_types.h" /* an empty translation unit is not valid C99 */

#if MCUF_MVE
#include "mcuf_dot_mve.h"
#include "mcuf_fixed_point.h"
#include "mcuf_softmax_table.h"

#define HALVES 8 /* int16 values of a vector */

void mcuf_attention_store_keys(const mcuf_attention_rows_shape* p, int8_t* keys, int32_t first, int32_t count,
                               const int8_t* source, int32_t stride) {
  const int8x16_t floor = vdupq_n_s8(MCUF_K_FLOOR);
  int8_t* target = keys + (ptrdiff_t)first * p->head_dim;
  for (int32_t j = 0; j < count; ++j, source += stride) {
    const int8_t* row = source;
    for (int32_t left = p->head_dim; left > 0; left -= MCUF_VECTOR, row += MCUF_VECTOR) {
      const mve_pred16_t lanes = vctp8q((uint32_t)left);
      vstrbq_p_s8(target, vmaxq_s8(vldrbq_z_s8(row, lanes), floor), lanes);
      target += left < MCUF_VECTOR ? left : MCUF_VECTOR;
    }
  }
}

void mcuf_attention_store_values(const mcuf_attention_rows_shape* p, int8_t* values, int32_t first, int32_t count,
                                 const int8_t* source, int32_t stride) {
  const int32_t tokens = mcuf_round_up_even(p->tokens);
  const uint16x8_t channels = vmulq_n_u16(vidupq_n_u16(0, 1), (uint16_t)tokens);
  for (int32_t c = 0; c < p->head_dim; c += HALVES) {
    const mve_pred16_t lanes = vctp16q((uint32_t)(p->head_dim - c));
    const int8_t* row = source + c;
    int8_t* target = values + (ptrdiff_t)c * tokens + first;
    for (int32_t j = count; j > 0; --j, row += stride) {
      vstrbq_scatter_offset_p_s16(target++, channels, vldrbq_z_s16(row, lanes), lanes);
    }
  }
}

/* ---- softmax ---- */

/* What turns differences from the largest score into numerators. */
typedef struct {
  int32x4_t max, multiplier;
  int32_t score_shift, numerator_shift;
} softmax_of;

/* shifts: whether numerators are shifted, a constant. */
static inline int32x4_t numerators_of(const softmax_of* s, int32x4_t scores, bool shifts) {
  const int32x4_t differences = vshlq_r_s32(vsubq_s32(s->max, scores), s->score_shift);
  const int32x4_t index = vminq_s32(vrmulhq_s32(differences, s->multiplier), vdupq_n_s32(MCUF_SOFTMAX_LAST));
  const int32x4_t e = vldrhq_gather_shifted_offset_s32(mcuf_softmax_table, vreinterpretq_u32_s32(index));
  return shifts ? vshlq_r_s32(e, -s->numerator_shift) : e;
}

/* scores: [tokens, 4]. Returns the sums of the rows' numerators. */
static inline int32x4_t softmax_four(softmax_of s, const int32_t* scores, int32_t tokens, bool shifts, int16_t* e) {
  s.max = vldrwq_s32(scores);
  const int32_t* score = scores + MCUF_LANES;
  for (int32_t j = tokens - 1; j > 0; --j, score += MCUF_LANES) s.max = vmaxq_s32(s.max, vldrwq_s32(score));
  int32x4_t sum = vdupq_n_s32(0);
  for (int32_t left = tokens; left > 0; left -= HALVES) {
    const int32_t used = left < HALVES ? left : HALVES, width = mcuf_round_up_even(used);
    const uint32x4_t rows = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)width);
    for (int32_t j = used; j > 0; --j, scores += MCUF_LANES) {
      const int32x4_t numerators = numerators_of(&s, vldrwq_s32(scores), shifts);
      sum = vaddq_s32(sum, numerators);
      vstrhq_scatter_shifted_offset_s32(e++, rows, numerators);
    }
    if (used < width) vstrhq_scatter_shifted_offset_s32(e++, rows, vdupq_n_s32(0));
    e += (MCUF_TOKEN_BLOCK - 1) * width;
  }
  return sum;
}

/* scores: [tokens]. */
static inline int32_t softmax_one(softmax_of s, const int32_t* scores, int32_t tokens, bool shifts, int16_t* e) {
  int32_t max = INT32_MIN, sum = 0;
  const int32_t* score = scores;
  for (int32_t left = tokens; left > 0; left -= MCUF_LANES, score += MCUF_LANES) {
    const mve_pred16_t lanes = vctp32q((uint32_t)left);
    max = vmaxvq_p_s32(max, vldrwq_z_s32(score, lanes), lanes);
  }
  s.max = vdupq_n_s32(max);
  if (tokens % 2 != 0) e[tokens] = 0;
  for (int32_t left = tokens; left > 0; left -= MCUF_LANES, scores += MCUF_LANES, e += MCUF_LANES) {
    const mve_pred16_t lanes = vctp32q((uint32_t)left);
    const int32x4_t present = vpselq_s32(vldrwq_z_s32(scores, lanes), s.max, lanes);
    const int32x4_t numerators = numerators_of(&s, present, shifts);
    sum = vaddvaq_p_s32(sum, numerators, lanes);
    vstrhq_p_s32(e, numerators, lanes);
  }
  return sum;
}

void mcuf_softmax_rows(const mcuf_attention_rows_shape* p, const int32_t* scores, int32_t rows, const int32_t* head,
                       int16_t* numerators, mcuf_row_scale* scale) {
  const bool shifts = p->numerator_shift != 0;
  const softmax_of s = {
      vdupq_n_s32(0),
      vdupq_n_s32(head[MCUF_HEAD_SCORE_MULTIPLIER]),
      head[MCUF_HEAD_SCORE_SHIFT],
      p->numerator_shift,
  };
  int32_t sums[MCUF_TOKEN_BLOCK];
  if (rows == 1) {
    sums[0] = shifts ? softmax_one(s, scores, p->tokens, true, numerators)
                     : softmax_one(s, scores, p->tokens, false, numerators);
  } else {
    vstrwq_s32(sums, shifts ? softmax_four(s, scores, p->tokens, true, numerators)
                            : softmax_four(s, scores, p->tokens, false, numerators));
  }
  for (int32_t t = 0; t < rows; ++t) scale[t] = mcuf_scale_of_row((uint32_t)sums[t], head);
}

/* ---- weighted sum ---- */

#define CHANNELS 8 /* whose sums lie on the stack */

/* scale: of one row, in all lanes, or of four rows. */
typedef struct {
  int32x4_t multiplier, shift; /* to the left: negative */
  int32_t zero_point;
} lane_scale;

static inline int32x4_t scaled(int32x4_t sums, const lane_scale* s) {
  const int32x4_t high = vrmulhq_s32(sums, s->multiplier);
  return mcuf_sat8_mve(vaddq_n_s32(vrshlq_s32(high, s->shift), s->zero_point)); /* rounds as the shift to the right */
}

static void weigh_four(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values,
                       const mcuf_row_scale* scale, int8_t* output) {
  const int32_t tokens = mcuf_round_up_even(p->tokens);
  const uint32x4_t rows = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)p->out_stride);
  const uint32x4_t words = vidupq_n_u32(0, 2); /* of a mcuf_row_scale */
  const lane_scale lanes = {
      vldrwq_gather_shifted_offset_s32(&scale->multiplier, words),
      vnegq_s32(vldrwq_gather_shifted_offset_s32(&scale->shift, words)),
      p->zero_point,
  };
  int32_t acc[CHANNELS * MCUF_TOKEN_BLOCK];
  for (int32_t left = p->head_dim; left > 0; left -= CHANNELS, values += (ptrdiff_t)CHANNELS * tokens) {
    const int32_t used = left < CHANNELS ? left : CHANNELS, even = used & ~1;
    int32_t* last = acc + even * MCUF_TOKEN_BLOCK;
    if (even > 0) mcuf_weigh_rows_mve(acc, numerators, tokens, values, last, tokens);
    if (even < used) {
      mcuf_weigh_rows_mve(last, numerators, tokens, values + (ptrdiff_t)even * tokens, last + 2 * MCUF_TOKEN_BLOCK, 0);
    }
    const int32_t* sums = acc;
    for (int32_t c = used; c > 0; --c, sums += MCUF_TOKEN_BLOCK) {
      vstrbq_scatter_offset_s32(output++, rows, scaled(vldrwq_s32(sums), &lanes));
    }
  }
}

/* Sums of four channels, whose values are `next` apart, with the numerators of one row. */
static inline int32x4_t weigh_channels(const int16_t* e, const int8_t* v, ptrdiff_t next, int32_t tokens) {
  int32_t acc[MCUF_LANES] = {0};
  for (int32_t left = tokens; left > 0; left -= HALVES, e += HALVES, v += HALVES) {
    const mve_pred16_t lanes = vctp16q((uint32_t)left);
    const int16x8_t x = vldrhq_z_s16(e, lanes);
    acc[0] = vmladavaq_s16(acc[0], x, vldrbq_z_s16(v, lanes));
    acc[1] = vmladavaq_s16(acc[1], x, vldrbq_z_s16(v + next, lanes));
    acc[2] = vmladavaq_s16(acc[2], x, vldrbq_z_s16(v + 2 * next, lanes));
    acc[3] = vmladavaq_s16(acc[3], x, vldrbq_z_s16(v + 3 * next, lanes));
  }
  return vldrwq_s32(acc);
}

static void weigh_one(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values,
                      const mcuf_row_scale* scale, int8_t* output) {
  const int32_t tokens = mcuf_round_up_even(p->tokens);
  const lane_scale lanes = {vdupq_n_s32(scale->multiplier), vdupq_n_s32(-scale->shift), p->zero_point};
  int32_t c = 0;
  for (; c + MCUF_LANES <= p->head_dim; c += MCUF_LANES) {
    vstrbq_s32(output + c,
               scaled(weigh_channels(numerators, values + (ptrdiff_t)c * tokens, tokens, p->tokens), &lanes));
  }
  for (; c < p->head_dim; ++c) {
    const int32x4_t sums = weigh_channels(numerators, values + (ptrdiff_t)c * tokens, 0, p->tokens);
    vstrbq_p_s32(output + c, scaled(sums, &lanes), vctp32q(1));
  }
}

void mcuf_weigh_rows(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values, int32_t rows,
                     const mcuf_row_scale* scale, int8_t* output) {
  if (rows == 1) {
    weigh_one(p, numerators, values, scale, output);
  } else {
    weigh_four(p, numerators, values, scale, output);
  }
}
#endif /* MCUF_MVE */
