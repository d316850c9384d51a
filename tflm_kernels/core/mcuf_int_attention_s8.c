/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_int_attention_s8.h"

#include "mcuf_dot.h"
#include "mcuf_fixed_point.h"
#include "mcuf_softmax_table.h"

#define K_FLOOR (-127) /* packed kernels cannot hold -128, so none reads it */

mcuf_status mcuf_int_attention_s8_check(const mcuf_int_attention_params* p) {
  if (p->head_params == NULL) return MCUF_ERROR_NULL;
  if (p->tokens < 1 || p->tokens > MCUF_ATTENTION_MAX_TOKENS || p->head_dim < 1 ||
      p->head_dim > MCUF_ATTENTION_MAX_HEAD_DIM || p->num_heads < 1 || p->num_heads > MCUF_MAX_FEATURES ||
      p->kv_heads < 1 || p->kv_heads > p->num_heads || p->num_heads % p->kv_heads != 0) {
    return MCUF_ERROR_SIZE;
  }
  const int64_t q_width = (int64_t)p->num_heads * p->head_dim;
  const int64_t kv_width = (int64_t)p->kv_heads * p->head_dim;
  if (q_width > MCUF_MAX_FEATURES || p->in_stride < q_width + 2 * kv_width || p->in_stride > 4 * MCUF_MAX_FEATURES ||
      p->out_stride < q_width || p->out_stride > 4 * MCUF_MAX_FEATURES) {
    return MCUF_ERROR_SIZE;
  }
  if (p->zero_point < -128 || p->zero_point > 127) return MCUF_ERROR_VALUE;
  for (int32_t h = 0; h < p->num_heads; ++h) {
    const int32_t* head = p->head_params + MCUF_ATTENTION_HEAD_PARAMS * h;
    if (head[0] < 0 || head[1] < (1 << 30) || head[2] < -8 || head[2] > 12) return MCUF_ERROR_VALUE;
  }
  return MCUF_OK;
}

/* Scratch: int32 scores [4, tokens], int16 e [4, tokens], int16 q [4, head_dim], int8 v transposed [head_dim, tokens] */
int32_t mcuf_int_attention_s8_scratch_bytes(int32_t tokens, int32_t head_dim) {
  return MCUF_TOKEN_BLOCK * (tokens * 6 + head_dim * 2) + head_dim * tokens;
}

typedef struct {
  int32_t* scores; /* [4, tokens] */
  int16_t* e;      /* [4, tokens] */
  int16_t* q;      /* [4, head_dim] */
  int8_t* v;       /* [head_dim, tokens] */
} attention_scratch;

/* scores[t, j] = q[t] . k[j] for four query rows. */
static void score_rows(const mcuf_int_attention_params* p, const int8_t* k, const attention_scratch* s) {
  for (int32_t j = 0; j < p->tokens; j += 2) {
    const int32_t pair = j + 1 < p->tokens ? 2 : 1;
    const int8_t* row = k + (ptrdiff_t)j * p->in_stride;
    int32_t acc[8] = {0};
    mcuf_dot_4x2(s->q, row, row + (ptrdiff_t)(pair - 1) * p->in_stride, p->head_dim, K_FLOOR, acc);
    for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) {
      for (int32_t i = 0; i < pair; ++i) s->scores[t * p->tokens + j + i] = acc[4 * i + t];
    }
  }
}

/* Softmax numerators of one row; returns their sum, 32767 .. 512 * 32767. */
static uint32_t exponentiate_row(const int32_t* scores, int32_t tokens, int32_t score_multiplier, int16_t* e) {
  int32_t max = scores[0];
  for (int32_t j = 1; j < tokens; ++j) max = scores[j] > max ? scores[j] : max;
  uint32_t sum = 0;
  for (int32_t j = 0; j < tokens; ++j) {
    const int32_t index = mcuf_mulhi_round(max - scores[j], score_multiplier);
    e[j] = mcuf_softmax_table[index < MCUF_SOFTMAX_LAST ? index : MCUF_SOFTMAX_LAST];
    sum += (uint32_t)e[j];
  }
  return sum;
}

