// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_C_MICRO_MEMORY_PLANNER_MICRO_MEMORY_PLANNER_H_
#define MCUF_TESTS_C_MICRO_MEMORY_PLANNER_MICRO_MEMORY_PLANNER_H_

#include "tensorflow/lite/c/common.h"

namespace tflite {
namespace micro {

#include "../../../../../shared/micro_memory_planner.inc"

}  // namespace micro
}  // namespace tflite

#endif  // MCUF_TESTS_C_MICRO_MEMORY_PLANNER_MICRO_MEMORY_PLANNER_H_
