/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_block.h for Cortex-M with vectors (MVE). A block of four tokens is int8 [k / 16][4][16], then [4][k % 16].
 * One of three tokens, which only fully connected layers have, is such a block too: its last token lies there twice.
 * Fewer tokens lie one after another. */
#include "mcuf_block.h"
#include "mcuf_hooks.h"
#include "mcuf_target.h"
#include "mcuf_types.h" /* an empty translation unit is not valid C99 */

#if MCUF_MVE
#include "mcuf_dot_mve.h"

#define REPEATED 3 /* tokens, in a block of four */
#define WHOLE(k) ((k) & ~(MCUF_VECTOR - 1))

/* ---- blocks ---- */

/* Where value i of a block's four tokens lies, and of the values until end that lie together how many there are. */
typedef struct {
  int8_t* first; /* of token 0 */
  int32_t width; /* bytes from token to token */
  int32_t count;
} block_piece;

static inline block_piece piece_at(int8_t* block, int32_t k, int32_t i, int32_t end) {
  const int32_t whole = WHOLE(k), start = WHOLE(i), width = start < whole ? MCUF_VECTOR : k - whole;
  const int32_t stop = start + width < end ? start + width : end;
  const block_piece piece = {block + (ptrdiff_t)start * MCUF_TOKEN_BLOCK + (i - start), width, stop - i};
  return piece;
}

/* One of four tokens of a block. */
static void fill_of_four(int8_t* block, int32_t k, int32_t index, const int8_t* source, int32_t step, int32_t at,
                         int32_t n) {
  const int8x16_t value = vdupq_n_s8(*source);
  for (int32_t i = at; i < at + n;) {
    const block_piece piece = piece_at(block, k, i, at + n);
    const mve_pred16_t lanes = vctp8q((uint32_t)piece.count);
    vstrbq_p_s8(piece.first + index * piece.width, step == 0 ? value : vldrbq_z_s8(source + (i - at), lanes), lanes);
    i += piece.count;
  }
}

void mcuf_block_fill_token(const mcuf_block_token* token, const int8_t* source, int32_t step, int32_t at, int32_t n) {
  int8_t* block = (int8_t*)token->block;
  const int32_t k = token->k, count = token->count;
  if (count < REPEATED) {
    int8_t* target = block + (ptrdiff_t)token->index * k + at;
    const int8x16_t value = vdupq_n_s8(*source);
    for (int32_t i = 0; i < n; i += MCUF_VECTOR) {
      const mve_pred16_t lanes = vctp8q((uint32_t)(n - i));
      vstrbq_p_s8(target + i, step == 0 ? value : vldrbq_z_s8(source + i, lanes), lanes);
    }
    return;
  }
  fill_of_four(block, k, token->index, source, step, at, n);
  if (count == REPEATED && token->index == count - 1) fill_of_four(block, k, count, source, step, at, n);
}

void mcuf_block_fill(int16_t* block, int32_t k, int32_t count, const int8_t* source, int32_t stride, int32_t at,
                     int32_t n) {
  if (source == NULL) {
    mcuf_block_fill_by_token(block, k, count, source, stride, at, n);
    return;
  }
  if (count < REPEATED) {
    int8_t* target = (int8_t*)block + at;
    for (int32_t i = 0; i < n; i += MCUF_VECTOR) {
      const mve_pred16_t lanes = vctp8q((uint32_t)(n - i));
      vstrbq_p_s8(target + i, vldrbq_z_s8(source + i, lanes), lanes);
      if (count == 2) vstrbq_p_s8(target + k + i, vldrbq_z_s8(source + stride + i, lanes), lanes);
    }
    return;
  }
  const int32_t last = count == REPEATED ? 0 : stride; /* from the third token to the fourth */
  for (int32_t i = at; i < at + n;) {
    const block_piece piece = piece_at((int8_t*)block, k, i, at + n);
    const mve_pred16_t lanes = vctp8q((uint32_t)piece.count);
    const int8_t* values = source + (i - at);
    vstrbq_p_s8(piece.first, vldrbq_z_s8(values, lanes), lanes);
    vstrbq_p_s8(piece.first + piece.width, vldrbq_z_s8(values + stride, lanes), lanes);
    values += 2 * (ptrdiff_t)stride;
    vstrbq_p_s8(piece.first + 2 * piece.width, vldrbq_z_s8(values, lanes), lanes);
    vstrbq_p_s8(piece.first + 3 * piece.width, vldrbq_z_s8(values + last, lanes), lanes);
    i += piece.count;
  }
}

