/* SPDX-License-Identifier: Apache-2.0
 *
 * Fully connected layers of many tokens for aarch64 with the dot product extension. A unit is four inputs as bytes:
 * SDOT multiplies and adds them exactly. */
#include "mcuf_dispatch.h"

#if MCUF_AARCH64
#include <arm_neon.h>
#include <string.h>

#include "mcuf_fixed_point.h"

/* The library is compiled for any aarch64: each function says what it needs. */
#if defined(__clang__)
#define DOTPROD __attribute__((target("dotprod")))
#else
#define DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#define DOTPROD_INLINE static inline DOTPROD __attribute__((always_inline))

#define OUTPUTS 8
#define TOKENS 8

static void expand(const int8_t* source, int32_t k, void* token) {
  int8_t* target = (int8_t*)token;
  memcpy(target, source, (size_t)k);
  for (int32_t i = k; i % MCUF_PANEL_STEP != 0; ++i) target[i] = 0;
}

static void pack(const int8_t* const* rows, int32_t k, mcuf_panel* panel) {
  int8_t* target = panel->weights;
  for (int32_t i = 0; i % MCUF_PANEL_STEP != 0 || i < k; i += 4) {
    const size_t n = k - i >= 4 ? 4 : k > i ? (size_t)(k - i) : 0;
    for (int o = 0; o < OUTPUTS; ++o, target += 4) {
      memset(target, 0, 4);
      if (n > 0) memcpy(target, rows[o] + i, n);
    }
  }
}

/* Four outputs of a token: mcuf_requantise() before saturation. */
DOTPROD_INLINE int32x4_t requantised(int32x4_t sum, const int32_t* multiplier, int32_t zero_point) {
  const int32x4_t m = vld1q_s32(multiplier);
  const int64x2_t low = vmull_s32(vget_low_s32(sum), vget_low_s32(m)), high = vmull_high_s32(sum, m);
  return vaddq_s32(vcombine_s32(vrshrn_n_s64(low, 32), vrshrn_n_s64(high, 32)), vdupq_n_s32(zero_point));
}

DOTPROD_INLINE void finish(const mcuf_panel_job* job, ptrdiff_t at, int32x4_t low, int32x4_t high) {
  const mcuf_panel* p = job->panel;
  int8_t made[OUTPUTS] = {0};
  const size_t count = (size_t)job->outputs;
  if (job->residual != NULL) {
    memcpy(made, job->residual + at, count);
    const int16x8_t residual = vmovl_s8(vld1_s8(made));
    low = vmlaq_s32(low, vmovl_s16(vget_low_s16(residual)), vld1q_s32(p->residual_scale));
    high = vmlaq_s32(high, vmovl_s16(vget_high_s16(residual)), vld1q_s32(p->residual_scale + 4));
  }
  low = requantised(low, p->multiplier, job->zero_point);
  high = requantised(high, p->multiplier + 4, job->zero_point);
  vst1_s8(made, vqmovn_s16(vcombine_s16(vqmovn_s32(low), vqmovn_s32(high))));
  if (job->gelu_table != NULL) {
    for (int i = 0; i < OUTPUTS; ++i) made[i] = job->gelu_table[made[i] + 128];
  }
  memcpy(job->output + at, made, count);
}

DOTPROD_INLINE void multiply_tokens(const mcuf_panel_job* job, int tokens) {
  const int8_t *x = (const int8_t*)job->tokens, *w = job->panel->weights;
  const ptrdiff_t size = job->token_size;
  int32x4_t low[TOKENS], high[TOKENS];
#pragma GCC unroll 8
  for (int t = 0; t < tokens; ++t) {
    low[t] = vld1q_s32(job->panel->bias);
    high[t] = vld1q_s32(job->panel->bias + 4);
  }
  for (int32_t u = 0; u < job->units; ++u, w += 32, x += 4) {
    const int8x16_t first = vld1q_s8(w), second = vld1q_s8(w + 16);
#pragma GCC unroll 8
    for (int t = 0; t < tokens; ++t) {
      int32_t four;
      memcpy(&four, x + t * size, sizeof(four));
      const int8x16_t same = vreinterpretq_s8_s32(vdupq_n_s32(four));
      low[t] = vdotq_s32(low[t], same, first);
      high[t] = vdotq_s32(high[t], same, second);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < tokens; ++t) finish(job, (ptrdiff_t)t * job->stride, low[t], high[t]);
}

DOTPROD static void multiply(const mcuf_panel_job* job, int32_t tokens) {
  if (tokens == TOKENS) {
    multiply_tokens(job, TOKENS);
    return;
  }
  mcuf_panel_job one = *job;
  for (int32_t t = 0; t < tokens; ++t) {
    multiply_tokens(&one, 1);
    one.tokens = (const int8_t*)one.tokens + one.token_size;
    one.output += one.stride;
    if (one.residual != NULL) one.residual += one.stride;
  }
}

const mcuf_panel_kernels mcuf_panels_dotprod = {OUTPUTS, TOKENS, 1, expand, pack, multiply};
#endif /* MCUF_AARCH64 */
