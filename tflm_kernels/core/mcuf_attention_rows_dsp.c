/* SPDX-License-Identifier: Apache-2.0
 *
 * Storing, softmax and weighted sum of mcuf_attention_rows.h for Cortex-M with the DSP extension. Numerators are int16
 * [tokens / 2][rows][2], tokens rounded up to even. */
#include "mcuf_block_dsp.h"

#if MCUF_DSP
#include <arm_acle.h>
#include <stdbool.h>
#include <string.h>

#include "mcuf_attention_rows.h"
#include "mcuf_fixed_point.h"
#include "mcuf_softmax_table.h"

typedef char table_has_1024_entries[MCUF_SOFTMAX_LAST == 1023 ? 1 : -1];

static int32_t key_value(int8_t value) { return value < MCUF_K_FLOOR ? MCUF_K_FLOOR : value; }

/* Four values below -127 as -127: -128 stays -128 when 1 is subtracted. */
static uint32_t floor_keys(uint32_t four) { return (uint32_t)__sadd8(__qsub8((int8x4_t)four, 0x01010101), 0x01010101); }

static uint32_t load(const int8_t* source) {
  uint32_t word;
  memcpy(&word, source, sizeof(word));
  return word;
}

static void store(int8_t* target, uint32_t word) { memcpy(target, &word, sizeof(word)); }

/* Two halfwords: 256 * the odd bytes of `high`, and the even bytes of `low`, signed. */
static uint32_t halfwords(uint32_t low, uint32_t high) {
  return (uint32_t)__sadd16(__sxtb16((int8x4_t)low), (int16x2_t)(high & 0xFF00FF00u));
}

/* Keys of a pair of tokens: halfwords 256 * second + first. */
static void store_pair(const int8_t* first, const int8_t* second, int32_t count, uint32_t* pair) {
  int32_t c = 0;
  for (; c + 4 <= count; c += 4) {
    const uint32_t low = floor_keys(load(first + c)), high = floor_keys(load(second + c));
    const uint32_t even = halfwords(low, high << 8), odd = halfwords(low >> 8 | low << 24, high);
    *pair++ = (even & 0xFFFFu) | odd << 16;
    *pair++ = even >> 16 | (odd & 0xFFFF0000u);
  }
  int16_t* rest = (int16_t*)pair;
  for (; c < count; ++c) *rest++ = (int16_t)(256 * key_value(second[c]) + key_value(first[c]));
  if (count % 2 != 0) *rest = 0;
}

void mcuf_attention_store_keys(const mcuf_attention_rows_shape* p, int8_t* keys, int32_t first, int32_t count,
                               const int8_t* source, int32_t stride) {
  const int32_t dim = p->head_dim;
  for (int32_t j = 0; j < count;) {
    const int8_t* row = source + (ptrdiff_t)j * stride;
    int8_t* target = keys + mcuf_packed_offset((first + j) & ~1, dim, MCUF_PACKING_PAIRS);
    const bool second = (first + j) % 2 != 0;
    if (!second && j + 1 < count) {
      store_pair(row, row + stride, dim, (uint32_t*)target);
      j += 2;
      continue;
    }
    int16_t* pair = (int16_t*)target; /* half a pair: the first key sets it, the second adds 256 times its own */
    for (int32_t c = 0; c < dim; ++c) {
      pair[c] = (int16_t)(second ? pair[c] + 256 * key_value(row[c]) : key_value(row[c]));
    }
    if (dim % 2 != 0) pair[dim] = 0;
    ++j;
  }
}

/* Values of an even token and the next, four channels at a time. Returns the channels done. */
static int32_t store_value_pair(const int8_t* row, int32_t stride, int32_t channels, int8_t* target,
                                ptrdiff_t channel_pair) {
  int32_t c = 0;
  for (; c + 4 <= channels; c += 4, target += 2 * channel_pair) {
    const uint32_t one = load(row + c), two = load(row + stride + c);
    store(target, (one & 0xFFFFu) | two << 16);
    store(target + channel_pair, one >> 16 | (two & 0xFFFF0000u));
  }
  return c;
}

void mcuf_attention_store_values(const mcuf_attention_rows_shape* p, int8_t* values, int32_t first, int32_t count,
                                 const int8_t* source, int32_t stride) {
  const ptrdiff_t channel_pair = 2 * (ptrdiff_t)mcuf_round_up_even(p->tokens);
  int32_t stored = 0; /* channels of the present token */
  for (int32_t j = 0; j < count; ++j) {
    const int8_t* row = source + (ptrdiff_t)j * stride;
    int8_t* token = values + 2 * (ptrdiff_t)(first + j);
    const bool second = (first + j) % 2 != 0;
    if (!second) stored = j + 1 < count ? store_value_pair(row, stride, p->head_dim, token, channel_pair) : 0;
    int32_t c = stored;
    int8_t* target = token + c / 2 * channel_pair;
    for (; c + 2 <= p->head_dim; c += 2, target += channel_pair) memcpy(target, row + c, 2);
    if (c < p->head_dim) {
      target[0] = row[c];
      target[1] = 0;
    }
  }
}

