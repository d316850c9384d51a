/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_int_attention_s8.h"

#include "mcuf_attention_rows.h"
#include "mcuf_fixed_point.h"
#ifdef MCUF_DISPATCH
#include MCUF_DISPATCH
#endif

/* The relative positions of attention whose sizes are known to be good. */
static mcuf_status check_relative(const mcuf_relative_position* r, int32_t tokens, int32_t num_heads,
                                  int32_t head_dim) {
  if (r->rows == 0) {
    return r->head_params == NULL && r->bias == NULL && r->keys == NULL && r->values == NULL ? MCUF_OK
                                                                                             : MCUF_ERROR_SIZE;
  }
  if (r->rows < 1 || r->columns < 1 || r->rows > tokens || r->columns > tokens || r->rows * r->columns > tokens) {
    return MCUF_ERROR_SIZE;
  }
  const bool tables = r->keys != NULL;
  if (r->head_params == NULL || r->kernels == NULL || tables != (r->values != NULL) || tables != (r->bias == NULL))
    return MCUF_ERROR_NULL;
  for (int32_t h = 0; h < num_heads; ++h) {
    const int32_t* head = r->head_params + (ptrdiff_t)MCUF_RELATIVE_HEAD_PARAMS * h;
    const int32_t key = head[MCUF_RELATIVE_KEY], value = head[MCUF_RELATIVE_VALUE];
    if (tables ? key < 0 || value < 0 : key < 1 || key > head_dim || value != 0) return MCUF_ERROR_VALUE;
  }
  return MCUF_OK;
}

mcuf_status mcuf_int_attention_s8_check(const mcuf_int_attention_params* p) {
  if (p->head_params == NULL) return MCUF_ERROR_NULL;
  if (p->tokens < 1 || p->tokens > MCUF_ATTENTION_MAX_TOKENS || p->head_dim < 1 ||
      p->head_dim > MCUF_ATTENTION_MAX_HEAD_DIM || p->num_heads < 1 || p->num_heads > MCUF_MAX_FEATURES ||
      p->kv_heads < 1 || p->kv_heads > p->num_heads || p->num_heads % p->kv_heads != 0) {
    return MCUF_ERROR_SIZE;
  }
  const int64_t q_width = (int64_t)p->num_heads * p->head_dim;
  const int64_t kv_width = (int64_t)p->kv_heads * p->head_dim;
  if (q_width > MCUF_MAX_FEATURES || p->in_stride < q_width + 2 * kv_width || p->in_stride > MCUF_MAX_STRIDE ||
      p->out_stride < q_width || p->out_stride > MCUF_MAX_STRIDE) {
    return MCUF_ERROR_SIZE;
  }
  if (!mcuf_is_int8(p->zero_point)) return MCUF_ERROR_VALUE;
  const mcuf_status status = check_relative(&p->relative, p->tokens, p->num_heads, p->head_dim);
  if (status != MCUF_OK) return status;
  const int32_t max_exponent =
      MCUF_HEAD_MAX_OUT_EXPONENT - mcuf_attention_numerator_shift_with(p->tokens, &p->relative);
  const int32_t score_bits = p->relative.rows > 0 ? 17 : 15; /* of score differences, by head_dim */
  for (int32_t h = 0; h < p->num_heads; ++h) {
    const int32_t* head = p->head_params + MCUF_ATTENTION_HEAD_PARAMS * h;
    const int32_t exponent = head[MCUF_HEAD_OUT_EXPONENT], shift = head[MCUF_HEAD_SCORE_SHIFT];
    if (head[MCUF_HEAD_SCORE_MULTIPLIER] < 0 || head[MCUF_HEAD_OUT_MULTIPLIER] < MCUF_HEAD_MIN_OUT_MULTIPLIER ||
        exponent < MCUF_HEAD_MIN_OUT_EXPONENT || exponent > max_exponent || shift < 0 ||
        shift > MCUF_HEAD_MAX_SCORE_SHIFT || (int64_t)p->head_dim << (score_bits + shift) > INT32_MAX) {
      return MCUF_ERROR_VALUE;
    }
  }
  return MCUF_OK;
}

