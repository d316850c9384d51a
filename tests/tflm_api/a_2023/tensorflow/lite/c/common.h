// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_A_2023_C_COMMON_H_
#define MCUF_TESTS_A_2023_C_COMMON_H_

#include <cstddef>
#include <cstdint>

#include "../../../../shared/types.inc"

struct TfLiteContext {
  void* impl_;
};

struct TfLiteRegistration {
  void* (*init)(TfLiteContext* context, const char* buffer, size_t length);
  void (*free)(TfLiteContext* context, void* buffer);
  TfLiteStatus (*prepare)(TfLiteContext* context, TfLiteNode* node);
  TfLiteStatus (*invoke)(TfLiteContext* context, TfLiteNode* node);
  const char* (*profiling_string)(const TfLiteContext* context, const TfLiteNode* node);
  int32_t builtin_code;
  const char* custom_name;
  int version;
};

#endif  // MCUF_TESTS_A_2023_C_COMMON_H_
