// SPDX-License-Identifier: Apache-2.0
// What AudioClassify_Nano33BLESense uses of the library PDM.
#ifndef MCUF_TESTS_PDM_H_
#define MCUF_TESTS_PDM_H_

#include <stddef.h>

class PDMClass {
 public:
  int begin(int channels, int sample_rate);
  int read(void* buffer, size_t size);
  void onReceive(void (*function)(void));
};

extern PDMClass PDM;

#endif  // MCUF_TESTS_PDM_H_
