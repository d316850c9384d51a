// SPDX-License-Identifier: Apache-2.0
// What CameraClassify_Nano33BLESense uses of the library Arduino_OV767X.
#ifndef MCUF_TESTS_ARDUINO_OV767X_H_
#define MCUF_TESTS_ARDUINO_OV767X_H_

enum { YUV422 = 0, RGB444 = 1, RGB565 = 2, GRAYSCALE = 4 };
enum { VGA = 0, CIF = 1, QVGA = 2, QCIF = 3, QQVGA = 4 };
enum { OV7670 = 0, OV7675 = 1 };  // not in 0.0.2

class OV767X {
 public:
  int begin(int resolution, int format, int fps, int camera_name = OV7670);
  void readFrame(void* buffer);
};

extern OV767X Camera;

#endif  // MCUF_TESTS_ARDUINO_OV767X_H_
