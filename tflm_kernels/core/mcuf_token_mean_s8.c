/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_token_mean_s8.h"

#include "mcuf_fixed_point.h"
#include "mcuf_hooks.h"
#include "mcuf_target.h"

#if MCUF_DSP
#include <arm_acle.h>
#include <string.h>
#endif

#define SUM_SHIFT 7 /* keeps the scale below 0.5 for a single token too */

/* Whether tokens [first, first + count) are some of the tokens. */
static bool is_range(const mcuf_token_mean_params* p, int32_t first, int32_t count) {
  return first >= 0 && count >= 1 && first < p->tokens && count <= p->tokens - first;
}

mcuf_status mcuf_token_mean_s8_check(const mcuf_token_mean_params* p) {
  if (p->tokens < 1 || p->tokens > MCUF_MAX_TOKENS || p->features < 1 || p->features > MCUF_MAX_FEATURES) {
    return MCUF_ERROR_SIZE;
  }
  if (p->token_count == 0 ? p->first_token != 0 : !is_range(p, p->first_token, p->token_count)) return MCUF_ERROR_SIZE;
  if (p->second_count == 0 ? p->second_token != 0 : !is_range(p, p->second_token, p->second_count)) {
    return MCUF_ERROR_SIZE;
  }
  if (!mcuf_is_int8(p->in_zero_point) || !mcuf_is_int8(p->zero_point) || p->multiplier < 0) return MCUF_ERROR_VALUE;
  return p->second_multiplier < 0 ? MCUF_ERROR_VALUE : MCUF_OK;
}

/* The mean of one channel, whose values lie `features` bytes apart, over count tokens. */
static inline int8_t mean_of(const mcuf_token_mean_params* p, const int8_t* channel, int32_t count,
                             int32_t multiplier) {
  int32_t sum = -count * p->in_zero_point;
  for (int32_t t = 0; t < count; ++t) sum += channel[(ptrdiff_t)t * p->features];
  return mcuf_requantise(sum * (1 << SUM_SHIFT), multiplier, p->zero_point);
}

/* Means of channels [0, n), of which it returns n, when no second mean needs their tokens. */
#if MCUF_DSP
#define MOST_HALFWORD_SUM 255 /* tokens whose sum is an int16 */

static int32_t means_of_fours(const mcuf_token_mean_params* p, const int8_t* first, int32_t count, int8_t* output) {
  const int32_t features = p->features, start = -count * p->in_zero_point;
  if (count > MOST_HALFWORD_SUM || p->second_count > 0) return 0;
  int32_t c = 0;
  for (; c + 4 <= features; c += 4) {
    const int8_t* channels = first + c;
    int16x2_t even = 0, odd = 0;
    for (int32_t t = 0; t < count; ++t, channels += features) {
      uint32_t four;
      memcpy(&four, channels, sizeof(four));
      even = __sxtab16(even, (int8x4_t)four);
      odd = __sxtab16(odd, (int8x4_t)(four >> 8 | four << 24));
    }
    const int32_t sums[4] = {(int16_t)even, (int16_t)odd, even >> 16, odd >> 16};
    for (int32_t i = 0; i < 4; ++i) {
      output[c + i] = mcuf_requantise((start + sums[i]) * (1 << SUM_SHIFT), p->multiplier, p->zero_point);
    }
    MCUF_YIELD();
  }
  return c;
}
#else
static int32_t means_of_fours(const mcuf_token_mean_params* p, const int8_t* first, int32_t count, int8_t* output) {
  (void)p, (void)first, (void)count, (void)output;
  return 0;
}
#endif

mcuf_status mcuf_token_mean_s8(const mcuf_token_mean_params* p, const int8_t* input, int8_t* output) {
  const size_t in_bytes = (size_t)p->tokens * (size_t)p->features;
  const size_t out_bytes = (size_t)p->features * (p->second_count > 0 ? 2 : 1);
  if (output != input && mcuf_overlap(output, out_bytes, input, in_bytes)) return MCUF_ERROR_OVERLAP;
  const int32_t count = p->token_count > 0 ? p->token_count : p->tokens;
  const int8_t* first = input + (ptrdiff_t)p->first_token * p->features;
  /* In place, the outputs of a channel overwrite inputs of that channel alone: both means are taken before. */
  const int8_t* second = input + (ptrdiff_t)p->second_token * p->features;
  for (int32_t c = means_of_fours(p, first, count, output); c < p->features; ++c) {
    const int8_t of_first = mean_of(p, first + c, count, p->multiplier);
    if (p->second_count > 0) {
      output[p->features + c] = mean_of(p, second + c, p->second_count, p->second_multiplier);
    }
    output[c] = of_first;
    MCUF_YIELD();
  }
  return MCUF_OK;
}
