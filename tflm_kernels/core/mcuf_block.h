/* SPDX-License-Identifier: Apache-2.0
 *
 * Inner products of up to four tokens with rows of weights: fully connected layers, patch embedding, stem convolutions
 * and attention scores are made of them. Internal to the C kernels.
 *
 * A block is a copy of those tokens in the form that the target's kernels like best (mcuf_target.h); the copy also
 * makes it safe to overwrite the tokens. */
#ifndef MCUF_BLOCK_H_
#define MCUF_BLOCK_H_

#include "mcuf_in_place_fc_s8.h"
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

#if MCUF_DSP
/* Values [at, at + 3) of four tokens, each of which begins two values behind the one before. */
void mcuf_block_fill_threes(int16_t* block, int32_t at, const int8_t* source);

/* Values [at, at + 3 c) of four tokens: three neighbouring pixels of c values (even, or 1) each, two pixels from token
 * to token. row: from the first token's second pixel on; its first one is outside the image, and all `value`. */
void mcuf_block_fill_left(int16_t* block, int32_t at, int32_t c, const int8_t* row, int8_t value);
#endif

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
/* Whether outputs are so few that they are made more quickly without a block. A layer that mcuf_fc_few() takes: not
 * staged, of MCUF_FEW_PACKING. */
#if MCUF_MVE
#define MCUF_FEW_PACKING MCUF_PACKING_ROWS
static inline bool mcuf_outputs_are_few(int32_t tokens, int32_t in_features, int32_t out_features, int32_t in_stride) {
  (void)in_features;
  return out_features <= 2 && (tokens == 1 || out_features <= in_stride);
}
#else
#define MCUF_FEW_PACKING MCUF_PACKING_PAIRS
#define MCUF_FEW_OUTPUTS 16 /* at most */
static inline bool mcuf_outputs_are_few(int32_t tokens, int32_t in_features, int32_t out_features, int32_t in_stride) {
  (void)in_stride;
  if (out_features <= 2) return out_features == 1 || in_features <= 512 || tokens < MCUF_TOKEN_BLOCK;
  if (tokens >= MCUF_TOKEN_BLOCK) return out_features == 3 && in_features <= 16;
  return out_features <= 4 ||
         (out_features <= MCUF_FEW_OUTPUTS && in_features <= (tokens == 1 && out_features <= 8 ? 128 : 16));
}
#endif
/* How many tokens mcuf_fc_few() takes between two calls of MCUF_YIELD(); of few weights, four times as many. */
#define MCUF_FEW_TOKENS 16
#define MCUF_FEW_WEIGHTS 512
static inline bool mcuf_few_at_once(int32_t tokens, int32_t in_features, int32_t out_features) {
  return tokens <= MCUF_FEW_TOKENS || (tokens <= 4 * MCUF_FEW_TOKENS && in_features * out_features <= MCUF_FEW_WEIGHTS);
}
/* `tokens` of the layer's tokens without copies of them, else as mcuf_in_place_fc_s8(). */
void mcuf_fc_few(const mcuf_in_place_fc_params* params, const int8_t* input, const int8_t* residual, int8_t* output,
                 int32_t tokens);
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
