/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums for cores that multiply one value at a time. Internal to the C kernels for them. */
#ifndef MCUF_BLOCK_SCALAR_H_
#define MCUF_BLOCK_SCALAR_H_

#include "mcuf_types.h"

/* acc[r * count + t] += sum_i w[r * stride + i] * x[i * count + t], for n >= 1 inputs, rows r < 4 (or 2), and
 * count = 1, 2 or 4 tokens. */
void mcuf_scalar_quad(const int16_t* x, int32_t count, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc);
void mcuf_scalar_pair(const int16_t* x, int32_t count, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc);

#endif /* MCUF_BLOCK_SCALAR_H_ */
