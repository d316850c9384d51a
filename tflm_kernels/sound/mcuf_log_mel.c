/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_log_mel.h"

#include <string.h>

#include "../core/mcuf_fixed_point.h"

#define POWER_SHIFT 12 /* keeps the weighted sum of all bins below 2^63 */
#define LOG_BITS 15    /* of the fraction of log2 */

static int32_t log2_of(int32_t power_of_two) { return 31 - mcuf_clz32((uint32_t)power_of_two); }

mcuf_status mcuf_log_mel_check(const mcuf_log_mel_params* p) {
  if (p == NULL || p->taper == NULL || p->sine == NULL || p->band_bins == NULL || p->rise == NULL ||
      p->log2_table == NULL) {
    return MCUF_ERROR_NULL;
  }
  if (p->fft < MCUF_LOG_MEL_MIN_FFT || p->fft > MCUF_LOG_MEL_MAX_FFT || (p->fft & (p->fft - 1)) != 0 || p->window < 1 ||
      p->window > p->fft || p->hop < 1 || p->hop > p->window || p->mels < 1 || p->mels > MCUF_LOG_MEL_MAX_MELS ||
      p->first_bin < 1) {
    return MCUF_ERROR_SIZE;
  }
  int32_t bins = 0;
  for (int32_t b = 0; b <= p->mels; ++b) bins += p->band_bins[b];
  if (p->first_bin + bins > p->fft / 2) return MCUF_ERROR_SIZE;
  if (p->multiplier < 0 || p->floor < 0 || p->floor > 1 << 21) return MCUF_ERROR_VALUE;
  for (int32_t i = 0; i < bins; ++i) {
    if (p->rise[i] > 32768) return MCUF_ERROR_VALUE;
  }
  for (int32_t i = 0; i < p->window; ++i) {
    if (p->taper[i] < 0) return MCUF_ERROR_VALUE;
  }
  return MCUF_OK;
}

/* The last `bits` bits of a number in reverse. */
static inline int32_t reversed(int32_t value, int32_t bits) {
#if MCUF_DSP || MCUF_MVE
  uint32_t all;
  __asm__("rbit %0, %1" : "=r"(all) : "r"(value));
  return (int32_t)(all >> (32 - bits));
#else
  int32_t result = 0;
  for (int32_t i = 0; i < bits; ++i) result = result << 1 | (value >> i & 1);
  return result;
#endif
}

/* Samples under the window, two to a complex point, in bit-reversed order; zeros after them. */
static void load_frame(const mcuf_log_mel_params* p, const int16_t* samples, int32_t* z) {
  const int32_t points = p->fft / 2, pairs = p->window / 2, bits = log2_of(points), half = 1 << bits;
  const int16_t* taper = p->taper;
  int32_t i = 0;
  for (; i < pairs; ++i, samples += 2, taper += 2) {
    int32_t* const to = z + 2 * reversed(i, bits);
    to[0] = (samples[0] * taper[0] + half) >> (bits + 1);
    to[1] = (samples[1] * taper[1] + half) >> (bits + 1);
  }
  for (; i < points; ++i) {
    int32_t* const to = z + 2 * reversed(i, bits);
    to[0] = i == pairs && p->window % 2 == 1 ? (samples[0] * taper[0] + half) >> (bits + 1) : 0;
    to[1] = 0;
  }
}

typedef struct {
  int32_t re, im;
} complex_value;

/* Half of z * (c - i s). */
static inline complex_value turned(const int32_t* z, int32_t s, int32_t c) {
  complex_value t;
  t.re = mcuf_mulhi_round(z[0], c) + mcuf_mulhi_round(z[1], s);
  t.im = mcuf_mulhi_round(z[1], c) - mcuf_mulhi_round(z[0], s);
  return t;
}

/* A radix-4 butterfly on four complex values, `quarter` int32 apart: transforms of samples 0, 2, 1 and 3 modulo 4. The
 * last three come turned, as halves if twice is 2. */
static inline void butterfly(int32_t* z, int32_t quarter, complex_value v2, complex_value v1, complex_value v3,
                             int32_t twice) {
  const int32_t re = z[0], im = z[1];
  const int32_t sum_re = re + twice * v2.re, less_re = re - twice * v2.re;
  const int32_t sum_im = im + twice * v2.im, less_im = im - twice * v2.im;
  const int32_t odd_re = v1.re + v3.re, odd_im = v1.im + v3.im, turn_re = v1.re - v3.re, turn_im = v1.im - v3.im;
  z[0] = sum_re + twice * odd_re;
  z[1] = sum_im + twice * odd_im;
  z += quarter;
  z[0] = less_re + twice * turn_im;
  z[1] = less_im - twice * turn_re;
  z += quarter;
  z[0] = sum_re - twice * odd_re;
  z[1] = sum_im - twice * odd_im;
  z += quarter;
  z[0] = less_re - twice * turn_im;
  z[1] = less_im + twice * turn_re;
}

/* Complex FFT of fft / 2 points in place, from bit-reversed order; not scaled. Radix 4, after one step of radix 2 if
 * log2(points) is odd. |result| < 2^30 for every input of load_frame. */
