// SPDX-License-Identifier: Apache-2.0
// What the sketches for Portenta, GIGA and Nicla Vision use of the Mbed core's library Camera.
#ifndef MCUF_TESTS_CAMERA_H_
#define MCUF_TESTS_CAMERA_H_

#include <stdint.h>

enum { CAMERA_GRAYSCALE = 0, CAMERA_BAYER = 1, CAMERA_RGB565 = 2 };
enum { CAMERA_R160x120 = 0, CAMERA_R320x240 = 1 };

class FrameBuffer {
 public:
  FrameBuffer(int32_t x, int32_t y, int32_t bytes_per_pixel);
  uint8_t* getBuffer();
};

class ImageSensor {};

class Camera {
 public:
  explicit Camera(ImageSensor& sensor);
  bool begin(int32_t resolution, int32_t format, int32_t frame_rate);
  int grabFrame(FrameBuffer& frame, uint32_t timeout);
};

#endif  // MCUF_TESTS_CAMERA_H_
