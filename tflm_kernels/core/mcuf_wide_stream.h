/* SPDX-License-Identifier: Apache-2.0
 *
 * A residual stream of int16, with one scale and zero point 0: for networks whose outliers int8 does not hold. What
 * reads or writes such a stream is here; everything between is int8 as always.
 *
 *   onto the stream   out = sat16((acc * multiplier + residual * residual_scale * 2^10 + 2^23) >> 24), 64 bit
 *                     multiplier = round(acc_scale / out_scale * 2^24)
 *                     residual_scale = round(residual's scale / out_scale * 2^14), only where there is a residual
 *   off the stream    IntLayerNorm of int16, without factors: mcuf_int_layer_norm_s8.h
 *
 * Params point to mcuf_wide, so that a program without a wide stream has none of this code. */
#ifndef MCUF_WIDE_STREAM_H_
#define MCUF_WIDE_STREAM_H_

#include "mcuf_in_place_fc_s8.h"
#include "mcuf_int_layer_norm_s8.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One token of the patch embedding: acc [d], `step` apart; position [d] or NULL, with position_scale; output [d]. */
typedef struct {
  int32_t d;
  const int32_t* acc;
  int32_t step;
  const int8_t* position;
  const int16_t* position_scale;
  const int32_t* multiplier;
} mcuf_wide_token;

typedef struct mcuf_wide_stream {
  /* mcuf_int_layer_norm_s16(). */
  mcuf_status (*layer_norm)(const mcuf_int_layer_norm_params* params, const int16_t* input, int8_t* output);
  /* A fully connected layer that adds its outputs to the stream [tokens, out_features]. Scratch as InPlaceFC's with
   * tokens_per_read 0; input [tokens, in_features] overlaps nothing. */
  mcuf_status (*add_fc)(const mcuf_in_place_fc_params* params, const int8_t* input, int16_t* stream, void* scratch);
  void (*embed)(const mcuf_wide_token* token, int16_t* output);
} mcuf_wide_stream;

MCUF_API extern const mcuf_wide_stream mcuf_wide;

/* What add_fc trusts beyond mcuf_in_place_fc_s8_check() with a residual. */
static inline mcuf_status mcuf_wide_fc_check(const mcuf_in_place_fc_params* params) {
  return params->zero_point != 0 || params->gelu_table != NULL ? MCUF_ERROR_VALUE : MCUF_OK;
}

/* Bytes of a value of the stream. wide: NULL for int8. */
static inline int32_t mcuf_stream_bytes(const mcuf_wide_stream* wide) { return wide == NULL ? 1 : 2; }

#ifdef __cplusplus
}
#endif

#endif /* MCUF_WIDE_STREAM_H_ */
