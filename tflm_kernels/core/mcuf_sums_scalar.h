/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of products for cores that multiply one value at a time. Internal to their C kernels.
 *
 * In words: two tokens share one, x0 + 65536 * x1, so that a product with a weight has both of theirs. With |w| <= 127
 * and |x| <= 128, two such products add up to less than 2^15 in magnitude for each token, so that the upper half of
 * the sum, rounded, is the second token's. These halves are added up; so are the whole sums, modulo 2^32: without 65536
 * times the second token's total they are the first one's. For two inputs and two tokens this takes two multiplications
 * and four additions or shifts, as without words, but half as many values are loaded; and Cortex-M3 adds while it
 * multiplies, and shifts while it adds. */
#ifndef MCUF_SUMS_SCALAR_H_
#define MCUF_SUMS_SCALAR_H_

#include "mcuf_target.h"
#include "mcuf_types.h"

/* acc[r * count + t] += sum_i w[r * stride + i] * x[t, i] for n >= 1 inputs, count tokens and some rows. If their
 * number is odd, acc has one more, whose sums mean nothing. */
typedef struct {
  const void* x;
  const int8_t* w;
  int32_t stride, n, rows, count;
  int32_t* acc;
  int32_t k; /* inputs in a block of words */
} mcuf_scalar_sums;

/* Where input i of pair j of a block of words of k inputs is; and where the next input of that pair is. */
#ifdef MCUF_SCALAR_THUMB1
#define MCUF_WORD_AT(k, count, i, j) ((ptrdiff_t)(j) * (((k) + 1) & ~1) + (i))
#define MCUF_WORD_STEP(count) 1
#else
#define MCUF_WORD_AT(k, count, i, j) ((ptrdiff_t)(i) * ((count) / 2) + (j))
#define MCUF_WORD_STEP(count) ((count) / 2)
#endif

/* Sets sums to 0, of an even number. Not memset(), which some C libraries do byte by byte. */
static inline void mcuf_clear_sums(int32_t* acc, int32_t count) {
  for (int32_t* end = acc + count; acc != end; acc += 2) {
    acc[0] = acc[1] = 0;
#if defined(__GNUC__)
    __asm__ volatile("" : : : "memory"); /* else compilers call it */
#endif
  }
}

/* Words of 2 or 4 tokens. */
void mcuf_add_words(const mcuf_scalar_sums* sums);

/* Halfwords [n, count] of 1 or 4 tokens, with all values that have room; k is not read. */
void mcuf_add_halfwords(const mcuf_scalar_sums* sums);

#endif /* MCUF_SUMS_SCALAR_H_ */
