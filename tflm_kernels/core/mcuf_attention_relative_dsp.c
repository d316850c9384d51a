/* SPDX-License-Identifier: Apache-2.0
 *
 * The weighted sum of mcuf_attention_relative.h for Cortex-M with the DSP extension. */
#include "mcuf_attention_relative.h"
#include "mcuf_block_dsp.h"

#if MCUF_DSP
#include <arm_acle.h>
#include <string.h>

#include "mcuf_fixed_point.h"

/* Sums of a pair of channels for each row: acc int32 [rows][2]. */
static void weigh_pair(const int16_t* e, const int8_t* values, int32_t tokens, int32_t rows, int32_t* acc) {
  const int32_t words = (tokens + 1) / 2;
  for (int32_t t = 0; t < rows; ++t) {
    int32_t a = 0, b = 0;
    const int16_t* row = e + 2 * t;
    const int8_t* v = values;
    for (int32_t i = words; i > 0; --i, row += 2 * rows, v += 4) {
      uint32_t two, four;
      memcpy(&two, row, sizeof(two));
      memcpy(&four, v, sizeof(four));
      a = __smlad((int16x2_t)two, (int16x2_t)__sxtb16(four), a);
      b = __smlad((int16x2_t)two, (int16x2_t)__sxtb16(four >> 8 | four << 24), b);
    }
    acc[2 * t] = a;
    acc[2 * t + 1] = b;
  }
}

void mcuf_relative_weigh_rows(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values,
                              int32_t rows, const mcuf_row_scale* scale, const mcuf_relative_weights* w,
                              int8_t* output) {
  const int8_t* entries = w->values;
  for (int32_t c = 0; c < p->head_dim; c += 2) {
    int32_t acc[2 * MCUF_TOKEN_BLOCK], more[2 * MCUF_TOKEN_BLOCK];
    weigh_pair(numerators, values, p->tokens, rows, acc);
    weigh_pair(w->sums, entries, w->length, rows, more);
    for (int32_t t = 0; t < rows; ++t) {
      for (int32_t i = 0; i < 2 && c + i < p->head_dim; ++i) {
        output[(ptrdiff_t)t * p->out_stride + c + i] =
            mcuf_relative_output(acc[2 * t + i], more[2 * t + i], w, t, scale, p->zero_point);
      }
    }
    values += 2 * (ptrdiff_t)mcuf_round_up_even(p->tokens);
    entries += 2 * (ptrdiff_t)mcuf_round_up_even(w->length);
  }
}
#endif /* MCUF_DSP */
