/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_attention_rows.h: what all targets share, and the portable softmax and weighted sum. */
#include "mcuf_attention_rows.h"

#include "mcuf_fixed_point.h"
#include "mcuf_hooks.h"
#include "mcuf_softmax_table.h"
#include "mcuf_sums_scalar.h"
#include "mcuf_target.h"

#if MCUF_PORTABLE || MCUF_SCALAR
void mcuf_attention_store_keys(const mcuf_attention_rows_shape* p, int8_t* keys, int32_t first, int32_t count,
                               const int8_t* source, int32_t stride) {
  for (int32_t j = 0; j < count; ++j) {
    const int8_t* row = source + (ptrdiff_t)j * stride;
    int8_t* target = keys + (ptrdiff_t)(first + j) * p->head_dim;
    for (int32_t c = 0; c < p->head_dim; ++c) target[c] = row[c] < MCUF_K_FLOOR ? MCUF_K_FLOOR : row[c];
  }
}

void mcuf_attention_store_values(const mcuf_attention_rows_shape* p, int8_t* values, int32_t first, int32_t count,
                                 const int8_t* source, int32_t stride) {
  const int32_t tokens = mcuf_round_up_even(p->tokens);
  for (int32_t j = 0; j < count; ++j) {
    const int8_t* row = source + (ptrdiff_t)j * stride;
    int8_t* target = values + first + j;
    for (int32_t c = 0; c < p->head_dim; ++c) target[(ptrdiff_t)c * tokens] = row[c];
  }
}
#endif

mcuf_row_scale mcuf_scale_of_row(uint32_t sum, const int32_t* head) {
  const int32_t zeros = mcuf_clz32(sum);                       /* 8 .. 17 + numerator_shift */
  const uint32_t inverse = 0xFFFFFFFFu / (sum << zeros >> 16); /* 2^48 / normalised sum: 17 bits */
  mcuf_row_scale r;
  r.multiplier = (int32_t)(((uint64_t)inverse * (uint32_t)head[MCUF_HEAD_OUT_MULTIPLIER]) >> 17);
  r.shift = 30 - head[MCUF_HEAD_OUT_EXPONENT] - zeros; /* 1 .. 30 */
  return r;
}

/* rows: 1 or 4 */
static void attend(const mcuf_attention_rows_shape* p, const int32_t* head, const int8_t* q, int32_t q_stride,
                   const int8_t* keys, const int8_t* values, int32_t rows, void* scratch, int8_t* output) {
  int32_t* scores = (int32_t*)scratch;
  int16_t* numerators = mcuf_attention_numerators(p->tokens, scratch);
  int16_t* block = numerators + (ptrdiff_t)MCUF_TOKEN_BLOCK * mcuf_round_up_even(p->tokens);
  const mcuf_relative_rows* relative = p->relative;
  mcuf_row_scale scale[MCUF_TOKEN_BLOCK];
  mcuf_block_fill(block, p->head_dim, rows, q, q_stride, 0, p->head_dim);
  mcuf_block_dot(keys, MCUF_ATTENTION_PACKING, p->tokens, p->head_dim, block, rows, scores);
  if (relative != NULL) relative->kernels->add_scores(p, block, rows, scratch);
  mcuf_softmax_rows(p, scores, rows, head, numerators, scale);
  if (relative != NULL && relative->length > 0) {
    relative->kernels->weigh_rows(p, head, values, rows, scale, scratch, output);
  } else {
    mcuf_weigh_rows(p, numerators, values, rows, scale, output);
  }
  MCUF_YIELD();
}

void mcuf_attention_rows(const mcuf_attention_rows_shape* p, const int32_t* head, const int8_t* q, int32_t q_stride,
                         const int8_t* keys, const int8_t* values, int32_t count, void* scratch, int8_t* output) {
  if (count == MCUF_TOKEN_BLOCK) {
    attend(p, head, q, q_stride, keys, values, count, scratch, output);
    return;
  }
  for (int32_t t = 0; t < count; ++t) {
    attend(p, head, q + (ptrdiff_t)t * q_stride, q_stride, keys, values, 1, scratch,
           output + (ptrdiff_t)t * p->out_stride);
    if (p->relative != NULL) ++p->relative->query;
  }
}

