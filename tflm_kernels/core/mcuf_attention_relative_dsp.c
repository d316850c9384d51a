/* SPDX-License-Identifier: Apache-2.0
 *
 * The weighted sum of mcuf_attention_relative.h for Cortex-M with the DSP extension. */
#include "mcuf_attention_relative.h"
#include "mcuf_block_dsp.h"

#if MCUF_DSP
#include <arm_acle.h>
#include <string.h>

#include "mcuf_fixed_point.h"

/* Sums of a pair of channels: of four rows to int32 [4][2], the second channel first; of one row to two, likewise. */
static MCUF_OWN_STACK void weigh_pair(const int16_t* e, const int8_t* values, int32_t tokens, int32_t rows,
                                      int32_t* acc) {
  const int32_t words = (tokens + 1) / 2;
  if (rows == MCUF_TOKEN_BLOCK) {
    mcuf_weigh_dsp_args args = {
        e, 4 * words, NULL, values, (int8_t*)acc, 1, 0, 0, MCUF_WEIGH_DSP_ENTRY(words),
    };
    mcuf_weigh4_sums_dsp(&args);
    return;
  }
  int32_t first = 0, second = 0;
  for (int32_t i = words; i > 0; --i, e += 2, values += 4) {
    uint32_t two, four;
    memcpy(&two, e, sizeof(two));
    memcpy(&four, values, sizeof(four));
    first = __smlad((int16x2_t)two, __sxtb16((int8x4_t)four), first);
    second = __smlad((int16x2_t)two, __sxtb16((int8x4_t)(four >> 8 | four << 24)), second);
  }
  acc[0] = second;
  acc[1] = first;
}

void mcuf_relative_weigh_rows(const mcuf_attention_rows_shape* p, const int16_t* numerators, const int8_t* values,
                              int32_t rows, const mcuf_row_scale* scale, const mcuf_relative_weights* w,
                              int8_t* output) {
  const int16_t* sums = w->sums + (ptrdiff_t)w->first * rows;
  const int8_t* entries = w->values + 2 * (ptrdiff_t)w->first;
  for (int32_t c = 0; c < p->head_dim; c += 2) {
    int32_t acc[2 * MCUF_TOKEN_BLOCK], more[2 * MCUF_TOKEN_BLOCK];
    weigh_pair(numerators, values, p->tokens, rows, acc);
    weigh_pair(sums, entries, w->end - w->first, rows, more);
    for (int32_t t = 0; t < rows; ++t) {
      int8_t* out = output + (ptrdiff_t)t * p->out_stride + c;
      out[0] = mcuf_relative_output(acc[2 * t + 1], more[2 * t + 1], w, t, scale, p->zero_point);
      if (c + 1 < p->head_dim) out[1] = mcuf_relative_output(acc[2 * t], more[2 * t], w, t, scale, p->zero_point);
    }
    values += 2 * (ptrdiff_t)mcuf_round_up_even(p->tokens);
    entries += 2 * (ptrdiff_t)mcuf_round_up_even(w->length);
  }
}
#endif /* MCUF_DSP */
