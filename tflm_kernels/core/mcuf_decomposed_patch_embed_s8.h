/* SPDX-License-Identifier: Apache-2.0
 *
 * DecomposedPatchEmbed: the convolution with kernel = stride = patch that makes tokens of an image, decomposed into
 * receptive fields of 16 pixels accumulated in a small int32 buffer for four tokens (MCUFormer, patch embedding
 * decomposition). Bias and position table are folded in:
 *
 *   acc[n, o] = bias[o] + sum_field sum_i weights[field, o, i] * patch[n, field, i]
 *             + position_scale[o] * position[n, o]
 *   output    = sat8(zero_point + mulhi_round(acc, multiplier[o]))
 *
 * Patches begin `padding` pixels before the image, and pixels outside it are 0; its zero point is not, so the position
 * table makes up for the difference. Pixels past the last whole patch are not read. Rows that are constants, the
 * prefix, stand before these tokens. Staged weights are read once per blocks_per_read blocks of four tokens in one row
 * of tokens: each block has its accumulators. */
#ifndef MCUF_DECOMPOSED_PATCH_EMBED_S8_H_
#define MCUF_DECOMPOSED_PATCH_EMBED_S8_H_

#include "mcuf_image_rows.h"
#include "mcuf_packing.h"
#include "mcuf_types.h"
#include "mcuf_weight_source.h"
#include "mcuf_wide_stream.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MCUF_FIELD_PIXELS 16
#define MCUF_MAX_PATCH_SIZE 256 /* pixels, each way */
#define MCUF_MAX_IMAGE_CHANNELS 64
#define MCUF_MAX_PATCH_INPUTS 65000 /* 65000 * 128 * 128 + MCUF_MAX_BIAS + 32767 * 128 < 2^31 */

/* The shape of a receptive field, by that of the patch, each side at least 1: 4x4 for a square, and wherever both sides
 * are at least 3; else as long as the patch is thin, so that a patch of 1x40 is 3 fields and not 10. */
typedef struct {
  int32_t height, width; /* pixels; their product is MCUF_FIELD_PIXELS */
} mcuf_patch_field;

static inline mcuf_patch_field mcuf_patch_field_of(int32_t patch_height, int32_t patch_width) {
  mcuf_patch_field field = {4, 4};
  if (patch_height != patch_width) {
    if (patch_height <= 2) {
      field.height = patch_height;
    } else if (patch_width <= 2) {
      field.height = MCUF_FIELD_PIXELS / patch_width;
    }
    field.width = MCUF_FIELD_PIXELS / field.height;
  }
  return field;
}

/* How padded patches are read. Params point to it, so that a program without padding has none of its code. */
typedef struct mcuf_patch_padding mcuf_patch_padding;
MCUF_API extern const mcuf_patch_padding mcuf_padded_patches;

typedef struct {
  int32_t image_height, image_width; /* pixels, from the patch's to MCUF_MAX_IMAGE_SIDE */
  int32_t channels;                  /* 1 .. MCUF_MAX_IMAGE_CHANNELS */
  /* Pixels, each 1 .. MCUF_MAX_PATCH_SIZE; their product times channels <= MCUF_MAX_PATCH_INPUTS. */
  int32_t patch_height, patch_width;
  int32_t embed_dim;  /* d, 1 .. MCUF_MAX_FEATURES */
  int32_t zero_point; /* of the output, -128 .. 127 */
  int32_t packing;    /* of the weights of each field, MCUF_PACKING_* */
  /* int8 [fields, d, field height, field width, channels], fields row by row; 0 past the patch's edge. In pairs d is
   * rounded up to even, and the address 4-byte aligned. */
  const int8_t* weights;
  const int32_t* bias;              /* [d] */
  const int32_t* multiplier;        /* [d] */
  const int8_t* position;           /* [rows * columns of patches, d], or NULL */
  const int16_t* position_scale;    /* [d], NULL with position */
  mcuf_staged_weights staged;       /* tile_bytes 0: none */
  int32_t blocks_per_read;          /* of four tokens, 1 .. those in a row of tokens; 1 if not staged */
  int32_t prefix_tokens;            /* 0 .. MCUF_MAX_TOKENS, with those of the patches */
  const int8_t* prefix;             /* [prefix_tokens, d], copied to the front of the output; NULL without */
  int32_t padding;                  /* pixels on every side of the image, 0 .. below both sides of the patch */
  const mcuf_patch_padding* padded; /* &mcuf_padded_patches; not read without padding */
  const mcuf_wide_stream* wide;     /* &mcuf_wide: the output is int16, zero_point 0; NULL: int8 */
  const int16_t* wide_prefix;       /* in place of prefix */
} mcuf_decomposed_patch_embed_params;

/* Checks everything that the kernel trusts about params. */
MCUF_API mcuf_status mcuf_decomposed_patch_embed_s8_check(const mcuf_decomposed_patch_embed_params* params);

/* Bytes of scratch, 4-byte aligned: accumulators of blocks_per_read blocks of four tokens, one field of four, a tile of
 * staged weights (tile_bytes 0: none), one row of tokens, or two with padding. output_bytes: of a value, 1, or 2 if it
 * is wide. */
MCUF_API int32_t mcuf_decomposed_patch_embed_s8_scratch_bytes(int32_t image_width, int32_t channels,
                                                              int32_t patch_width, int32_t embed_dim,
                                                              int32_t blocks_per_read, int32_t tile_bytes,
                                                              int32_t padding, int32_t output_bytes);

/* image [height, width, channels], output [prefix_tokens + rows * columns of patches, d], int8, or int16 if it is wide,
 * where a row has floor((width + 2 * padding) / patch_width) patches. output may equal image:
 * tokens then overwrite consumed image rows. If a row of tokens is larger than its image rows, rows go from the last to
 * the first; else from the first to the last, and move behind the prefix when all are done. No other overlap. */
MCUF_API mcuf_status mcuf_decomposed_patch_embed_s8(const mcuf_decomposed_patch_embed_params* params,
                                                    const int8_t* image, void* output, void* scratch);

/* The same for an image in strips, and of strip_rows, the rows requested at a time: the patch's height or a field's. */
MCUF_API mcuf_status mcuf_decomposed_patch_embed_strips_s8_check(const mcuf_decomposed_patch_embed_params* params,
                                                                 int32_t strip_rows);

/* Bytes of scratch for an image in strips, 4-byte aligned. Strips of less than a patch need accumulators for a whole
 * row of tokens, whatever blocks_per_read says. */
MCUF_API int32_t mcuf_decomposed_patch_embed_strips_s8_scratch_bytes(int32_t image_width, int32_t channels,
                                                                     int32_t patch_height, int32_t patch_width,
                                                                     int32_t embed_dim, int32_t blocks_per_read,
                                                                     int32_t tile_bytes, int32_t strip_rows,
                                                                     int32_t padding);

/* The same from an image that is never whole in memory. Rows that no patch covers are not requested. output overlaps
 * nothing. MCUF_ERROR_SIZE for other strip_rows, MCUF_ERROR_SOURCE if rows_fn or the source of weights fails. */
MCUF_API mcuf_status mcuf_decomposed_patch_embed_strips_s8(const mcuf_decomposed_patch_embed_params* params,
                                                           int32_t strip_rows, mcuf_image_rows_fn rows_fn, void* user,
                                                           void* output, void* scratch);

#ifdef __cplusplus
}
#endif

#endif /* MCUF_DECOMPOSED_PATCH_EMBED_S8_H_ */
