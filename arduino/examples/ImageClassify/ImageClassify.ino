// SPDX-License-Identifier: Apache-2.0
//
// Classifies a few test images in flash. Needs no other library.
#include <MCUFormer.h>

#include "test_images.h"

#ifdef MODEL_STRIP_ROWS
// Gives rows of an image: with a camera, this is where they would be captured.
static int32_t rowsOf(void* image, int32_t firstRow, int32_t rowCount, int8_t* rows) {
  const int32_t row = MODEL_IMAGE_WIDTH * MODEL_IMAGE_CHANNELS;
  memcpy(rows, static_cast<const int8_t*>(image) + firstRow * row, static_cast<size_t>(rowCount * row));
  return rowCount;
}
#endif

static mcuf_status classify(const int8_t* image, int8_t* logits) {
#ifdef MODEL_STRIP_ROWS
  return model_invoke_strips(rowsOf, const_cast<int8_t*>(image), logits);
#else
  return model_invoke(image, logits);
#endif
}

void setup() {
  Serial.begin(115200);
  while (!Serial) {
  }
}

void loop() {
  for (int i = 0; i < TEST_IMAGES; ++i) {
    int8_t logits[MODEL_CLASSES];
    const unsigned long start = micros();
    const mcuf_status status = classify(test_images[i], logits);
    const unsigned long duration = micros() - start;
    if (status != MCUF_OK) {
      Serial.print("error ");
      Serial.println(static_cast<int>(status));
      continue;
    }
    int best = 0;
    for (int c = 1; c < MODEL_CLASSES; ++c) best = logits[c] > logits[best] ? c : best;
    Serial.print(test_labels[i]);
    Serial.print(": ");
    Serial.print(model_class_names[best]);
    Serial.print(", ");
    Serial.print(static_cast<int>(model_confidence(logits, best) / 10));
    Serial.print(" %, ");
    Serial.print(duration);
    Serial.println(" us");
  }
  delay(5000);
}
