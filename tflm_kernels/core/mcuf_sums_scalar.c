/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_sums_scalar.h"

#include "mcuf_target.h"

#if MCUF_SCALAR
#include "mcuf_block.h"

#define ROUND 0x8000

/* ---- words ---- */

#if defined(MCUF_SCALAR_THUMB2)
/* Any rows of four tokens. */
void mcuf_add_words4_thumb2(const mcuf_scalar_sums* sums);
#elif defined(MCUF_SCALAR_THUMB1)
void mcuf_add_words_thumb1(const mcuf_scalar_sums* sums);
#elif defined(MCUF_SCALAR_RISCV)
/* Two rows of four tokens. */
void mcuf_add_words4_riscv(const int32_t* x, const int8_t* w, int32_t stride, int32_t n, int32_t* acc);
#endif

#ifndef MCUF_SCALAR_THUMB1
/* Two rows, two tokens; acc: where the sums of the first row and of the second are. */
static MCUF_OWN_STACK void add_two(const int32_t* x, ptrdiff_t step, const int8_t* w, int32_t stride, int32_t n,
                                   int32_t* first, int32_t* second) {
  uint32_t a1 = (uint32_t)first[1], a = (uint32_t)first[0] + (a1 << 16);
  uint32_t b1 = (uint32_t)second[1], b = (uint32_t)second[0] + (b1 << 16);
  const int8_t* v = w + stride;
#define ADD(sum, whole, upper)                 \
  {                                            \
    const int32_t both = (sum);                \
    whole += (uint32_t)both;                   \
    upper += (uint32_t)((both + ROUND) >> 16); \
  }
  for (; n >= 2; n -= 2, x += 2 * step, w += 2, v += 2) {
    const int32_t x0 = x[0], x1 = x[step];
    ADD(w[0] * x0 + w[1] * x1, a, a1)
    ADD(v[0] * x0 + v[1] * x1, b, b1)
  }
  if (n > 0) {
    ADD(w[0] * x[0], a, a1)
    ADD(v[0] * x[0], b, b1)
  }
#undef ADD
  first[0] = (int32_t)(a - (a1 << 16)), first[1] = (int32_t)a1;
  second[0] = (int32_t)(b - (b1 << 16)), second[1] = (int32_t)b1;
}
#endif

void mcuf_add_words(const mcuf_scalar_sums* s) {
#if defined(MCUF_SCALAR_THUMB1)
  mcuf_add_words_thumb1(s);
#else
  const int32_t* x = (const int32_t*)s->x;
  const int8_t* w = s->w;
  int32_t* acc = s->acc;
  if (s->count == MCUF_TOKEN_BLOCK) {
#if defined(MCUF_SCALAR_THUMB2)
    mcuf_add_words4_thumb2(s);
    return;
#elif defined(MCUF_SCALAR_RISCV)
    for (int32_t row = 0; row < s->rows; row += 2, w += 2 * s->stride, acc += 2 * MCUF_TOKEN_BLOCK) {
      mcuf_add_words4_riscv(x, w, row + 1 < s->rows ? s->stride : 0, s->n, acc);
    }
    return;
#endif
  }
  for (int32_t row = 0; row < s->rows; row += 2, w += 2 * s->stride, acc += 2 * s->count) {
    const int32_t stride = row + 1 < s->rows ? s->stride : 0;
    for (int32_t t = 0; t < s->count; t += 2) {
      add_two(x + t / 2, s->count / 2, w, stride, s->n, acc + t, acc + s->count + t);
    }
  }
#endif
}

/* ---- halfwords ---- */

#if defined(MCUF_SCALAR_THUMB1)
/* Four rows, any count; one token after another. */
void mcuf_halfwords_quad(const int16_t* x, int32_t count, const int8_t* w, int32_t stride, int32_t n, int32_t* acc);
#else
/* Four rows, one token, and two rows, four tokens. */
void mcuf_halfwords_quad1(const int16_t* x, const int8_t* w, int32_t stride, int32_t n, int32_t* acc);
void mcuf_halfwords_pair4(const int16_t* x, const int8_t* w, int32_t stride, int32_t n, int32_t* acc);
#endif
#if defined(MCUF_SCALAR_RISCV)
/* Four rows, four tokens. */
void mcuf_halfwords_quad4(const int16_t* x, const int8_t* w, int32_t stride, int32_t n, int32_t* acc);
#endif

