// SPDX-License-Identifier: Apache-2.0
//
// Classifies what a camera on the 20-pin connector of an Arduino GIGA R1 sees. The library Camera and those of the
// sensors come with Arduino's Mbed core. The green LED is lit while the network is sure.
//
// Remove the // of your camera; without, it is an OV7675, the one of Arduino's kits.
// #define CAMERA_IS_OV7670
// #define CAMERA_IS_GC2145
// #define CAMERA_IS_HM01B0
// #define CAMERA_IS_HM0360
#include <MCUFormer.h>
#include <MCUFormerReport.h>

#include "camera.h"
#if defined(CAMERA_IS_GC2145)
#include "gc2145.h"
static GC2145 sensor;
#elif defined(CAMERA_IS_HM01B0)
#include "himax.h"
static HM01B0 sensor;
#elif defined(CAMERA_IS_HM0360)
#include "hm0360.h"
static HM0360 sensor;
#elif defined(CAMERA_IS_OV7670)
#include "ov767x.h"
static OV7670 sensor;
#else
#include "ov767x.h"
static OV7675 sensor;
#endif

#if defined(CAMERA_IS_HM01B0) || defined(CAMERA_IS_HM0360)  // which see no colours
static const int FORMAT = CAMERA_GRAYSCALE, PIXEL_BYTES = 1;
static const mcuformer::FrameFormat FRAME_FORMAT = mcuformer::kGrey;
#else
static const int FORMAT = CAMERA_RGB565, PIXEL_BYTES = 2;
static const mcuformer::FrameFormat FRAME_FORMAT = mcuformer::kRgb565;
#endif

static const int SURE = 600;  // of 1000
#if MODEL_IMAGE_WIDTH <= 160 && MODEL_IMAGE_HEIGHT <= 120
static const int SIZE = CAMERA_R160x120, WIDTH = 160, HEIGHT = 120;
#else
static const int SIZE = CAMERA_R320x240, WIDTH = 320, HEIGHT = 240;
#endif

static Camera camera(sensor);
static FrameBuffer frameBuffer(WIDTH, HEIGHT, PIXEL_BYTES);

void setup() {
  Serial.begin(115200);
  pinMode(LEDG, OUTPUT);
  digitalWrite(LEDG, HIGH);  // off
  if (!camera.begin(SIZE, FORMAT, 30)) {
    Serial.println("error: no camera found");
    for (;;) delay(1000);
  }
}

void loop() {
  if (camera.grabFrame(frameBuffer, 3000) != 0) {
    Serial.println("error: no frame within 3 s");
    return;
  }
  mcuformer::Frame frame = {frameBuffer.getBuffer(), WIDTH, HEIGHT, FRAME_FORMAT};
  const int32_t confidence = mcuformer::Report(&frame);
  digitalWrite(LEDG, confidence >= SURE ? LOW : HIGH);
}
