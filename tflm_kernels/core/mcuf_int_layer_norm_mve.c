/* SPDX-License-Identifier: Apache-2.0
 *
 * The two passes of IntLayerNorm for Cortex-M with vectors (MVE). */
#include "mcuf_int_layer_norm_parts.h"
#include "mcuf_target.h"
#include "mcuf_types.h" /* an empty translation unit is not valid C99 */

#if MCUF_MVE
#include "mcuf_dot_mve.h"

#define HALVES 8 /* int16 values of a vector */

/* Adds up to eight channels; all: there are eight, known when this is compiled. */
static inline void add_eight(mcuf_moments* m, const int8_t* x, const uint8_t* factor, int16_t zero_point, bool all,
                             mve_pred16_t lanes) {
  const int16x8_t raw = all ? vldrbq_s16(x) : vldrbq_z_s16(x, lanes);
  const uint16x8_t factors = all ? vldrbq_u16(factor) : vldrbq_z_u16(factor, lanes); /* 0 beyond the last channel */
  const int16x8_t value = vmulq_s16(vsubq_n_s16(raw, zero_point), vreinterpretq_s16_u16(factors));
  m->sum = vaddvaq_s16(m->sum, value);
  m->squares = vmlaldavaq_s16(m->squares, value, value);
}

static mcuf_moments add_with_factors(const mcuf_int_layer_norm_params* p, const int8_t* x) {
  mcuf_moments m = {0, 0};
  const int16_t zero_point = (int16_t)p->zero_point;
  const uint8_t* factor = p->factor;
  int32_t left = p->features;
  for (; left >= HALVES; left -= HALVES, x += HALVES, factor += HALVES) add_eight(&m, x, factor, zero_point, true, 0);
  if (left > 0) add_eight(&m, x, factor, zero_point, false, vctp16q((uint32_t)left));
  return m;
}

/* Sums of the raw values; the zero point is subtracted from them. */
mcuf_moments mcuf_layer_norm_add(const mcuf_int_layer_norm_params* p, const int8_t* x) {
  if (p->factor != NULL) return add_with_factors(p, x);
  const int32_t d = p->features;
  int32_t sum = 0, squares = 0;
  for (int32_t left = d; left > 0; left -= MCUF_VECTOR, x += MCUF_VECTOR) {
    const int8x16_t value = vldrbq_z_s8(x, vctp8q((uint32_t)left));
    sum = vaddvaq_s8(sum, value);
    squares = vmladavaq_s8(squares, value, value);
  }
  const mcuf_moments m = {sum - d * p->zero_point, squares + p->zero_point * (d * p->zero_point - 2 * sum)};
  return m;
}

/* Four channels from c on. factors, all (there are four): constants. scale and multiplier: in all lanes. */
static inline void write_four(const mcuf_int_layer_norm_params* p, int32x4_t scale, int32_t minus_offset,
                              int32x4_t multiplier, int32_t c, bool factors, bool all, const int8_t* x,
                              int8_t* output) {
  const mve_pred16_t lanes = all ? 0 : vctp32q((uint32_t)(p->features - c));
  int32x4_t value = all ? vldrbq_s32(x + c) : vldrbq_z_s32(x + c, lanes);
  if (factors) {
    const uint32x4_t factor = all ? vldrbq_u32(p->factor + c) : vldrbq_z_u32(p->factor + c, lanes);
    value = vmulq_s32(vsubq_n_s32(value, p->zero_point), vreinterpretq_s32_u32(factor));
  }
  const int32x4_t normal = vrmulhq_s32(vmlasq_n_s32(value, scale, minus_offset), multiplier);
  const int32x4_t gamma = all ? vldrhq_s32(p->gamma + c) : vldrhq_z_s32(p->gamma + c, lanes);
  const int32x4_t beta = all ? vldrwq_s32(p->beta + c) : vldrwq_z_s32(p->beta + c, lanes);
  value = mcuf_sat8_mve(vshrq_n_s32(vaddq_s32(vmulq_s32(normal, gamma), beta), 16));
  if (all) {
    vstrbq_s32(output + c, value);
  } else {
    vstrbq_p_s32(output + c, value, lanes);
  }
}

static inline void write_all(const mcuf_int_layer_norm_params* params, const mcuf_normalisation* n, bool factors,
                             const int8_t* x, int8_t* output) {
  const mcuf_int_layer_norm_params p = *params; /* so that it is not read again after every store */
  const int32x4_t scale = vdupq_n_s32((int32_t)n->scale), multiplier = vdupq_n_s32(n->multiplier);
  const int32_t minus_offset = (int32_t)(0u - n->offset - (factors ? 0u : n->scale * (uint32_t)p.zero_point));
  int32_t c = 0;
  for (; c + MCUF_LANES <= p.features; c += MCUF_LANES) {
    write_four(&p, scale, minus_offset, multiplier, c, factors, true, x, output);
  }
  if (c < p.features) write_four(&p, scale, minus_offset, multiplier, c, factors, false, x, output);
}

void mcuf_layer_norm_write(const mcuf_int_layer_norm_params* p, const mcuf_normalisation* n, const int8_t* x,
                           int8_t* output) {
  if (p->factor != NULL) {
    write_all(p, n, true, x, output);
  } else {
    write_all(p, n, false, x, output);
  }
}
#endif /* MCUF_MVE */
