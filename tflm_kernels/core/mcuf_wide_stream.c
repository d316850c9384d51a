/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_wide_stream.h"

#include "mcuf_block.h"
#include "mcuf_fixed_point.h"
#include "mcuf_hooks.h"
#include "mcuf_int_layer_norm_parts.h"
#include "mcuf_token_mean_s8.h"

#define SHIFT 24          /* fraction bits of a multiplier */
#define RESIDUAL_SHIFT 10 /* residual_scale has 14 */
#define ROWS_AT_ONCE 8    /* an even number */

/* Accumulator -> int16. added: residual * residual_scale, at most 2^30. */
static inline int16_t requantise(int32_t acc, int32_t multiplier, int32_t added) {
  const int64_t sum = (int64_t)acc * multiplier + (int64_t)added * (1 << RESIDUAL_SHIFT) + (1 << (SHIFT - 1));
  const int64_t value = sum >> SHIFT;
  return (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
}

/* ---- IntLayerNorm ---- */

mcuf_status mcuf_int_layer_norm_s16_check(const mcuf_int_layer_norm_params* p) {
  const mcuf_status status = mcuf_int_layer_norm_s8_check(p);
  if (status != MCUF_OK) return status;
  return p->zero_point != 0 || p->factor != NULL ? MCUF_ERROR_VALUE : MCUF_OK;
}

static void norm_token(const mcuf_int_layer_norm_params* p, const int16_t* x, int8_t* output) {
  mcuf_moments m = {0, 0};
  for (int32_t c = 0; c < p->features; ++c) {
    m.sum += x[c];
    m.squares += (int64_t)x[c] * x[c];
  }
  const mcuf_normalisation n = mcuf_layer_norm_of(p, &m);
  for (int32_t c = 0; c < p->features; ++c) {
    const int32_t value = x[c];
    const int32_t difference = (int32_t)(n.scale * (uint32_t)value - n.offset);
    const int32_t normal = mcuf_mulhi_round(difference, n.multiplier);
    output[c] = mcuf_sat8((normal * p->gamma[c] + p->beta[c]) >> 16);
  }
}

mcuf_status mcuf_int_layer_norm_s16(const mcuf_int_layer_norm_params* p, const int16_t* input, int8_t* output) {
  const int32_t d = p->features;
  const size_t bytes = (size_t)p->tokens * (size_t)d;
  if ((const void*)output != (const void*)input && mcuf_overlap(output, bytes, input, 2 * bytes)) {
    return MCUF_ERROR_OVERLAP;
  }
  for (int32_t t = 0; t < p->tokens; ++t, input += d, output += d) {
    norm_token(p, input, output);
    MCUF_YIELD();
  }
  return MCUF_OK;
}

/* ---- fully connected layers ---- */

/* Rows [row, row + rows) for `count` = 1, 2 or 4 tokens in a block; weights: of these rows. stream: of the first token.
 */
static MCUF_OWN_STACK void add_rows(const mcuf_in_place_fc_params* p, const int8_t* weights, int32_t row, int32_t rows,
                                    const int16_t* block, int32_t count, int16_t* stream) {
  int32_t acc[ROWS_AT_ONCE * MCUF_TOKEN_BLOCK];
  for (int32_t o = 0; o < rows; o += ROWS_AT_ONCE) {
    const int32_t some = rows - o < ROWS_AT_ONCE ? rows - o : ROWS_AT_ONCE;
    const int32_t at = row + o;
    mcuf_block_dot(weights + mcuf_packed_offset(o, p->in_features, p->packing), p->packing, some, p->in_features, block,
                   count, acc);
    for (int32_t i = 0; i < some; ++i) {
      const int32_t multiplier = p->multiplier[at + i], scale = p->residual_scale[at + i];
      int16_t* value = stream + at + i;
      for (int32_t t = 0; t < count; ++t, value += p->out_features) {
        *value = requantise(acc[i * count + t] + p->bias[at + i], multiplier, scale * *value);
      }
    }
  }
}

static mcuf_status add_fc(const mcuf_in_place_fc_params* p, const int8_t* input, int16_t* stream, void* scratch) {
  const int32_t k = p->in_features, row_bytes = mcuf_packed_row_bytes(k, p->packing);
  const int32_t packed_rows = mcuf_packed_rows(p->out_features, p->packing);
  const int32_t tile_rows = mcuf_tile_rows(&p->staged, row_bytes, packed_rows);
  int16_t* block = (int16_t*)scratch;
  int8_t* tile = (int8_t*)scratch + mcuf_block_bytes(k);
  for (int32_t row = 0; row < p->out_features; row += tile_rows) {
    const int32_t left = p->out_features - row, brought = packed_rows - row;
    const int8_t* weights =
        mcuf_weight_rows(&p->staged, p->weights, row_bytes, row, brought < tile_rows ? brought : tile_rows, tile);
    if (weights == NULL) return MCUF_ERROR_SOURCE;
    for (int32_t t = 0, count; t < p->tokens; t += count) {
      count = mcuf_block_count(p->tokens - t);
      mcuf_block_fill(block, k, count, input + (ptrdiff_t)t * p->in_stride, p->in_stride, 0, k);
      add_rows(p, weights, row, left < tile_rows ? left : tile_rows, block, count,
               stream + (ptrdiff_t)t * p->out_features);
      MCUF_YIELD();
    }
  }
  return MCUF_OK;
}

/* ---- the patch embedding ---- */

static void embed(const mcuf_wide_token* t, int16_t* output) {
  const int32_t* acc = t->acc;
  for (int32_t o = 0; o < t->d; ++o, acc += t->step) {
    const int32_t a = t->position == NULL ? *acc : *acc + (int32_t)t->position_scale[o] * t->position[o];
    output[o] = requantise(a, t->multiplier[o], 0);
  }
}

const mcuf_wide_stream mcuf_wide = {mcuf_int_layer_norm_s16, add_fc, embed};

/* ---- TokenMean ---- */

mcuf_status mcuf_token_mean_s16_check(const mcuf_token_mean_params* p) {
  const mcuf_status status = mcuf_token_mean_s8_check(p);
  if (status != MCUF_OK) return status;
  return p->in_zero_point != 0 || p->zero_point != 0 ? MCUF_ERROR_VALUE : MCUF_OK;
}

/* The mean of one channel, whose values lie `features` apart, over count tokens: at most 2^14 * 2^15. */
static inline int16_t mean_of(const mcuf_token_mean_params* p, const int16_t* channel, int32_t count,
                              int32_t multiplier) {
  int32_t sum = 0;
  for (int32_t t = 0; t < count; ++t) sum += channel[(ptrdiff_t)t * p->features];
  return requantise(sum, multiplier, 0);
}

mcuf_status mcuf_token_mean_s16(const mcuf_token_mean_params* p, const int16_t* input, int16_t* output) {
  const size_t in_bytes = 2 * (size_t)p->tokens * (size_t)p->features;
  const size_t out_bytes = 2 * (size_t)p->features * (p->second_count > 0 ? 2 : 1);
  if (output != input && mcuf_overlap(output, out_bytes, input, in_bytes)) return MCUF_ERROR_OVERLAP;
  const int32_t count = p->token_count > 0 ? p->token_count : p->tokens;
  const int16_t* first = input + (ptrdiff_t)p->first_token * p->features;
  /* In place, the outputs of a channel overwrite inputs of that channel alone: both means are taken before. */
  const int16_t* second = input + (ptrdiff_t)p->second_token * p->features;
  for (int32_t c = 0; c < p->features; ++c) {
    const int16_t of_first = mean_of(p, first + c, count, p->multiplier);
    if (p->second_count > 0) {
      output[p->features + c] = mean_of(p, second + c, p->second_count, p->second_multiplier);
    }
    output[c] = of_first;
  }
  return MCUF_OK;
}
