// SPDX-License-Identifier: Apache-2.0
//
// Classifies what the Vision Shield's camera sees, on an Arduino Portenta H7 (M7 core). Camera and Himax libraries come
// with Arduino's Mbed core. The green LED is lit while the network is sure.
#include <MCUFormer.h>
#include <MCUFormerCamera.h>

#include "camera.h"

// The first Vision Shields have an HM01B0, later ones an HM0360.
#ifdef VISION_SHIELD_HM0360
#include "hm0360.h"
static HM0360 himax;
#else
#include "himax.h"
static HM01B0 himax;
#endif

static const int SURE = 600;  // of 1000
static const int WIDTH = 320, HEIGHT = 240;

static Camera camera(himax);
static FrameBuffer frameBuffer(WIDTH, HEIGHT, 1);

void setup() {
  Serial.begin(115200);
  pinMode(LEDG, OUTPUT);
  digitalWrite(LEDG, HIGH);  // off
  if (!camera.begin(CAMERA_R320x240, CAMERA_GRAYSCALE, 30)) {
    Serial.println("error: no camera found");
    for (;;) delay(1000);
  }
}

void loop() {
  if (camera.grabFrame(frameBuffer, 3000) != 0) {
    Serial.println("error: no frame within 3 s");
    return;
  }
  mcuformer::Frame frame = {frameBuffer.getBuffer(), WIDTH, HEIGHT, mcuformer::kGrey};
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
  digitalWrite(LEDG, confidence >= SURE ? LOW : HIGH);
  Serial.print(model_class_names[best]);
  Serial.print(", ");
  Serial.print(confidence / 10);
  Serial.print(" %, ");
  Serial.print(duration);
  Serial.println(" us");
}
