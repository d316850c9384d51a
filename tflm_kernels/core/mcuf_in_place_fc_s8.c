/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_in_place_fc_s8.h"

#include <string.h>

#include "mcuf_block.h"
#include "mcuf_fixed_point.h"
#include "mcuf_hooks.h"
#include "mcuf_target.h"
#ifdef MCUF_DISPATCH
#include MCUF_DISPATCH
#endif

mcuf_status mcuf_in_place_fc_s8_check(const mcuf_in_place_fc_params* p, int32_t has_residual) {
  const bool staged = p->staged.tile_bytes != 0;
  if (p->weights == NULL && !staged) return MCUF_ERROR_NULL;
  if (p->tokens < 1 || p->tokens > MCUF_MAX_TOKENS || p->in_features < 1 || p->in_features > MCUF_MAX_FEATURES ||
      p->out_features < 1 || p->out_features > MCUF_MAX_FEATURES || p->in_stride < p->in_features ||
      p->in_stride > MCUF_MAX_STRIDE || (staged && (p->tokens_per_read < 1 || p->tokens_per_read > MCUF_MAX_TOKENS)) ||
      !mcuf_staged_weights_fit(&p->staged, mcuf_packed_row_bytes(p->in_features, p->packing),
                               mcuf_packed_rows(p->out_features, p->packing))) {
    return MCUF_ERROR_SIZE;
  }
  if (!mcuf_packing_is_known(p->packing, p->weights)) return MCUF_ERROR_VALUE;
  if (!mcuf_is_int8(p->zero_point)) return MCUF_ERROR_VALUE;
  if (has_residual && p->residual_scale == NULL) return MCUF_ERROR_NULL;
  return mcuf_check_requantisation(p->bias, p->multiplier, p->out_features);
}

/* Scratch: a block of tokens, int8 tile, int8 tokens [tokens_per_read, in] */
int32_t mcuf_in_place_fc_s8_scratch_bytes(int32_t in_features, int32_t tile_bytes, int32_t tokens_per_read) {
  const bool copies = tile_bytes > 0 && tokens_per_read > MCUF_TOKEN_BLOCK;
  const int32_t copied = copies ? (tokens_per_read * in_features + 3) / 4 * 4 : 0;
  return mcuf_block_bytes(in_features) + tile_bytes + copied;
}

/* Tokens that go through all rows before others do, unless weights are staged: a block is read before its outputs are
 * written, so that these may be all where no row waits for a call of MCUF_YIELD(). And whether more than a block of
 * them must be copied so that outputs can overwrite them: only staged weights have room for that. */
#define COPIES_TOKENS(p) ((p)->staged.tile_bytes > 0)
#ifdef MCUF_DISPATCH
#define TOKENS_AT_ONCE(p)                                                                     \
  (mcuf_fc_weights_are_bytes((p)->weights, (p)->packing, (p)->in_features, (p)->out_features) \
       ? mcuf_fc_tokens_at_once((p)->in_features, (p)->tokens)                                \
       : MCUF_TOKEN_BLOCK)
#elif defined(MCUF_YIELD_MACS)
#define TOKENS_AT_ONCE(p) MCUF_TOKEN_BLOCK
#else
#define TOKENS_AT_ONCE(p) ((p)->tokens)
#endif

/* How many outputs of a block are computed between two calls of MCUF_YIELD(), at most `rows`; even, as a tile's. */
static inline int32_t yield_rows(int32_t in_features, int32_t rows) {
#ifdef MCUF_YIELD_MACS
  const int32_t most = (MCUF_YIELD_MACS) / (MCUF_TOKEN_BLOCK * in_features) / 4 * 4;
  return most >= rows ? rows : most > 4 ? most : rows < 4 ? rows : 4;
#else
  (void)in_features;
  return rows;
#endif
}

#if MCUF_MVE || MCUF_DSP
/* Whether mcuf_fc_few() is the quickest for that many of the tokens. */
static inline bool is_few(const mcuf_in_place_fc_params* p, int32_t tokens) {
  return mcuf_outputs_are_few(tokens, p->in_features, p->out_features, p->in_stride) &&
         p->packing == MCUF_FEW_PACKING && p->staged.tile_bytes == 0;
}
#endif

/* Tokens [first, first + count), whose inputs begin at input and are in_stride apart. With more than four, outputs must
 * not overwrite inputs unless all rows are there at once. */
