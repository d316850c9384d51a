// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_C_MICRO_MICRO_CONTEXT_H_
#define MCUF_TESTS_C_MICRO_MICRO_CONTEXT_H_

#include "tensorflow/lite/c/common.h"

namespace tflite {
namespace micro {

#include "../../../../shared/micro_context.inc"

}  // namespace micro
}  // namespace tflite

#endif  // MCUF_TESTS_C_MICRO_MICRO_CONTEXT_H_
