// SPDX-License-Identifier: Apache-2.0
//
// Turns a camera frame into the network's image: the largest part in the middle that has the image's shape, scaled by
// averaging, as int8. Rows are made on request, so an image in strips is never whole in memory.
#ifndef MCUFORMER_CAMERA_H_
#define MCUFORMER_CAMERA_H_

#include <stdint.h>

#include "models/model/model.h"

namespace mcuformer {

enum FrameFormat {
  kGrey,   // one byte per pixel
  kRgb565  // two bytes per pixel, the one with red first
};

struct Frame {
  const uint8_t* pixels;
  int32_t width, height;
  FrameFormat format;
};

// Adds a pixel to the sums of red, green and blue.
inline void AddPixel(const Frame& frame, int32_t x, int32_t y, uint32_t sums[3]) {
  const int32_t index = y * frame.width + x;
  if (frame.format == kGrey) {
    for (int c = 0; c < 3; ++c) sums[c] += frame.pixels[index];
    return;
  }
  const uint32_t high = frame.pixels[2 * index], low = frame.pixels[2 * index + 1];
  const uint32_t red = high >> 3, green = (high & 7) << 3 | low >> 5, blue = low & 31;
  sums[0] += red << 3 | red >> 2;
  sums[1] += green << 2 | green >> 4;
  sums[2] += blue << 3 | blue >> 2;
}

// Where output pixel `i` of `count` begins on a side of `size` pixels.
inline int32_t Begin(int32_t i, int32_t count, int32_t size) { return i * size / count; }

inline int32_t AtLeastOne(int32_t count) { return count < 1 ? 1 : count; }

// Rows [first_row, first_row + row_count) of the network's image. frame: a const Frame*. An mcuf_image_rows_fn; all
// rows at once fill model_image().
inline int32_t FrameRows(void* frame, int32_t first_row, int32_t row_count, int8_t* rows) {
  const Frame& source = *static_cast<const Frame*>(frame);
  int32_t width = source.width, height = source.height;
  if (width * MODEL_IMAGE_HEIGHT > height * MODEL_IMAGE_WIDTH) {
    width = AtLeastOne(height * MODEL_IMAGE_WIDTH / MODEL_IMAGE_HEIGHT);
  } else {
    height = AtLeastOne(width * MODEL_IMAGE_HEIGHT / MODEL_IMAGE_WIDTH);
  }
  const int32_t left = (source.width - width) / 2, top = (source.height - height) / 2;
  for (int32_t row = first_row; row < first_row + row_count; ++row) {
    for (int32_t column = 0; column < MODEL_IMAGE_WIDTH; ++column) {
      const int32_t y0 = Begin(row, MODEL_IMAGE_HEIGHT, height), x0 = Begin(column, MODEL_IMAGE_WIDTH, width);
      const int32_t y1 = Begin(row + 1, MODEL_IMAGE_HEIGHT, height), x1 = Begin(column + 1, MODEL_IMAGE_WIDTH, width);
      uint32_t sums[3] = {0, 0, 0}, count = 0;
      int32_t y = y0;
      do {  // at least one pixel, even if the frame is smaller than the image
        int32_t x = x0;
        do {
          AddPixel(source, left + x, top + y, sums);
          ++count;
        } while (++x < x1);
      } while (++y < y1);
      if (MODEL_IMAGE_CHANNELS == 1) {
        const uint32_t grey = (77 * (sums[0] / count) + 150 * (sums[1] / count) + 29 * (sums[2] / count)) >> 8;
        *rows++ = static_cast<int8_t>(static_cast<int32_t>(grey) - 128);
      } else {
        for (int c = 0; c < 3; ++c) *rows++ = static_cast<int8_t>(static_cast<int32_t>(sums[c] / count) - 128);
      }
    }
  }
  return row_count;
}

// The int8 output for a frame.
inline mcuf_status Invoke(Frame* frame, int8_t* output) {
#ifdef MODEL_STRIP_ROWS
  return model_invoke_strips(FrameRows, frame, output);
#else
  FrameRows(frame, 0, MODEL_IMAGE_HEIGHT, model_image());
  return model_invoke(model_image(), output);
#endif
}

#ifdef MODEL_CLASSES
// The int8 logits of a frame.
inline mcuf_status Classify(Frame* frame, int8_t* logits) { return Invoke(frame, logits); }

// The class with the largest logit.
inline int Best(const int8_t* logits) {
  int best = 0;
  for (int i = 1; i < MODEL_CLASSES; ++i) best = logits[i] > logits[best] ? i : best;
  return best;
}
#else
// The int8 embedding of a frame, MODEL_EMBEDDING_LENGTH values.
inline mcuf_status Embed(Frame* frame, int8_t* embedding) { return Invoke(frame, embedding); }
#endif

}  // namespace mcuformer

#endif  // MCUFORMER_CAMERA_H_
