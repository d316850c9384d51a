/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_depthwise_rows.h for Cortex-M with vectors (MVE): 16 channels of a pixel together, in mcuf_depthwise_mve.S, and
 * the rest of them by fours. Products of two taps add up in 16 bits there, since weights are -127 .. 127. */
#include "mcuf_depthwise_rows.h"

#include "mcuf_target.h"
#include "mcuf_types.h" /* an empty translation unit is not valid C99 */

#if MCUF_MVE
#include "mcuf_dot_mve.h"

#define REPEATED 3 /* tokens of a block of four, the last of which lies there twice: see mcuf_block_mve.c */

/* Of mcuf_depthwise_mve.S, which knows the offsets. */
typedef struct {
  mcuf_depthwise_pixel pixel; /*  0 */
  const int8_t* weights;      /* 36 */
  int32_t channels;           /* 40  from tap to tap of the weights */
  const int32_t* bias;        /* 44 */
  const int32_t* multiplier;  /* 48 */
  int8_t* output;             /* 52 */
  int32_t step;               /* 56  bytes from a vector of outputs to the next */
  int32_t zero_point;         /* 60 */
  int32_t vectors;            /* 64  at least 1 */
} depthwise_args;

typedef char vectors_lie_elsewhere[offsetof(depthwise_args, vectors) == 64 ? 1 : -1];

void mcuf_depthwise_mve(const depthwise_args* args);

/* Channels from c on, less than a vector of 16. */
static void rest_of(const depthwise_args* args, int32_t c, int8_t* output) {
  const int32_t channels = args->channels;
  for (; c < channels; c += MCUF_LANES, output += MCUF_LANES) {
    const mve_pred16_t lanes = vctp32q((uint32_t)(channels - c));
    const int8_t* weights = args->weights + c;
    int32x4_t acc = vldrwq_z_s32(args->bias + c, lanes);
    for (int32_t tap = 0; tap < MCUF_DEPTHWISE_TAPS; ++tap, weights += channels) {
      acc = vaddq_s32(acc, vmulq_s32(vldrbq_z_s32(args->pixel.tap[tap] + c, lanes), vldrbq_z_s32(weights, lanes)));
    }
    acc = vrmulhq_s32(acc, vldrwq_z_s32(args->multiplier + c, lanes));
    acc = mcuf_sat8_mve(vaddq_n_s32(acc, args->zero_point));
    vstrbq_p_s32(output, vmaxq_s32(acc, vdupq_n_s32(args->zero_point)), lanes);
  }
}

void mcuf_depthwise_pixels(const mcuf_depthwise* d, const mcuf_depthwise_rows* rows, int32_t x, int16_t* block,
                           int32_t count) {
  const int32_t k = d->channels, vectors = k / MCUF_VECTOR, whole = vectors * MCUF_VECTOR;
  const bool few = count < REPEATED; /* tokens lie one after another, else vector by vector */
  const int32_t step = few ? MCUF_VECTOR : MCUF_TOKEN_BLOCK * MCUF_VECTOR;
  int8_t *output = (int8_t*)block, *rest = output + (ptrdiff_t)vectors * step;
  depthwise_args args = {{{NULL}}, d->weights, k, d->bias, d->multiplier, NULL, step, d->zero_point, vectors};
  for (int32_t t = 0; t < (few ? count : MCUF_TOKEN_BLOCK); ++t) {
    args.pixel = mcuf_depthwise_pixel_at(d, rows, x + (t < count ? t : count - 1));
    args.output = output;
    if (vectors > 0) mcuf_depthwise_mve(&args);
    rest_of(&args, whole, rest);
    output += few ? k : MCUF_VECTOR;
    rest += few ? k : k - whole;
  }
}
#endif /* MCUF_MVE */
