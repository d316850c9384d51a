/* SPDX-License-Identifier: Apache-2.0
 *
 * The fixed-point arithmetic of all kernels: one rounding mode, one saturation, one definition of each.
 * The numpy reference (converter/ops/fixed_point.py) defines the same functions. */
#ifndef MCUF_FIXED_POINT_H_
#define MCUF_FIXED_POINT_H_

#include <stdbool.h>

#include "mcuf_target.h"
#include "mcuf_types.h"

/* Whether a value is in [-128, 127]: the check of zero points and other int8 constants. */
static inline bool mcuf_is_int8(int32_t value) { return value >= INT8_MIN && value <= INT8_MAX; }

/* Saturates to [-128, 127]. Every narrowing to int8 goes through here. One SSAT on Arm. Elsewhere in two steps,
 * which compilers turn into branch-free code: before a ReLU, half of the values would take a branch, at random. */
static inline int8_t mcuf_sat8(int32_t value) {
#if MCUF_DSP || MCUF_MVE || defined(MCUF_SCALAR_THUMB2)
  __asm__("ssat %0, #8, %1" : "=r"(value) : "r"(value));
  return (int8_t)value;
#else
  value = value < -128 ? -128 : value;
  return (int8_t)(value > 127 ? 127 : value);
#endif
}

/* High word of a 64-bit product, rounded half up: (a * b + 2^31) >> 32. One SMMULR on Arm. |result| <= 2^30. */
static inline int32_t mcuf_mulhi_round(int32_t a, int32_t b) {
#if MCUF_DSP || MCUF_MVE
  int32_t high;
  __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(a), "r"(b));
  return high;
#elif defined(MCUF_SCALAR_THUMB1) /* of products of halfwords; the last shift leaves the bit to round by */
  int32_t low_a, low_b, middle;
  __asm__(
      ".syntax unified\n\tuxth %2, %0\n\tasrs %0, %0, #16\n\tuxth %3, %1\n\tasrs %1, %1, #16\n\t"
      "movs %4, %2\n\tmuls %4, %3\n\tlsrs %4, %4, #16\n\tmuls %3, %0\n\tadds %4, %4, %3\n\t"
      "muls %0, %1\n\tmuls %2, %1\n\tuxth %3, %4\n\tadds %2, %2, %3\n\t"
      "asrs %4, %4, #16\n\tadds %0, %0, %4\n\tasrs %2, %2, #16\n\tadcs %0, %2"
      : "+l"(a), "+l"(b), "=&l"(low_a), "=&l"(low_b), "=&l"(middle)
      :
      : "cc");
  return a;
#elif MCUF_SCALAR
  const int64_t product = (int64_t)a * b;
  return (int32_t)(product >> 32) + (int32_t)((uint32_t)product >> 31);
#else
  return (int32_t)(((int64_t)a * b + ((int64_t)1 << 31)) >> 32);
#endif
}

/* Accumulator -> int8: sat8(zero_point + acc * scale), multiplier = round(scale * 2^32), scale < 0.5.
 * One SMMLAR and one SSAT on Arm. */
static inline int8_t mcuf_requantise(int32_t acc, int32_t multiplier, int32_t zero_point) {
  return mcuf_sat8(zero_point + mcuf_mulhi_round(acc, multiplier));
}

/* Number of leading zero bits; 32 for 0. */
static inline int32_t mcuf_clz32(uint32_t value) {
#if defined(__GNUC__)
  return value == 0 ? 32 : __builtin_clz(value);
#else
  int32_t n = 0;
  if (value == 0) return 32;
  while (!(value & 0x80000000u)) {
    value <<= 1;
    ++n;
  }
  return n;
#endif
}

/* True if [a, a + a_bytes) and [b, b + b_bytes) share a byte. */
static inline bool mcuf_overlap(const void* a, size_t a_bytes, const void* b, size_t b_bytes) {
  const uintptr_t a0 = (uintptr_t)a, b0 = (uintptr_t)b;
  return a0 < b0 + b_bytes && b0 < a0 + a_bytes;
}

/* Checks the constants of a requantisation: |bias| <= MCUF_MAX_BIAS, multiplier >= 0. */
static inline mcuf_status mcuf_check_requantisation(const int32_t* bias, const int32_t* multiplier, int32_t channels) {
  if (bias == NULL || multiplier == NULL) return MCUF_ERROR_NULL;
  for (int32_t c = 0; c < channels; ++c) {
    if (bias[c] > MCUF_MAX_BIAS || bias[c] < -MCUF_MAX_BIAS || multiplier[c] < 0) return MCUF_ERROR_VALUE;
  }
  return MCUF_OK;
}

#endif /* MCUF_FIXED_POINT_H_ */
