// SPDX-License-Identifier: Apache-2.0
//
// What the camera sketches do with a frame: classify it, and print class, confidence and time.
#ifndef MCUFORMER_REPORT_H_
#define MCUFORMER_REPORT_H_

#include <Arduino.h>

#include "MCUFormerCamera.h"
#include "models/model/model_confidence.h"

namespace mcuformer {

// Prints "class, 88 %, 41250 us" on Serial. Returns how sure the network is, in thousandths; 0 after an error, which it
// prints.
inline int32_t Report(Frame* frame) {
  int8_t logits[MODEL_CLASSES];
  const unsigned long start = micros();
  const mcuf_status status = Classify(frame, logits);
  const unsigned long duration = micros() - start;
  if (status != MCUF_OK) {
    Serial.print("error ");
    Serial.println(static_cast<int>(status));
    return 0;
  }
  const int best = Best(logits);
  const int32_t confidence = model_confidence(logits, best);
  Serial.print(model_class_names[best]);
  Serial.print(", ");
  Serial.print(static_cast<int>(confidence / 10));
  Serial.print(" %, ");
  Serial.print(duration);
  Serial.println(" us");
  return confidence;
}

}  // namespace mcuformer

#endif  // MCUFORMER_REPORT_H_
