/* SPDX-License-Identifier: Apache-2.0
 *
 * The LayerNorm at the head of a Streamed op, or none: in a post-norm network the branch reads the stream as it is.
 * Internal to the int8 C library. */
#ifndef MCUF_STREAMED_NORM_H_
#define MCUF_STREAMED_NORM_H_

#include <string.h>

#include "mcuf_int_layer_norm_s8.h"
#include "mcuf_wide_stream.h"

/* Without gamma there is no LayerNorm: nothing but features is set then. A wide stream needs one. */
static inline mcuf_status mcuf_streamed_norm_check(const mcuf_int_layer_norm_params* p, int32_t tokens,
                                                   const mcuf_wide_stream* wide) {
  if (p->gamma != NULL) {
    mcuf_int_layer_norm_params norm = *p;
    norm.tokens = tokens;
    const mcuf_status status = mcuf_int_layer_norm_s8_check(&norm);
    if (status != MCUF_OK || wide == NULL) return status;
    return norm.zero_point != 0 || norm.factor != NULL ? MCUF_ERROR_VALUE : MCUF_OK;
  }
  if (wide != NULL) return MCUF_ERROR_NULL;
  if (p->beta != NULL || p->factor != NULL) return MCUF_ERROR_NULL;
  if (p->features < 1 || p->features > MCUF_LAYER_NORM_MAX_FEATURES) return MCUF_ERROR_SIZE;
  return p->zero_point != 0 || p->epsilon != 0 ? MCUF_ERROR_VALUE : MCUF_OK;
}

/* count tokens of the stream, normalised or copied. */
static inline mcuf_status mcuf_streamed_norm(const mcuf_int_layer_norm_params* p, const mcuf_wide_stream* wide,
                                             const void* stream, int32_t count, int8_t* output) {
  if (p->gamma == NULL) {
    memcpy(output, stream, (size_t)count * (size_t)p->features);
    return MCUF_OK;
  }
  mcuf_int_layer_norm_params norm = *p;
  norm.tokens = count;
  if (wide != NULL) return wide->layer_norm(&norm, (const int16_t*)stream, output);
  return mcuf_int_layer_norm_s8(&norm, (const int8_t*)stream, output);
}

#endif /* MCUF_STREAMED_NORM_H_ */