static void transform(const mcuf_log_mel_params* p, int32_t* z) {
  const int32_t points = p->fft / 2;
  const int32_t* const sine = p->sine;
  const int32_t* const cosine = sine + p->fft / 4; /* goes to 3/4 of a turn; the last index used is below that */
  int32_t size;                                    /* points of the transforms that are done */
  if (log2_of(points) % 2 == 1) {
    for (int32_t i = 0; i < 2 * points; i += 4) {
      const int32_t re = z[i + 2], im = z[i + 3];
      z[i + 2] = z[i] - re;
      z[i + 3] = z[i + 1] - im;
      z[i] += re;
      z[i + 1] += im;
    }
    size = 2;
  } else {
    for (int32_t i = 0; i < 2 * points; i += 8) {
      const complex_value v2 = {z[i + 2], z[i + 3]}, v1 = {z[i + 4], z[i + 5]}, v3 = {z[i + 6], z[i + 7]};
      butterfly(z + i, 2, v2, v1, v3, 1);
    }
    size = 4;
  }
  for (; size < points; size *= 4) {
    const int32_t step = p->fft / (4 * size), quarter = 2 * size;
    for (int32_t j = 0, index = 0; j < size; ++j, index += step) {
      const int32_t s1 = sine[index], c1 = cosine[index], s2 = sine[2 * index], c2 = cosine[2 * index];
      const int32_t s3 = sine[3 * index], c3 = cosine[3 * index];
      for (int32_t at = 2 * j; at < 2 * points; at += 4 * quarter) {
        int32_t* const v = z + at;
        const complex_value v2 = turned(v + quarter, s2, c2), v1 = turned(v + 2 * quarter, s1, c1);
        const complex_value v3 = turned(v + 3 * quarter, s3, c3);
        butterfly(v, quarter, v2, v1, v3, 2);
      }
    }
  }
}

/* The spectrum of the real samples from that of the complex points, in place. Bin 0 is left unused. */
static void split(const mcuf_log_mel_params* p, int32_t* z) {
  const int32_t points = p->fft / 2;
  const int32_t* const cosine = p->sine + p->fft / 4;
  for (int32_t k = 1; k <= points / 2; ++k) {
    int32_t* const low = z + 2 * k;
    int32_t* const high = z + 2 * (points - k);
    const int32_t even_re = (low[0] + high[0]) >> 1, even_im = (low[1] - high[1]) >> 1;
    const int32_t odd[2] = {low[1] + high[1], high[0] - low[0]}; /* twice the spectrum of the odd samples */
    const complex_value t = turned(odd, p->sine[k], cosine[k]);
    high[0] = even_re - t.re;
    high[1] = t.im - even_im;
    low[0] = even_re + t.re;
    low[1] = even_im + t.im;
  }
}

/* log2 in Q15 of an energy; 0 counts as 1. */
static int32_t log2_q15(uint64_t value, const uint16_t* table) {
  const uint32_t high = (uint32_t)(value >> 32);
  const int32_t zeros = high != 0 ? mcuf_clz32(high) : 32 + mcuf_clz32((uint32_t)value | 1u);
  const uint32_t top = (uint32_t)(((value != 0 ? value : 1) << zeros) >> 32);
  const uint32_t index = (top >> 26) & (MCUF_LOG_MEL_LOG_STEPS - 1), fraction = (top >> 10) & 0xFFFFu;
  const uint32_t low = table[index], step = table[index + 1] - low;
  return ((63 - zeros) << LOG_BITS) + (int32_t)(low + ((step * fraction + 0x8000u) >> 16));
}

/* Energies under the triangles, and their logarithms. A bin lies on the rising side of one triangle and on the falling
 * side of the one below it. */
static void features(const mcuf_log_mel_params* p, const int32_t* z, int8_t* row) {
  const uint16_t* rise = p->rise;
  const int32_t* bin = z + 2 * p->first_bin;
  uint64_t rising_below = 0;
  for (int32_t band = 0; band <= p->mels; ++band) {
    uint64_t rising = 0, all = 0;
    for (int32_t n = p->band_bins[band]; n > 0; --n, bin += 2, ++rise) {
      const uint64_t power = (uint64_t)((int64_t)bin[0] * bin[0] + (int64_t)bin[1] * bin[1]) >> POWER_SHIFT;
      all += power;
      rising += power * *rise;
    }
    if (band > 0) {
      const int32_t log = log2_q15(rising_below + (all << 15) - rising, p->log2_table);
      row[band - 1] = mcuf_requantise(log - p->floor, p->multiplier, -128);
    }
    rising_below = rising;
  }
}

int32_t mcuf_log_mel_push(const mcuf_log_mel_params* p, mcuf_log_mel_state* state, const int16_t* samples,
                          int32_t count) {
  const int32_t room = p->window - state->filled, taken = count < room ? count : room;
  if (taken <= 0) return 0;
  memcpy(state->samples + state->filled, samples, (size_t)taken * sizeof(int16_t));
  state->filled += taken;
  return taken;
}

int32_t mcuf_log_mel_row(const mcuf_log_mel_params* p, mcuf_log_mel_state* state, int8_t* row) {
  if (state->filled < p->window) return 0;
  load_frame(p, state->samples, state->spectrum);
  transform(p, state->spectrum);
  split(p, state->spectrum);
  features(p, state->spectrum, row);
  state->filled = p->window - p->hop;
  memmove(state->samples, state->samples + p->hop, (size_t)state->filled * sizeof(int16_t));
  return 1;
}
