// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_A_C_COMMON_H_
#define MCUF_TESTS_A_C_COMMON_H_

#include <cstddef>
#include <cstdint>

#include "../../../../shared/types.inc"

struct TfLiteContext {
  void* impl_;
  void* (*AllocatePersistentBuffer)(TfLiteContext* context, size_t bytes);
  TfLiteStatus (*RequestScratchBufferInArena)(TfLiteContext* context, size_t bytes, int* index);
  void* (*GetScratchBuffer)(TfLiteContext* context, int index);
  TfLiteEvalTensor* (*GetEvalTensor)(const TfLiteContext* context, int tensor);
};

#include "../../../../shared/registration_before_2023.inc"

#endif  // MCUF_TESTS_A_C_COMMON_H_
