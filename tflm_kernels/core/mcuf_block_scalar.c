/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_block.h for cores that multiply one value at a time. A block of count tokens is int16 [k, count], of three as of
 * two and one. What counts is how many products a loaded value has part in: sums of four tokens and two rows, or of one
 * token and four rows, stay in registers. */
#include "mcuf_block_scalar.h"

#include "mcuf_block.h"
#include "mcuf_target.h"

#if MCUF_SCALAR
#include <string.h>

#include "mcuf_block_finish.h"

void mcuf_block_fill_token(const mcuf_block_token* token, const int8_t* source, int32_t step, int32_t at, int32_t n) {
  int32_t count = token->count, index = token->index;
  const int32_t before = mcuf_block_part(&count, &index);
  int16_t* target = token->block + (ptrdiff_t)before * mcuf_round_up_even(token->k) + (ptrdiff_t)at * count + index;
  if (step != 0) {
    for (const int8_t* end = source + n; source != end; target += count) *target = *source++;
  } else {
    for (const int16_t value = *source; n > 0; --n, target += count) *target = value;
  }
}

void mcuf_block_fill(int16_t* block, int32_t k, int32_t count, const int8_t* source, int32_t stride, int32_t at,
                     int32_t n) {
  if (count != MCUF_TOKEN_BLOCK || source == NULL) {
    mcuf_block_fill_by_token(block, k, count, source, stride, at, n);
    return;
  }
  const int8_t *s1 = source + stride, *s2 = s1 + stride, *s3 = s2 + stride;
  block += (ptrdiff_t)at * MCUF_TOKEN_BLOCK;
  for (const int8_t* end = source + n; source != end; block += MCUF_TOKEN_BLOCK) {
    block[0] = *source++;
    block[1] = *s1++;
    block[2] = *s2++;
    block[3] = *s3++;
  }
}

#define LOAD4(s, from) int32_t s##0 = (from)[0], s##1 = (from)[1], s##2 = (from)[2], s##3 = (from)[3]
#define STORE4(s, to) (to)[0] = s##0, (to)[1] = s##1, (to)[2] = s##2, (to)[3] = s##3

/* step(i) for n inputs, four in a round; then advance(inputs). */
#define FOR_INPUTS(step, advance)              \
  for (; n >= 4; n -= 4) {                     \
    step(0) step(1) step(2) step(3) advance(4) \
  }                                            \
  for (; n > 0; --n) {                         \
    step(0) advance(1)                         \
  }

#if !defined(MCUF_SCALAR_THUMB1) && !defined(MCUF_SCALAR_THUMB2)
void mcuf_scalar_pair4(const int16_t* x, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc) {
  const int8_t* w1 = w + stride;
  LOAD4(a, acc);
  LOAD4(b, acc + 4);
#define TOKEN(i, t)                   \
  {                                   \
    const int32_t v = x[4 * (i) + t]; \
    a##t += p * v;                    \
    b##t += q * v;                    \
  }
#define STEP(i)                                     \
  {                                                 \
    const int32_t p = w[(i)], q = w1[(i)];          \
    TOKEN(i, 0) TOKEN(i, 1) TOKEN(i, 2) TOKEN(i, 3) \
  }
#define ADVANCE(i) x += 4 * (i), w += (i), w1 += (i);
  FOR_INPUTS(STEP, ADVANCE)
#undef TOKEN
#undef STEP
#undef ADVANCE
  STORE4(a, acc);
  STORE4(b, acc + 4);
}

#ifndef MCUF_SCALAR_RISCV
void mcuf_scalar_quad1(const int16_t* x, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc) {
  const int8_t *w1 = w + stride, *w2 = w1 + stride, *w3 = w2 + stride;
  LOAD4(a, acc);
#define STEP(i)               \
  {                           \
    const int32_t v = x[(i)]; \
    a0 += w[(i)] * v;         \
    a1 += w1[(i)] * v;        \
    a2 += w2[(i)] * v;        \
    a3 += w3[(i)] * v;        \
  }
#define ADVANCE(i) x += (i), w += (i), w1 += (i), w2 += (i), w3 += (i);
  FOR_INPUTS(STEP, ADVANCE)
#undef STEP
#undef ADVANCE
  STORE4(a, acc);
}
#endif
#endif

/* Two rows, two tokens. */
static MCUF_OWN_STACK void pair2(const int16_t* x, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc) {
  const int8_t* w1 = w + stride;
  LOAD4(a, acc);
#define STEP(i)                                                                          \
  {                                                                                      \
    const int32_t p = w[(i)], q = w1[(i)], v0 = x[2 * (i)], v1 = x[2 * (i) + 1]; \
    a0 += p * v0, a1 += p * v1, a2 += q * v0, a3 += q * v1;                              \
  }
#define ADVANCE(i) x += 2 * (i), w += (i), w1 += (i);
  FOR_INPUTS(STEP, ADVANCE)
#undef STEP
#undef ADVANCE
  STORE4(a, acc);
}