/* ---- sums ---- */

/* Up to 16 inputs of a pair of rows: 256 * second + first, little-endian. Lanes beyond them are 0. */
static inline int8x16_t unpack_pair(const int8_t* pair, mve_pred16_t lanes, int8x16_t* second) {
  const uint8x16_t places = vidupq_n_u8(0, 2);
  const int8x16_t first = vldrbq_gather_offset_z_s8(pair, places, lanes);
  *second = vsubq_s8(vldrbq_gather_offset_z_s8(pair + 1, places, lanes), vshrq_n_s8(first, 7));
  return first;
}

/* For four tokens, rows are unpacked in pieces on the stack. */
#define PIECE 64

static void unpack(const int8_t* pair, int32_t n, int8_t* first, int8_t* second) {
  for (; n > 0; n -= MCUF_VECTOR, pair += 2 * MCUF_VECTOR, first += MCUF_VECTOR, second += MCUF_VECTOR) {
    const mve_pred16_t lanes = vctp8q((uint32_t)n);
    int8x16_t upper;
    vstrbq_p_s8(first, unpack_pair(pair, lanes, &upper), lanes);
    vstrbq_p_s8(second, upper, lanes);
  }
}

/* Sums of a pair of rows with four tokens, added to acc: int32 [2, 4]. */
static MCUF_OWN_STACK void dot_pair_four(const int8_t* pair, int32_t k, const int8_t* block, int32_t* acc) {
  for (int32_t start = 0; start < k; start += PIECE) {
    const int32_t n = k - start < PIECE ? k - start : PIECE;
    int8_t rows[2 * PIECE];
    unpack(pair + 2 * (ptrdiff_t)start, n, rows, rows + n);
    mcuf_dot_rows_add_mve(acc, block + (ptrdiff_t)start * MCUF_TOKEN_BLOCK, n, rows, acc + 2 * MCUF_TOKEN_BLOCK, n);
  }
}

/* Sums of rows in any packing with four tokens: acc int32 [rows rounded up to even, 4]. */
static void dot_four(const int8_t* weights, int32_t packing, int32_t rows, int32_t k, const int8_t* block, bool add,
                     int32_t* acc) {
  if (packing != MCUF_PACKING_ROWS) {
    for (int32_t o = 0; o < rows; o += 2, acc += 2 * MCUF_TOKEN_BLOCK) {
      for (int32_t i = 0; !add && i < 2 * MCUF_TOKEN_BLOCK; ++i) acc[i] = 0;
      dot_pair_four(weights + mcuf_packed_offset(o, k, packing), k, block, acc);
    }
    return;
  }
  const int32_t even = rows & ~1;
  int32_t* last = acc + (ptrdiff_t)even * MCUF_TOKEN_BLOCK;
  if (add) {
    if (even > 0) mcuf_dot_rows_add_mve(acc, block, k, weights, last, k);
    if (even < rows) {
      mcuf_dot_rows_add_mve(last, block, k, weights + (ptrdiff_t)even * k, last + 2 * MCUF_TOKEN_BLOCK, 0);
    }
  } else {
    if (even > 0) mcuf_dot_rows_mve(acc, block, k, weights, last, k);
    if (even < rows) {
      mcuf_dot_rows_mve(last, block, k, weights + (ptrdiff_t)even * k, last + 2 * MCUF_TOKEN_BLOCK, 0);
    }
  }
}

