// SPDX-License-Identifier: Apache-2.0
//
// Classifies what an OV7675 or OV7670 camera sees, on an Arduino Nano 33 BLE Sense. Needs the library Arduino_OV767X.
// The LED is lit while the network is sure.
//
// The Sense kit's camera is an OV7675. Arduino_OV767X knows it since 2023, which no release has: install the library
// from https://github.com/arduino-libraries/Arduino_OV767X. For an OV7670, where the Library Manager's 0.0.2 will do,
// remove the // here; with the other camera's name the picture is off its centre.
// #define CAMERA_IS_OV7670
#include <Arduino_OV767X.h>
#include <MCUFormer.h>
#include <MCUFormerReport.h>

static const int SURE = 600;  // of 1000

// The smallest frame that is no smaller than the image of the network, or else 176x144.
#if MODEL_IMAGE_WIDTH <= 160 && MODEL_IMAGE_HEIGHT <= 120
static const int SIZE = QQVGA, WIDTH = 160, HEIGHT = 120;
#else
static const int SIZE = QCIF, WIDTH = 176, HEIGHT = 144;
#endif
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
#ifdef CAMERA_IS_OV7670
  const int found = Camera.begin(SIZE, FORMAT, 5);
#else
  const int found = Camera.begin(SIZE, FORMAT, 5, OV7675);
#endif
  if (!found) {
    Serial.println("error: no camera found");
    for (;;) delay(1000);
  }
}

void loop() {
  Camera.readFrame(pixels);
  mcuformer::Frame frame = {pixels, WIDTH, HEIGHT, FRAME_FORMAT};
  const int32_t confidence = mcuformer::Report(&frame);
  digitalWrite(LED_BUILTIN, confidence >= SURE ? HIGH : LOW);
}