/* Two rows, one token of `count`. */
static MCUF_OWN_STACK void pair1(const int16_t* x, int32_t count, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc) {
  const int8_t* w1 = w + stride;
  int32_t a0 = acc[0], a1 = acc[count];
  for (int32_t i = 0; i < n; ++i, x += count) {
    const int32_t v = *x;
    a0 += w[i] * v;
    a1 += w1[i] * v;
  }
  acc[0] = a0, acc[count] = a1;
}

static inline void add_quad(const int8_t* weights, ptrdiff_t stride, const int16_t* block, int32_t count, int32_t n,
                            int32_t* acc) {
#ifdef MCUF_SCALAR_THUMB1
  mcuf_scalar_quad(block, count, weights, stride, n, acc);
#else
  if (count == 1) {
    mcuf_scalar_quad1(block, weights, stride, n, acc);
  } else if (count == MCUF_TOKEN_BLOCK) {
#ifdef MCUF_SCALAR_RISCV
    mcuf_scalar_quad4(block, weights, stride, n, acc);
#else
    mcuf_scalar_pair4(block, weights, stride, n, acc);
    mcuf_scalar_pair4(block, weights + 2 * stride, stride, n, acc + 2 * count);
#endif
  } else {
    pair2(block, weights, stride, n, acc);
    pair2(block, weights + 2 * stride, stride, n, acc + 2 * count);
  }
#endif
}

/* Up to three rows; one stands in for the second of a pair that there is not. */
static MCUF_OWN_STACK void add_rest(const int8_t* weights, ptrdiff_t stride, int32_t rows, const int16_t* block, int32_t count,
                     int32_t n, int32_t* acc) {
  for (; rows > 0; rows -= 2, weights += 2 * stride, acc += 2 * count) {
    const ptrdiff_t next = rows > 1 ? stride : 0;
    if (count == 2) {
      pair2(block, weights, next, n, acc);
#ifndef MCUF_SCALAR_THUMB1
    } else if (count == MCUF_TOKEN_BLOCK) {
      mcuf_scalar_pair4(block, weights, next, n, acc);
#endif
    } else {
      for (int32_t t = 0; t < count; ++t) pair1(block + t, count, weights, next, n, acc + t);
    }
  }
}

/* Rows of bytes. */
static void add_rows(const int8_t* weights, ptrdiff_t stride, int32_t rows, const int16_t* block, int32_t count,
                     int32_t n, int32_t* acc) {
  for (; rows >= 4; rows -= 4, weights += 4 * stride, acc += 4 * count) {
    add_quad(weights, stride, block, count, n, acc);
  }
  if (rows > 0) add_rest(weights, stride, rows, block, count, n, acc);
}

/* Rows packed in pairs become bytes in small pieces on the stack. */
#define PIECE 48

static MCUF_OWN_STACK void add_pairs(const int8_t* weights, int32_t out_features, int32_t k, const int16_t* block,
                                     int32_t count, int32_t* acc) {
  int8_t piece[4 * PIECE];
  const ptrdiff_t pair_bytes = 2 * (ptrdiff_t)mcuf_round_up_even(k);
  for (int32_t o = 0; o < out_features; o += 4, weights += 2 * pair_bytes, acc += 4 * count) {
    const int32_t rows = out_features - o < 4 ? out_features - o : 4;
    for (int32_t start = 0; start < k; start += PIECE) {
      const int32_t n = k - start < PIECE ? k - start : PIECE;
      for (int32_t r = 0; r < rows; r += 2) {
        const int8_t* pair = weights + r / 2 * pair_bytes + 2 * (ptrdiff_t)start;
        int8_t* target = piece + r * PIECE;
        for (int32_t i = 0; i < n; ++i) { /* 256 * hi + lo, little-endian */
          target[i] = pair[2 * i];
          target[PIECE + i] = (int8_t)(pair[2 * i + 1] + (pair[2 * i] < 0));
        }
      }
      add_rows(piece, PIECE, rows, block + (ptrdiff_t)start * count, count, n, acc);
    }
  }
}

void mcuf_block_accumulate(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k,
                           const int16_t* block, int32_t count, int32_t* acc) {
  if (packing == MCUF_PACKING_ROWS) {
    add_rows(weights, k, out_features, block, count, k, acc);
  } else {
    add_pairs(weights, out_features, k, block, count, acc);
  }
}

