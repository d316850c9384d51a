/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums for cores that multiply one value at a time. Internal to their C kernels.
 *
 * acc[r * count + t] += sum_i w[r * stride + i] * x[i * count + t] for n >= 1 inputs, count tokens t and some rows r.
 * They differ in how many of them stay in registers. */
#ifndef MCUF_BLOCK_SCALAR_H_
#define MCUF_BLOCK_SCALAR_H_

#include "mcuf_target.h"
#include "mcuf_types.h"

#ifdef MCUF_SCALAR_THUMB1 /* four rows, any count, one token after another */
void mcuf_scalar_quad(const int16_t* x, int32_t count, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc);
#else /* four rows, one token, and two rows, four tokens */
void mcuf_scalar_quad1(const int16_t* x, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc);
void mcuf_scalar_pair4(const int16_t* x, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc);
#endif
#ifdef MCUF_SCALAR_RISCV /* four rows, four tokens */
void mcuf_scalar_quad4(const int16_t* x, const int8_t* w, ptrdiff_t stride, int32_t n, int32_t* acc);
#endif

#endif /* MCUF_BLOCK_SCALAR_H_ */
