// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_B_MICRO_KERNELS_KERNEL_UTIL_H_
#define MCUF_TESTS_B_MICRO_KERNELS_KERNEL_UTIL_H_

#include "tensorflow/lite/micro/micro_common.h"

namespace tflite {

#include "../../../../../shared/register_op.inc"

}  // namespace tflite

#endif  // MCUF_TESTS_B_MICRO_KERNELS_KERNEL_UTIL_H_