/* Shifts rows of numerators right, 1 or 4, [words][rows][2], and adds them up. */
static MCUF_OWN_STACK void shift_numerators(int16_t* e, int32_t tokens, int32_t rows, int32_t shift, uint32_t* sums) {
  const uint32_t kept = 0x00010001u * (0x7FFFu >> shift); /* the bits of two */
  for (int32_t t = 0; t < rows; ++t, e += 2) {
    int16_t* row = e;
    int32_t sum = 0;
    for (int32_t words = (tokens + 1) / 2; words > 0; --words, row += 2 * rows) {
      uint32_t two;
      memcpy(&two, row, sizeof(two));
      two = two >> shift & kept;
      memcpy(row, &two, sizeof(two));
      sum = __smlad((int16x2_t)two, 0x00010001, sum);
    }
    sums[t] = (uint32_t)sum;
  }
}

/* One row's numerators, and their sum. */
static inline uint32_t softmax_row(const int32_t* scores, int32_t tokens, const int32_t* head, int16_t* e) {
  const int32_t multiplier = head[MCUF_HEAD_SCORE_MULTIPLIER], factor = 1 << head[MCUF_HEAD_SCORE_SHIFT];
  int32_t max = scores[0];
  for (int32_t j = 1; j < tokens; ++j) max = scores[j] > max ? scores[j] : max;
  uint32_t sum = 0;
  for (int32_t j = 0; j < tokens; ++j) {
    const int32_t index = mcuf_mulhi_round((max - scores[j]) * factor, multiplier);
    e[j] = (int16_t)mcuf_softmax_table[index < MCUF_SOFTMAX_LAST ? index : MCUF_SOFTMAX_LAST];
    sum += (uint32_t)e[j];
  }
  if (tokens % 2 != 0) e[tokens] = 0;
  return sum;
}

void mcuf_softmax_rows(const mcuf_attention_rows_shape* p, const int32_t* scores, int32_t rows, const int32_t* head,
                       int16_t* numerators, mcuf_row_scale* scale) {
  const int32_t tokens = p->tokens;
  mcuf_softmax_dsp_args args = {
      scores,
      numerators,
      tokens / 2,
      tokens % 2,
      mcuf_softmax_table,
      1 << head[MCUF_HEAD_SCORE_SHIFT],
      head[MCUF_HEAD_SCORE_MULTIPLIER],
      {0},
  };
  if (rows == 1) {
    args.sums[0] = softmax_row(scores, tokens, head, numerators);
  } else {
    mcuf_softmax4_dsp(&args);
  }
  if (p->numerator_shift != 0) shift_numerators(numerators, tokens, rows, p->numerator_shift, args.sums);
  for (int32_t t = 0; t < rows; ++t) scale[t] = mcuf_scale_of_row(args.sums[t], head);
}

static void weigh_pairs(const mcuf_attention_rows_shape* p, int32_t pairs, const int16_t* numerators,
                        const int8_t* values, int32_t rows, const mcuf_row_scale* scale, int8_t* output,
                        int32_t stride) {
  const int32_t words = (p->tokens + 1) / 2;
  mcuf_weigh_dsp_args args = {
      numerators,    4 * words, &scale[0].multiplier,        values, output, pairs,
      p->zero_point, stride,    MCUF_WEIGH_DSP_ENTRY(words),
  };
  if (rows == 1) {
    mcuf_weigh1_dsp(&args);
  } else {
    mcuf_weigh4_dsp(&args);
  }
}

void mcuf_weigh_rows(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values, int32_t rows,
                     const mcuf_row_scale* scale, int8_t* output) {
  const int32_t pairs = p->head_dim / 2;
  if (pairs > 0) weigh_pairs(p, pairs, numerators, values, rows, scale, output, p->out_stride);
  if (p->head_dim % 2 != 0) {
    int8_t last[2 * MCUF_TOKEN_BLOCK];
    const int8_t* channel = values + 2 * (ptrdiff_t)pairs * mcuf_round_up_even(p->tokens);
    weigh_pairs(p, 1, numerators, channel, rows, scale, last, 2);
    for (int32_t t = 0; t < rows; ++t) output[(ptrdiff_t)t * p->out_stride + 2 * pairs] = last[2 * t];
  }
}
#endif /* MCUF_DSP */
