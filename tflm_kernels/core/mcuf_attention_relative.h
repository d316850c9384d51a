/* SPDX-License-Identifier: Apache-2.0
 *
 * The weighted sum of mcuf_attention_relative.c, which has one form per target. Internal to the C kernels. */
#ifndef MCUF_ATTENTION_RELATIVE_H_
#define MCUF_ATTENTION_RELATIVE_H_

#include "mcuf_attention_rows.h"
#include "mcuf_fixed_point.h"

/* What weighs the entries of a table of values. */
typedef struct {
  const int16_t* sums; /* of numerators by entry, shifted right: in the numerators' order, `length` for tokens */
  int32_t length;      /* of the table */
  int32_t first, end;  /* the entries whose sums may not be 0; first is even */
  const int8_t* values;
  int32_t multiplier;
  int32_t factor[MCUF_TOKEN_BLOCK]; /* of each row: 2 << shift */
} mcuf_relative_weights;

/* mcuf_weigh_rows() with the entries of a table besides; one form per target. */
void mcuf_relative_weigh_rows(const mcuf_attention_rows_shape* shape, const int16_t* numerators, const int8_t* values,
                              int32_t rows, const mcuf_row_scale* scale, const mcuf_relative_weights* weights,
                              int8_t* output);

/* A sum of numerators * values and one of entries to an output. */
static inline int8_t mcuf_relative_output(int32_t values, int32_t entries, const mcuf_relative_weights* weights,
                                          int32_t t, const mcuf_row_scale* scale, int32_t zero_point) {
  const int32_t acc = values + mcuf_mulhi_round(entries * weights->factor[t], weights->multiplier);
  const int32_t high = mcuf_mulhi_round(acc, scale[t].multiplier);
  return mcuf_sat8(zero_point + ((high + (1 << (scale[t].shift - 1))) >> scale[t].shift));
}

#endif /* MCUF_ATTENTION_RELATIVE_H_ */
