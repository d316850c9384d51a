/* SPDX-License-Identifier: Apache-2.0
 *
 * Relative positions in the attention of some query rows (mcuf_attention_rows.h): what all targets share, and the
 * portable weighted sum.
 *
 * Tables are copied to scratch first, as keys and values of their own: `length` entries for tokens. With a table of
 * keys, products of the entries and the queries are gathered for each row and column of the grid, so that scores add
 * them up without looking for offsets; with a table of values, numerators are added up by rows and columns of the grid
 * and then scattered to the entries. */
#include "mcuf_attention_relative.h"

#include <string.h>

#include "mcuf_target.h"

static void begin(mcuf_relative_rows* r, const mcuf_relative_position* position, const mcuf_attention_rows_shape* p,
                  int8_t* tables) {
  const int32_t dim = p->head_dim;
  r->kernels = &mcuf_relative;
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
static MCUF_OWN_STACK void add_biases_of_four(const mcuf_relative_rows* r, int32_t* scores) {
  const int32_t factor = r->head[MCUF_RELATIVE_KEY], width = 2 * r->columns - 1;
  const int16_t* bias[MCUF_TOKEN_BLOCK];
  for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) {
    int32_t row, column;
    place_of(r, r->query + t, &row, &column);
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

/* Entries that rows and columns of the grid have for some queries. */
typedef struct {
  int32_t first_row, end_row, first_column, end_column;
} entries;

/* Those of the patches among `rows` queries; false if there are none. */
static bool entries_of(const mcuf_relative_rows* r, int32_t rows, entries* found) {
  const int32_t last = r->query + rows - 1 - r->prefix, first = r->query < r->prefix ? 0 : r->query - r->prefix;
  if (last < 0) return false;
  const int32_t top = first / r->columns, bottom = last / r->columns;
  const int32_t left = top == bottom ? first % r->columns : 0;
  const int32_t right = top == bottom ? last % r->columns : r->columns - 1;
  const int32_t columns = 2 * r->rows - 1 + r->columns - 1;
  found->first_row = r->rows - 1 - bottom;
  found->end_row = r->rows - 1 - top + r->rows;
  found->first_column = columns - right;
  found->end_column = columns - left + r->columns;
  return true;
}

/* Scratch of relative positions, after that of the rows: products int32 [length, rows], or sums int16 as many; then
 * int32 [grid rows + columns, rows]. */
static void* after_rows(const mcuf_attention_rows_shape* p, void* scratch) {
  return (int8_t*)scratch + mcuf_attention_rows_scratch_bytes(p->tokens, p->head_dim);
}

static int32_t* by_place(const mcuf_relative_rows* r, void* scratch) {
  return (int32_t*)scratch + (ptrdiff_t)MCUF_TOKEN_BLOCK * mcuf_round_up_even(r->length);
}

/* Products of entries [first, end) and the queries; perhaps also of one before and one after. */
static void multiply_entries(const mcuf_relative_rows* r, int32_t head_dim, const int16_t* block, int32_t rows,
                             int32_t first, int32_t end, int32_t* products) {
  first &= ~1; /* where packed rows may begin */
  mcuf_block_dot(r->keys + mcuf_packed_offset(first, head_dim, MCUF_ATTENTION_PACKING), MCUF_ATTENTION_PACKING,
                 end - first, head_dim, block, rows, products + (ptrdiff_t)first * rows);
}

/* Scaled products of `count` entries, to [count, rows]. */
static void gather(const int32_t* products, int32_t count, int32_t rows, int32_t multiplier, int32_t* target) {
  for (int32_t i = 0; i < count; ++i, products += rows, target += rows) {
    *target = mcuf_mulhi_round(2 * *products, multiplier);
  }
}

/* Products of the entries and the queries, gathered for each grid row and column; those with the prefix remain. A query
 * in the prefix gets 0 throughout: all its keys have the same entry, which softmax does not see. */
static MCUF_OWN_STACK void gather_products(const mcuf_relative_rows* r, int32_t rows, int32_t* products,
                                           int32_t* places) {
  const int32_t multiplier = r->head[MCUF_RELATIVE_KEY];
  for (int32_t t = 0; t < rows; ++t) {
    int32_t row, column;
    const bool patch = place_of(r, r->query + t, &row, &column);
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

static MCUF_OWN_STACK void add_products(const mcuf_relative_rows* r, int32_t rows, const int32_t* products,
                                        const int32_t* places, int32_t* scores) {
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

static void add_scores(const mcuf_attention_rows_shape* p, const int16_t* block, int32_t rows, void* scratch) {
  const mcuf_relative_rows* r = p->relative;
  int32_t* scores = (int32_t*)scratch;
  if (r->bias == NULL) {
    int32_t *products = (int32_t*)after_rows(p, scratch), *places = by_place(r, products);
    entries e;
    if (!entries_of(r, rows, &e)) return;
    multiply_entries(r, p->head_dim, block, rows, e.first_row, e.end_row, products);
    multiply_entries(r, p->head_dim, block, rows, e.first_column, e.end_column, products);
    if (r->prefix > 0) multiply_entries(r, p->head_dim, block, rows, r->length - 1, r->length, products);
    gather_products(r, rows, products, places);
    add_products(r, rows, products, places, scores);
  } else if (rows == MCUF_TOKEN_BLOCK && r->query >= r->prefix) {
    add_biases_of_four(r, scores);
  } else {
    for (int32_t t = 0; t < rows; ++t) add_biases(r, r->query + t, rows, scores + t);
  }
}

/* Where the numerator of token j of row t lies, or what weighs entry j. */
static inline int32_t numerator_at(int32_t tokens, int32_t rows, int32_t t, int32_t j) {
#if MCUF_DSP
  (void)tokens;
  return (j & ~1) * rows + 2 * t + (j & 1);
#elif MCUF_MVE
  const int32_t even = mcuf_round_up_even(tokens), piece = j & ~7, width = even - piece < 8 ? even - piece : 8;
  return rows == 1 ? j : piece * rows + t * width + (j & 7);
#elif MCUF_SCALAR
  (void)tokens;
  return j * rows + t;
#else
  (void)rows;
  return t * mcuf_round_up_even(tokens) + j;
#endif
}

/* From a numerator of token j of four rows to that of the next row. */
static inline int32_t next_row(int32_t tokens, int32_t j) {
  return numerator_at(tokens, MCUF_TOKEN_BLOCK, 1, j) - numerator_at(tokens, MCUF_TOKEN_BLOCK, 0, j);
}

/* Numerators of one row added up: of the prefix to *prefix, by grid row and column to places. */
static MCUF_OWN_STACK void add_up_one(const mcuf_relative_rows* r, const int16_t* e, int32_t* prefix, int32_t* places) {
  int32_t* columns = places + r->rows;
  int32_t sum = 0;
  for (int32_t j = 0; j < r->prefix; ++j) sum += *e++;
  *prefix = sum;
  memset(columns, 0, (size_t)r->columns * sizeof(int32_t));
  for (int32_t i = 0; i < r->rows; ++i) {
    sum = 0;
    for (int32_t c = 0; c < r->columns; ++c) {
      sum += *e;
      columns[c] += *e++;
    }
    places[i] = sum;
  }
}

/* The same for four rows, whose sums lie side by side. */
static MCUF_OWN_STACK void add_up_four(const mcuf_relative_rows* r, int32_t tokens, const int16_t* e, int32_t* prefix,
                                       int32_t* places) {
  int32_t next = next_row(tokens, 0);
  int32_t* columns = places + MCUF_TOKEN_BLOCK * r->rows;
  memset(columns, 0, (size_t)(MCUF_TOKEN_BLOCK * r->columns) * sizeof(int32_t));
  int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, j = 0;
  for (; j < r->prefix; ++j) {
    const int16_t* x = e + numerator_at(tokens, MCUF_TOKEN_BLOCK, 0, j);
    if (MCUF_MVE) next = next_row(tokens, j);
    s0 += x[0], s1 += x[next], s2 += x[2 * next], s3 += x[3 * next];
  }
  prefix[0] = s0, prefix[1] = s1, prefix[2] = s2, prefix[3] = s3;
  for (int32_t i = r->rows; i > 0; --i, places += MCUF_TOKEN_BLOCK) {
    int32_t* column = columns;
    s0 = s1 = s2 = s3 = 0;
    for (const int32_t end = j + r->columns; j < end; ++j, column += MCUF_TOKEN_BLOCK) {
      const int16_t* x = e + numerator_at(tokens, MCUF_TOKEN_BLOCK, 0, j);
      if (MCUF_MVE) next = next_row(tokens, j); /* the last tokens' numerators lie closer */
      const int32_t e0 = x[0], e1 = x[next], e2 = x[2 * next], e3 = x[3 * next];
      s0 += e0, s1 += e1, s2 += e2, s3 += e3;
      column[0] += e0, column[1] += e1, column[2] += e2, column[3] += e3;
    }
    places[0] = s0, places[1] = s1, places[2] = s2, places[3] = s3;
  }
}

/* Scatters the sums of row t, shifted right, to the entries. */
static void scatter(const mcuf_relative_rows* r, int32_t rows, int32_t t, int32_t shift, int32_t prefix,
                    const int32_t* places, int16_t* sums) {
  int32_t row, column;
  if (place_of(r, r->query + t, &row, &column)) {
    const int32_t first = r->rows - 1 - row, second = 2 * r->rows - 1 + r->columns - 1 - column;
    for (int32_t i = 0; i < r->rows; ++i, places += rows) {
      sums[numerator_at(r->length, rows, t, first + i)] = (int16_t)(*places >> shift);
    }
    for (int32_t i = 0; i < r->columns; ++i, places += rows) {
      sums[numerator_at(r->length, rows, t, second + i)] = (int16_t)(*places >> shift);
    }
  } else {
    for (int32_t i = 0; i < r->rows; ++i, places += rows) prefix += *places;
  }
  if (r->prefix > 0) sums[numerator_at(r->length, rows, t, r->length - 1)] = (int16_t)(prefix >> shift);
}

static MCUF_OWN_STACK void weigh_entries(const mcuf_attention_rows_shape* p, const int16_t* numerators, int32_t rows,
                                         const int32_t* head, const mcuf_row_scale* scale, void* scratch,
                                         mcuf_relative_weights* weights) {
  const mcuf_relative_rows* r = p->relative;
  int16_t* sums = (int16_t*)scratch;
  int32_t *places = by_place(r, scratch), prefix[MCUF_TOKEN_BLOCK];
  memset(sums, 0, (size_t)(rows * mcuf_round_up_even(r->length)) * sizeof(int16_t));
  if (rows == 1) {
    add_up_one(r, numerators, prefix, places);
  } else {
    add_up_four(r, p->tokens, numerators, prefix, places);
  }
  for (int32_t t = 0; t < rows; ++t) {
    const int32_t zeros = 30 - head[MCUF_HEAD_OUT_EXPONENT] - scale[t].shift; /* of the numerators' sum, of 32 bits */
    const int32_t shift = zeros < 17 ? 17 - zeros : 0;
    scatter(r, rows, t, shift, prefix[t], places + t, sums);
    weights->factor[t] = 2 << shift;
  }
  entries e = {0, 0, 0, 0};
  const bool patches = entries_of(r, rows, &e);
  weights->sums = sums;
  weights->length = r->length;
  weights->first = (patches ? e.first_row : r->length - 1) & ~1;
  weights->end = r->prefix > 0 ? r->length : e.end_column;
  weights->values = r->values;
  weights->multiplier = r->head[MCUF_RELATIVE_VALUE];
}

static void weigh_rows(const mcuf_attention_rows_shape* p, const int32_t* head, const int8_t* values, int32_t rows,
                       const mcuf_row_scale* scale, void* scratch, int8_t* output) {
  const int16_t* numerators = mcuf_attention_numerators(p->tokens, scratch);
  mcuf_relative_weights weights;
  weigh_entries(p, numerators, rows, head, scale, after_rows(p, scratch), &weights);
  mcuf_relative_weigh_rows(p, numerators, values, rows, scale, &weights, output);
}

const mcuf_relative_kernels mcuf_relative = {begin, add_scores, weigh_rows};

#if MCUF_PORTABLE || MCUF_SCALAR
void mcuf_relative_weigh_rows(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values,
                              int32_t rows, const mcuf_row_scale* scale, const mcuf_relative_weights* w,
                              int8_t* output) {
  const int32_t tokens = mcuf_round_up_even(p->tokens), length = mcuf_round_up_even(w->length);
  for (int32_t c = 0; c < p->head_dim; c += MCUF_WEIGH_CHANNELS) {
    const int32_t left = p->head_dim - c, channels = left < MCUF_WEIGH_CHANNELS ? left : MCUF_WEIGH_CHANNELS;
    int32_t acc[MCUF_WEIGH_CHANNELS * MCUF_TOKEN_BLOCK], more[MCUF_WEIGH_CHANNELS * MCUF_TOKEN_BLOCK];
    mcuf_weigh_channels(values + (ptrdiff_t)c * tokens, channels, tokens, numerators, rows, acc);
    mcuf_weigh_channels(w->values + (ptrdiff_t)c * length, channels, length, w->sums, rows, more);
    for (int32_t t = 0; t < rows; ++t) {
      for (int32_t i = 0; i < channels; ++i) {
        output[(ptrdiff_t)t * p->out_stride + c + i] =
            mcuf_relative_output(acc[i * rows + t], more[i * rows + t], w, t, scale, p->zero_point);
      }
    }
  }
}
#endif
