/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_int_layer_norm_s8.h"

#include "mcuf_fixed_point.h"
#include "mcuf_hooks.h"
#include "mcuf_int_layer_norm_parts.h"
#ifdef MCUF_DISPATCH
#include MCUF_DISPATCH
#define PASS
#else
#define PASS static
#endif

mcuf_status mcuf_int_layer_norm_s8_check(const mcuf_int_layer_norm_params* p) {
  if (p->gamma == NULL || p->beta == NULL) return MCUF_ERROR_NULL;
  if (p->tokens < 1 || p->tokens > MCUF_MAX_TOKENS || p->features < 1 || p->features > MCUF_LAYER_NORM_MAX_FEATURES) {
    return MCUF_ERROR_SIZE;
  }
  if (!mcuf_is_int8(p->zero_point) || p->epsilon < 0 || p->epsilon > MCUF_LAYER_NORM_MAX_EPSILON) {
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

#if !MCUF_MVE && !MCUF_SCALAR
PASS mcuf_moments MCUF_PORTABLE_NAME(mcuf_layer_norm_add)(const mcuf_int_layer_norm_params* p, const int8_t* x) {
  mcuf_moments m = {0, 0};
  for (int32_t c = 0; c < p->features; ++c) {
    const int32_t value = (x[c] - p->zero_point) * (p->factor != NULL ? p->factor[c] : 1);
    m.sum += value;
    m.squares += (int64_t)value * value;
  }
  return m;
}

PASS void MCUF_PORTABLE_NAME(mcuf_layer_norm_write)(const mcuf_int_layer_norm_params* p, const mcuf_normalisation* n,
                                                    const int8_t* x, int8_t* output) {
  for (int32_t c = 0; c < p->features; ++c) {
    const int32_t value = (x[c] - p->zero_point) * (p->factor != NULL ? p->factor[c] : 1);
    const int32_t difference = (int32_t)(n->scale * (uint32_t)value - n->offset);
    const int32_t normal = mcuf_mulhi_round(difference, n->multiplier);
    output[c] = mcuf_sat8((normal * p->gamma[c] + p->beta[c]) >> 16);
  }
}
#endif

#if MCUF_DSP
typedef struct {
  const int8_t* x;
  int8_t* output;
  const int16_t* gamma;
  const int32_t* beta;
  const uint8_t* factor;
  uint32_t words_and_scale; /* channels / 4 in the upper half */
  uint32_t minus_offset;
  int32_t multiplier;
} layer_norm_rows;

void mcuf_layer_norm_sums_dsp(const int8_t* x, int32_t words, int32_t* sums);
void mcuf_layer_norm_factor_sums_dsp(const int8_t* x, const uint8_t* factor, int32_t words, mcuf_moments* sums);
void mcuf_layer_norm_rows_dsp(const layer_norm_rows* rows);
void mcuf_layer_norm_factor_rows_dsp(const layer_norm_rows* rows);

/* Whether tokens go by words of four channels; if their products are small enough, say the two functions. */
static bool goes_by_words(const mcuf_int_layer_norm_params* p) {
  const int32_t d = p->features;
  return d % 4 == 0 && d <= MCUF_LAYER_NORM_DSP_MAX_FEATURES && (p->factor == NULL || p->zero_point == 0);
}

static void add_words(const mcuf_int_layer_norm_params* p, const int8_t* x, mcuf_moments* m) {
  const int32_t d = p->features, words = d / 4;
  if (p->factor != NULL) {
    mcuf_layer_norm_factor_sums_dsp(x, p->factor, words, m);
  } else { /* sums of the raw values; the zero point is subtracted from them */
    int32_t sums[2];
    mcuf_layer_norm_sums_dsp(x, words, sums);
    m->sum = sums[0] - d * p->zero_point;
    m->squares = sums[1] + p->zero_point * (d * p->zero_point - 2 * sums[0]);
  }
}

/* False if 16-bit products overflow. */
static bool write_words(const mcuf_int_layer_norm_params* p, const mcuf_normalisation* n, const int8_t* x,
                        int8_t* output) {
  const int32_t most = p->factor == NULL ? MCUF_LAYER_NORM_DSP_MAX_SCALE : MCUF_LAYER_NORM_DSP_MAX_FACTOR_SCALE;
  if (n->scale > (uint32_t)most) return false;
  const layer_norm_rows rows = {
      x,
      output,
      p->gamma,
      p->beta,
      p->factor,
      (uint32_t)p->features / 4 << 16 | n->scale,
      0u - n->offset - n->scale * (uint32_t)p->zero_point,
      n->multiplier,
  };
  if (p->factor == NULL) {
    mcuf_layer_norm_rows_dsp(&rows);
  } else {
    mcuf_layer_norm_factor_rows_dsp(&rows);
  }
  return true;
}
#endif

mcuf_status mcuf_int_layer_norm_s8(const mcuf_int_layer_norm_params* p, const int8_t* input, int8_t* output) {
  const int32_t d = p->features;
  const size_t bytes = (size_t)p->tokens * (size_t)d;
  if (output != input && mcuf_overlap(output, bytes, input, bytes)) return MCUF_ERROR_OVERLAP;
#if MCUF_DSP
  const bool words = goes_by_words(p);
#endif
  for (int32_t t = 0; t < p->tokens; ++t, input += d, output += d) {
#if MCUF_DSP
    mcuf_moments m;
    if (words) {
      add_words(p, input, &m);
    } else {
      m = mcuf_layer_norm_add(p, input);
    }
    const mcuf_normalisation n = mcuf_layer_norm_of(p, &m);
    if (!words || !write_words(p, &n, input, output)) mcuf_layer_norm_write(p, &n, input, output);
#else
    const mcuf_moments m = mcuf_layer_norm_add(p, input);
    const mcuf_normalisation n = mcuf_layer_norm_of(p, &m);
    mcuf_layer_norm_write(p, &n, input, output);
#endif
    MCUF_YIELD();
  }
  return MCUF_OK;
}
