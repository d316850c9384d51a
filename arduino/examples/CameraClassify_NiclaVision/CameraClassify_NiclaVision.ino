// SPDX-License-Identifier: Apache-2.0
//
// Classifies what the camera of an Arduino Nicla Vision sees. The libraries Camera and GC2145 come with Arduino's Mbed
// core. The green LED is lit while the network is sure.
#include <MCUFormer.h>
#include <MCUFormerReport.h>

#include "camera.h"
#include "gc2145.h"

static const int SURE = 600;  // of 1000
#if MODEL_IMAGE_WIDTH <= 160 && MODEL_IMAGE_HEIGHT <= 120
static const int SIZE = CAMERA_R160x120, WIDTH = 160, HEIGHT = 120;
#else
static const int SIZE = CAMERA_R320x240, WIDTH = 320, HEIGHT = 240;
#endif

static GC2145 sensor;
static Camera camera(sensor);
static FrameBuffer frameBuffer(WIDTH, HEIGHT, 2);

void setup() {
  Serial.begin(115200);
  pinMode(LEDG, OUTPUT);
  digitalWrite(LEDG, HIGH);  // off
  if (!camera.begin(SIZE, CAMERA_RGB565, 30)) {
    Serial.println("error: no camera found");
    for (;;) delay(1000);
  }
}

void loop() {
  if (camera.grabFrame(frameBuffer, 3000) != 0) {
    Serial.println("error: no frame within 3 s");
    return;
  }
  mcuformer::Frame frame = {frameBuffer.getBuffer(), WIDTH, HEIGHT, mcuformer::kRgb565};
  const int32_t confidence = mcuformer::Report(&frame);
  digitalWrite(LEDG, confidence >= SURE ? LOW : HIGH);
}