#define LOAD4(s, from) int32_t s##0 = (from)[0], s##1 = (from)[1], s##2 = (from)[2], s##3 = (from)[3]
#define STORE4(s, to) (to)[0] = s##0, (to)[1] = s##1, (to)[2] = s##2, (to)[3] = s##3

#if !defined(MCUF_SCALAR_THUMB1) && !defined(MCUF_SCALAR_THUMB2)
void mcuf_halfwords_pair4(const int16_t* x, const int8_t* w, int32_t stride, int32_t n, int32_t* acc) {
  const int8_t* w1 = w + stride;
  LOAD4(a, acc);
  LOAD4(b, acc + 4);
  for (const int8_t* end = w + n; w != end; x += 4) {
    const int32_t p = *w++, q = *w1++;
    a0 += p * x[0], b0 += q * x[0];
    a1 += p * x[1], b1 += q * x[1];
    a2 += p * x[2], b2 += q * x[2];
    a3 += p * x[3], b3 += q * x[3];
  }
  STORE4(a, acc);
  STORE4(b, acc + 4);
}
#endif

#if !defined(MCUF_SCALAR_THUMB1) && !defined(MCUF_SCALAR_THUMB2) && !defined(MCUF_SCALAR_RISCV)
void mcuf_halfwords_quad1(const int16_t* x, const int8_t* w, int32_t stride, int32_t n, int32_t* acc) {
  const int8_t *w1 = w + stride, *w2 = w1 + stride, *w3 = w2 + stride;
  LOAD4(a, acc);
  for (const int8_t* end = w + n; w != end;) {
    const int32_t v = *x++;
    a0 += *w++ * v, a1 += *w1++ * v, a2 += *w2++ * v, a3 += *w3++ * v;
  }
  STORE4(a, acc);
}
#endif

/* Two rows, one token of `count`. */
static MCUF_OWN_STACK void add_two_rows(const int16_t* x, int32_t count, const int8_t* w, int32_t stride, int32_t n,
                                        int32_t* acc) {
  const int8_t* w1 = w + stride;
  int32_t first = acc[0], second = acc[count];
  for (const int8_t* end = w + n; w != end; x += count) {
    const int32_t v = *x;
    first += *w++ * v;
    second += *w1++ * v;
  }
  acc[0] = first, acc[count] = second;
}

void mcuf_add_halfwords(const mcuf_scalar_sums* s) {
  const int16_t* x = (const int16_t*)s->x;
  const int8_t* w = s->w;
  const int32_t stride = s->stride, n = s->n, count = s->count;
  int32_t *acc = s->acc, rows = s->rows;
  for (; rows >= 4; rows -= 4, w += 4 * stride, acc += 4 * count) {
#if defined(MCUF_SCALAR_THUMB1)
    mcuf_halfwords_quad(x, count, w, stride, n, acc);
#else
    if (count == 1) {
      mcuf_halfwords_quad1(x, w, stride, n, acc);
      continue;
    }
#if defined(MCUF_SCALAR_RISCV)
    mcuf_halfwords_quad4(x, w, stride, n, acc);
#else
    mcuf_halfwords_pair4(x, w, stride, n, acc);
    mcuf_halfwords_pair4(x, w + 2 * stride, stride, n, acc + 2 * count);
#endif
#endif
  }
  for (; rows > 0; rows -= 2, w += 2 * stride, acc += 2 * count) {
    const int32_t next = rows > 1 ? stride : 0; /* of one row, twice the same */
#if !defined(MCUF_SCALAR_THUMB1)
    if (count == MCUF_TOKEN_BLOCK) {
      mcuf_halfwords_pair4(x, w, next, n, acc);
      continue;
    }
#endif
    for (int32_t t = 0; t < count; ++t) add_two_rows(x + t, count, w, next, n, acc + t);
  }
}
#endif /* MCUF_SCALAR */