/* Sums of one token with two pairs of rows. */
static MCUF_OWN_STACK int32x4_t dot_pairs_one(const int8_t* x, const int8_t* pair, const int8_t* next, int32_t k) {
  int32_t a = 0, b = 0, c = 0, d = 0;
  for (; k > 0; k -= MCUF_VECTOR, x += MCUF_VECTOR, pair += 2 * MCUF_VECTOR, next += 2 * MCUF_VECTOR) {
    const mve_pred16_t lanes = vctp8q((uint32_t)k);
    const int8x16_t v = vldrbq_z_s8(x, lanes);
    int8x16_t upper;
    a = vmladavaq_s8(a, v, unpack_pair(pair, lanes, &upper));
    b = vmladavaq_s8(b, v, upper);
    c = vmladavaq_s8(c, v, unpack_pair(next, lanes, &upper));
    d = vmladavaq_s8(d, v, upper);
  }
  return vsetq_lane_s32(d, vsetq_lane_s32(c, vsetq_lane_s32(b, vdupq_n_s32(a), 1), 2), 3);
}

/* Sums of rows [o, o + 4) in any packing with one token. A missing row's sum is meaningless. */
static MCUF_OWN_STACK int32x4_t dot_one(const int8_t* weights, int32_t packing, int32_t rows, int32_t o, int32_t k,
                                        const int8_t* token) {
  const int32_t left = rows - o;
  const int8_t* row = weights + mcuf_packed_offset(o, k, packing);
  if (packing != MCUF_PACKING_ROWS) {
    return dot_pairs_one(token, row, left > 2 ? row + mcuf_packed_offset(2, k, packing) : row, k);
  }
  const int8_t *second = left > 1 ? row + k : row, *third = left > 2 ? second + k : second;
  return mcuf_dot_1x4_mve(token, row, second, third, left > 3 ? third + k : third, k);
}

/* ---- fully connected layers ---- */

/* Sums of rows [o, o + 4) with one token to outputs; all: these four rows exist, known when this is compiled. residual,
 * output: of row o. */
static inline void finish_rows(const mcuf_fc_rows* p, int32_t o, bool all, int32x4_t a, const int8_t* residual,
                               int8_t* output) {
  const mve_pred16_t lanes = all ? 0 : vctp32q((uint32_t)(p->out_features - o));
  a = vaddq_s32(a, all ? vldrwq_s32(p->bias + o) : vldrwq_z_s32(p->bias + o, lanes));
  if (residual != NULL) {
    const int32x4_t scale = all ? vldrhq_s32(p->residual_scale + o) : vldrhq_z_s32(p->residual_scale + o, lanes);
    a = vaddq_s32(a, vmulq_s32(scale, all ? vldrbq_s32(residual) : vldrbq_z_s32(residual, lanes)));
  }
  a = vrmulhq_s32(a, all ? vldrwq_s32(p->multiplier + o) : vldrwq_z_s32(p->multiplier + o, lanes));
  a = mcuf_sat8_mve(vaddq_n_s32(a, p->zero_point));
  if (p->gelu_table != NULL) { /* a negative offset wraps */
    a = vldrbq_gather_offset_s32(p->gelu_table + 128, vreinterpretq_u32_s32(a));
  }
  if (all) {
    vstrbq_s32(output, a);
  } else {
    vstrbq_p_s32(output, a, lanes);
  }
}

/* Rows from o on, up to two at a time, for three or four tokens. */
static MCUF_OWN_STACK void fc_four_rest(const mcuf_fc_rows* p, int32_t o, const int8_t* block, int32_t count,
                                        const int8_t* residual, int8_t* output, int32_t stride) {
  const uint32x4_t row = vmulq_n_u32(vidupq_n_u32(0, 1), MCUF_TOKEN_BLOCK);
  int32_t acc[MCUF_LANES * MCUF_TOKEN_BLOCK] = {0};
  mcuf_fc_rows rows = *p;
  for (; o < p->out_features; o += 2) {
    rows.out_features = p->out_features - o < 2 ? p->out_features : o + 2;
    dot_four(p->weights + mcuf_packed_offset(o, p->in_features, p->packing), p->packing, rows.out_features - o,
             p->in_features, block, false, acc);
    for (int32_t t = 0; t < count; ++t) {
      const ptrdiff_t at = (ptrdiff_t)t * stride + o;
      finish_rows(&rows, o, false, vldrwq_gather_shifted_offset_s32(acc + t, row),
                  residual == NULL ? NULL : residual + at, output + at);
    }
  }
}

