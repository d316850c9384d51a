/* SPDX-License-Identifier: Apache-2.0
 *
 * The weighted sum of mcuf_attention_relative.h for Cortex-M with vectors (MVE). */
#include "mcuf_attention_relative.h"
#include "mcuf_target.h"
#include "mcuf_types.h" /* an empty translation unit is not valid C99 */

#if MCUF_MVE
#include <arm_mve.h>

#define VECTOR 8

/* Sums of one channel's n values with up to four rows of weights, `next` apart. */
static inline void weigh_channel(const int8_t* v, const int16_t* e, ptrdiff_t next, int32_t n,
                                 int32_t acc[MCUF_TOKEN_BLOCK]) {
  int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0;
  for (int32_t left = n; left > 0; left -= VECTOR, e += VECTOR, v += VECTOR) {
    const mve_pred16_t lanes = vctp16q((uint32_t)left);
    const int16x8_t x = vldrbq_z_s16(v, lanes);
    a0 = vmladavaq_s16(a0, x, vldrhq_z_s16(e, lanes));
    a1 = vmladavaq_s16(a1, x, vldrhq_z_s16(e + next, lanes));
    a2 = vmladavaq_s16(a2, x, vldrhq_z_s16(e + 2 * next, lanes));
    a3 = vmladavaq_s16(a3, x, vldrhq_z_s16(e + 3 * next, lanes));
  }
  acc[0] = a0, acc[1] = a1, acc[2] = a2, acc[3] = a3;
}

void mcuf_relative_weigh_rows(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values,
                              int32_t rows, const mcuf_row_scale* scale, const mcuf_relative_weights* w,
                              int8_t* output) {
  const int32_t tokens = mcuf_round_up_even(p->tokens), length = mcuf_round_up_even(w->length);
  const int8_t* entries = w->values + w->first;
  for (int32_t c = 0; c < p->head_dim; ++c, values += tokens, entries += length) {
    int32_t acc[MCUF_TOKEN_BLOCK], more[MCUF_TOKEN_BLOCK];
    weigh_channel(values, numerators, rows == 1 ? 0 : tokens, p->tokens, acc);
    weigh_channel(entries, w->sums + w->first, rows == 1 ? 0 : length, w->end - w->first, more);
    for (int32_t t = 0; t < rows; ++t) {
      output[(ptrdiff_t)t * p->out_stride + c] = mcuf_relative_output(acc[t], more[t], w, t, scale, p->zero_point);
    }
  }
}
#endif /* MCUF_MVE */
