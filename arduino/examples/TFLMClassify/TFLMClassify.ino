// SPDX-License-Identifier: Apache-2.0
//
// Classifies a few test images in flash, with TensorFlow Lite Micro's interpreter. Needs the library
// Arduino_TensorFlowLite.
//
// Remove the // to check the model first, for damage to the flash: 6 KB, and 123 instructions a byte of the model.
// #define MCUFORMER_CHECK_MODEL
#include <TensorFlowLite.h>

#include <MCUFormer.h>
#include <MCUFormerTFLM.h>

#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
#include "test_images.h"

using namespace tflite;
using namespace tflite::micro;  // where TFLM's names are since 2026-10

alignas(16) static uint8_t arena[model_tflite_arena_size];
static MicroInterpreter* interpreter = nullptr;

#ifdef MODEL_STRIP_ROWS
static const int8_t* image = nullptr;  // the one whose rows are given

static int32_t rowsOf(void*, int32_t firstRow, int32_t rowCount, int8_t* rows) {
  const int32_t row = MODEL_IMAGE_WIDTH * MODEL_IMAGE_CHANNELS;
  memcpy(rows, image + firstRow * row, static_cast<size_t>(rowCount * row));
  return rowCount;
}
#endif

static const int8_t* classify(const int8_t* pixels) {
#ifdef MODEL_STRIP_ROWS
  image = pixels;
#else
  memcpy(interpreter->input(0)->data.int8, pixels, model_tflite_image_bytes);
#endif
  return interpreter->Invoke() == kTfLiteOk ? interpreter->output(0)->data.int8 : nullptr;
}

static bool start() {
#ifdef MCUFORMER_CHECK_MODEL
  if (const char* wrong = mcuformer::CheckModel(model_tflite_data, model_tflite_data_len)) {
    Serial.print("error: the model: ");
    Serial.println(wrong);
    return false;
  }
#endif
  static MicroMutableOpResolver<mcuformer::kOpCount> resolver;
  if (mcuformer::AddMcuformerOps(resolver) != kTfLiteOk) return false;
  static MicroInterpreter runner(GetModel(model_tflite_data), resolver, arena, sizeof(arena));
  interpreter = &runner;
  if (runner.AllocateTensors() != kTfLiteOk) return false;
#ifdef MODEL_STRIP_ROWS
  static mcuf_external_context sources = {MCUF_EXTERNAL_CONTEXT_MAGIC, rowsOf, nullptr, {nullptr, nullptr}};
  if (runner.SetMicroExternalContext(&sources) != kTfLiteOk) return false;
#endif
  return true;
}

void setup() {
  Serial.begin(115200);
  while (!Serial) {
  }
  if (!start()) {
    Serial.println("error: the model does not start");
    for (;;) delay(1000);
  }
}

void loop() {
  for (int i = 0; i < TEST_IMAGES; ++i) {
    const unsigned long began = micros();
    const int8_t* logits = classify(test_images[i]);
    const unsigned long duration = micros() - began;
    if (logits == nullptr) {
      Serial.println("error: Invoke failed");
      continue;
    }
    int best = 0;
    for (int c = 1; c < MODEL_CLASSES; ++c) best = logits[c] > logits[best] ? c : best;
    Serial.print(test_labels[i]);
    Serial.print(": ");
    Serial.print(model_tflite_class_names[best]);
    Serial.print(", ");
    Serial.print(static_cast<int>(model_confidence(logits, best) / 10));
    Serial.print(" %, ");
    Serial.print(duration);
    Serial.println(" us");
  }
  delay(5000);
}