/* Factor and shift that turn sum_j e[j] v[j] into an output: gain / sum of one row. */
typedef struct {
  int32_t multiplier, shift;
} row_scale;

static row_scale scale_of_row(uint32_t sum, const int32_t* head) {
  const int32_t zeros = mcuf_clz32(sum); /* 8 .. 17 */
  const uint32_t inverse = 0xFFFFFFFFu / ((sum << zeros) >> 16);
  row_scale r;
  r.multiplier = (int32_t)(((uint64_t)inverse * (uint32_t)head[1]) >> 17);
  r.shift = 30 - head[2] - zeros; /* 1 .. 30 */
  return r;
}

/* Outputs of query rows [first, first + count) of one head. */
static void attend_block(const mcuf_int_attention_params* p, const int32_t* head, int32_t count,
                         const attention_scratch* s, int8_t* output) {
  row_scale scale[MCUF_TOKEN_BLOCK];
  for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) {
    int16_t* e = s->e + (ptrdiff_t)t * p->tokens;
    scale[t] = scale_of_row(exponentiate_row(s->scores + (ptrdiff_t)t * p->tokens, p->tokens, head[0], e), head);
  }
  for (int32_t c = 0; c < p->head_dim; c += 2) {
    const int32_t pair = c + 1 < p->head_dim ? 2 : 1;
    const int8_t* v = s->v + (ptrdiff_t)c * p->tokens;
    int32_t acc[8] = {0};
    mcuf_dot_4x2(s->e, v, v + (ptrdiff_t)(pair - 1) * p->tokens, p->tokens, -128, acc);
    for (int32_t t = 0; t < count; ++t) {
      for (int32_t i = 0; i < pair; ++i) {
        const int32_t high = mcuf_mulhi_round(acc[4 * i + t], scale[t].multiplier);
        const int32_t value = (high + (1 << (scale[t].shift - 1))) >> scale[t].shift;
        output[(ptrdiff_t)t * p->out_stride + c + i] = mcuf_sat8(p->zero_point + value);
      }
    }
  }
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
  attention_scratch s;
  s.scores = (int32_t*)scratch;
  s.e = (int16_t*)(s.scores + (ptrdiff_t)MCUF_TOKEN_BLOCK * p->tokens);
  s.q = s.e + (ptrdiff_t)MCUF_TOKEN_BLOCK * p->tokens;
  s.v = (int8_t*)(s.q + (ptrdiff_t)MCUF_TOKEN_BLOCK * p->head_dim);
  const int32_t group = p->num_heads / p->kv_heads;
  for (int32_t h = 0; h < p->num_heads; ++h) {
    const int8_t* k = input + q_width + (ptrdiff_t)(h / group) * p->head_dim;
    const int8_t* v = k + kv_width;
    if (h % group == 0) {
      for (int32_t j = 0; j < p->tokens; ++j) {
        for (int32_t c = 0; c < p->head_dim; ++c) {
          s.v[(ptrdiff_t)c * p->tokens + j] = v[(ptrdiff_t)j * p->in_stride + c];
        }
      }
    }
    for (int32_t first = 0; first < p->tokens; first += MCUF_TOKEN_BLOCK) {
      const int32_t left = p->tokens - first;
      const int32_t count = left < MCUF_TOKEN_BLOCK ? left : MCUF_TOKEN_BLOCK;
      for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) { /* a short block repeats its last row */
        const int32_t token = first + (t < count ? t : count - 1);
        mcuf_expand_s16(input + (ptrdiff_t)token * p->in_stride + (ptrdiff_t)h * p->head_dim, p->head_dim, -128,
                        s.q + (ptrdiff_t)t * p->head_dim);
      }
      score_rows(p, k, &s);
      attend_block(p, p->head_params + (ptrdiff_t)MCUF_ATTENTION_HEAD_PARAMS * h, count, &s,
                   output + (ptrdiff_t)first * p->out_stride + (ptrdiff_t)h * p->head_dim);
    }
  }
  return MCUF_OK;
}
