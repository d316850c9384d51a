// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_A_2023_MICRO_MICRO_MUTABLE_OP_RESOLVER_H_
#define MCUF_TESTS_A_2023_MICRO_MICRO_MUTABLE_OP_RESOLVER_H_

#include "tensorflow/lite/c/common.h"

namespace tflite {

class MicroOpResolver {
 public:
  virtual ~MicroOpResolver() {}
};

template <unsigned int capacity>
class MicroMutableOpResolver : public MicroOpResolver {
 public:
  TfLiteStatus AddCustom(const char* name, TfLiteRegistration* registration);
};

}  // namespace tflite

#endif  // MCUF_TESTS_A_2023_MICRO_MICRO_MUTABLE_OP_RESOLVER_H_
