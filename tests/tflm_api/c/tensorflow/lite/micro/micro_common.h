// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_C_MICRO_MICRO_COMMON_H_
#define MCUF_TESTS_C_MICRO_MICRO_COMMON_H_

#include "tensorflow/lite/c/common.h"

namespace tflite {
namespace micro {

#include "../../../../shared/registration_since_2023.inc"

}  // namespace micro
}  // namespace tflite

#endif  // MCUF_TESTS_C_MICRO_MICRO_COMMON_H_
