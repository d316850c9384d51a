/* SPDX-License-Identifier: Apache-2.0
 *
 * The weighted sum of mcuf_attention_rows.h for Cortex-M with vectors (MVE). Numerators are int16 [rows, tokens rounded
 * up to even]. */
#include "mcuf_attention_rows.h"
#include "mcuf_target.h"
#include "mcuf_types.h" /* an empty translation unit is not valid C99 */

#if MCUF_MVE
#include <arm_mve.h>

#include "mcuf_fixed_point.h"

#define VECTOR 8

static int8_t scaled(int32_t acc, const mcuf_row_scale* scale, int32_t zero_point) {
  const int32_t high = mcuf_mulhi_round(acc, scale->multiplier);
  return mcuf_sat8(zero_point + ((high + (1 << (scale->shift - 1))) >> scale->shift));
}

void mcuf_weigh_rows(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values, int32_t rows,
                     const mcuf_row_scale* scale, int8_t* output) {
  const int32_t tokens = mcuf_round_up_even(p->tokens);
  const ptrdiff_t next = rows == 1 ? 0 : tokens;
  for (int32_t c = 0; c < p->head_dim; ++c, values += tokens) {
    const int16_t* e = numerators;
    const int8_t* v = values;
    int32_t acc[MCUF_TOKEN_BLOCK] = {0};
    for (int32_t left = p->tokens; left > 0; left -= VECTOR, e += VECTOR, v += VECTOR) {
      const mve_pred16_t lanes = vctp16q((uint32_t)left);
      const int16x8_t x = vldrbq_z_s16(v, lanes);
      acc[0] = vmladavaq_s16(acc[0], x, vldrhq_z_s16(e, lanes));
      acc[1] = vmladavaq_s16(acc[1], x, vldrhq_z_s16(e + next, lanes));
      acc[2] = vmladavaq_s16(acc[2], x, vldrhq_z_s16(e + 2 * next, lanes));
      acc[3] = vmladavaq_s16(acc[3], x, vldrhq_z_s16(e + 3 * next, lanes));
    }
    for (int32_t t = 0; t < rows; ++t) {
      output[(ptrdiff_t)t * p->out_stride + c] = scaled(acc[t], &scale[t], p->zero_point);
    }
  }
}
#endif /* MCUF_MVE */
