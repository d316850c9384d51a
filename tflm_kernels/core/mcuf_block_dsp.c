/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_block.h for Cortex-M with the DSP extension: the assembly kernels of mcuf_block_dsp_loops.S. A block of four
 * tokens is int16 [k / 2][4][2], of three the same, of two [k / 2][2][2]; k rounded up to even. */
#include "mcuf_block_dsp.h"

#if MCUF_DSP
#include <arm_acle.h>
#include <stdbool.h>
#include <string.h>

#include "mcuf_block.h"
#include "mcuf_block_finish.h"

#define OFFSET_IS(type, field, offset) \
  typedef char type##_##field##_lies_elsewhere[offsetof(type, field) == (offset) ? 1 : -1]
OFFSET_IS(mcuf_fc_dsp_args, output, 8);
OFFSET_IS(mcuf_fc_dsp_args, weights, 36);
OFFSET_IS(mcuf_fc_dsp_args, finish, 44);
OFFSET_IS(mcuf_fc_dsp_args, more_chunks, 64);
OFFSET_IS(mcuf_accumulate_dsp_args, acc, 16);
OFFSET_IS(mcuf_accumulate_dsp_args, entry_bytes, 28);
OFFSET_IS(mcuf_weigh_dsp_args, output, 16);
OFFSET_IS(mcuf_weigh_dsp_args, entry_bytes, 32);
OFFSET_IS(mcuf_in_place_fc_params, in_features, 4);
OFFSET_IS(mcuf_in_place_fc_params, in_stride, 8);
OFFSET_IS(mcuf_in_place_fc_params, out_features, 12);
OFFSET_IS(mcuf_in_place_fc_params, zero_point, 16);
OFFSET_IS(mcuf_in_place_fc_params, weights, 24);
OFFSET_IS(mcuf_in_place_fc_params, bias, 28);
OFFSET_IS(mcuf_in_place_fc_params, residual_scale, 40);

/* The unrolled loops of the assembly: words per step, steps, code bytes per step, words before the loop; rounds of the
 * loop between two separations, and their words. */
typedef struct {
  int32_t words, steps, code, before, rounds, chunk;
} unrolled_loop;

static const unrolled_loop kFour = {1, 48, 48, 1, 5, 240}, kOne = {4, 16, 56, 0, 4, 256},
                           kAccumulateFour = {1, 24, 48, 1, 10, 240}, kAccumulateTwo = {2, 8, 48, 0, 16, 256},
                           kAccumulateOne = {4, 4, 56, 0, 16, 256};

static int32_t entry_of(const unrolled_loop* loop, int32_t words) {
  return (loop->steps - (words - loop->before) / loop->words % loop->steps) * loop->code;
}

/* Chunks in a pair of `words` words, without the first, which is the rest: at most as long as the others. All end where
 * a round of the loop ends. */
static int32_t chunks_after_first(const unrolled_loop* loop, int32_t words) {
  return (words - loop->before) / loop->words / loop->steps / loop->rounds;
}

/* The tokens that a block of `count` has room for. */
static int32_t lanes_of(int32_t count) { return count == 3 ? MCUF_TOKEN_BLOCK : count; }

/* An odd value at the end is followed by a 0: it fills an odd k, or the next part overwrites it. */
void mcuf_block_fill_token(const mcuf_block_token* token, const int8_t* source, int32_t step, int32_t at, int32_t n) {
  const int32_t pair = 2 * lanes_of(token->count); /* from one pair of the token's values to its next */
  int16_t* target = token->block + (at >> 1) * pair + 2 * token->index;
  int8_t same[4];
  if (step == 0) {
    memset(same, *source, sizeof(same));
    source = same;
  }
  if (at % 2 != 0) {
    target[1] = *source;
    source += step;
    target += pair;
    --n;
  }
  for (; n >= 4; n -= 4, source += 4 * step, target += 2 * pair) {
    target[0] = source[0];
    target[1] = source[1];
    target[pair] = source[2];
    target[pair + 1] = source[3];
  }
  for (; n > 0; n -= 2, source += 2 * step, target += pair) {
    target[0] = source[0];
    target[1] = n > 1 ? source[1] : 0;
  }
}

