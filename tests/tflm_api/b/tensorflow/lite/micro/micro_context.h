// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_B_MICRO_MICRO_CONTEXT_H_
#define MCUF_TESTS_B_MICRO_MICRO_CONTEXT_H_

#include "tensorflow/lite/c/common.h"

namespace tflite {

class MicroContext {
 public:
  virtual ~MicroContext() {}
  virtual void* AllocatePersistentBuffer(size_t bytes) = 0;
  virtual TfLiteStatus RequestScratchBufferInArena(size_t bytes, int* index) = 0;
  virtual void* GetScratchBuffer(int index) = 0;
  virtual TfLiteEvalTensor* GetEvalTensor(int tensor) = 0;
  virtual void* external_context() = 0;
};

inline MicroContext* GetMicroContext(const TfLiteContext* context) {
  return static_cast<MicroContext*>(context->impl_);
}

}  // namespace tflite

#endif  // MCUF_TESTS_B_MICRO_MICRO_CONTEXT_H_
