/* SPDX-License-Identifier: Apache-2.0
 *
 * The two passes of IntLayerNorm over the channels of a token, and what is between them. Internal to the C kernels. */
#ifndef MCUF_INT_LAYER_NORM_PARTS_H_
#define MCUF_INT_LAYER_NORM_PARTS_H_

#include "mcuf_fixed_point.h"
#include "mcuf_int_layer_norm_s8.h"
#include "mcuf_target.h"

typedef struct {
  int32_t sum;
  int64_t squares;
} mcuf_moments;

/* How a token is normalised: t[c] = mulhi_round(scale * x[c] - offset, multiplier), with wrapping int32 products. */
typedef struct {
  uint32_t scale, offset;
  int32_t multiplier;
} mcuf_normalisation;

#define MCUF_HERON_STEPS 3

/* Number of significant bits; 0 for 0. */
static inline int32_t mcuf_bit_length(uint64_t value) {
  const uint32_t high = (uint32_t)(value >> 32);
  return high != 0 ? 64 - mcuf_clz32(high) : 32 - mcuf_clz32((uint32_t)value);
}

static inline mcuf_normalisation mcuf_layer_norm_of(const mcuf_int_layer_norm_params* p, const mcuf_moments* m) {
  const int32_t d = p->features;
  uint64_t variance = (uint64_t)(d * m->squares - (int64_t)m->sum * m->sum) + (uint64_t)p->epsilon;
  if (variance == 0) variance = 1; /* all differences are 0 then */
  /* variance = normal * 4^half, normal in [2^30, 2^32) */
  const int32_t bits = mcuf_bit_length(variance);
  const int32_t half = (bits - 31) >> 1;
  const uint32_t normal = (uint32_t)(half >= 0 ? variance >> (2 * half) : variance << (-2 * half));
  uint32_t root = (normal >> 17) + (normal >> 19) + 24576; /* 5/16 v + 3/4, at most 7 % off */
  for (int32_t i = 0; i < MCUF_HERON_STEPS; ++i) root = (root + normal / root) >> 1;
  if (root > 65535) root = 65535;
  const uint32_t inverse = 0xFFFFFFFFu / root; /* 17 bits: 2^32 / root */
  /* t = (d x - sum) * inverse * 2^(10 - 32 - half). If that power is too large for the multiplier, the rest of the
   * shift goes to the (then small) difference. */
  const int32_t up = half < -4 ? -4 - half : 0;
  const int32_t power = MCUF_LAYER_NORM_FRACTION_BITS - half - up;
  mcuf_normalisation n;
  n.scale = (uint32_t)d << up;
  n.offset = (uint32_t)m->sum << up;
  n.multiplier = (int32_t)(power >= 0 ? inverse << power : inverse >> -power);
  return n;
}

#if defined(MCUF_DISPATCH) || MCUF_MVE || MCUF_SCALAR
mcuf_moments mcuf_layer_norm_add(const mcuf_int_layer_norm_params* params, const int8_t* x);
void mcuf_layer_norm_write(const mcuf_int_layer_norm_params* params, const mcuf_normalisation* n, const int8_t* x,
                           int8_t* output);
#endif

#endif /* MCUF_INT_LAYER_NORM_PARTS_H_ */