static void fc_four(const mcuf_fc_rows* p, const int8_t* block, int32_t count, const int8_t* residual, int8_t* output,
                    int32_t stride) {
  const int32_t even = p->packing == MCUF_PACKING_ROWS ? p->out_features & ~1 : 0;
  if (even > 0) {
    const mcuf_fc_four rows = {
        block,         p->in_features, p->weights,
        p->bias,       p->bias + even, p->multiplier,
        output,        residual,       p->residual_scale,
        p->gelu_table, stride,         p->zero_point + (p->gelu_table != NULL ? 128 : 0),
        count - 1,
    };
    mcuf_fc_four_mve(rows);
  }
  if (even < p->out_features) fc_four_rest(p, even, block, count, residual, output, stride);
}

/* The layer is copied so that the compiler need not read it again after every store. */
static MCUF_OWN_STACK void fc_one(const mcuf_fc_rows* layer, const int8_t* token, const int8_t* residual,
                                  int8_t* output) {
  const mcuf_fc_rows p = *layer;
  const int32_t k = p.in_features;
  const int8_t* row = p.weights;
  int32_t o = 0;
  for (; p.packing == MCUF_PACKING_ROWS && o + MCUF_LANES <= p.out_features; o += MCUF_LANES, row += MCUF_LANES * k) {
    const int32x4_t sums = mcuf_dot_1x4_mve(token, row, row + k, row + 2 * k, row + 3 * k, k);
    finish_rows(&p, o, true, sums, residual == NULL ? NULL : residual + o, output + o);
  }
  for (; o < p.out_features; o += MCUF_LANES) {
    finish_rows(&p, o, false, dot_one(p.weights, p.packing, p.out_features, o, k, token),
                residual == NULL ? NULL : residual + o, output + o);
  }
}

/* Up to four tokens; those missing are the last. */
typedef struct {
  const int8_t* token[MCUF_TOKEN_BLOCK];
  uint32x4_t outputs; /* where theirs lie, in bytes */
  mve_pred16_t lanes;
} few_tokens;

static int32_t dot_1x1(const int8_t* x, const int8_t* row, int32_t k) {
  int32_t sum = 0;
  for (int32_t i = k / MCUF_VECTOR; i > 0; --i, x += MCUF_VECTOR, row += MCUF_VECTOR) {
    sum = vmladavaq_s8(sum, vldrbq_s8(x), vldrbq_s8(row));
  }
  const mve_pred16_t lanes = vctp8q((uint32_t)(k % MCUF_VECTOR));
  return vmladavaq_s8(sum, vldrbq_z_s8(x, lanes), vldrbq_z_s8(row, lanes));
}

static inline int32x4_t few_sums(const mcuf_fc_rows* p, int32_t o, const few_tokens* f) {
  const int8_t* row = p->weights + (ptrdiff_t)o * p->in_features;
  if (f->token[1] == f->token[0]) return vdupq_n_s32(dot_1x1(f->token[0], row, p->in_features));
  return mcuf_dot_1x4_mve(row, f->token[0], f->token[1], f->token[2], f->token[3], p->in_features);
}

static inline void few_finish(const mcuf_fc_rows* p, int32_t o, int32x4_t sums, const few_tokens* f,
                              const int8_t* residual, int8_t* output) {
  int32x4_t a = vaddq_n_s32(sums, p->bias[o]);
  if (residual != NULL) {
    a = vmlaq_n_s32(a, vldrbq_gather_offset_z_s32(residual + o, f->outputs, f->lanes), p->residual_scale[o]);
  }
  a = mcuf_sat8_mve(vaddq_n_s32(vrmulhq_s32(a, vdupq_n_s32(p->multiplier[o])), p->zero_point));
  if (p->gelu_table != NULL) { /* a negative offset wraps */
    a = vldrbq_gather_offset_s32(p->gelu_table + 128, vreinterpretq_u32_s32(a));
  }
  vstrbq_scatter_offset_p_s32(output + o, f->outputs, a, f->lanes);
}