static uint32_t load(const int8_t* source) {
  uint32_t word;
  memcpy(&word, source, sizeof(word));
  return word;
}

/* Two inputs of a token: the lower halves of both words. */
static void store_pair(int16_t* pair, uint32_t first, uint32_t second) {
  const uint32_t word = (first & 0xFFFFu) | second << 16;
  memcpy(pair, &word, sizeof(word));
}

void mcuf_block_fill_threes(int16_t* block, int32_t at, const int8_t* source) {
  int16_t* pair = block + (ptrdiff_t)(at / 2) * (2 * MCUF_TOKEN_BLOCK);
  const uint32_t first = load(source), second = load(source + 4), last = (uint32_t)source[8];
  const uint32_t even0 = (uint32_t)__sxtb16((int8x4_t)first), even2 = (uint32_t)__sxtb16((int8x4_t)second);
  const uint32_t odd0 = (uint32_t)__sxtb16((int8x4_t)(first >> 8)), odd2 = (uint32_t)__sxtb16((int8x4_t)(second >> 8));
  const uint32_t even1 = even0 >> 16, even3 = even2 >> 16, odd1 = odd0 >> 16, odd3 = odd2 >> 16;
  if (at % 2 == 0) {
    store_pair(pair, even0, odd0);
    store_pair(pair + 2, even1, odd1);
    store_pair(pair + 4, even2, odd2);
    store_pair(pair + 6, even3, odd3);
    store_pair(pair + 8, even1, 0);
    store_pair(pair + 10, even2, 0);
    store_pair(pair + 12, even3, 0);
    store_pair(pair + 14, last, 0);
  } else {
    for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) pair[2 * t + 1] = source[2 * t];
    store_pair(pair + 8, odd0, even1);
    store_pair(pair + 10, odd1, even2);
    store_pair(pair + 12, odd2, even3);
    store_pair(pair + 14, odd3, last);
  }
}

void mcuf_block_fill_left(int16_t* block, int32_t at, int32_t c, const int8_t* row, int8_t value) {
  if (c == 1) {
    int8_t pixels[2 * MCUF_TOKEN_BLOCK + 1];
    pixels[0] = value;
    memcpy(pixels + 1, row, sizeof(pixels) - 1);
    mcuf_block_fill_threes(block, at, pixels);
    return;
  }
  int16_t* pair = block + (ptrdiff_t)at * MCUF_TOKEN_BLOCK;
  /* The other tokens' first pixels, one place further: what lands in the first one's places is overwritten. */
  mcuf_expand4_dsp(row + c, 2 * c, c, pair + 2, row);
  mcuf_expand4_dsp(row, 2 * c, 2 * c, pair + c * MCUF_TOKEN_BLOCK, row + 6 * c);
  for (int32_t i = 0; i < c; i += 2, pair += 2 * MCUF_TOKEN_BLOCK) store_pair(pair, (uint32_t)value, (uint32_t)value);
}

void mcuf_block_fill(int16_t* block, int32_t k, int32_t count, const int8_t* source, int32_t stride, int32_t at,
                     int32_t n) {
  if (lanes_of(count) < MCUF_TOKEN_BLOCK || source == NULL) {
    mcuf_block_fill_by_token(block, k, count, source, stride, at, n);
    return;
  }
  const int8_t* fourth = count < MCUF_TOKEN_BLOCK ? source : source + 3 * (ptrdiff_t)stride; /* or anything readable */
  block += (ptrdiff_t)(at / 2) * (2 * MCUF_TOKEN_BLOCK);
  if (at % 2 != 0) {
    for (int32_t t = 0; t < count; ++t) block[2 * t + 1] = source[(ptrdiff_t)t * stride];
    block += 2 * MCUF_TOKEN_BLOCK;
    ++source;
    ++fourth;
    --n;
  }
  mcuf_expand4_dsp(source, stride, n, block, fourth);
}

