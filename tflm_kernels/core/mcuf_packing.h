/* SPDX-License-Identifier: Apache-2.0
 *
 * How the weights of a fully connected layer, or of a convolution treated as one, lie in memory. The file says which
 * packing a layer has; every kernel reads every packing, with the same bits. converter/passes/packing.py writes them.
 * Weights are -127 .. 127.
 *
 *   rows    int8 [out, in]: for kernels with byte vectors, and the host
 *   pairs   int16 [ceil(out / 2), in rounded up to even]: 256 * w[2 p + 1, i] + w[2 p, i], zeros for a missing row or
 *           input: for Cortex-M4 and M7
 *
 * Why pairs give exact sums: with lo and hi the two rows' sums of w * x, a multiply-accumulate of the halfwords as they
 * are gives mixed = 256 * hi + lo modulo 2^32, and one of their sign-extended low bytes gives lo. So mixed - lo is
 * 256 * hi modulo 2^32, and hi follows exactly while |hi| < 2^23. With |w| <= 127 and |x| <= 128, 512 products stay
 * below that (8,323,072 < 8,388,608): the kernels separate the rows at least every 512 inputs, and add bias, residual
 * and position after that. So the bound holds for all weights and nothing has to be checked. */
#ifndef MCUF_PACKING_H_
#define MCUF_PACKING_H_

#include <stdbool.h>

#include "mcuf_types.h"

#define MCUF_PACKING_ROWS 0
#define MCUF_PACKING_PAIRS 1

static inline int32_t mcuf_round_up_even(int32_t value) { return (value + 1) & ~1; }

/* A packed layer as rows of bytes: their number, and the bytes of each; in pairs, a row is half of a pair. */
static inline int32_t mcuf_packed_rows(int32_t out_features, int32_t packing) {
  return packing == MCUF_PACKING_ROWS ? out_features : mcuf_round_up_even(out_features);
}
static inline int32_t mcuf_packed_row_bytes(int32_t in_features, int32_t packing) {
  return packing == MCUF_PACKING_ROWS ? in_features : mcuf_round_up_even(in_features);
}

/* Where row `row` starts; an even one for pairs. */
static inline ptrdiff_t mcuf_packed_offset(int32_t row, int32_t in_features, int32_t packing) {
  const ptrdiff_t row_bytes = mcuf_packed_row_bytes(in_features, packing);
  return row * row_bytes;
}

/* Whether this packing exists and the weights (NULL if staged) are aligned for it. */
static inline bool mcuf_packing_is_known(int32_t packing, const int8_t* weights) {
  return packing == MCUF_PACKING_ROWS || (packing == MCUF_PACKING_PAIRS && (MCUF_ADDRESS(weights) & 3) == 0);
}

#endif /* MCUF_PACKING_H_ */
