/* SPDX-License-Identifier: Apache-2.0
 *
 * The two passes of IntLayerNorm for cores that multiply one value at a time. */
#include "mcuf_int_layer_norm_parts.h"

#if MCUF_SCALAR
#include "mcuf_fixed_point.h"

/* Sums of the raw values; the zero point is subtracted from them. */
static mcuf_moments add_raw(const mcuf_int_layer_norm_params* p, const int8_t* x) {
  const int32_t d = p->features, zero_point = p->zero_point;
  int32_t sum = 0, squares = 0;
  for (const int8_t* end = x + d; x != end;) {
    const int32_t value = *x++;
    sum += value;
    squares += value * value;
  }
  const mcuf_moments m = {sum - d * zero_point, squares + zero_point * (d * zero_point - 2 * sum)};
  return m;
}

mcuf_moments mcuf_layer_norm_add(const mcuf_int_layer_norm_params* p, const int8_t* x) {
  const uint8_t* factor = p->factor;
  if (factor == NULL) return add_raw(p, x);
  const int32_t zero_point = p->zero_point;
  mcuf_moments m = {0, 0};
  for (const int8_t* end = x + p->features; x != end;) {
    const int32_t value = (*x++ - zero_point) * *factor++;
    m.sum += value;
    m.squares += (uint32_t)(value * value); /* below 2^30 */
  }
  return m;
}

/* step: 1, or 0 for a single factor of 1. */
static inline void write(const mcuf_int_layer_norm_params* p, const mcuf_normalisation* n, const int8_t* x,
                         const uint8_t* factor, int32_t step, int8_t* output) {
  const int32_t zero_point = step != 0 ? p->zero_point : 0, multiplier = n->multiplier;
  const uint32_t scale = n->scale, offset = n->offset + (step != 0 ? 0 : scale * (uint32_t)p->zero_point);
  const int16_t* gamma = p->gamma;
  const int32_t* beta = p->beta;
  for (const int8_t* end = x + p->features; x != end;) {
    int32_t value = *x++;
    if (step != 0) value = (value - zero_point) * *factor++;
    const int32_t normal = mcuf_mulhi_round((int32_t)(scale * (uint32_t)value - offset), multiplier);
    *output++ = mcuf_sat8((normal * *gamma++ + *beta++) >> 16);
  }
}

void mcuf_layer_norm_write(const mcuf_int_layer_norm_params* p, const mcuf_normalisation* n, const int8_t* x,
                           int8_t* output) {
  if (p->factor == NULL) {
    write(p, n, x, NULL, 0, output);
  } else {
    write(p, n, x, p->factor, 1, output);
  }
}
#endif