/* At most MCUF_DSP_MOST_WORDS words of `pairs` contiguous pairs of rows. start: acc, or zeros. */
static MCUF_OWN_STACK void accumulate_words(const int8_t* weights, int32_t pairs, int32_t words, const int16_t* block,
                                            int32_t count, const int32_t* start, int32_t* acc) {
  const unrolled_loop* loop = &kAccumulateOne;
  if (count > 1) loop = count == 4 ? &kAccumulateFour : &kAccumulateTwo;
  mcuf_accumulate_dsp_args args = {
      block, 4 * words, start, start == acc ? 8 * count : 0, acc, pairs, weights, entry_of(loop, words),
  };
  if (count == 4) {
    mcuf_accumulate4_dsp(&args);
  } else if (count == 2) {
    mcuf_accumulate2_dsp(&args);
  } else {
    mcuf_accumulate1_dsp(&args);
  }
}

/* Rows are packed into pairs in small pieces on the stack. */
#define PIECE_WORDS 24

static MCUF_OWN_STACK void accumulate_rows(const int8_t* weights, int32_t out_features, int32_t k, const int16_t* block,
                                           int32_t count, int32_t* acc) {
  int16_t piece[2 * PIECE_WORDS] __attribute__((aligned(4)));
  for (int32_t o = 0; o < out_features; o += 2, acc += 2 * count) {
    const int8_t* first = weights + (ptrdiff_t)o * k;
    const int8_t* second = first + (o + 1 < out_features ? k : 0);
    for (int32_t start = 0; start < k; start += 2 * PIECE_WORDS) {
      const int32_t n = k - start < 2 * PIECE_WORDS ? k - start : 2 * PIECE_WORDS;
      for (int32_t i = 0; i < n; ++i) piece[i] = (int16_t)(256 * second[start + i] + first[start + i]);
      if (n % 2 != 0) piece[n] = 0;
      accumulate_words((const int8_t*)piece, 1, (n + 1) / 2, block + (ptrdiff_t)start * count, count, acc, acc);
    }
  }
}

static void accumulate_pairs(const int8_t* weights, int32_t pairs, int32_t k, const int16_t* block, int32_t count,
                             const int32_t* start, int32_t* acc) {
  const int32_t words = (k + 1) / 2;
  if (words <= MCUF_DSP_MOST_WORDS) {
    accumulate_words(weights, pairs, words, block, count, start, acc);
    return;
  }
  const bool accumulates = start == acc;
  for (int32_t p = 0; p < pairs; ++p, acc += 2 * count, weights += 4 * (ptrdiff_t)words) {
    for (int32_t at = 0; at < words; at += MCUF_DSP_MOST_WORDS) {
      const int32_t n = words - at < MCUF_DSP_MOST_WORDS ? words - at : MCUF_DSP_MOST_WORDS;
      accumulate_words(weights + 4 * (ptrdiff_t)at, 1, n, block + 2 * (ptrdiff_t)at * count, count,
                       accumulates || at > 0 ? acc : start, acc);
    }
  }
}

void mcuf_block_dot(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k, const int16_t* block,
                    int32_t count, int32_t* acc) {
  static const int32_t zeros[2 * MCUF_TOKEN_BLOCK] = {0};
  if (packing == MCUF_PACKING_ROWS) {
    memset(acc, 0, (size_t)mcuf_round_up_even(out_features) * (size_t)count * sizeof(int32_t));
    accumulate_rows(weights, out_features, k, block, count, acc);
  } else {
    accumulate_pairs(weights, (out_features + 1) / 2, k, block, count, zeros, acc);
  }
}

void mcuf_block_accumulate(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k,
                           const int16_t* block, int32_t count, int32_t* acc) {
  if (packing == MCUF_PACKING_ROWS) {
    accumulate_rows(weights, out_features, k, block, count, acc);
  } else {
    accumulate_pairs(weights, (out_features + 1) / 2, k, block, count, acc, acc);
  }
}

