/* SPDX-License-Identifier: Apache-2.0
 *
 * The portable form of mcuf_block.h. A block is int16 [tokens, k rounded up to even]. Weights are expanded in small
 * pieces on the stack; compilers turn the inner loops into 16-bit multiply-adds (PMADDWD on x86). */
#include "mcuf_block.h"

#include "mcuf_target.h"
#include "mcuf_types.h" /* an empty translation unit is not valid C99 */

#if MCUF_PORTABLE
#include <string.h>

#include "mcuf_block_finish.h"
#include "mcuf_dot.h"
#ifdef MCUF_DISPATCH
#include MCUF_DISPATCH
#endif

void mcuf_block_fill_token(const mcuf_block_token* token, const int8_t* source, int32_t step, int32_t at, int32_t n) {
  int16_t* target = token->block + (ptrdiff_t)token->index * mcuf_round_up_even(token->k) + at;
  if (step != 0) {
    mcuf_expand_s16(source, n, target);
  } else {
    for (int32_t i = 0; i < n; ++i) target[i] = *source;
  }
}

void mcuf_block_fill(int16_t* block, int32_t k, int32_t count, const int8_t* source, int32_t stride, int32_t at,
                     int32_t n) {
  mcuf_block_fill_by_token(block, k, count, source, stride, at, n);
}

/* Inputs [start, start + n) of rows o and o + 1 as int16. Without a second row, the first stands in for it. */
static void expand_weights(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k, int32_t o,
                           int32_t start, int32_t n, int16_t* first, int16_t* second) {
  const int8_t* row = weights + mcuf_packed_offset(o, k, packing);
  if (packing == MCUF_PACKING_ROWS) {
    mcuf_expand_s16(row + start, n, first);
    mcuf_expand_s16(row + start + (o + 1 < out_features ? k : 0), n, second);
    return;
  }
  row += (ptrdiff_t)2 * start;
  for (int32_t i = 0; i < n; ++i) { /* 256 * hi + lo, little-endian */
    first[i] = row[2 * i];
    second[i] = (int16_t)(row[2 * i + 1] + (row[2 * i] < 0));
  }
}

void MCUF_PORTABLE_NAME(mcuf_block_accumulate)(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k,
                                               const int16_t* block, int32_t count, int32_t* acc) {
  const int32_t width = mcuf_round_up_even(k);
  int16_t first[MCUF_DOT_PIECE], second[MCUF_DOT_PIECE];
  for (int32_t o = 0; o < out_features; o += 2, acc += 2 * count) {
    for (int32_t start = 0; start < k; start += MCUF_DOT_PIECE) {
      const int32_t n = k - start < MCUF_DOT_PIECE ? k - start : MCUF_DOT_PIECE;
      expand_weights(weights, packing, out_features, k, o, start, n, first, second);
      if (count == MCUF_TOKEN_BLOCK) {
        mcuf_dot_4x2(block + start, width, first, second, n, acc);
      } else {
        for (int32_t t = 0; t < count; ++t) {
          mcuf_dot_1x2(block + (ptrdiff_t)t * width + start, first, second, n, acc + t, acc + count + t);
        }
      }
    }
  }
}

void mcuf_block_dot(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k, const int16_t* block,
                    int32_t count, int32_t* acc) {
  memset(acc, 0, (size_t)mcuf_round_up_even(out_features) * (size_t)count * sizeof(int32_t));
  mcuf_block_accumulate(weights, packing, out_features, k, block, count, acc);
}

void mcuf_block_fc(const mcuf_fc_rows* p, const int16_t* block, int32_t count, const int8_t* residual, int8_t* output,
                   int32_t stride) {
  mcuf_block_fc_accumulated(p, block, count, residual, output, stride);
}
#endif /* MCUF_PORTABLE */
