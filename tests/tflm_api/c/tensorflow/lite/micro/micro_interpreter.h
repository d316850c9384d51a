// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_C_MICRO_MICRO_INTERPRETER_H_
#define MCUF_TESTS_C_MICRO_MICRO_INTERPRETER_H_

#include "tensorflow/lite/micro/memory_planner/micro_memory_planner.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace tflite {
namespace micro {

#include "../../../../shared/micro_interpreter.inc"

}  // namespace micro
}  // namespace tflite

#endif  // MCUF_TESTS_C_MICRO_MICRO_INTERPRETER_H_