void mcuf_fc_few(const mcuf_in_place_fc_params* layer, const int8_t* input, const int8_t* residual, int8_t* output,
                 int32_t count) {
  const mcuf_fc_rows p = {
      layer->weights, layer->packing,    layer->in_features,    layer->out_features, layer->zero_point,
      layer->bias,    layer->multiplier, layer->residual_scale, layer->gelu_table,
  };
  const int32_t n = p.out_features, in_stride = layer->in_stride;
  few_tokens f;
  f.outputs = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)n);
  for (; count > 0; count -= MCUF_TOKEN_BLOCK, output += MCUF_TOKEN_BLOCK * n) {
    f.lanes = vctp32q((uint32_t)count);
    f.token[0] = input;
    f.token[1] = count > 1 ? input += in_stride : input;
    f.token[2] = count > 2 ? input += in_stride : input;
    f.token[3] = count > 3 ? input += in_stride : input;
    input += in_stride;
    const int32x4_t first = few_sums(&p, 0, &f); /* all inputs are read before outputs overwrite them */
    if (n == 2) few_finish(&p, 1, few_sums(&p, 1, &f), &f, residual, output);
    few_finish(&p, 0, first, &f, residual, output);
    if (residual != NULL) residual += MCUF_TOKEN_BLOCK * n;
    MCUF_YIELD();
  }
}

void mcuf_block_fc(const mcuf_fc_rows* p, const int16_t* block, int32_t count, const int8_t* residual, int8_t* output,
                   int32_t stride) {
  const int8_t* tokens = (const int8_t*)block;
  if (count >= REPEATED) {
    fc_four(p, tokens, count, residual, output, stride);
    return;
  }
  for (int32_t t = 0; t < count; ++t) {
    fc_one(p, tokens + (ptrdiff_t)t * p->in_features, residual == NULL ? NULL : residual + (ptrdiff_t)t * stride,
           output + (ptrdiff_t)t * stride);
  }
}

/* ---- sums in memory ---- */

/* Sums of one token, or of two, added to acc or in its place: acc int32 [rows, count]. */
static MCUF_OWN_STACK void dot_few(const int8_t* weights, int32_t packing, int32_t rows, int32_t k,
                                   const int8_t* tokens, int32_t count, bool add, int32_t* acc) {
  if (count == 2 && packing == MCUF_PACKING_ROWS && add) {
    const int32_t even = rows & ~1;
    int32_t* last = acc + (ptrdiff_t)even * 2;
    if (even > 0) mcuf_dot_two_add_mve(acc, tokens, k, weights, last, k);
    if (even < rows) mcuf_dot_two_add_mve(last, tokens, k, weights + (ptrdiff_t)even * k, last + 4, 0);
    return;
  }
  const uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)count);
  for (int32_t o = 0; o < rows; o += MCUF_LANES) {
    const mve_pred16_t lanes = vctp32q((uint32_t)(rows - o));
    for (int32_t t = 0; t < count; ++t) {
      int32_t* target = acc + (ptrdiff_t)o * count + t;
      int32x4_t sums = dot_one(weights, packing, rows, o, k, tokens + (ptrdiff_t)t * k);
      if (add) sums = vaddq_s32(sums, vldrwq_gather_shifted_offset_z_s32(target, places, lanes));
      vstrwq_scatter_shifted_offset_p_s32(target, places, sums, lanes);
    }
  }
}

void mcuf_block_accumulate(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k,
                           const int16_t* block, int32_t count, int32_t* acc) {
  if (count == MCUF_TOKEN_BLOCK) {
    dot_four(weights, packing, out_features, k, (const int8_t*)block, true, acc);
  } else {
    dot_few(weights, packing, out_features, k, (const int8_t*)block, count, true, acc);
  }
}

void mcuf_block_dot(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k, const int16_t* block,
                    int32_t count, int32_t* acc) {
  if (count == MCUF_TOKEN_BLOCK) {
    dot_four(weights, packing, out_features, k, (const int8_t*)block, false, acc);
  } else {
    dot_few(weights, packing, out_features, k, (const int8_t*)block, count, false, acc);
  }
}
#endif /* MCUF_MVE */
