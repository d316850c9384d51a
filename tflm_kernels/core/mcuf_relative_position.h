/* SPDX-License-Identifier: Apache-2.0
 *
 * Relative positions in attention: the patches are a grid, row by row, after the prefix tokens; what is added to a
 * score or a value depends on how many rows and columns the key is away from the query. Part of the params of
 * IntAttention and StreamedAttention; mcuf_int_attention_s8.h specifies the arithmetic. */
#ifndef MCUF_RELATIVE_POSITION_H_
#define MCUF_RELATIVE_POSITION_H_

#include "mcuf_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The fields of head_params for each head, int32. */
enum {
  MCUF_RELATIVE_KEY,   /* biases: their factor, 1 .. head_dim; tables: round(scale of keys / k_scale * 2^31), >= 0 */
  MCUF_RELATIVE_VALUE, /* biases: 0; tables: round(scale of values / v_scale * 2^31), >= 0 */
  MCUF_RELATIVE_HEAD_PARAMS
};

/* Their kernels. Params point to them, so that a program without relative positions has none of their code. */
typedef struct mcuf_relative_kernels mcuf_relative_kernels;
MCUF_API extern const mcuf_relative_kernels mcuf_relative;

/* Either biases, or tables of keys and values that all heads share. With r and c the rows and columns from the query to
 * the key:
 *   bias         of each head: [2 rows - 1, 2 columns - 1] by (r + rows - 1, c + columns - 1), then, if there is a
 *                prefix, of a patch for a query in the prefix, of a prefix token for a patch, of two prefix tokens
 *   keys, values [2 rows - 1] entries by r + rows - 1, [2 columns - 1] by c + columns - 1, then, if there is a prefix,
 *                that of all pairs with a prefix token; an entry is head_dim values. Two patches add up two entries. */
typedef struct {
  int32_t rows, columns;      /* of the grid; 0: no relative positions. rows * columns <= tokens: the rest is prefix */
  const int32_t* head_params; /* [num_heads, MCUF_RELATIVE_HEAD_PARAMS] */
  const int16_t* bias;        /* [num_heads, mcuf_relative_bias_length()], or NULL */
  const int8_t* keys;         /* [mcuf_relative_table_length(), head_dim], -127 .. 127, or NULL */
  const int8_t* values;       /* as keys */
  const mcuf_relative_kernels* kernels; /* &mcuf_relative */
} mcuf_relative_position;

/* Biases of one head, entries of a table. 1 <= rows * columns <= tokens <= MCUF_ATTENTION_MAX_TOKENS. */
static inline int32_t mcuf_relative_bias_length(int32_t rows, int32_t columns, int32_t tokens) {
  return (2 * rows - 1) * (2 * columns - 1) + (tokens > rows * columns ? 3 : 0);
}
static inline int32_t mcuf_relative_table_length(int32_t rows, int32_t columns, int32_t tokens) {
  return 2 * (rows + columns - 1) + (tokens > rows * columns ? 1 : 0);
}

#ifdef __cplusplus
}
#endif

#endif /* MCUF_RELATIVE_POSITION_H_ */
