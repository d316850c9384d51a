/* SPDX-License-Identifier: Apache-2.0
 *
 * Sound to rows of int8 log-mel features, in a stream: samples in as they come, a row out when a frame is complete. An
 * image of a network is then one frame a row. Equal bit for bit to mcuformer/sound/log_mel.py, which says what is
 * computed. C99; no heap, no floats, no globals.
 *
 *   static int16_t samples[MODEL_FRONT_END_WINDOW];
 *   static int32_t spectrum[MODEL_FRONT_END_FFT];
 *   static mcuf_log_mel_state state = {samples, spectrum, 0};
 *
 *   while (count > 0) {
 *     const int32_t taken = mcuf_log_mel_push(&model_front_end, &state, sound, count);
 *     sound += taken, count -= taken;
 *     if (mcuf_log_mel_row(&model_front_end, &state, row)) use(row);
 *   } */
#ifndef MCUF_LOG_MEL_H_
#define MCUF_LOG_MEL_H_

#include "../core/mcuf_types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MCUF_LOG_MEL_MIN_FFT 64
#define MCUF_LOG_MEL_MAX_FFT 2048
#define MCUF_LOG_MEL_MAX_MELS 128
#define MCUF_LOG_MEL_LOG_STEPS 32 /* entries of the table of log2, an octave */

/* Generated with the model: its own tables, in flash. */
typedef struct {
  int32_t window;             /* samples of a frame, 1 .. fft */
  int32_t hop;                /* samples from frame to frame, 1 .. window */
  int32_t fft;                /* a power of two, MCUF_LOG_MEL_MIN_FFT .. MCUF_LOG_MEL_MAX_FFT */
  int32_t mels;               /* features of a row, 1 .. MCUF_LOG_MEL_MAX_MELS */
  int32_t first_bin;          /* of the FFT, in the lowest band; from 1 */
  int32_t floor;              /* log2 of a feature's energy, Q15, that becomes -128: 0 .. 2^21 */
  int32_t multiplier;         /* steps of the output for one of log2 in Q15, times 2^32; >= 0 */
  const int16_t* taper;       /* [window] Q15, from 0 */
  const int32_t* sine;        /* [fft] Q31: sin(2 pi i / fft) */
  const uint16_t* band_bins;  /* [mels + 1] bins between neighbouring corners of the triangles */
  const uint16_t* rise;       /* [all bins of the bands] Q15: height on the rising side, 0 .. 32768 */
  const uint16_t* log2_table; /* [MCUF_LOG_MEL_LOG_STEPS + 1] Q15: log2(1 + i / 32) */
} mcuf_log_mel_params;

/* A stream. Its memory is the caller's: 2 bytes a sample of the window and 4 bytes a point of the FFT. */
typedef struct {
  int16_t* samples;  /* [window] */
  int32_t* spectrum; /* [fft] scratch of mcuf_log_mel_row; free between its calls */
  int32_t filled;    /* samples held; 0 starts anew */
} mcuf_log_mel_state;

/* Checks everything that the functions below trust about params. */
MCUF_API mcuf_status mcuf_log_mel_check(const mcuf_log_mel_params* params);

/* Takes samples until a frame is complete; returns how many of `count` it took: 0 while a complete one waits. */
MCUF_API int32_t mcuf_log_mel_push(const mcuf_log_mel_params* params, mcuf_log_mel_state* state, const int16_t* samples,
                                   int32_t count);

/* If a frame is complete: writes its features to row, int8 [mels], moves on by a hop, and returns 1. Else returns 0. */
MCUF_API int32_t mcuf_log_mel_row(const mcuf_log_mel_params* params, mcuf_log_mel_state* state, int8_t* row);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_LOG_MEL_H_ */
