/* SPDX-License-Identifier: Apache-2.0
 *
 * Relative positions in the attention of some query rows (mcuf_attention_rows.h). Internal to the C kernels.
 *
 * Tables are copied to scratch first, as keys and values of their own: `length` entries for tokens. With a table of
 * keys, products of the entries and the queries are gathered for each row and column of the grid, so that scores add
 * them up without looking for offsets; with a table of values, numerators are added up by rows and columns of the grid
 * and then scattered to the entries. */
#ifndef MCUF_ATTENTION_RELATIVE_H_
#define MCUF_ATTENTION_RELATIVE_H_

#include "mcuf_attention_rows.h"
#include "mcuf_fixed_point.h"

/* Entries of a table, 0 if there is none. */
static inline int32_t mcuf_relative_length(const mcuf_relative_position* position, int32_t tokens) {
  return position->keys == NULL ? 0 : mcuf_relative_table_length(position->rows, position->columns, tokens);
}

/* Fills in what all heads share, and stores the tables, if there are any, in [keys | values] of
 * mcuf_attention_keys_bytes(length, head_dim) each. shape: tokens and head_dim are read. */
void mcuf_relative_begin(mcuf_relative_rows* relative, const mcuf_relative_position* position,
                         const mcuf_attention_rows_shape* shape, int8_t* tables);

/* Fills in what is head h's. */
void mcuf_relative_set_head(mcuf_relative_rows* relative, const mcuf_relative_position* position, int32_t h);

/* Adds what the scores [tokens, rows] of `rows` queries (1 or 4) lack; block: of the queries. scratch:
 * mcuf_relative_scratch_bytes(). */
void mcuf_relative_add_scores(const mcuf_attention_rows_shape* shape, const int16_t* block, int32_t rows,
                              int32_t* scores, void* scratch);

/* What weighs the entries of a table of values. */
typedef struct {
  const int16_t* sums; /* of numerators by entry, shifted right: in the numerators' order, `length` for tokens */
  int32_t length;      /* of the table */
  int32_t first, end;  /* the entries whose sums may not be 0; first is even */
  const int8_t* values;
  int32_t multiplier;
  int32_t factor[MCUF_TOKEN_BLOCK]; /* of each row: 2 << shift */
} mcuf_relative_weights;

/* Numerators of `rows` queries to the weights of the entries. head: of the attention; scale: of the rows. */
void mcuf_relative_weigh_entries(const mcuf_attention_rows_shape* shape, const int16_t* numerators, int32_t rows,
                                 const int32_t* head, const mcuf_row_scale* scale, void* scratch,
                                 mcuf_relative_weights* weights);

/* mcuf_weigh_rows() with the entries of a table besides; one form per target. */
void mcuf_relative_weigh_rows(const mcuf_attention_rows_shape* shape, const int16_t* numerators, const int8_t* values,
                              int32_t rows, const mcuf_row_scale* scale, const mcuf_relative_weights* weights,
                              int8_t* output);

/* A sum of numerators * values and one of entries to an output. */
static inline int8_t mcuf_relative_output(int32_t values, int32_t entries, const mcuf_relative_weights* weights,
                                          int32_t t, const mcuf_row_scale* scale, int32_t zero_point) {
  const int32_t acc = values + mcuf_mulhi_round(entries * weights->factor[t], weights->multiplier);
  const int32_t high = mcuf_mulhi_round(acc, scale[t].multiplier);
  return mcuf_sat8(zero_point + ((high + (1 << (scale[t].shift - 1))) >> scale[t].shift));
}

#endif /* MCUF_ATTENTION_RELATIVE_H_ */