static mcuf_status run_tokens(const mcuf_in_place_fc_params* p, const int8_t* input, int32_t in_stride, int32_t first,
                              int32_t count, const int8_t* residual, int8_t* output, int16_t* block, int8_t* tile) {
  const int32_t row_bytes = mcuf_packed_row_bytes(p->in_features, p->packing);
  const int32_t packed_rows = mcuf_packed_rows(p->out_features, p->packing);
  const int32_t tile_rows = yield_rows(p->in_features, mcuf_tile_rows(&p->staged, row_bytes, packed_rows));
  for (int32_t row = 0; row < p->out_features; row += tile_rows) {
    const int32_t brought = packed_rows - row < tile_rows ? packed_rows - row : tile_rows;
    const int32_t left = p->out_features - row;
    mcuf_fc_rows rows = {
        mcuf_weight_rows(&p->staged, p->weights, row_bytes, row, brought, tile),
        p->packing,
        p->in_features,
        left < tile_rows ? left : tile_rows,
        p->zero_point,
        p->bias + row,
        p->multiplier + row,
        p->residual_scale == NULL ? NULL : p->residual_scale + row,
        p->gelu_table,
    };
    if (rows.weights == NULL) return MCUF_ERROR_SOURCE;
#ifdef MCUF_DISPATCH
    const ptrdiff_t start = (ptrdiff_t)first * p->out_features + row;
    if (mcuf_fc_tokens(&rows, input, in_stride, count, residual == NULL ? NULL : residual + start, output + start,
                       p->out_features)) {
      continue;
    }
#endif
    const int32_t last = (count - 1) / MCUF_TOKEN_BLOCK * MCUF_TOKEN_BLOCK;
    for (int32_t at_four = 0; at_four <= last; at_four += MCUF_TOKEN_BLOCK) {
      const int32_t four = p->out_features > p->in_stride ? last - at_four : at_four;
      const int32_t used = count - four < MCUF_TOKEN_BLOCK ? count - four : MCUF_TOKEN_BLOCK;
      const ptrdiff_t at = (ptrdiff_t)(first + four) * p->out_features + row;
#if MCUF_MVE || MCUF_DSP
      if (used < MCUF_TOKEN_BLOCK && p->out_features <= 2 && is_few(p, used)) {
        mcuf_fc_few(p, input + (ptrdiff_t)four * in_stride, residual == NULL ? NULL : residual + at, output + at, used);
        MCUF_YIELD();
        continue;
      }
#endif
      if (row == 0 || count > MCUF_TOKEN_BLOCK) {
        mcuf_block_fill(block, p->in_features, used, input + (ptrdiff_t)four * in_stride, in_stride, 0, p->in_features);
      }
      mcuf_block_fc(&rows, block, used, residual == NULL ? NULL : residual + at, output + at, p->out_features);
      MCUF_YIELD();
    }
  }
  return MCUF_OK;
}

static MCUF_OWN_STACK mcuf_status run_layer(const mcuf_in_place_fc_params* p, const int8_t* input,
                                            const int8_t* residual, int8_t* output, void* scratch) {
  int16_t* block = (int16_t*)scratch;
  int8_t* tile = (int8_t*)scratch + mcuf_block_bytes(p->in_features);
  int8_t* copy = tile + p->staged.tile_bytes;
#if MCUF_MVE || MCUF_DSP
  const bool few = is_few(p, p->tokens);
  const int32_t size = p->staged.tile_bytes > 0 ? p->tokens_per_read : few ? MCUF_FEW_TOKENS : TOKENS_AT_ONCE(p);
#else
  const int32_t size = p->staged.tile_bytes > 0 ? p->tokens_per_read : TOKENS_AT_ONCE(p);
#endif
  const int32_t reads = (p->tokens + size - 1) / size;
  const bool grows = p->out_features > p->in_stride;
  for (int32_t i = 0; i < reads; ++i) {
    const int32_t first = size * (grows ? reads - 1 - i : i);
    const int32_t count = p->tokens - first < size ? p->tokens - first : size;
    const int8_t* source = input + (ptrdiff_t)first * p->in_stride;
    int32_t stride = p->in_stride;
#if MCUF_MVE || MCUF_DSP
    if (few) {
      const ptrdiff_t at = (ptrdiff_t)first * p->out_features;
      mcuf_fc_few(p, source, residual == NULL ? NULL : residual + at, output + at, count);
      MCUF_YIELD();
      continue;
    }
#endif
    if (output == input && count > MCUF_TOKEN_BLOCK && COPIES_TOKENS(p)) {
      for (int32_t t = 0; t < count; ++t) {
        memcpy(copy + (ptrdiff_t)t * p->in_features, source + (ptrdiff_t)t * stride, (size_t)p->in_features);
      }
      source = copy;
      stride = p->in_features;
    }
    const mcuf_status status = run_tokens(p, source, stride, first, count, residual, output, block, tile);
    if (status != MCUF_OK) return status;
  }
  return MCUF_OK;
}

mcuf_status mcuf_in_place_fc_s8(const mcuf_in_place_fc_params* p, const int8_t* input, const int8_t* residual,
                                int8_t* output, void* scratch) {
  const size_t in_bytes = (size_t)(p->tokens - 1) * (size_t)p->in_stride + (size_t)p->in_features;
  const size_t out_bytes = (size_t)p->tokens * (size_t)p->out_features;
  if (output != input && mcuf_overlap(output, out_bytes, input, in_bytes)) return MCUF_ERROR_OVERLAP;
  if (residual != NULL && output != residual && mcuf_overlap(output, out_bytes, residual, out_bytes)) {
    return MCUF_ERROR_OVERLAP;
  }
#if MCUF_MVE || MCUF_DSP
  if (is_few(p, p->tokens) && mcuf_few_at_once(p->tokens, p->in_features, p->out_features)) {
    mcuf_fc_few(p, input, residual, output, p->tokens);
    MCUF_YIELD();
    return MCUF_OK;
  }
#endif
  return run_layer(p, input, residual, output, scratch);
}
