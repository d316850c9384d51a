/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_int_layer_norm_s8.h"

#include "mcuf_fixed_point.h"

#define HERON_STEPS 3

mcuf_status mcuf_int_layer_norm_s8_check(const mcuf_int_layer_norm_params* p) {
  if (p->gamma == NULL || p->beta == NULL) return MCUF_ERROR_NULL;
  if (p->tokens < 1 || p->tokens > MCUF_MAX_TOKENS || p->features < 1 ||
      p->features > MCUF_LAYER_NORM_MAX_FEATURES) {
    return MCUF_ERROR_SIZE;
  }
  if (p->zero_point < -128 || p->zero_point > 127 || p->epsilon < 0 || p->epsilon > ((int64_t)1 << 60)) {
    return MCUF_ERROR_VALUE;
  }
  /* |t| <= sqrt(d) * 2^10, so this bounds |t * gamma + beta| below 2^31. */
  int64_t root = 1;
  while (root * root < p->features) ++root;
  for (int32_t c = 0; c < p->features; ++c) {
    const int64_t gamma = p->gamma[c] < 0 ? -(int64_t)p->gamma[c] : p->gamma[c];
    const int64_t beta = p->beta[c] < 0 ? -(int64_t)p->beta[c] : p->beta[c];
    if (((root + 1) << MCUF_LAYER_NORM_FRACTION_BITS) * gamma + beta > INT32_MAX) return MCUF_ERROR_VALUE;
    if (p->factor != NULL && (p->factor[c] < 1 || p->factor[c] > MCUF_LAYER_NORM_MAX_FACTOR)) return MCUF_ERROR_VALUE;
  }
  return MCUF_OK;
}

/* Number of significant bits; 0 for 0. */
static int32_t bit_length(uint64_t value) {
  const uint32_t high = (uint32_t)(value >> 32);
  return high != 0 ? 64 - mcuf_clz32(high) : 32 - mcuf_clz32((uint32_t)value);
}

/* How a token is normalised: t[c] = mulhi_round(scale * x[c] - offset, multiplier), with wrapping int32 products. */
typedef struct {
  uint32_t scale, offset;
  int32_t multiplier;
} normalisation;

static normalisation normalise(int32_t features, int32_t sum, uint64_t variance) {
  /* variance = normal * 4^half, normal in [2^30, 2^32) */
  const int32_t bits = bit_length(variance);
  const int32_t half = (bits - 31) >> 1;
  const uint32_t normal = (uint32_t)(half >= 0 ? variance >> (2 * half) : variance << (-2 * half));
  uint32_t root = (normal >> 17) + (normal >> 19) + 24576; /* 5/16 v + 3/4, at most 7 % off */
  for (int32_t i = 0; i < HERON_STEPS; ++i) root = (root + normal / root) >> 1;
  if (root > 65535) root = 65535;
  const uint32_t inverse = 0xFFFFFFFFu / root; /* 17 bits: 2^32 / root */
  /* t = (d x - sum) * inverse * 2^(10 - 32 - half). Where that power is too large for the multiplier, the rest of the
   * shift goes to the (then small) difference. */
  const int32_t up = half < -4 ? -4 - half : 0;
  const int32_t power = MCUF_LAYER_NORM_FRACTION_BITS - half - up;
  normalisation n;
  n.scale = (uint32_t)features << up;
  n.offset = (uint32_t)sum << up;
  n.multiplier = (int32_t)(power >= 0 ? inverse << power : inverse >> -power);
  return n;
}

mcuf_status mcuf_int_layer_norm_s8(const mcuf_int_layer_norm_params* p, const int8_t* input, int8_t* output) {
  const int32_t d = p->features;
  const size_t bytes = (size_t)p->tokens * (size_t)d;
  if (output != input && mcuf_overlap(output, bytes, input, bytes)) return MCUF_ERROR_OVERLAP;
  for (int32_t t = 0; t < p->tokens; ++t, input += d, output += d) {
    int32_t sum = 0;
    int64_t squares = 0;
    for (int32_t c = 0; c < d; ++c) {
      const int32_t x = (input[c] - p->zero_point) * (p->factor != NULL ? p->factor[c] : 1);
      sum += x;
      squares += (int64_t)x * x;
    }
    uint64_t variance = (uint64_t)(d * squares - (int64_t)sum * sum) + (uint64_t)p->epsilon;
    if (variance == 0) variance = 1; /* all differences are 0 then */
    const normalisation n = normalise(d, sum, variance);
    for (int32_t c = 0; c < d; ++c) {
      const int32_t x = (input[c] - p->zero_point) * (p->factor != NULL ? p->factor[c] : 1);
      const int32_t difference = (int32_t)(n.scale * (uint32_t)x - n.offset);
      const int32_t normal = mcuf_mulhi_round(difference, n.multiplier);
      output[c] = mcuf_sat8((normal * p->gamma[c] + p->beta[c]) >> 16);
    }
  }
  return MCUF_OK;
}
