// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_A_2023_MICRO_MICRO_CONTEXT_H_
#define MCUF_TESTS_A_2023_MICRO_MICRO_CONTEXT_H_

#include "tensorflow/lite/c/common.h"

namespace tflite {

#include "../../../../shared/micro_context.inc"

}  // namespace tflite

#endif  // MCUF_TESTS_A_2023_MICRO_MICRO_CONTEXT_H_
