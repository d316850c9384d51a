/* SPDX-License-Identifier: Apache-2.0 */
#include "mcuf_decomposed_patch_embed_s8.h"

#include <string.h>

#include "mcuf_dot.h"
#include "mcuf_fixed_point.h"

#define FIELD_PIXELS (MCUF_FIELD_SIZE * MCUF_FIELD_SIZE)

mcuf_status mcuf_decomposed_patch_embed_s8_check(const mcuf_decomposed_patch_embed_params* p) {
  if (p->weights == NULL) return MCUF_ERROR_NULL;
  if (p->patch_size < 1 || p->patch_size > 256 || p->image_height < p->patch_size || p->image_height > 4096 ||
      p->image_width < p->patch_size || p->image_width > 4096 || p->channels < 1 || p->channels > 64 ||
      p->embed_dim < 1 || p->embed_dim > MCUF_MAX_FEATURES ||
      p->patch_size * p->patch_size * p->channels > 4 * MCUF_MAX_FEATURES ||
      (p->image_height / p->patch_size) * (p->image_width / p->patch_size) > MCUF_MAX_TOKENS) {
    return MCUF_ERROR_SIZE;
  }
  if (p->zero_point < -128 || p->zero_point > 127) return MCUF_ERROR_VALUE;
  if (p->position != NULL && p->position_scale == NULL) return MCUF_ERROR_NULL;
  return mcuf_check_requantisation(p->bias, p->multiplier, p->embed_dim);
}

/* Scratch: int32 accumulators [d rounded up to even, 4], int16 fields [4, 16 * channels], int8 tokens [columns, d] */
static int32_t accumulator_count(int32_t embed_dim) { return MCUF_TOKEN_BLOCK * ((embed_dim + 1) / 2 * 2); }

int32_t mcuf_decomposed_patch_embed_s8_scratch_bytes(int32_t image_width, int32_t channels, int32_t patch_size,
                                                     int32_t embed_dim) {
  return accumulator_count(embed_dim) * (int32_t)sizeof(int32_t) +
         MCUF_TOKEN_BLOCK * FIELD_PIXELS * channels * (int32_t)sizeof(int16_t) + image_width / patch_size * embed_dim;
}

/* One 4x4 field of a patch as int16, zeros past the patch's edge. patch: its first pixel. */
static void gather_field(const mcuf_decomposed_patch_embed_params* p, const int8_t* patch, int32_t field_y,
                         int32_t field_x, int16_t* target) {
  const int32_t left = p->patch_size - field_x;
  const int32_t run = (left < MCUF_FIELD_SIZE ? left : MCUF_FIELD_SIZE) * p->channels;
  const int32_t width = MCUF_FIELD_SIZE * p->channels;
  for (int32_t y = 0; y < MCUF_FIELD_SIZE; ++y, target += width) {
    const int32_t used = field_y + y < p->patch_size ? run : 0;
    if (used > 0) {
      const int8_t* row = patch + ((ptrdiff_t)(field_y + y) * p->image_width + field_x) * p->channels;
      mcuf_expand_s16(row, used, -128, target);
    }
    memset(target + used, 0, (size_t)(width - used) * sizeof(int16_t));
  }
}

mcuf_status mcuf_decomposed_patch_embed_s8(const mcuf_decomposed_patch_embed_params* p, const int8_t* image,
                                           int8_t* output, void* scratch) {
  const int32_t d = p->embed_dim, size = p->patch_size;
  const int32_t columns = p->image_width / size, rows = p->image_height / size;
  const int32_t image_row = p->image_width * p->channels; /* bytes */
  const int32_t k = FIELD_PIXELS * p->channels;
  const size_t token_row = (size_t)columns * (size_t)d;
  if (output != image && mcuf_overlap(output, (size_t)rows * token_row, image,
                                      (size_t)p->image_height * (size_t)image_row)) {
    return MCUF_ERROR_OVERLAP;
  }
  int32_t* acc = (int32_t*)scratch;
  int16_t* fields = (int16_t*)(acc + accumulator_count(d));
  int8_t* tokens = (int8_t*)(fields + (ptrdiff_t)MCUF_TOKEN_BLOCK * k);
  const bool grows = token_row > (size_t)size * (size_t)image_row;
  for (int32_t i = 0; i < rows; ++i) {
    const int32_t row = grows ? rows - 1 - i : i;
    const int8_t* patches = image + (ptrdiff_t)row * size * image_row;
    for (int32_t first = 0; first < columns; first += MCUF_TOKEN_BLOCK) {
      const int32_t left = columns - first;
      const int32_t count = left < MCUF_TOKEN_BLOCK ? left : MCUF_TOKEN_BLOCK;
      for (int32_t o = 0; o < d; ++o) {
        for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) acc[MCUF_TOKEN_BLOCK * o + t] = p->bias[o];
      }
      if (d % 2 != 0) memset(acc + (ptrdiff_t)MCUF_TOKEN_BLOCK * d, 0, MCUF_TOKEN_BLOCK * sizeof(int32_t));
      const int8_t* weights = p->weights;
      for (int32_t y = 0; y < size; y += MCUF_FIELD_SIZE) {
        for (int32_t x = 0; x < size; x += MCUF_FIELD_SIZE) {
          for (int32_t t = 0; t < MCUF_TOKEN_BLOCK; ++t) { /* a short block repeats its last token */
            const int32_t column = first + (t < count ? t : count - 1);
            gather_field(p, patches + (ptrdiff_t)column * size * p->channels, y, x, fields + (ptrdiff_t)t * k);
          }
          for (int32_t o = 0; o < d; o += 2, weights += 2 * k) {
            const int32_t second = o + 1 < d ? k : 0;
            mcuf_dot_4x2(fields, weights, weights + second, k, -128, acc + (ptrdiff_t)MCUF_TOKEN_BLOCK * o);
          }
          if (d % 2 != 0) weights -= k;
        }
      }
      for (int32_t o = 0; o < d; ++o) {
        for (int32_t t = 0; t < count; ++t) {
          const int32_t column = first + t;
          int32_t a = acc[MCUF_TOKEN_BLOCK * o + t];
          if (p->position != NULL) {
            a += (int32_t)p->position_scale[o] * p->position[((ptrdiff_t)row * columns + column) * d + o];
          }
          tokens[(ptrdiff_t)column * d + o] = mcuf_requantise(a, p->multiplier[o], p->zero_point);
        }
      }
    }
    memcpy(output + (ptrdiff_t)row * (ptrdiff_t)token_row, tokens, token_row);
  }
  return MCUF_OK;
}
