/* SPDX-License-Identifier: Apache-2.0
 *
 * Inner products of up to four tokens with rows of weights: fully connected layers, patch embedding, stem convolutions
 * and attention scores are made of them. Internal to the C kernels.
 *
 * A block is a copy of those tokens in the form that the target's kernels like best (mcuf_target.h); the copy also
 * makes it safe to overwrite the tokens. */
#ifndef MCUF_BLOCK_H_
#define MCUF_BLOCK_H_

#include "mcuf_packing.h"
#include "mcuf_target.h"
#include "mcuf_types.h"

#define MCUF_TOKEN_BLOCK 4

/* Bytes of a block, 4-byte aligned, a multiple of 16. k: inputs per token. Three tokens may take the room of four. */
static inline int32_t mcuf_block_bytes(int32_t k) {
  return MCUF_TOKEN_BLOCK * mcuf_round_up_even(k) * (int32_t)sizeof(int16_t);
}

/* Copies values [at, at + n) of count (1 .. 4) tokens of k values; the tokens are stride bytes apart. source NULL:
 * zeros. Parts are filled with rising `at`, up to k. */
void mcuf_block_fill(int16_t* block, int32_t k, int32_t count, const int8_t* source, int32_t stride, int32_t at,
                     int32_t n);

/* One token of a block of count (1 .. 4) tokens. */
typedef struct {
  int16_t* block;
  int32_t k, count;
  int32_t index; /* 0 .. count - 1 */
} mcuf_block_token;

/* The same for one token: its values [at, at + n), n at least 1. step 1: consecutive from source; 0: all source[0]. */
void mcuf_block_fill_token(const mcuf_block_token* token, const int8_t* source, int32_t step, int32_t at, int32_t n);

/* mcuf_block_fill(), made of mcuf_block_fill_token(). */
static inline void mcuf_block_fill_by_token(int16_t* block, int32_t k, int32_t count, const int8_t* source,
                                            int32_t stride, int32_t at, int32_t n) {
  static const int8_t zero = 0;
  mcuf_block_token token = {block, k, count, 0};
  for (; token.index < count; ++token.index) {
    const int8_t* values = source == NULL ? &zero : source + (ptrdiff_t)token.index * stride;
    mcuf_block_fill_token(&token, values, source != NULL, at, n);
  }
}

/* Some rows of a fully connected layer; the pointers start at the first of them, an even one if packed in pairs.
 * mcuf_in_place_fc_s8.h specifies the arithmetic. */
typedef struct {
  const int8_t* weights; /* 4-byte aligned if packed in pairs */
  int32_t packing;       /* MCUF_PACKING_* */
  int32_t in_features;
  int32_t out_features; /* rows */
  int32_t zero_point;
  const int32_t* bias;
  const int32_t* multiplier;
  const int16_t* residual_scale; /* NULL without residual */
  const int8_t* gelu_table;      /* [MCUF_GELU_TABLE_SIZE] or NULL */
} mcuf_fc_rows;

/* Outputs of the rows for a block of count (1 .. 4) tokens. residual (or NULL) and output start at the first token and
 * row; their tokens are stride bytes apart. output may equal residual. */
void mcuf_block_fc(const mcuf_fc_rows* rows, const int16_t* block, int32_t count, const int8_t* residual,
                   int8_t* output, int32_t stride);

#if MCUF_MVE || MCUF_DSP
#if MCUF_MVE
#define MCUF_FEW_PACKING MCUF_PACKING_ROWS
#define MCUF_FEW_OUTPUTS 2
#define MCUF_FEW_INPUTS MCUF_MAX_FEATURES
#else
#define MCUF_FEW_PACKING MCUF_PACKING_PAIRS
#define MCUF_FEW_OUTPUTS 6
#define MCUF_FEW_INPUTS 512
#define MCUF_FEW_RESULTS 12
#endif
/* Whether outputs are so few that they are made more quickly without a block: one or two of any number of tokens; of
 * fewer than four tokens a few more, at most MCUF_FEW_RESULTS in all. */
static inline bool mcuf_outputs_are_few(int32_t tokens, int32_t in_features, int32_t out_features) {
  return (in_features <= MCUF_FEW_INPUTS || out_features == 1) &&
         (out_features <= 2 || (tokens < MCUF_TOKEN_BLOCK && out_features + tokens <= MCUF_FEW_OUTPUTS + 1));
}
/* A layer of at most MCUF_FEW_OUTPUTS rows of that packing, for count tokens that lie in_stride bytes apart, without a
 * copy of them: output, [count, rows], may equal input if there is one token or no more rows than in_stride, and
 * residual. */
void mcuf_block_fc_few(const mcuf_fc_rows* rows, const int8_t* input, int32_t in_stride, int32_t count,
                       const int8_t* residual, int8_t* output);
#endif

/* acc[o, t] += sum_i weights[o, i] * token t, for out_features rows and count = 1, 2 or 4 tokens.
 * acc: int32 [out_features rounded up to even, count]; a surplus row's sums are meaningless. */
void mcuf_block_accumulate(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k,
                           const int16_t* block, int32_t count, int32_t* acc);

/* The same, but sets acc to the sums: it need not be initialised. */
void mcuf_block_dot(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k, const int16_t* block,
                    int32_t count, int32_t* acc);

/* The number of tokens that mcuf_block_accumulate takes at once when `left` are left. */
static inline int32_t mcuf_block_count(int32_t left) {
  return left >= MCUF_TOKEN_BLOCK ? MCUF_TOKEN_BLOCK : left >= 2 ? 2 : 1;
}

#endif /* MCUF_BLOCK_H_ */