/* `count` tokens, 1, 3 or 4, and whole pairs of rows. */
static MCUF_OWN_STACK void fc_pairs(const mcuf_fc_rows* p, int32_t pairs, const int16_t* block, int32_t count,
                                    const int8_t* residual, int8_t* output, int32_t stride) {
  const unrolled_loop* loop = count == 1 ? &kOne : &kFour;
  const int32_t words = (p->in_features + 1) / 2, more = chunks_after_first(loop, words);
  const int8_t* gelu = p->gelu_table == NULL ? NULL : p->gelu_table + 128;
  mcuf_fc_dsp_args args = {
      block,
      p->bias,
      output,
      (int32_t)(MCUF_ADDRESS(p->multiplier) - MCUF_ADDRESS(p->bias)),
      p->zero_point,
      {stride, 2 * stride, count < MCUF_TOKEN_BLOCK ? 0 : 3 * stride},
      output + 2 * pairs,
      p->weights,
      entry_of(loop, words),
      more > 0 || (residual != NULL && gelu != NULL) ? MCUF_FC_DSP_ANY
      : residual != NULL                             ? MCUF_FC_DSP_RESIDUAL
      : gelu != NULL                                 ? MCUF_FC_DSP_GELU
                                                     : MCUF_FC_DSP_PLAIN,
      residual,
      p->residual_scale,
      gelu,
      4 * (words - more * loop->chunk),
      more,
  };
  if (count == 1) {
    mcuf_fc1_dsp(&args);
  } else {
    mcuf_fc4_dsp(&args);
  }
}

/* The last row of an odd number: a pair whose second row is not stored. */
static MCUF_OWN_STACK void fc_last(const mcuf_fc_rows* p, const int16_t* block, int32_t count, const int8_t* residual,
                                   int8_t* output, int32_t stride) {
  const int32_t o = p->out_features - 1;
  const int32_t bias[2] = {p->bias[o], 0}, multiplier[2] = {p->multiplier[o], 0};
  const int16_t residual_scale[2] = {residual == NULL ? 0 : p->residual_scale[o], 0};
  int8_t added[2 * MCUF_TOKEN_BLOCK] = {0}, result[2 * MCUF_TOKEN_BLOCK];
  mcuf_fc_rows last = *p;
  last.weights += mcuf_packed_offset(o, p->in_features, p->packing);
  last.bias = bias;
  last.multiplier = multiplier;
  last.residual_scale = residual_scale;
  for (int32_t t = 0; residual != NULL && t < count; ++t) added[2 * t] = residual[(ptrdiff_t)t * stride + o];
  fc_pairs(&last, 1, block, count, residual == NULL ? NULL : added, result, 2);
  for (int32_t t = 0; t < count; ++t) output[(ptrdiff_t)t * stride + o] = result[2 * t];
}

/* Any packing and count, with accumulators on the stack. */
static MCUF_OWN_STACK void fc_accumulated(const mcuf_fc_rows* p, const int16_t* block, int32_t count,
                                          const int8_t* residual, int8_t* output, int32_t stride) {
  const int32_t lanes = lanes_of(count);
  for (int32_t o = 0; o < p->out_features; o += 2) {
    const int32_t rows = o + 1 < p->out_features ? 2 : 1;
    int32_t acc[2 * MCUF_TOKEN_BLOCK];
    for (int32_t t = 0; t < lanes; ++t) {
      acc[t] = p->bias[o];
      acc[lanes + t] = p->bias[o + rows - 1];
    }
    mcuf_block_accumulate(p->weights + mcuf_packed_offset(o, p->in_features, p->packing), p->packing, rows,
                          p->in_features, block, lanes, acc);
    if (lanes != count) memmove(acc + count, acc + lanes, (size_t)count * sizeof(int32_t));
    mcuf_block_finish(p, o, rows, count, acc, residual, output, stride);
  }
}

void mcuf_block_fc(const mcuf_fc_rows* p, const int16_t* block, int32_t count, const int8_t* residual, int8_t* output,
                   int32_t stride) {
  if (p->packing == MCUF_PACKING_ROWS || count == 2) {
    fc_accumulated(p, block, count, residual, output, stride);
    return;
  }
  if (p->out_features > 1) fc_pairs(p, p->out_features / 2, block, count, residual, output, stride);
  if (p->out_features % 2 != 0) fc_last(p, block, count, residual, output, stride);
}
#endif /* MCUF_DSP */
