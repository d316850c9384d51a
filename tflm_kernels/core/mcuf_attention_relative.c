/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_attention_relative.h: what all targets share, and the portable weighted sum. */
#include "mcuf_attention_relative.h"

#include <string.h>

#include "mcuf_target.h"

void mcuf_relative_begin(mcuf_relative_rows* r, const mcuf_relative_position* position,
                         const mcuf_attention_rows_shape* p, int8_t* tables) {
  const int32_t dim = p->head_dim;
  r->rows = position->rows;
  r->columns = position->columns;
  r->prefix = p->tokens - r->rows * r->columns;
  r->bias_length = mcuf_relative_bias_length(r->rows, r->columns, p->tokens);
  r->length = mcuf_relative_length(position, p->tokens);
  r->keys = tables;
  r->values = tables + mcuf_attention_keys_bytes(r->length, dim);
  if (r->length == 0) return;
  const mcuf_attention_rows_shape entries = {r->length, dim, dim, 0, 0, NULL};
  mcuf_attention_store_keys(&entries, r->keys, 0, r->length, position->keys, dim);
  mcuf_attention_store_values(&entries, r->values, 0, r->length, position->values, dim);
}

void mcuf_relative_set_head(mcuf_relative_rows* r, const mcuf_relative_position* position, int32_t h) {
  r->head = position->head_params + (ptrdiff_t)MCUF_RELATIVE_HEAD_PARAMS * h;
  r->bias = position->bias == NULL ? NULL : position->bias + (ptrdiff_t)r->bias_length * h;
}

/* Where a query is in the grid; false in the prefix. */
static bool place_of(const mcuf_relative_rows* r, int32_t query, int32_t* row, int32_t* column) {
  const int32_t patch = query - r->prefix;
  *row = patch / r->columns;
  *column = patch % r->columns;
  return patch >= 0;
}

/* ---- biases ---- */

/* Of the keys for one query; its scores are `rows` apart. */
static void add_biases(const mcuf_relative_rows* r, int32_t query, int32_t rows, int32_t* scores) {
  const int32_t factor = r->head[MCUF_RELATIVE_KEY], width = 2 * r->columns - 1;
  const int16_t* more = r->bias + (ptrdiff_t)(2 * r->rows - 1) * width; /* those with a prefix */
  int32_t row, column;
  const bool patch = place_of(r, query, &row, &column);
  const int16_t* bias = r->bias + (ptrdiff_t)(r->rows - 1 - row) * width + (r->columns - 1 - column);
  for (int32_t j = 0; j < r->prefix; ++j, scores += rows) *scores += factor * more[patch ? 1 : 2];
  for (int32_t i = 0; i < r->rows; ++i, bias += width) {
    for (int32_t c = 0; c < r->columns; ++c, scores += rows) *scores += factor * (patch ? bias[c] : *more);
  }
}

/* Of the keys for four patches. */
static MCUF_OWN_STACK void add_biases_of_four(const mcuf_relative_rows* r, int32_t query, int32_t* scores) {
  const int32_t factor = r->head[MCUF_RELATIVE_KEY], width = 2 * r->columns - 1;
  const int16_t* bias[MCUF_TOKEN_BLOCK];
  for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) {
    int32_t row, column;
    place_of(r, query + t, &row, &column);
    bias[t] = r->bias + (ptrdiff_t)(r->rows - 1 - row) * width + (r->columns - 1 - column);
  }
  if (r->prefix > 0) {
    const int32_t more = factor * r->bias[(ptrdiff_t)(2 * r->rows - 1) * width + 1];
    for (int32_t i = r->prefix * MCUF_TOKEN_BLOCK; i > 0; --i) *scores++ += more;
  }
  for (int32_t i = 0; i < r->rows; ++i) {
    const int16_t *b0 = bias[0] + i * width, *b1 = bias[1] + i * width, *b2 = bias[2] + i * width,
                  *b3 = bias[3] + i * width;
    for (int32_t c = r->columns; c > 0; --c, scores += MCUF_TOKEN_BLOCK) {
      const int32_t s0 = scores[0] + factor * *b0++, s1 = scores[1] + factor * *b1++;
      const int32_t s2 = scores[2] + factor * *b2++, s3 = scores[3] + factor * *b3++;
      scores[0] = s0, scores[1] = s1, scores[2] = s2, scores[3] = s3;
    }
  }
}

/* ---- tables ---- */

