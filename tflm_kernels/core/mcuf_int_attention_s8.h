/* SPDX-License-Identifier: Apache-2.0
 *
 * IntAttention: multi-head attention on int8 q, k, v of every token, without a tokens x tokens tensor.
 *
 * A row holds [q heads | k heads | v heads]; query head i uses key/value head i * kv_heads / num_heads. Zero points of
 * q, k and v are 0. Per head, for one query row:
 *   s[j] = sum_c q[c] * max(k[j, c], -127)
 *   e[j] = table[min(mulhi_round((max(s) - s[j]) << score_shift, score_multiplier), last)]   exp(-i / 64) in 15 bits
 *          >> numerator_shift
 *   out[c] = sat8(zero_point + sum_j e[j] * v[j, c] / sum_j e[j] * (v_scale / out_scale))
 * with one clz-normalised division per row; nothing is normalised to int8 probabilities in between. numerator_shift is
 * ceil(log2(tokens / 512)), 0 for up to 512 tokens: it keeps sum_j e[j] * v[j, c] below 2^31.
 *
 * With relative positions (mcuf_relative_position.h) of key j from the query:
 *   biases  s[j] += factor * bias[j]
 *           |s| <= head_dim * (127 * 128 + 32767): differences stay below head_dim * 2^17.
 *   tables  s[j] += sum_i mulhi_round(2 * sum_c q[c] * keys[i, c], key_multiplier)   entries i of j, one or two
 *           |s| <= 3 * head_dim * 127 * 128: the same bound of differences.
 *           sum_j e[j] * v[j, c] += mulhi_round((sum_i (p[i] >> z) * values[i, c]) << (z + 1), value_multiplier)
 *           p[i] is the sum of e[j] over the keys of entry i, z the bits of sum_j e[j] above 15: p[i] >> z fits int16.
 * With tables, numerator_shift is that of 4 * tokens: then sum_j e[j] <= 128 * 32767 < 2^22, and as the p add up to
 * 2 * sum_j e[j] at most, what is rounded is below 2 * 2 * 2^22 * 128 = 2^31, and all of the sum below
 * (1 + 2) * 2^22 * 128 < 2^31. */
#ifndef MCUF_INT_ATTENTION_S8_H_
#define MCUF_INT_ATTENTION_S8_H_

#include "mcuf_relative_position.h"
#include "mcuf_types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MCUF_ATTENTION_MAX_TOKENS 2048
#define MCUF_ATTENTION_UNSHIFTED_TOKENS 512 /* 512 * 32767 * 128 < 2^31, and so are 1024 * 16383 * 128 .. */
#define MCUF_ATTENTION_MAX_HEAD_DIM 1024
/* The fields of head_params for each head, int32, with their ranges. */
enum {
  MCUF_HEAD_SCORE_MULTIPLIER, /* round(q_scale * k_scale / sqrt(head_dim) * 64 * 2^(32 - score_shift)), >= 0 */
  MCUF_HEAD_OUT_MULTIPLIER,   /* mantissa of v_scale / out_scale, MCUF_HEAD_MIN_OUT_MULTIPLIER .. 2^31 - 1 */
  MCUF_HEAD_OUT_EXPONENT, /* v_scale / out_scale = out_multiplier * 2^(out_exponent - 31), MCUF_HEAD_MIN_OUT_EXPONENT
                             .. MCUF_HEAD_MAX_OUT_EXPONENT - numerator_shift */
  MCUF_HEAD_SCORE_SHIFT,  /* 0 .., head_dim * 2^(15 + score_shift) < 2^31; relative positions: 17 for 15 */
  MCUF_ATTENTION_HEAD_PARAMS
};
#define MCUF_HEAD_MIN_OUT_MULTIPLIER (1 << 30)
#define MCUF_HEAD_MIN_OUT_EXPONENT (-8)
#define MCUF_HEAD_MAX_OUT_EXPONENT 12
#define MCUF_HEAD_MAX_SCORE_SHIFT 15

typedef struct {
  int32_t tokens;             /* 1 .. MCUF_ATTENTION_MAX_TOKENS */
  int32_t num_heads;          /* >= 1 */
  int32_t kv_heads;           /* >= 1, divides num_heads */
  int32_t head_dim;           /* 1 .. MCUF_ATTENTION_MAX_HEAD_DIM */
  int32_t in_stride;          /* bytes from token to token, (num_heads + 2 * kv_heads) * head_dim .. MCUF_MAX_STRIDE */
  int32_t out_stride;         /* the same, from num_heads * head_dim; equal to in_stride to write over q */
  int32_t zero_point;         /* of the output, -128 .. 127 */
  const int32_t* head_params; /* [num_heads, MCUF_ATTENTION_HEAD_PARAMS] */
  mcuf_relative_position relative;
} mcuf_int_attention_params;

/* By how many bits numerators are shifted right, for 1 .. MCUF_ATTENTION_MAX_TOKENS tokens. */
static inline int32_t mcuf_attention_numerator_shift(int32_t tokens) {
  int32_t shift = 0;
  while (tokens > MCUF_ATTENTION_UNSHIFTED_TOKENS << shift) ++shift;
  return shift;
}

/* The same for 1 .. MCUF_ATTENTION_MAX_TOKENS tokens with these relative positions. */
static inline int32_t mcuf_attention_numerator_shift_with(int32_t tokens, const mcuf_relative_position* relative) {
  return mcuf_attention_numerator_shift(relative->keys != NULL ? 4 * tokens : tokens);
}

/* Checks everything that the kernel trusts about params. */
MCUF_API mcuf_status mcuf_int_attention_s8_check(const mcuf_int_attention_params* params);

/* Bytes of scratch, 4-byte aligned. table_length: of relative positions, 0 without tables. */
MCUF_API int32_t mcuf_int_attention_s8_scratch_bytes(int32_t tokens, int32_t head_dim, int32_t table_length);

/* input [tokens, in_stride], output [tokens, out_stride] (the first num_heads * head_dim of a row are written).
 * output may equal input if the strides are equal: head outputs then replace q; k and v are kept. */
MCUF_API mcuf_status mcuf_int_attention_s8(const mcuf_int_attention_params* params, const int8_t* input, int8_t* output,
                                           void* scratch);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_INT_ATTENTION_S8_H_ */
