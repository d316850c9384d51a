// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_B_MICRO_MEMORY_PLANNER_MICRO_MEMORY_PLANNER_H_
#define MCUF_TESTS_B_MICRO_MEMORY_PLANNER_MICRO_MEMORY_PLANNER_H_

#include "tensorflow/lite/c/common.h"

namespace tflite {

#include "../../../../../shared/micro_memory_planner.inc"

}  // namespace tflite

#endif  // MCUF_TESTS_B_MICRO_MEMORY_PLANNER_MICRO_MEMORY_PLANNER_H_
