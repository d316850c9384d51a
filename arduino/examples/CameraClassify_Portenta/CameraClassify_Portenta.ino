// SPDX-License-Identifier: Apache-2.0
//
// Classifies what the Vision Shield's camera sees, on an Arduino Portenta H7 (M7 core). Camera and Himax libraries come
// with Arduino's Mbed core. The green LED is lit while the network is sure.
#include <MCUFormer.h>
#include <MCUFormerReport.h>

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
  const int32_t confidence = mcuformer::Report(&frame);
  digitalWrite(LEDG, confidence >= SURE ? LOW : HIGH);
}
