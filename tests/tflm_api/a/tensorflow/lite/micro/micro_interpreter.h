// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_A_MICRO_MICRO_INTERPRETER_H_
#define MCUF_TESTS_A_MICRO_MICRO_INTERPRETER_H_

#include "tensorflow/lite/micro/memory_planner/micro_memory_planner.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace tflite {

class MicroAllocator {
 public:
  static MicroAllocator* Create(uint8_t* arena, size_t bytes, MicroMemoryPlanner* planner, ErrorReporter* reporter);
};

class MicroInterpreter {
 public:
  MicroInterpreter(const Model* model, const MicroOpResolver& resolver, uint8_t* arena, size_t bytes,
                   ErrorReporter* reporter);
  MicroInterpreter(const Model* model, const MicroOpResolver& resolver, MicroAllocator* allocator,
                   ErrorReporter* reporter);
  ~MicroInterpreter();
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  TfLiteTensor* input(size_t index);
  TfLiteTensor* output(size_t index);
};

}  // namespace tflite

#endif  // MCUF_TESTS_A_MICRO_MICRO_INTERPRETER_H_
