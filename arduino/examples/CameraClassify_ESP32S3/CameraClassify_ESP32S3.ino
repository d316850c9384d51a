// SPDX-License-Identifier: Apache-2.0
//
// Classifies what the camera of a Seeed XIAO ESP32S3 Sense sees. The library esp_camera comes with Espressif's Arduino
// core. Choose a board with PSRAM and switch it on (Tools > PSRAM). The LED is lit while the network is sure.
//
// For another ESP32-S3 with a camera change the pins below.
#include <MCUFormer.h>
#include <MCUFormerReport.h>

#include "esp_camera.h"

static const int SURE = 600;  // of 1000
#if MODEL_IMAGE_CHANNELS == 1
static const pixformat_t FORMAT = PIXFORMAT_GRAYSCALE;
static const mcuformer::FrameFormat FRAME_FORMAT = mcuformer::kGrey;
#else
static const pixformat_t FORMAT = PIXFORMAT_RGB565;
static const mcuformer::FrameFormat FRAME_FORMAT = mcuformer::kRgb565;
#endif
#if MODEL_IMAGE_WIDTH <= 160 && MODEL_IMAGE_HEIGHT <= 120
static const framesize_t SIZE = FRAMESIZE_QQVGA;
#else
static const framesize_t SIZE = FRAMESIZE_QVGA;
#endif

static camera_config_t configuration() {
  camera_config_t config = {};
  config.pin_pwdn = -1;
  config.pin_reset = -1;
  config.pin_xclk = 10;
  config.pin_sccb_sda = 40;
  config.pin_sccb_scl = 39;
  config.pin_d7 = 48;
  config.pin_d6 = 11;
  config.pin_d5 = 12;
  config.pin_d4 = 14;
  config.pin_d3 = 16;
  config.pin_d2 = 18;
  config.pin_d1 = 17;
  config.pin_d0 = 15;
  config.pin_vsync = 38;
  config.pin_href = 47;
  config.pin_pclk = 13;
  config.xclk_freq_hz = 20000000;
  config.ledc_timer = LEDC_TIMER_0;
  config.ledc_channel = LEDC_CHANNEL_0;
  config.pixel_format = FORMAT;
  config.frame_size = SIZE;
  config.fb_count = 1;
  config.fb_location = CAMERA_FB_IN_PSRAM;
  config.grab_mode = CAMERA_GRAB_WHEN_EMPTY;
  return config;
}

void setup() {
  Serial.begin(115200);
  pinMode(LED_BUILTIN, OUTPUT);
  digitalWrite(LED_BUILTIN, HIGH);  // off
  const camera_config_t config = configuration();
  if (esp_camera_init(&config) != ESP_OK) {
    Serial.println("error: no camera found, or no PSRAM");
    for (;;) delay(1000);
  }
}

void loop() {
  camera_fb_t* taken = esp_camera_fb_get();
  if (taken == nullptr) {
    Serial.println("error: no frame");
    return;
  }
  mcuformer::Frame frame = {taken->buf, static_cast<int32_t>(taken->width), static_cast<int32_t>(taken->height),
                            FRAME_FORMAT};
  const int32_t confidence = mcuformer::Report(&frame);
  esp_camera_fb_return(taken);
  digitalWrite(LED_BUILTIN, confidence >= SURE ? LOW : HIGH);
}