/* Scratch: products int32 [length, rows], or sums int16 as many; then int32 [grid rows + columns, rows]. */
static int32_t* by_place(const mcuf_relative_rows* r, void* scratch) {
  return (int32_t*)scratch + (ptrdiff_t)MCUF_TOKEN_BLOCK * mcuf_round_up_even(r->length);
}

/* Scaled products of `count` entries from the one for offset 0 on, to [count, rows]. */
static void gather(const int32_t* products, int32_t count, int32_t rows, int32_t multiplier, int32_t* target) {
  for (int32_t i = 0; i < count; ++i) target[i * rows] = mcuf_mulhi_round(2 * products[i * rows], multiplier);
}

/* Products of the entries and the queries, gathered for each grid row and column; those with the prefix remain. A query
 * in the prefix gets 0 throughout: all its keys have the same entry, which softmax does not see. */
static void gather_products(const mcuf_relative_rows* r, int32_t query, int32_t rows, int32_t* products,
                            int32_t* places) {
  const int32_t multiplier = r->head[MCUF_RELATIVE_KEY];
  for (int32_t t = 0; t < rows; ++t) {
    int32_t row, column;
    const bool patch = place_of(r, query + t, &row, &column);
    if (patch) {
      const int32_t first = r->rows - 1 - row, second = 2 * r->rows - 1 + r->columns - 1 - column;
      gather(products + first * rows + t, r->rows, rows, multiplier, places + t);
      gather(products + second * rows + t, r->columns, rows, multiplier, places + r->rows * rows + t);
    } else {
      for (int32_t i = 0; i < r->rows + r->columns; ++i) places[i * rows + t] = 0;
    }
    if (r->prefix > 0) {
      int32_t* last = products + (r->length - 1) * rows + t;
      *last = patch ? mcuf_mulhi_round(2 * *last, multiplier) : 0;
    }
  }
}

static void add_products(const mcuf_relative_rows* r, int32_t rows, const int32_t* products, const int32_t* places,
                         int32_t* scores) {
  const int32_t* last = products + (r->length - 1) * rows;
  for (int32_t j = 0; j < r->prefix; ++j, scores += rows) {
    for (int32_t t = 0; t < rows; ++t) scores[t] += last[t];
  }
  const int32_t* columns = places + r->rows * rows;
  for (int32_t i = 0; i < r->rows; ++i, places += rows) {
    const int32_t* column = columns;
    if (rows == 1) {
      for (int32_t c = r->columns; c > 0; --c) *scores++ += places[0] + *column++;
      continue;
    }
    const int32_t p0 = places[0], p1 = places[1], p2 = places[2], p3 = places[3];
    for (int32_t c = r->columns; c > 0; --c, scores += MCUF_TOKEN_BLOCK, column += MCUF_TOKEN_BLOCK) {
      const int32_t s0 = scores[0] + p0 + column[0], s1 = scores[1] + p1 + column[1];
      const int32_t s2 = scores[2] + p2 + column[2], s3 = scores[3] + p3 + column[3];
      scores[0] = s0, scores[1] = s1, scores[2] = s2, scores[3] = s3;
    }
  }
}

void mcuf_relative_add_scores(const mcuf_attention_rows_shape* p, int32_t query, const int16_t* block, int32_t rows,
                              int32_t* scores, void* scratch) {
  const mcuf_relative_rows* r = p->relative;
  if (r->bias == NULL) {
    int32_t *products = (int32_t*)scratch, *places = by_place(r, scratch);
    mcuf_block_dot(r->keys, MCUF_ATTENTION_PACKING, r->length, p->head_dim, block, rows, products);
    gather_products(r, query, rows, products, places);
    add_products(r, rows, products, places, scores);
  } else if (rows == MCUF_TOKEN_BLOCK && query >= r->prefix) {
    add_biases_of_four(r, query, scores);
  } else {
    for (int32_t t = 0; t < rows; ++t) add_biases(r, query + t, rows, scores + t);
  }
}

/* Where the numerator of token j of row t lies, or what weighs entry j. */
static inline int32_t numerator_at(int32_t tokens, int32_t rows, int32_t t, int32_t j) {
#if MCUF_DSP
  (void)tokens;
  return (j & ~1) * rows + 2 * t + (j & 1);
#else
  (void)rows;
  return t * mcuf_round_up_even(tokens) + j;
#endif
}

