// SPDX-License-Identifier: Apache-2.0
//
// Classifies what an OV7675 or OV7670 camera sees, on an Arduino Nano 33 BLE Sense. Needs the library Arduino_OV767X.
// The LED is lit while the network is sure.
#include <Arduino_OV767X.h>
#include <MCUFormer.h>
#include <MCUFormerCamera.h>

static const int SURE = 600;  // of 1000

// QCIF, 176x144: the smallest frame of the OV7670.
static const int WIDTH = 176, HEIGHT = 144;
#if MODEL_IMAGE_CHANNELS == 1
static const int FORMAT = GRAYSCALE, PIXEL_BYTES = 1;
static const mcuformer::FrameFormat FRAME_FORMAT = mcuformer::kGrey;
#else
static const int FORMAT = RGB565, PIXEL_BYTES = 2;
static const mcuformer::FrameFormat FRAME_FORMAT = mcuformer::kRgb565;
#endif
static uint8_t pixels[WIDTH * HEIGHT * PIXEL_BYTES];

void setup() {
  Serial.begin(115200);
  pinMode(LED_BUILTIN, OUTPUT);
  if (!Camera.begin(QCIF, FORMAT, 5)) {
    Serial.println("error: no camera found");
    for (;;) delay(1000);
  }
}

void loop() {
  Camera.readFrame(pixels);
  mcuformer::Frame frame = {pixels, WIDTH, HEIGHT, FRAME_FORMAT};
  int8_t logits[MODEL_CLASSES];
  const unsigned long start = micros();
  const mcuf_status status = mcuformer::Classify(&frame, logits);
  const unsigned long duration = micros() - start;
  if (status != MCUF_OK) {
    Serial.print("error ");
    Serial.println(static_cast<int>(status));
    return;
  }
  const int best = mcuformer::Best(logits), confidence = model_confidence(logits, best);
  digitalWrite(LED_BUILTIN, confidence >= SURE ? HIGH : LOW);
  Serial.print(model_class_names[best]);
  Serial.print(", ");
  Serial.print(confidence / 10);
  Serial.print(" %, ");
  Serial.print(duration);
  Serial.println(" us");
}
