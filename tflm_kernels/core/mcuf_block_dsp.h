/* SPDX-License-Identifier: Apache-2.0
 *
 * The assembly kernels of Cortex-M cores with the DSP extension (mcuf_block_dsp_loops.S), and their arguments.
 *
 * All take activations as int16 pairs of inputs, within a pair token by token: [k / 2][tokens][2], and weights as pairs
 * of rows (mcuf_packing.h). One 32-bit word then holds two inputs of one token, and one word two inputs of two rows.
 * SMLAD with the word as it is adds 256 * hi + lo; SMLAD with its low bytes, SXTB16 of it, adds lo: one instruction
 * unpacks two rows. 4 tokens x 2 rows x 2 inputs take 12 instructions: 0.75 per multiply-accumulate, plus a fixed cost
 * per pair of rows.
 *
 * Arguments are structs that the kernels advance as they go. Offsets are written in the assembly as numbers and checked
 * in mcuf_block_dsp.c. Rows, weights and structs are 4-byte aligned. */
#ifndef MCUF_BLOCK_DSP_H_
#define MCUF_BLOCK_DSP_H_

#include "mcuf_target.h"
#include "mcuf_types.h"

#if MCUF_DSP

/* The most words (pairs of inputs) whose products a mixed accumulator holds before the rows are separated. */
#define MCUF_DSP_MOST_WORDS 256

/* What follows the products of a pair. */
enum {
  MCUF_FC_DSP_PLAIN,    /* requantise, store */
  MCUF_FC_DSP_GELU,     /* requantise, GELU, store */
  MCUF_FC_DSP_RESIDUAL, /* add the residual, requantise, store */
  MCUF_FC_DSP_ANY       /* more than one chunk, or a residual and a GELU */
};

/* A fully connected layer of some pairs of rows. */
typedef struct {
  const int16_t* rows;           /*  0 */
  const int32_t* bias;           /*  4 */
  int8_t* output;                /*  8  of the first token */
  int32_t to_multiplier;         /* 12  bytes from a bias to its multiplier */
  int32_t zero_point;            /* 16 */
  int32_t offsets[3];            /* 20  bytes to the other tokens, of output and residual: 0 for a missing fourth */
  const int8_t* output_end;      /* 32  where the first token's outputs end */
  const int8_t* weights;         /* 36 */
  int32_t entry_bytes;           /* 40  code bytes to skip on entry to an unrolled loop */
  int32_t finish;                /* 44  MCUF_FC_DSP_*; for one token 0 is plain, all else any */
  const int8_t* residual;        /* 48  or NULL */
  const int16_t* residual_scale; /* 52 */
  const int8_t* gelu;            /* 56  entry of value 0, or NULL */
  int32_t first_bytes;           /* 60  weight bytes of a pair before the first separation: see chunks_after_first() */
  int32_t more_chunks;           /* 64  chunks after the first, of as many words as suit the loop */
} mcuf_fc_dsp_args;

void mcuf_fc4_dsp(mcuf_fc_dsp_args* args); /* four tokens, or three */
void mcuf_fc1_dsp(mcuf_fc_dsp_args* args); /* one token; offsets are not read */

/* acc = start + products, int32 [pairs][2][tokens], at most MCUF_DSP_MOST_WORDS words per pair. */
typedef struct {
  const int16_t* rows;   /*  0 */
  int32_t bytes;         /*  4  weight bytes of a pair */
  const int32_t* start;  /*  8  acc itself, or zeros */
  int32_t start_bytes;   /* 12  from pair to pair: 0 for zeros */
  int32_t* acc;          /* 16 */
  int32_t pairs;         /* 20 */
  const int8_t* weights; /* 24 */
  int32_t entry_bytes;   /* 28 */
} mcuf_accumulate_dsp_args;

void mcuf_accumulate4_dsp(mcuf_accumulate_dsp_args* args);
void mcuf_accumulate2_dsp(mcuf_accumulate_dsp_args* args);
void mcuf_accumulate1_dsp(mcuf_accumulate_dsp_args* args);

/* Attention's weighted sum: tokens hold 15-bit numbers, so both rows are unpacked; weights are pairs of plain bytes. */
typedef struct {
  const int16_t* rows;   /*  0 */
  int32_t bytes;         /*  4 */
  const int32_t* scale;  /*  8  multiplier and shift of each token */
  const int8_t* weights; /* 12 */
  int8_t* output;        /* 16 */
  int32_t pairs;         /* 20 */
  int32_t zero_point;    /* 24 */
  int32_t stride;        /* 28 */
  int32_t entry_bytes;   /* 32 */
} mcuf_weigh_dsp_args;

/* entry_bytes of an unrolled loop of 16 steps of 52 bytes of code: one word per step, after one before the loop. */
#define MCUF_WEIGH_DSP_ENTRY(words) ((16 - ((words)-1) % 16) * 52)

void mcuf_weigh4_dsp(mcuf_weigh_dsp_args* args);
void mcuf_weigh1_dsp(mcuf_weigh_dsp_args* args);
/* The sums of one pair as they are, int32 [4][2] in output, those of its second row first. */
void mcuf_weigh4_sums_dsp(mcuf_weigh_dsp_args* args);

/* Softmax numerators of four rows: int16 [tokens / 2][4][2]; a surplus token is 0. */
typedef struct {
  const int32_t* scores; /*  0  [tokens rounded up to even, 4] */
  int16_t* numerators;   /*  4 */
  int32_t pairs;         /*  8  whole pairs of tokens */
  int32_t odd;           /* 12  1: with one more token */
  const int16_t* table;  /* 16  [1024] */
  int32_t factor;        /* 20  of score differences */
  int32_t multiplier;    /* 24 */
  uint32_t sums[4];      /* 28  result */
} mcuf_softmax_dsp_args;

void mcuf_softmax4_dsp(mcuf_softmax_dsp_args* args);

/* Expands int8 values to int16. Four rows of count values, three stride bytes apart and `fourth`, to
 * [(count + 1) / 2][4][2]; an odd count is filled with 0. */
void mcuf_expand4_dsp(const int8_t* source, int32_t stride, int32_t count, int16_t* target, const int8_t* fourth);

#endif /* MCUF_DSP */
#endif /* MCUF_BLOCK_DSP_H_ */