#if MCUF_PORTABLE || MCUF_SCALAR
/* From a numerator of a row to its next, and from row to row. */
#if MCUF_SCALAR
#define NUMERATOR_STEP(rows) (rows)
#define NUMERATOR_ROW(tokens) 1
#else
#define NUMERATOR_STEP(rows) 1
#define NUMERATOR_ROW(tokens) mcuf_round_up_even(tokens)
#endif

/* One row's numerators, and their sum. shift: a constant for short rows, so that they pay nothing for it. */
static inline uint32_t softmax_row(const int32_t* scores, int32_t tokens, int32_t rows, const int32_t* head,
                                   int32_t shift, int16_t* e) {
  const int32_t multiplier = head[MCUF_HEAD_SCORE_MULTIPLIER], factor = 1 << head[MCUF_HEAD_SCORE_SHIFT];
  int32_t max = scores[0];
  for (int32_t j = 1; j < tokens; ++j) max = scores[j * rows] > max ? scores[j * rows] : max;
  uint32_t sum = 0;
  for (int32_t j = 0; j < tokens; ++j) {
    const int32_t index = mcuf_mulhi_round((max - scores[j * rows]) * factor, multiplier);
    const int32_t numerator = mcuf_softmax_table[index < MCUF_SOFTMAX_LAST ? index : MCUF_SOFTMAX_LAST] >> shift;
    e[j * NUMERATOR_STEP(rows)] = (int16_t)numerator;
    sum += (uint32_t)numerator;
  }
  if (tokens % 2 != 0) e[tokens * NUMERATOR_STEP(rows)] = 0;
  return sum;
}

void mcuf_softmax_rows(const mcuf_attention_rows_shape* p, const int32_t* scores, int32_t rows, const int32_t* head,
                       int16_t* numerators, mcuf_row_scale* scale) {
  const int32_t tokens = p->tokens, shift = p->numerator_shift;
  for (int32_t t = 0; t < rows; ++t, numerators += NUMERATOR_ROW(tokens)) {
    const uint32_t sum = shift == 0 ? softmax_row(scores + t, tokens, rows, head, 0, numerators)
                                    : softmax_row(scores + t, tokens, rows, head, shift, numerators);
    scale[t] = mcuf_scale_of_row(sum, head);
  }
}

void mcuf_weigh_channels(const int8_t* values, int32_t channels, int32_t tokens, const int16_t* numerators,
                         int32_t rows, int32_t* acc) {
#if MCUF_SCALAR
  const mcuf_scalar_sums sums = {numerators, values, tokens, tokens, channels, rows, acc, tokens};
  mcuf_clear_sums(acc, mcuf_round_up_even(channels) * rows);
  mcuf_add_halfwords(&sums);
#else
  mcuf_block_dot(values, MCUF_PACKING_ROWS, channels, tokens, numerators, rows, acc);
#endif
}

void mcuf_weigh_rows(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values, int32_t rows,
                     const mcuf_row_scale* scale, int8_t* output) {
  const int32_t tokens = mcuf_round_up_even(p->tokens);
  for (int32_t c = 0; c < p->head_dim; c += MCUF_WEIGH_CHANNELS) {
    const int32_t channels = p->head_dim - c < MCUF_WEIGH_CHANNELS ? p->head_dim - c : MCUF_WEIGH_CHANNELS;
    int32_t acc[MCUF_WEIGH_CHANNELS * MCUF_TOKEN_BLOCK];
    mcuf_weigh_channels(values + (ptrdiff_t)c * tokens, channels, tokens, numerators, rows, acc);
    for (int32_t t = 0; t < rows; ++t) {
      for (int32_t i = 0; i < channels; ++i) {
        const int32_t high = mcuf_mulhi_round(acc[i * rows + t], scale[t].multiplier);
        const int32_t value = (high + (1 << (scale[t].shift - 1))) >> scale[t].shift;
        output[(ptrdiff_t)t * p->out_stride + c + i] = mcuf_sat8(p->zero_point + value);
      }
    }
  }
}
#endif
