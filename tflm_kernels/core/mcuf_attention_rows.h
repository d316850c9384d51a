/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention of some query rows of one head against all keys and values: what IntAttention and StreamedAttention share.
 * mcuf_int_attention_s8.h specifies the arithmetic. Internal to the C kernels.
 *
 * Keys and values are copied first, in the form that the target's kernels like best:
 *   keys     as the weights of mcuf_block.h, one row per key, values below -127 as -127
 *   values   int8 [head_dim, tokens], transposed; with the DSP extension pairs of channels as plain bytes,
 *            [head_dim / 2][tokens][2]; both sizes rounded up to even */
#ifndef MCUF_ATTENTION_ROWS_H_
#define MCUF_ATTENTION_ROWS_H_

#include "mcuf_block.h"
#include "mcuf_int_attention_s8.h"
#include "mcuf_target.h"
#include "mcuf_types.h"

#define MCUF_K_FLOOR (-127) /* packed keys cannot hold -128, so no kernel uses it */

/* How keys are packed. */
#if MCUF_DSP
#define MCUF_ATTENTION_PACKING MCUF_PACKING_PAIRS
#else
#define MCUF_ATTENTION_PACKING MCUF_PACKING_ROWS
#endif

/* Relative positions of one head: mcuf_relative_position.h. */
typedef struct {
  int32_t rows, columns, prefix; /* of the grid; tokens before it */
  const int32_t* head;           /* its MCUF_RELATIVE_HEAD_PARAMS */
  const int16_t* bias;           /* its biases, or NULL */
  int32_t bias_length;
  int32_t length;        /* entries of a table, 0 with biases */
  int8_t *keys, *values; /* the tables, as keys and values of `length` tokens are stored */
  int32_t query;         /* the token of the first query row; mcuf_attention_rows() may move it on */
  const mcuf_relative_kernels* kernels;
} mcuf_relative_rows;

typedef struct {
  int32_t tokens, head_dim;
  int32_t out_stride;           /* bytes from output row to output row */
  int32_t zero_point;           /* of the output */
  int32_t numerator_shift;      /* of the softmax */
  mcuf_relative_rows* relative; /* or NULL */
} mcuf_attention_rows_shape;

/* Factor and shift that turn sum_j e[j] v[j] into an output: gain / sum of one row. */
typedef struct {
  int32_t multiplier, shift;
} mcuf_row_scale;

struct mcuf_relative_kernels {
  /* Fills in what all heads share, and stores the tables, if there are any, in [keys | values] of
   * mcuf_attention_keys_bytes(length, head_dim) each. shape: tokens and head_dim are read. */
  void (*begin)(mcuf_relative_rows* relative, const mcuf_relative_position* position,
                const mcuf_attention_rows_shape* shape, int8_t* tables);
  /* Adds what they add to the scores of `rows` query rows, 1 or 4, that are in scratch; block: these queries. */
  void (*add_scores)(const mcuf_attention_rows_shape* shape, const int16_t* block, int32_t rows, void* scratch);
  /* mcuf_weigh_rows() with a table's entries of values besides; the numerators are in scratch. */
  void (*weigh_rows)(const mcuf_attention_rows_shape* shape, const int32_t* head, const int8_t* values, int32_t rows,
                     const mcuf_row_scale* scale, void* scratch, int8_t* output);
};

/* Entries of a table, 0 if there is none. */
static inline int32_t mcuf_relative_length(const mcuf_relative_position* position, int32_t tokens) {
  return position->keys == NULL ? 0 : mcuf_relative_table_length(position->rows, position->columns, tokens);
}

/* Fills in what is head h's. */
static inline void mcuf_relative_set_head(mcuf_relative_rows* relative, const mcuf_relative_position* position,
                                          int32_t h) {
  relative->head = position->head_params + (ptrdiff_t)MCUF_RELATIVE_HEAD_PARAMS * h;
  relative->bias = position->bias == NULL ? NULL : position->bias + (ptrdiff_t)relative->bias_length * h;
}

