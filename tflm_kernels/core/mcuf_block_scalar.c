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
  for (int32_t i = 0; i < n; ++i, source += step, target += count) *target = *source;
}

void mcuf_block_fill(int16_t* block, int32_t k, int32_t count, const int8_t* source, int32_t stride, int32_t at,
                     int32_t n) {
  mcuf_block_fill_by_token(block, k, count, source, stride, at, n);
}

/* `step` n times, four in a round. */
#define UNROLLED(step, advance)                \
  for (; n >= 4; n -= 4) {                     \
    step(0) step(1) step(2) step(3) advance(4) \
  }                                            \
  for (; n > 0; --n) {                         \
    step(0) advance(1)                         \
  }

#define LOAD4(s, from) int32_t s##0 = (from)[0], s##1 = (from)[1], s##2 = (from)[2], s##3 = (from)[3]
#define STORE4(s, to) (to)[0] = s##0, (to)[1] = s##1, (to)[2] = s##2, (to)[3] = s##3

#if !MCUF_THUMB1
static void four_tokens_two_rows(const int16_t* x, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc) {
  LOAD4(a, acc);
  LOAD4(b, acc + 4);
#define PRODUCTS(i, t)                \
  {                                   \
    const int32_t v = x[4 * (i) + t]; \
    a##t += p * v;                    \
    b##t += q * v;                    \
  }
#define STEP(i)                                    \
  {                                                \
    const int32_t q = w[stride + (i)], p = w[(i)]; \
    PRODUCTS(i, 0)                                 \
    PRODUCTS(i, 1)                                 \
    PRODUCTS(i, 2)                                 \
    PRODUCTS(i, 3)                                 \
  }
#define ADVANCE(i) x += 4 * (i), w += (i);
  UNROLLED(STEP, ADVANCE)
#undef STEP
#undef ADVANCE
  STORE4(a, acc);
  STORE4(b, acc + 4);
}

static void one_token_four_rows(const int16_t* x, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc) {
  LOAD4(a, acc);
  const int8_t *w1 = w + stride, *w2 = w1 + stride, *w3 = w2 + stride;
#define STEP(i)               \
  {                           \
    const int32_t v = x[(i)]; \
    a0 += w[(i)] * v;         \
    a1 += w1[(i)] * v;        \
    a2 += w2[(i)] * v;        \
    a3 += w3[(i)] * v;        \
  }
#define ADVANCE(i) x += (i), w += (i), w1 += (i), w2 += (i), w3 += (i);
  UNROLLED(STEP, ADVANCE)
#undef STEP
#undef ADVANCE
  STORE4(a, acc);
}

void mcuf_scalar_quad(const int16_t* x, int32_t count, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc) {
  if (count == 1) {
    one_token_four_rows(x, w, stride, n, acc);
  } else {
    mcuf_scalar_pair(x, count, w, stride, n, acc);
    mcuf_scalar_pair(x, count, w + 2 * stride, stride, n, acc + 2 * count);
  }
}
#endif

void mcuf_scalar_pair(const int16_t* x, int32_t count, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc) {
#if !MCUF_THUMB1
  if (count == MCUF_TOKEN_BLOCK) {
    four_tokens_two_rows(x, w, stride, n, acc);
    return;
  }
#endif
  for (int32_t t = 0; t < count; ++t) {
    int32_t a = acc[t], b = acc[count + t];
    const int16_t* v = x + t;
    for (int32_t i = 0; i < n; ++i, v += count) {
      a += w[i] * *v;
      b += w[stride + i] * *v;
    }
    acc[t] = a;
    acc[count + t] = b;
  }
}

/* Rows of bytes. */
static void add_rows(const int8_t* weights, ptrdiff_t stride, int32_t rows, const int16_t* block, int32_t count,
                     int32_t n, int32_t* acc) {
  for (; rows >= 4; rows -= 4, weights += 4 * stride, acc += 4 * count) {
    mcuf_scalar_quad(block, count, weights, stride, n, acc);
  }
  for (; rows > 0; rows -= 2, weights += 2 * stride, acc += 2 * count) {
    mcuf_scalar_pair(block, count, weights, rows > 1 ? stride : 0, n, acc);
  }
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

/* mcuf_block_fc() of a block that is not split. */
static MCUF_OWN_STACK void fc_part(const mcuf_fc_rows* p, const int16_t* block, int32_t count, const int8_t* residual,
                                   int8_t* output, int32_t stride) {
  for (int32_t o = 0; o < p->out_features; o += 4) {
    const int32_t rows = p->out_features - o < 4 ? p->out_features - o : 4;
    int32_t acc[4 * MCUF_TOKEN_BLOCK], *a = acc;
    for (int32_t i = 0; i < rows; ++i) {
      const int32_t bias = p->bias[o + i];
      for (int32_t t = 0; t < count; ++t) *a++ = bias;
    }
    if (rows % 2 != 0) memset(a, 0, (size_t)count * sizeof(int32_t));
    mcuf_block_accumulate(p->weights + mcuf_packed_offset(o, p->in_features, p->packing), p->packing, rows,
                          p->in_features, block, count, acc);
    mcuf_block_finish(p, o, rows, count, acc, residual, output, stride);
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
