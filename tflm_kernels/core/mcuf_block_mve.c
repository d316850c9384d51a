/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_block.h for Cortex-M with vectors (MVE). A block of four tokens is int8 [k / 16][4][16], then [4][k % 16]; fewer
 * tokens lie one after another, and are handled one at a time. */
#include "mcuf_block.h"
#include "mcuf_target.h"
#include "mcuf_types.h" /* an empty translation unit is not valid C99 */

#if MCUF_MVE
#include <arm_mve.h>

#include "mcuf_fixed_point.h"

#define VECTOR 16

/* acc[0..3]: sums of four tokens with row `first`, acc[4..7]: with row `second`. */
void mcuf_dot_4x2_mve(int32_t* acc, const int8_t* block, int32_t k, const int8_t* first, const int8_t* second);

/* Sums of one token with two rows. */
static void dot_1x2(int32_t* acc, const int8_t* token, int32_t k, const int8_t* first, const int8_t* second) {
  int32_t a = 0, b = 0;
  for (int32_t left = k; left > 0; left -= VECTOR, token += VECTOR, first += VECTOR, second += VECTOR) {
    const mve_pred16_t lanes = vctp8q((uint32_t)left);
    const int8x16_t x = vldrbq_z_s8(token, lanes);
    a = vmladavaq_s8(a, x, vldrbq_z_s8(first, lanes));
    b = vmladavaq_s8(b, x, vldrbq_z_s8(second, lanes));
  }
  acc[0] = a;
  acc[1] = b;
}

void mcuf_block_fill_token(const mcuf_block_token* token, const int8_t* source, int32_t step, int32_t at, int32_t n) {
  int8_t* bytes = (int8_t*)token->block;
  const int32_t k = token->k, whole = k / VECTOR * VECTOR;
  for (int32_t i = at; i < at + n;) {
    const int32_t piece = i < whole ? i - i % VECTOR : whole, width = i < whole ? VECTOR : k - whole;
    const int32_t end = piece + width < at + n ? piece + width : at + n;
    int8_t* target = token->count == MCUF_TOKEN_BLOCK
                         ? bytes + (ptrdiff_t)piece * MCUF_TOKEN_BLOCK + token->index * width + (i - piece)
                         : bytes + (ptrdiff_t)token->index * k + i;
    const mve_pred16_t lanes = vctp8q((uint32_t)(end - i));
    vstrbq_p_s8(target, step == 0 ? vdupq_n_s8(*source) : vldrbq_z_s8(source + (i - at), lanes), lanes);
    i = end;
  }
}

void mcuf_block_fill(int16_t* block, int32_t k, int32_t count, const int8_t* source, int32_t stride, int32_t at,
                     int32_t n) {
  mcuf_block_fill_by_token(block, k, count, source, stride, at, n);
}

/* Rows packed in pairs are unpacked in pieces on the stack. */
#define PIECE 48

static void unpack(const int8_t* pair, int32_t n, int8_t* first, int8_t* second) {
  for (int32_t i = 0; i < n; ++i) {
    first[i] = pair[2 * i];
    second[i] = (int8_t)(pair[2 * i + 1] + (pair[2 * i] < 0));
  }
}

/* Sums of a pair of rows: acc int32 [2, count] for count = 1 or 4 tokens. */
static MCUF_OWN_STACK void dot_pair(const int8_t* pair, int32_t k, const int8_t* block, int32_t count, int32_t* acc) {
  for (int32_t i = 0; i < 2 * count; ++i) acc[i] = 0;
  for (int32_t start = 0; start < k; start += PIECE) {
    const int32_t n = k - start < PIECE ? k - start : PIECE;
    int8_t first[PIECE], second[PIECE];
    int32_t part[2 * MCUF_TOKEN_BLOCK];
    unpack(pair + 2 * (ptrdiff_t)start, n, first, second);
    if (count == 1) {
      dot_1x2(part, block + start, n, first, second);
    } else {
      mcuf_dot_4x2_mve(part, block + (ptrdiff_t)start * count, n, first, second);
    }
    for (int32_t i = 0; i < 2 * count; ++i) acc[i] += part[i];
  }
}

/* The same for rows o and o + 1 in any packing. Without a second row, the first stands in for it. */
static inline void dot_rows(const int8_t* weights, int32_t packing, int32_t out_features, int32_t o, int32_t k,
                            const int8_t* block, int32_t count, int32_t* acc) {
  const int8_t* row = weights + mcuf_packed_offset(o, k, packing);
  const int8_t* second = row + (o + 1 < out_features ? k : 0);
  if (packing != MCUF_PACKING_ROWS) {
    dot_pair(row, k, block, count, acc);
  } else if (count == 1) {
    dot_1x2(acc, block, k, row, second);
  } else {
    mcuf_dot_4x2_mve(acc, block, k, row, second);
  }
}

/* What the outputs of four tokens need besides their sums. */
typedef struct {
  const int8_t *residual, *gelu_table; /* or NULL */
  int32_t zero_point;
  uint32x4_t tokens; /* where they lie, from the first */
} four_tokens;

