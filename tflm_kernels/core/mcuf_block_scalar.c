/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_block.h for cores that multiply one value at a time. A block of four tokens, or of two, is in words
 * (mcuf_sums_scalar.h), of one int16 [k], of three as of two and one. */
#include "mcuf_block.h"

#include "mcuf_target.h"

#if MCUF_SCALAR
#include "mcuf_block_finish.h"
#include "mcuf_sums_scalar.h"

/* A token fills the words that it shares with the next, which then adds itself to them. */
void mcuf_block_fill_token(const mcuf_block_token* token, const int8_t* source, int32_t step, int32_t at, int32_t n) {
  int32_t count = token->count, index = token->index;
  const int32_t before = mcuf_block_part(&count, &index);
  int16_t* block = token->block + (ptrdiff_t)before * mcuf_round_up_even(token->k);
  if (count == 1) {
    for (int16_t* x = block + at; n > 0; --n, source += step) *x++ = *source;
    return;
  }
  int32_t* x = (int32_t*)(void*)block + MCUF_WORD_AT(token->k, count, at, index / 2);
  if (index % 2 == 0) {
    for (; n > 0; --n, source += step, x += MCUF_WORD_STEP(count)) *x = *source;
  } else {
    for (; n > 0; --n, source += step, x += MCUF_WORD_STEP(count)) *x += *source * 65536;
  }
}

/* Two tokens of values. */
static inline void fill_pair(int32_t* x, int32_t step, const int8_t* first, const int8_t* second, int32_t n) {
  for (const int8_t* end = first + n; first != end; x += step) *x = *first++ + *second++ * 65536;
}

void mcuf_block_fill(int16_t* block, int32_t k, int32_t count, const int8_t* source, int32_t stride, int32_t at,
                     int32_t n) {
  if (count % 2 != 0 || source == NULL) {
    mcuf_block_fill_by_token(block, k, count, source, stride, at, n);
    return;
  }
  for (int32_t t = 0; t < count; t += 2, source += 2 * (ptrdiff_t)stride) {
    fill_pair((int32_t*)(void*)block + MCUF_WORD_AT(k, count, at, t / 2), MCUF_WORD_STEP(count), source,
              source + stride, n);
  }
}

static inline void add(const mcuf_scalar_sums* sums) {
  if (sums->count == 1) {
    mcuf_add_halfwords(sums);
  } else {
    mcuf_add_words(sums);
  }
}

/* Rows packed in pairs become bytes in small pieces on the stack. */
#define PIECE 48

static MCUF_OWN_STACK void add_packed(const mcuf_scalar_sums* sums) {
  int8_t piece[4 * PIECE];
  const int32_t k = sums->k, count = sums->count;
  const ptrdiff_t pair_bytes = 2 * (ptrdiff_t)mcuf_round_up_even(k);
  mcuf_scalar_sums part = *sums;
  part.w = piece;
  part.stride = PIECE;
  const int8_t* packed = sums->w;
  for (int32_t left = sums->rows; left > 0; left -= 4, packed += 2 * pair_bytes, part.acc += 4 * count) {
    part.rows = left < 4 ? left : 4;
    for (int32_t start = 0; start < k; start += PIECE) {
      part.n = k - start < PIECE ? k - start : PIECE;
      part.x = count == 1 ? (const void*)((const int16_t*)sums->x + start)
                          : (const void*)((const int32_t*)sums->x + MCUF_WORD_AT(k, count, start, 0));
      for (int32_t r = 0; r < part.rows; r += 2) {
        const int8_t* pair = packed + r / 2 * pair_bytes + 2 * (ptrdiff_t)start;
        int8_t* target = piece + r * PIECE;
        for (int32_t i = 0; i < part.n; ++i) { /* 256 * hi + lo, little-endian */
          target[i] = pair[2 * i];
          target[PIECE + i] = (int8_t)(pair[2 * i + 1] + (pair[2 * i] < 0));
        }
      }
      add(&part);
    }
  }
}

void mcuf_block_accumulate(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k,
                           const int16_t* block, int32_t count, int32_t* acc) {
  const mcuf_scalar_sums sums = {block, weights, k, k, out_features, count, acc, k};
  if (packing == MCUF_PACKING_ROWS) {
    add(&sums);
  } else {
    add_packed(&sums);
  }
}

void mcuf_block_dot(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k, const int16_t* block,
                    int32_t count, int32_t* acc) {
  mcuf_clear_sums(acc, mcuf_round_up_even(out_features) * count);
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
  if (rows % 2 != 0) acc[0] = acc[count / 2] = acc[count - 1] = 0;
}

/* mcuf_block_fc() of a block that is not split. */
static MCUF_OWN_STACK void fc_part(const mcuf_fc_rows* p, const int16_t* block, int32_t count, const int8_t* residual,
                                   int8_t* output, int32_t stride) {
  const int32_t k = p->in_features, row_bytes = mcuf_packed_row_bytes(k, p->packing);
  const bool packed = p->packing != MCUF_PACKING_ROWS;
  int32_t acc[4 * MCUF_TOKEN_BLOCK];
  mcuf_scalar_sums sums = {block, p->weights, k, k, 4, count, acc, k};
  row_group g = {p->multiplier, p->zero_point, 4, count, p->gelu_table == NULL ? NULL : p->gelu_table + 128};
  for (int32_t o = 0; o < p->out_features; o += 4, sums.w += 4 * row_bytes, g.multiplier += 4) {
    if (p->out_features - o < 4) sums.rows = g.rows = p->out_features - o;
    start_rows(p->bias + o, g.rows, count, acc);
    if (packed) {
      add_packed(&sums);
    } else {
      add(&sums);
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
