/* SPDX-License-Identifier: Apache-2.0
 *
 * The levels of a streamed stem (mcuf_streamed_stem_s8.h), and what makes their rows. Internal to the C kernels. */
#ifndef MCUF_STEM_LEVELS_H_
#define MCUF_STEM_LEVELS_H_

#include "mcuf_stem_conv_s8.h"
#include "mcuf_streamed_stem_s8.h"

#define MCUF_STEM_PAIR MCUF_STREAMED_STEM_STRIP_ROWS /* rows of a level that one row of the next covers */
#define MCUF_STEM_RING 3                             /* rows of h that a row of a block's y is made of */

static inline int32_t mcuf_least(int32_t a, int32_t b) { return a < b ? a : b; }

/* A side of a level, pixels, by that of the image: halved `level` times, rounded up. */
static inline int32_t mcuf_stem_side(int32_t image_side, int32_t level) {
  return (image_side + (1 << level) - 1) >> level;
}

/* Bytes of a level's rows, of `row` bytes each, of which it has `height`: a pair, and the row before it, which a pair
 * that no other follows does not leave behind. A block's row of the next pair is needed where one is kept. */
static inline int32_t mcuf_stem_pair_bytes(int32_t height, int32_t row) {
  return mcuf_least(height, MCUF_STEM_PAIR) * row;
}
static inline int32_t mcuf_stem_kept_bytes(int32_t height, int32_t row) { return height > MCUF_STEM_PAIR ? row : 0; }
static inline int32_t mcuf_stem_ring_bytes(int32_t height, int32_t row) {
  return mcuf_least(height, MCUF_STEM_RING) * row;
}

/* Bytes of a block that `pixels` pixels go through, c -> hidden -> c, and of a pixel outside the level. */
static inline int32_t mcuf_stem_block_bytes(int32_t c, int32_t hidden, int32_t pixels) {
  return pixels * mcuf_round_up_even(c < hidden ? hidden : c) * (int32_t)sizeof(int16_t) + hidden;
}

/* Pixels of a row of `columns` that are taken together: three would take the room of four. */
static inline int32_t mcuf_stem_at_once(int32_t pixels_at_once, int32_t columns) {
  const int32_t room = mcuf_least(pixels_at_once, columns);
  return room == 3 ? 2 : room;
}

/* The block behind convolution m, or NULL. */
static inline const mcuf_stem_block* mcuf_stem_block_of(const mcuf_streamed_stem_params* p, int32_t m) {
  return p->blocks != NULL && m + 1 < p->conv_count && p->blocks[m].hidden > 0 ? &p->blocks[m] : NULL;
}

/* Convolution m by itself. */
mcuf_stem_conv_params mcuf_stem_conv_of(const mcuf_streamed_stem_params* p, int32_t m);

/* Row `row` of what a convolution makes: of a pair of its input's rows, and the one kept before it. */
void mcuf_stem_make_row(const mcuf_stem_conv_params* conv, const int8_t* kept, const int8_t* pair, int32_t row,
                        int32_t pixels_at_once, int16_t* block, int8_t* output);

/* A run: where the rows of all levels lie. */
typedef struct {
  const mcuf_streamed_stem_params* p;
  int16_t* block;
  int8_t* pairs;  /* of level 1 on */
  int8_t* kept;   /* of all levels */
  int8_t* blocks; /* of each block, the row of the next pair, then those of h */
  int8_t* tokens; /* of the image */
} mcuf_stem_run;

/* mcuf_stem_blocks: the kernels that params point to. */
struct mcuf_stem_block_kernels {
  mcuf_status (*check)(const mcuf_streamed_stem_params* p);
  /* Image rows 2 row and 2 row + 1 are there: makes the rows of all levels that follow from them. */
  void (*rise)(const mcuf_stem_run* run, const int8_t* pair, int32_t row);
};

#endif /* MCUF_STEM_LEVELS_H_ */