/* Scratch: that of the rows, then keys and values of one head; with tables also theirs. */
int32_t mcuf_int_attention_s8_scratch_bytes(int32_t tokens, int32_t head_dim, int32_t table_length) {
  return mcuf_attention_rows_scratch_bytes(tokens, head_dim) + mcuf_relative_scratch_bytes(table_length) +
         2 * mcuf_attention_keys_bytes(tokens, head_dim) + 2 * mcuf_attention_keys_bytes(table_length, head_dim);
}

mcuf_status mcuf_int_attention_s8(const mcuf_int_attention_params* p, const int8_t* input, int8_t* output,
                                  void* scratch) {
  const int32_t q_width = p->num_heads * p->head_dim, kv_width = p->kv_heads * p->head_dim;
  const size_t last = (size_t)(p->tokens - 1);
  if (output == input ? p->in_stride != p->out_stride
                      : mcuf_overlap(output, last * (size_t)p->out_stride + (size_t)q_width, input,
                                     last * (size_t)p->in_stride + (size_t)(q_width + 2 * kv_width))) {
    return MCUF_ERROR_OVERLAP;
  }
  const int32_t length = mcuf_relative_length(&p->relative, p->tokens);
  int8_t* keys = (int8_t*)scratch + mcuf_attention_rows_scratch_bytes(p->tokens, p->head_dim) +
                 mcuf_relative_scratch_bytes(length);
  int8_t* values = keys + mcuf_attention_keys_bytes(p->tokens, p->head_dim);
  mcuf_relative_rows relative;
  const mcuf_attention_rows_shape shape = {
      p->tokens,
      p->head_dim,
      p->out_stride,
      p->zero_point,
      mcuf_attention_numerator_shift_with(p->tokens, &p->relative),
      p->relative.rows > 0 ? &relative : NULL,
  };
  if (shape.relative != NULL) {
    p->relative.kernels->begin(&relative, &p->relative, &shape,
                               values + mcuf_attention_keys_bytes(p->tokens, p->head_dim));
  }
  const int32_t group = p->num_heads / p->kv_heads;
  for (int32_t h = 0; h < p->num_heads; ++h) {
    if (h % group == 0) {
      const int8_t* k = input + q_width + (ptrdiff_t)(h / group) * p->head_dim;
      mcuf_attention_store_keys(&shape, keys, 0, p->tokens, k, p->in_stride);
      mcuf_attention_store_values(&shape, values, 0, p->tokens, k + kv_width, p->in_stride);
    }
    const int32_t* head = p->head_params + (ptrdiff_t)MCUF_ATTENTION_HEAD_PARAMS * h;
    if (shape.relative != NULL) mcuf_relative_set_head(&relative, &p->relative, h);
#ifdef MCUF_DISPATCH
    const ptrdiff_t column = (ptrdiff_t)h * p->head_dim;
    if (mcuf_attention_head(&shape, head, input + column, p->in_stride, keys, values, p->tokens, output + column)) {
      continue;
    }
#endif
    for (int32_t first = 0; first < p->tokens; first += MCUF_TOKEN_BLOCK) {
      const int32_t left = p->tokens - first;
      const int8_t* q = input + (ptrdiff_t)first * p->in_stride + (ptrdiff_t)h * p->head_dim;
      int8_t* out = output + (ptrdiff_t)first * p->out_stride + (ptrdiff_t)h * p->head_dim;
      if (shape.relative != NULL) relative.query = first;
      mcuf_attention_rows(&shape, head, q, p->in_stride, keys, values,
                          left < MCUF_TOKEN_BLOCK ? left : MCUF_TOKEN_BLOCK, scratch, out);
    }
  }
  return MCUF_OK;
}
