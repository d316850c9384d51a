/* SPDX-License-Identifier: Apache-2.0
 *
 * From accumulator to output of a fully connected layer, in C: what the portable and the DSP kernels share. */
#ifndef MCUF_BLOCK_FINISH_H_
#define MCUF_BLOCK_FINISH_H_

#include "mcuf_block.h"
#include "mcuf_fixed_point.h"

/* A block of three tokens is kept and computed as one of two, then one of one. Only this file knows that. */
#define MCUF_SPLIT_COUNT 3
#define MCUF_FIRST_PART 2

/* Turns a token's place in a block, *index of *count, into its place in its part of the block. Returns the number of
 * tokens before that part. */
static inline int32_t mcuf_block_part(int32_t* count, int32_t* index) {
  if (*count != MCUF_SPLIT_COUNT) return 0;
  if (*index < MCUF_FIRST_PART) {
    *count = MCUF_FIRST_PART;
    return 0;
  }
  *count = MCUF_SPLIT_COUNT - MCUF_FIRST_PART;
  *index = 0;
  return MCUF_FIRST_PART;
}

/* acc[i * count + t]: sums of rows o + i, i < row_count, for count tokens, with bias. */
static inline void mcuf_block_finish(const mcuf_fc_rows* p, int32_t o, int32_t row_count, int32_t count,
                                     const int32_t* acc, const int8_t* residual, int8_t* output, int32_t stride) {
  const int8_t* gelu = p->gelu_table == NULL ? NULL : p->gelu_table + 128;
  const int32_t zero_point = p->zero_point;
  for (int32_t i = 0; i < row_count; ++i) {
    const int32_t multiplier = p->multiplier[o + i], scale = residual == NULL ? 0 : p->residual_scale[o + i];
    for (int32_t t = 0; t < count; ++t) {
      const ptrdiff_t at = (ptrdiff_t)t * stride + o + i;
      int32_t a = acc[i * count + t];
      if (residual != NULL) a += scale * residual[at];
      const int8_t q = mcuf_requantise(a, multiplier, zero_point);
      output[at] = gelu != NULL ? gelu[q] : q;
    }
  }
}

/* mcuf_block_fc() of a split block, part by part. No accumulators lie in its frame. */
static MCUF_OWN_STACK void mcuf_block_fc_parts(const mcuf_fc_rows* p, const int16_t* block, const int8_t* residual,
                                               int8_t* output, int32_t stride) {
  for (int32_t t = 0, part = MCUF_FIRST_PART; t < MCUF_SPLIT_COUNT; t += part, part = MCUF_SPLIT_COUNT - t) {
    mcuf_block_fc(p, block + t * mcuf_round_up_even(p->in_features), part,
                  residual == NULL ? NULL : residual + t * (ptrdiff_t)stride, output + t * (ptrdiff_t)stride, stride);
  }
}

/* mcuf_block_fc() of a block that is not split. */
static MCUF_OWN_STACK void mcuf_block_fc_part(const mcuf_fc_rows* p, const int16_t* block, int32_t count,
                                              const int8_t* residual, int8_t* output, int32_t stride) {
  for (int32_t o = 0; o < p->out_features; o += 2) {
    const int32_t rows = o + 1 < p->out_features ? 2 : 1;
    int32_t acc[2 * MCUF_TOKEN_BLOCK];
    for (int32_t t = 0; t < count; ++t) {
      acc[t] = p->bias[o];
      acc[count + t] = p->bias[o + rows - 1];
    }
    mcuf_block_accumulate(p->weights + mcuf_packed_offset(o, p->in_features, p->packing), p->packing, rows,
                          p->in_features, block, count, acc);
    mcuf_block_finish(p, o, rows, count, acc, residual, output, stride);
  }
}

/* mcuf_block_fc(), made of mcuf_block_accumulate() with accumulators on the stack: any packing and count. */
static inline void mcuf_block_fc_accumulated(const mcuf_fc_rows* p, const int16_t* block, int32_t count,
                                             const int8_t* residual, int8_t* output, int32_t stride) {
  if (count == MCUF_SPLIT_COUNT) {
    mcuf_block_fc_parts(p, block, residual, output, stride);
  } else {
    mcuf_block_fc_part(p, block, count, residual, output, stride);
  }
}

#endif /* MCUF_BLOCK_FINISH_H_ */
