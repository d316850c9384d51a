/* SPDX-License-Identifier: Apache-2.0
 *
 * The weighted sum of mcuf_attention_relative.h for Cortex-M with vectors (MVE). */
#include "mcuf_attention_relative.h"
#include "mcuf_target.h"
#include "mcuf_types.h" /* an empty translation unit is not valid C99 */

#if MCUF_MVE
#include "mcuf_dot_mve.h"

#define HALVES 8 /* int16 values of a vector */

/* Sums of n values of two channels, `next` bytes apart, with a block of four rows of weights, or with one row. */
static void weigh_channels(const int8_t* v, int32_t next, const int16_t* e, int32_t n, int32_t rows,
                           int32_t acc[2 * MCUF_TOKEN_BLOCK]) {
  if (rows == MCUF_TOKEN_BLOCK) {
    mcuf_weigh_rows_mve(acc, e, n, v, acc + 2 * MCUF_TOKEN_BLOCK, next);
    return;
  }
  acc[0] = acc[1] = 0;
  for (int32_t left = n; left > 0; left -= HALVES, e += HALVES, v += HALVES) {
    const mve_pred16_t lanes = vctp16q((uint32_t)left);
    const int16x8_t x = vldrhq_z_s16(e, lanes);
    acc[0] = vmladavaq_s16(acc[0], x, vldrbq_z_s16(v, lanes));
    acc[1] = vmladavaq_s16(acc[1], x, vldrbq_z_s16(v + next, lanes));
  }
}

void mcuf_relative_weigh_rows(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values,
                              int32_t rows, const mcuf_row_scale* scale, const mcuf_relative_weights* w,
                              int8_t* output) {
  const int32_t tokens = mcuf_round_up_even(p->tokens), length = mcuf_round_up_even(w->length);
  const int32_t first = w->first & ~(HALVES - 1); /* where a piece of the block begins */
  const int16_t* sums = w->sums + (ptrdiff_t)first * rows;
  const int8_t* entries = w->values + first;
  for (int32_t c = 0; c < p->head_dim; c += 2, values += 2 * tokens, entries += 2 * length) {
    const int32_t pair = c + 1 < p->head_dim ? 2 : 1;
    int32_t acc[2 * MCUF_TOKEN_BLOCK], more[2 * MCUF_TOKEN_BLOCK];
    weigh_channels(values, pair == 2 ? tokens : 0, numerators, tokens, rows, acc);
    weigh_channels(entries, pair == 2 ? length : 0, sums, length - first, rows, more);
    for (int32_t t = 0; t < rows; ++t) {
      for (int32_t i = 0; i < pair; ++i) {
        output[(ptrdiff_t)t * p->out_stride + c + i] =
            mcuf_relative_output(acc[i * rows + t], more[i * rows + t], w, t, scale, p->zero_point);
      }
    }
  }
}
#endif /* MCUF_MVE */
