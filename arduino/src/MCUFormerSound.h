// SPDX-License-Identifier: Apache-2.0
//
// Turns a microphone's samples into the network's image, one frame a row, and keeps the last rows: so the last second
// can be classified as often as wanted. For a network that takes sound.
#ifndef MCUFORMER_SOUND_H_
#define MCUFORMER_SOUND_H_

#include <stdint.h>
#include <string.h>

#include "models/model/model.h"
#include "models/model/model_front_end.h"

namespace mcuformer {

class Sound {
 public:
  // Takes int16 samples, MODEL_FRONT_END_RATE a second; returns how many rows they completed.
  int32_t Push(const int16_t* samples, int32_t count) {
    mcuf_log_mel_state state = {samples_, spectrum_, filled_};
    int32_t made = 0;
    while (count > 0) {
      const int32_t taken = mcuf_log_mel_push(&model_front_end, &state, samples, count);
      samples += taken;
      count -= taken;
      if (!mcuf_log_mel_row(&model_front_end, &state, rows_[next_])) continue;
      next_ = next_ + 1 < MODEL_FRONT_END_FRAMES ? next_ + 1 : 0;
      if (known_ < MODEL_FRONT_END_FRAMES) ++known_;
      ++made;
    }
    filled_ = state.filled;
    return made;
  }

  // The int8 logits, or the embedding, of the last MODEL_FRONT_END_FRAMES rows; silence where there were not as many
  // yet.
  mcuf_status Classify(int8_t* logits) {
#ifdef MODEL_STRIP_ROWS
    return model_invoke_strips(Rows, this, logits);
#else
    Rows(this, 0, MODEL_FRONT_END_FRAMES, model_image());
    return model_invoke(model_image(), logits);
#endif
  }

  // Rows of the image, the oldest first. sound: a Sound*. An mcuf_image_rows_fn.
  static int32_t Rows(void* sound, int32_t first_row, int32_t row_count, int8_t* rows) {
    const Sound& self = *static_cast<const Sound*>(sound);
    for (int32_t i = 0; i < row_count; ++i, rows += MODEL_FRONT_END_MELS) {
      const int32_t row = first_row + i, place = (self.next_ + row) % MODEL_FRONT_END_FRAMES;
      if (row < MODEL_FRONT_END_FRAMES - self.known_) {
        memset(rows, -128, MODEL_FRONT_END_MELS);
      } else {
        memcpy(rows, self.rows_[place], MODEL_FRONT_END_MELS);
      }
    }
    return row_count;
  }

 private:
  int16_t samples_[MODEL_FRONT_END_WINDOW] = {};
  int32_t spectrum_[MODEL_FRONT_END_FFT] = {};
  int8_t rows_[MODEL_FRONT_END_FRAMES][MODEL_FRONT_END_MELS] = {};  // a ring: next_ is the oldest
  int32_t filled_ = 0, next_ = 0, known_ = 0;
};

#ifdef MODEL_CLASSES
// The class with the largest logit.
inline int Best(const int8_t* logits) {
  int best = 0;
  for (int i = 1; i < MODEL_CLASSES; ++i) best = logits[i] > logits[best] ? i : best;
  return best;
}
#endif

}  // namespace mcuformer

#endif  // MCUFORMER_SOUND_H_