void mcuf_block_dot(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k, const int16_t* block,
                    int32_t count, int32_t* acc) {
  memset(acc, 0, (size_t)mcuf_round_up_even(out_features) * (size_t)count * sizeof(int32_t));
  mcuf_block_accumulate(weights, packing, out_features, k, block, count, acc);
}

/* Some rows of a layer, up to four, for count tokens: what makes outputs of their sums. */
typedef struct {
  const int32_t* multiplier;
  int32_t zero_point, rows, count;
  const int8_t* gelu; /* as in mcuf_block_finish(), or NULL */
} row_group;

static inline int8_t output_of(int32_t acc, int32_t multiplier, int32_t zero_point, const int8_t* gelu) {
  const int8_t q = mcuf_requantise(acc, multiplier, zero_point);
  return gelu != NULL ? gelu[q] : q;
}

static inline void finish_rows(const row_group* g, const int32_t* acc, const int8_t* gelu, int8_t* output,
                               ptrdiff_t stride) {
  const int32_t* multiplier = g->multiplier;
  const int32_t zero_point = g->zero_point, count = g->count;
  for (int8_t* const end = output + g->rows; output != end; ++output) {
    const int32_t m = *multiplier++;
    int8_t* out = output;
    if (count == MCUF_TOKEN_BLOCK) {
      *out = output_of(*acc++, m, zero_point, gelu), out += stride;
      *out = output_of(*acc++, m, zero_point, gelu), out += stride;
      *out = output_of(*acc++, m, zero_point, gelu), out += stride;
      *out = output_of(*acc++, m, zero_point, gelu);
    } else {
      *out = output_of(*acc++, m, zero_point, gelu);
      if (count > 1) out[stride] = output_of(*acc++, m, zero_point, gelu);
    }
  }
}

static MCUF_OWN_STACK void finish(const row_group* g, const int32_t* acc, int8_t* output, ptrdiff_t stride) {
  if (g->gelu == NULL) {
    finish_rows(g, acc, NULL, output, stride);
  } else {
    finish_rows(g, acc, g->gelu, output, stride);
  }
}

static void add_residual(const row_group* g, const int16_t* scale, const int8_t* residual, ptrdiff_t stride,
                         int32_t* acc) {
  for (int32_t i = 0; i < g->rows; ++i) {
    const int32_t factor = scale[i];
    const int8_t* from = residual + i;
    for (int32_t t = 0; t < g->count; ++t, from += stride) *acc++ += factor * *from;
  }
}

/* Sums begin with the bias; those of a row beyond the last mean nothing. */
static inline void start_rows(const int32_t* bias, int32_t rows, int32_t count, int32_t* acc) {
  for (int32_t i = 0; i < rows; ++i, acc += count) {
    const int32_t b = bias[i];
    if (count == MCUF_TOKEN_BLOCK) {
      acc[0] = acc[1] = acc[2] = acc[3] = b;
    } else {
      acc[0] = acc[count - 1] = b;
    }
  }
  if (rows % 2 != 0) memset(acc, 0, (size_t)count * sizeof(int32_t));
}

/* mcuf_block_fc() of a block that is not split. */
static MCUF_OWN_STACK void fc_part(const mcuf_fc_rows* p, const int16_t* block, int32_t count, const int8_t* residual,
                                   int8_t* output, int32_t stride) {
  const int32_t k = p->in_features, row_bytes = mcuf_packed_row_bytes(k, p->packing);
  const bool packed = p->packing != MCUF_PACKING_ROWS;
  const int8_t* weights = p->weights;
  row_group g = {p->multiplier, p->zero_point, 4, count, p->gelu_table == NULL ? NULL : p->gelu_table + 128};
  for (int32_t o = 0; o < p->out_features; o += 4, weights += 4 * row_bytes, g.multiplier += 4) {
    int32_t acc[4 * MCUF_TOKEN_BLOCK];
    if (p->out_features - o < 4) g.rows = p->out_features - o;
    start_rows(p->bias + o, g.rows, count, acc);
    if (packed) {
      add_pairs(weights, g.rows, k, block, count, acc);
    } else if (g.rows == 4) {
      add_quad(weights, row_bytes, block, count, k, acc);
    } else {
      add_rest(weights, row_bytes, g.rows, block, count, k, acc);
    }
    if (residual != NULL) add_residual(&g, p->residual_scale + o, residual + o, stride, acc);
    finish(&g, acc, output + o, stride);
  }
}

void mcuf_block_fc(const mcuf_fc_rows* p, const int16_t* block, int32_t count, const int8_t* residual, int8_t* output,
                   int32_t stride) {
  if (count == MCUF_SPLIT_COUNT) {
    mcuf_block_fc_parts(p, block, residual, output, stride);
  } else {
    fc_part(p, block, count, residual, output, stride);
  }
}
#endif /* MCUF_SCALAR */
