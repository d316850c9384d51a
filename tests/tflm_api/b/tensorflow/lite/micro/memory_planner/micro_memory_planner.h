// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_B_MICRO_MEMORY_PLANNER_MICRO_MEMORY_PLANNER_H_
#define MCUF_TESTS_B_MICRO_MEMORY_PLANNER_MICRO_MEMORY_PLANNER_H_

#include "tensorflow/lite/c/common.h"

namespace tflite {

class MicroMemoryPlanner {
 public:
  MicroMemoryPlanner() {}
  virtual ~MicroMemoryPlanner() {}
  virtual TfLiteStatus AddBuffer(int size, int first, int last) = 0;
  virtual TfLiteStatus AddBuffer(int size, int first, int last, int offset) = 0;
  virtual size_t GetMaximumMemorySize() = 0;
  virtual int GetBufferCount() = 0;
  virtual TfLiteStatus GetOffsetForBuffer(int index, int* offset) = 0;
  virtual TfLiteStatus Init(unsigned char* scratch, int scratch_bytes) = 0;
  virtual bool preserves_all_tensors() const = 0;
  virtual void PrintMemoryPlan() {}
};

}  // namespace tflite

#endif  // MCUF_TESTS_B_MICRO_MEMORY_PLANNER_MICRO_MEMORY_PLANNER_H_