/* Numerators of row t added up by grid row and column, [grid rows + columns, rows]; returns those of the prefix. */
static int32_t add_up(const mcuf_relative_rows* r, int32_t tokens, const int16_t* e, int32_t rows, int32_t t,
                      int32_t* places) {
  int32_t prefix = 0, j = 0;
  for (; j < r->prefix; ++j) prefix += e[numerator_at(tokens, rows, t, j)];
  int32_t* columns = places + r->rows * rows;
  for (int32_t c = 0; c < r->columns; ++c) columns[c * rows] = 0;
  for (int32_t i = 0; i < r->rows; ++i) {
    int32_t sum = 0;
    for (int32_t c = 0; c < r->columns; ++c, ++j) {
      const int32_t value = e[numerator_at(tokens, rows, t, j)];
      sum += value;
      columns[c * rows] += value;
    }
    places[i * rows] = sum;
  }
  return prefix;
}

/* Scatters the sums of row t, shifted right, to the entries. */
static void scatter(const mcuf_relative_rows* r, int32_t query, int32_t rows, int32_t t, int32_t shift, int32_t prefix,
                    const int32_t* places, int16_t* sums) {
  int32_t row, column;
  if (place_of(r, query, &row, &column)) {
    const int32_t first = r->rows - 1 - row, second = 2 * r->rows - 1 + r->columns - 1 - column;
    for (int32_t i = 0; i < r->rows; ++i) {
      sums[numerator_at(r->length, rows, t, first + i)] = (int16_t)(places[i * rows] >> shift);
    }
    places += r->rows * rows;
    for (int32_t i = 0; i < r->columns; ++i) {
      sums[numerator_at(r->length, rows, t, second + i)] = (int16_t)(places[i * rows] >> shift);
    }
  } else {
    for (int32_t i = 0; i < r->rows; ++i) prefix += places[i * rows];
  }
  if (r->prefix > 0) sums[numerator_at(r->length, rows, t, r->length - 1)] = (int16_t)(prefix >> shift);
}

void mcuf_relative_weigh_entries(const mcuf_attention_rows_shape* p, int32_t query, const int16_t* numerators,
                                 int32_t rows, const int32_t* head, const mcuf_row_scale* scale, void* scratch,
                                 mcuf_relative_weights* weights) {
  const mcuf_relative_rows* r = p->relative;
  int16_t* sums = (int16_t*)scratch;
  int32_t* places = by_place(r, scratch);
  memset(sums, 0, (size_t)(rows * mcuf_round_up_even(r->length)) * sizeof(int16_t));
  weights->sums = sums;
  weights->length = r->length;
  weights->values = r->values;
  weights->multiplier = r->head[MCUF_RELATIVE_VALUE];
  for (int32_t t = 0; t < rows; ++t) {
    const int32_t zeros = 30 - head[MCUF_HEAD_OUT_EXPONENT] - scale[t].shift; /* of the numerators' sum, of 32 bits */
    const int32_t shift = zeros < 17 ? 17 - zeros : 0;
    const int32_t prefix = add_up(r, p->tokens, numerators, rows, t, places + t);
    scatter(r, query + t, rows, t, shift, prefix, places + t, sums);
    weights->factor[t] = 2 << shift;
  }
}

#if MCUF_PORTABLE
void mcuf_relative_weigh_rows(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values,
                              int32_t rows, const mcuf_row_scale* scale, const mcuf_relative_weights* w,
                              int8_t* output) {
  const int32_t tokens = mcuf_round_up_even(p->tokens), length = mcuf_round_up_even(w->length);
  for (int32_t c = 0; c < p->head_dim; c += 2) {
    const int32_t pair = c + 1 < p->head_dim ? 2 : 1;
    int32_t acc[2 * MCUF_TOKEN_BLOCK], more[2 * MCUF_TOKEN_BLOCK];
    mcuf_block_dot(values + (ptrdiff_t)c * tokens, MCUF_PACKING_ROWS, pair, tokens, numerators, rows, acc);
    mcuf_block_dot(w->values + (ptrdiff_t)c * length, MCUF_PACKING_ROWS, pair, length, w->sums, rows, more);
    for (int32_t t = 0; t < rows; ++t) {
      for (int32_t i = 0; i < pair; ++i) {
        output[(ptrdiff_t)t * p->out_stride + c + i] =
            mcuf_relative_output(acc[i * rows + t], more[i * rows + t], w, t, scale, p->zero_point);
      }
    }
  }
}
#endif
