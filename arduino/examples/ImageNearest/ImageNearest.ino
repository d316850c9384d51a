// SPDX-License-Identifier: Apache-2.0
//
// Finds the stored embedding nearest to each of a few test images in flash, with a network without a head. Needs no
// other library.
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

static mcuf_status embed(const int8_t* image, int8_t* embedding) {
#ifdef MODEL_STRIP_ROWS
  return model_invoke_strips(rowsOf, const_cast<int8_t*>(image), embedding);
#else
  return model_invoke(image, embedding);
#endif
}

void setup() {
  Serial.begin(115200);
  while (!Serial) {
  }
}

void loop() {
  for (int i = 0; i < TEST_IMAGES; ++i) {
    static int8_t embedding[MODEL_EMBEDDING_LENGTH];
    const unsigned long start = micros();
    const mcuf_status status = embed(test_images[i], embedding);
    const unsigned long duration = micros() - start;
    if (status != MCUF_OK) {
      Serial.print("error ");
      Serial.println(static_cast<int>(status));
      continue;
    }
    Serial.print(test_labels[i]);
    Serial.print(": ");
#if MODEL_GALLERY
    int32_t cosine;
    Serial.print(model_gallery_names[model_nearest(embedding, &cosine)]);
    Serial.print(", cosine ");
    Serial.print(static_cast<int>(cosine));
    Serial.print("/1000, ");
#else
    Serial.print("no stored embeddings, ");  // mcuformer export --gallery FILE.npz
#endif
    Serial.print(duration);
    Serial.println(" us");
  }
  delay(5000);
}
