// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_C_MICRO_KERNELS_KERNEL_UTIL_H_
#define MCUF_TESTS_C_MICRO_KERNELS_KERNEL_UTIL_H_

#include "tensorflow/lite/micro/micro_common.h"

namespace tflite {
namespace micro {

#include "../../../../../shared/register_op.inc"

}  // namespace micro
}  // namespace tflite

#endif  // MCUF_TESTS_C_MICRO_KERNELS_KERNEL_UTIL_H_