/* Row o of the layer: its sums to its outputs. */
static inline void finish_row(const mcuf_fc_rows* p, const four_tokens* f, int32_t o, const int32_t* acc,
                              int8_t* output) {
  int32x4_t a = vaddq_n_s32(vldrwq_s32(acc), p->bias[o]);
  if (f->residual != NULL) {
    a = vmlaq_n_s32(a, vldrbq_gather_offset_s32(f->residual + o, f->tokens), p->residual_scale[o]);
  }
  a = vaddq_n_s32(vrmulhq_s32(a, vdupq_n_s32(p->multiplier[o])), f->zero_point);
  a = vminq_s32(vmaxq_s32(a, vdupq_n_s32(-128)), vdupq_n_s32(127));
  if (f->gelu_table != NULL) {
    a = vldrbq_gather_offset_s32(f->gelu_table, vreinterpretq_u32_s32(vaddq_n_s32(a, 128)));
  }
  vstrbq_scatter_offset_s32(output + o, f->tokens, a);
}

/* The layer is copied so that the compiler need not read it again after every store. */
static void fc_four(const mcuf_fc_rows* layer, const int8_t* block, const int8_t* residual, int8_t* output,
                    int32_t stride) {
  const mcuf_fc_rows p = *layer;
  const four_tokens f = {residual, p.gelu_table, p.zero_point, vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)stride)};
  int32_t acc[2 * MCUF_TOKEN_BLOCK], o = 0;
  if (p.packing == MCUF_PACKING_ROWS) {
    const int8_t* row = p.weights;
    for (; o + 2 <= p.out_features; o += 2, row += 2 * (ptrdiff_t)p.in_features) {
      mcuf_dot_4x2_mve(acc, block, p.in_features, row, row + p.in_features);
      finish_row(&p, &f, o, acc, output);
      finish_row(&p, &f, o + 1, acc + MCUF_TOKEN_BLOCK, output);
    }
  }
  for (; o < p.out_features; o += 2) {
    dot_rows(p.weights, p.packing, p.out_features, o, p.in_features, block, MCUF_TOKEN_BLOCK, acc);
    finish_row(&p, &f, o, acc, output);
    if (o + 1 < p.out_features) finish_row(&p, &f, o + 1, acc + MCUF_TOKEN_BLOCK, output);
  }
}

static void fc_one(const mcuf_fc_rows* p, const int8_t* token, const int8_t* residual, int8_t* output) {
  for (int32_t o = 0; o < p->out_features; o += 2) {
    int32_t acc[2];
    dot_rows(p->weights, p->packing, p->out_features, o, p->in_features, token, 1, acc);
    for (int32_t i = 0; i < 2 && o + i < p->out_features; ++i) {
      int32_t a = acc[i] + p->bias[o + i];
      if (residual != NULL) a += (int32_t)p->residual_scale[o + i] * residual[o + i];
      const int8_t q = mcuf_requantise(a, p->multiplier[o + i], p->zero_point);
      output[o + i] = p->gelu_table != NULL ? p->gelu_table[q + 128] : q;
    }
  }
}

void mcuf_block_fc(const mcuf_fc_rows* p, const int16_t* block, int32_t count, const int8_t* residual, int8_t* output,
                   int32_t stride) {
  const int8_t* tokens = (const int8_t*)block;
  if (count == MCUF_TOKEN_BLOCK) {
    fc_four(p, tokens, residual, output, stride);
    return;
  }
  for (int32_t t = 0; t < count; ++t) {
    fc_one(p, tokens + (ptrdiff_t)t * p->in_features, residual == NULL ? NULL : residual + (ptrdiff_t)t * stride,
           output + (ptrdiff_t)t * stride);
  }
}

/* Sums of all rows, added to acc or in its place. */
static void dot_all(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k, const int16_t* block,
                    int32_t count, bool add, int32_t* acc) {
  const int8_t* tokens = (const int8_t*)block;
  for (int32_t o = 0; o < out_features; o += 2, acc += 2 * count) {
    int32_t sums[2 * MCUF_TOKEN_BLOCK];
    if (count == MCUF_TOKEN_BLOCK) {
      dot_rows(weights, packing, out_features, o, k, tokens, count, sums);
      vstrwq_s32(acc, add ? vaddq_s32(vldrwq_s32(acc), vldrwq_s32(sums)) : vldrwq_s32(sums));
      vstrwq_s32(acc + 4, add ? vaddq_s32(vldrwq_s32(acc + 4), vldrwq_s32(sums + 4)) : vldrwq_s32(sums + 4));
      continue;
    }
    for (int32_t t = 0; t < count; ++t) {
      dot_rows(weights, packing, out_features, o, k, tokens + (ptrdiff_t)t * k, 1, sums);
      acc[t] = sums[0] + (add ? acc[t] : 0);
      acc[count + t] = sums[1] + (add ? acc[count + t] : 0);
    }
  }
}

void mcuf_block_accumulate(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k,
                           const int16_t* block, int32_t count, int32_t* acc) {
  dot_all(weights, packing, out_features, k, block, count, true, acc);
}

void mcuf_block_dot(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k, const int16_t* block,
                    int32_t count, int32_t* acc) {
  dot_all(weights, packing, out_features, k, block, count, false, acc);
}
#endif /* MCUF_MVE */
