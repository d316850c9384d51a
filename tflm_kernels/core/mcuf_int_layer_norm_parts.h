/* SPDX-License-Identifier: Apache-2.0
 *
 * The two passes of IntLayerNorm over the channels of a token. Internal to the C kernels. */
#ifndef MCUF_INT_LAYER_NORM_PARTS_H_
#define MCUF_INT_LAYER_NORM_PARTS_H_

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

#if defined(MCUF_DISPATCH) || MCUF_MVE || MCUF_SCALAR
mcuf_moments mcuf_layer_norm_add(const mcuf_int_layer_norm_params* params, const int8_t* x);
void mcuf_layer_norm_write(const mcuf_int_layer_norm_params* params, const mcuf_normalisation* n, const int8_t* x,
                           int8_t* output);
#endif

#endif /* MCUF_INT_LAYER_NORM_PARTS_H_ */
