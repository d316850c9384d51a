/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention of four query rows of one head against all keys and values: what IntAttention and StreamedAttention share.
 * The arithmetic is told in mcuf_int_attention_s8.h. */
#ifndef MCUF_ATTENTION_ROWS_H_
#define MCUF_ATTENTION_ROWS_H_

#include "mcuf_dot.h"
#include "mcuf_fixed_point.h"
#include "mcuf_softmax_table.h"

#define MCUF_K_FLOOR (-127) /* packed kernels cannot hold -128, so none reads it */

typedef struct {
  int32_t tokens, head_dim;
  int32_t k_stride;   /* bytes from key to key */
  int32_t out_stride; /* bytes from output row to output row */
  int32_t zero_point; /* of the output */
} mcuf_attention_rows_shape;

/* Scratch of the rows, in this order: int32 scores [4, tokens], int16 e [4, tokens], int16 q [4, head_dim]. */
typedef struct {
  int32_t* scores;
  int16_t* e;
  int16_t* q;
} mcuf_attention_rows_scratch;

/* Bytes, a multiple of 8. */
static inline int32_t mcuf_attention_rows_scratch_bytes(int32_t tokens, int32_t head_dim) {
  return MCUF_TOKEN_BLOCK * (tokens * 6 + head_dim * 2);
}

static inline mcuf_attention_rows_scratch mcuf_attention_rows_place(void* scratch, int32_t tokens) {
  mcuf_attention_rows_scratch s;
  s.scores = (int32_t*)scratch;
  s.e = (int16_t*)(s.scores + (ptrdiff_t)MCUF_TOKEN_BLOCK * tokens);
  s.q = s.e + (ptrdiff_t)MCUF_TOKEN_BLOCK * tokens;
  return s;
}

/* scores[t, j] = q[t] . k[j] for four query rows. */
static inline void mcuf_score_rows(const mcuf_attention_rows_shape* p, const int8_t* k,
                                   const mcuf_attention_rows_scratch* s) {
  for (int32_t j = 0; j < p->tokens; j += 2) {
    const int32_t pair = j + 1 < p->tokens ? 2 : 1;
    const int8_t* row = k + (ptrdiff_t)j * p->k_stride;
    int32_t acc[8] = {0};
    mcuf_dot_4x2(s->q, row, row + (ptrdiff_t)(pair - 1) * p->k_stride, p->head_dim, MCUF_K_FLOOR, acc);
    for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) {
      for (int32_t i = 0; i < pair; ++i) s->scores[t * p->tokens + j + i] = acc[4 * i + t];
    }
  }
}

/* Softmax numerators of one row; returns their sum, 32767 .. 512 * 32767. */
static inline uint32_t mcuf_exponentiate_row(const int32_t* scores, int32_t tokens, const int32_t* head, int16_t* e) {
  const int32_t multiplier = head[0], factor = 1 << head[3];
  int32_t max = scores[0];
  for (int32_t j = 1; j < tokens; ++j) max = scores[j] > max ? scores[j] : max;
  uint32_t sum = 0;
  for (int32_t j = 0; j < tokens; ++j) {
    const int32_t index = mcuf_mulhi_round((max - scores[j]) * factor, multiplier);
    e[j] = mcuf_softmax_table[index < MCUF_SOFTMAX_LAST ? index : MCUF_SOFTMAX_LAST];
    sum += (uint32_t)e[j];
  }
  return sum;
}

/* Factor and shift that turn sum_j e[j] v[j] into an output: gain / sum of one row. */
typedef struct {
  int32_t multiplier, shift;
} mcuf_row_scale;

static inline mcuf_row_scale mcuf_scale_of_row(uint32_t sum, const int32_t* head) {
  const int32_t zeros = mcuf_clz32(sum); /* 8 .. 17 */
  const uint32_t inverse = 0xFFFFFFFFu / ((sum << zeros) >> 16);
  mcuf_row_scale r;
  r.multiplier = (int32_t)(((uint64_t)inverse * (uint32_t)head[1]) >> 17);
  r.shift = 30 - head[2] - zeros; /* 1 .. 30 */
  return r;
}

/* Outputs of query rows [first, first + count) of one head. */
static inline void mcuf_attend_rows(const mcuf_attention_rows_shape* p, const int32_t* head, const int8_t* v_transposed,
                                    int32_t count, const mcuf_attention_rows_scratch* s, int8_t* output) {
  mcuf_row_scale scale[MCUF_TOKEN_BLOCK];
  for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) {
    int16_t* e = s->e + (ptrdiff_t)t * p->tokens;
    const uint32_t sum = mcuf_exponentiate_row(s->scores + (ptrdiff_t)t * p->tokens, p->tokens, head, e);
    scale[t] = mcuf_scale_of_row(sum, head);
  }
  for (int32_t c = 0; c < p->head_dim; c += 2) {
    const int32_t pair = c + 1 < p->head_dim ? 2 : 1;
    const int8_t* v = v_transposed + (ptrdiff_t)c * p->tokens;
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

/* count (1 .. 4) query rows of one head. q: rows of head_dim values, q_stride apart; output may equal q.
 * k: keys, k_stride apart; v_transposed: int8 [head_dim, tokens]; head: its 4 head_params. */
static inline void mcuf_attention_rows(const mcuf_attention_rows_shape* p, const int32_t* head, const int8_t* q,
                                       int32_t q_stride, const int8_t* k, const int8_t* v_transposed, int32_t count,
                                       const mcuf_attention_rows_scratch* s, int8_t* output) {
  for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) { /* a short block repeats its last row */
    const int8_t* row = q + (ptrdiff_t)(t < count ? t : count - 1) * q_stride;
    mcuf_expand_s16(row, p->head_dim, -128, s->q + (ptrdiff_t)t * p->head_dim);
  }
  mcuf_score_rows(p, k, s);
  mcuf_attend_rows(p, head, v_transposed, count, s, output);
}

#endif /* MCUF_ATTENTION_ROWS_H_ */