/* Bytes of the keys of one head, and of its values; a multiple of 4. */
static inline int32_t mcuf_attention_keys_bytes(int32_t tokens, int32_t head_dim) {
  return mcuf_round_up_even(tokens) * mcuf_round_up_even(head_dim);
}

/* Scratch of the rows: int32 scores [tokens, 4], int16 numerators of as many, a block of queries. Bytes, a multiple of
 * 16. */
static inline int32_t mcuf_attention_rows_scratch_bytes(int32_t tokens, int32_t head_dim) {
  return MCUF_TOKEN_BLOCK * mcuf_round_up_even(tokens) * (int32_t)(sizeof(int32_t) + sizeof(int16_t)) +
         mcuf_block_bytes(head_dim);
}

/* The numerators in that scratch. */
static inline int16_t* mcuf_attention_numerators(int32_t tokens, void* scratch) {
  return (int16_t*)((int32_t*)scratch + (ptrdiff_t)MCUF_TOKEN_BLOCK * mcuf_round_up_even(tokens));
}

/* Scratch of relative positions after it: a word for each of four rows and each entry of a table, and for each row and
 * column of the grid, which are at most half as many and one more. Bytes, a multiple of 16; none without tables. */
static inline int32_t mcuf_relative_scratch_bytes(int32_t length) {
  const int32_t even = mcuf_round_up_even(length);
  return length == 0 ? 0 : MCUF_TOKEN_BLOCK * (int32_t)sizeof(int32_t) * (even + even / 2 + 1);
}

/* Stores keys or values of tokens [first, first + count), which lie stride bytes apart. */
void mcuf_attention_store_keys(const mcuf_attention_rows_shape* shape, int8_t* keys, int32_t first, int32_t count,
                               const int8_t* source, int32_t stride);
void mcuf_attention_store_values(const mcuf_attention_rows_shape* shape, int8_t* values, int32_t first, int32_t count,
                                 const int8_t* source, int32_t stride);

/* count (1 .. 4) query rows of one head. q: rows of head_dim values, q_stride apart; output may equal q if the strides
 * are equal. keys, values: as stored; head: its MCUF_ATTENTION_HEAD_PARAMS; scratch 4-byte aligned. */
void mcuf_attention_rows(const mcuf_attention_rows_shape* shape, const int32_t* head, const int8_t* q, int32_t q_stride,
                         const int8_t* keys, const int8_t* values, int32_t count, void* scratch, int8_t* output);

/* What differs between targets, for rows = 1 or 4 query rows. numerators: int16, in the kernels' own order.
 *
 * mcuf_softmax_rows: scores [tokens, rows] -> numerators, and the scale of each row.
 * mcuf_weigh_rows: sums of numerators * values, scaled, to the outputs. */
void mcuf_softmax_rows(const mcuf_attention_rows_shape* shape, const int32_t* scores, int32_t rows, const int32_t* head,
                       int16_t* numerators, mcuf_row_scale* scale);
void mcuf_weigh_rows(const mcuf_attention_rows_shape* shape, const int16_t* numerators, const int8_t* values,
                     int32_t rows, const mcuf_row_scale* scale, int8_t* output);

#if MCUF_PORTABLE || MCUF_SCALAR
#define MCUF_WEIGH_CHANNELS (MCUF_SCALAR ? 4 : 2) /* at once */

/* acc[c * rows + t] = the sum of row t's numerators times the values of channel c. tokens: even, from channel to
 * channel. acc: of an even number of channels. */
void mcuf_weigh_channels(const int8_t* values, int32_t channels, int32_t tokens, const int16_t* numerators,
                         int32_t rows, int32_t* acc);
#endif

/* The scale of a row whose numerators add up to sum. With them shifted right by s = numerator_shift bits,
 * the largest is 32767 >> s, so that sum is 32767 >> s .. tokens * (32767 >> s) < 2^24. */
mcuf_row_scale mcuf_scale_of_row(uint32_t sum, const int32_t* head);

#endif /* MCUF_ATTENTION_ROWS_H_ */
