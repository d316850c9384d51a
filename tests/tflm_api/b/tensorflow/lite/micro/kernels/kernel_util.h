// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_B_MICRO_KERNELS_KERNEL_UTIL_H_
#define MCUF_TESTS_B_MICRO_KERNELS_KERNEL_UTIL_H_

#include "tensorflow/lite/micro/micro_common.h"

namespace tflite {

TFLMRegistration RegisterOp(void* (*init)(TfLiteContext* context, const char* buffer, size_t length),
                            TfLiteStatus (*prepare)(TfLiteContext* context, TfLiteNode* node),
                            TfLiteStatus (*invoke)(TfLiteContext* context, TfLiteNode* node),
                            void (*free)(TfLiteContext* context, void* buffer) = nullptr,
                            void (*reset)(TfLiteContext* context, void* buffer) = nullptr);

TFLMInferenceRegistration RegisterOp(TfLiteStatus (*invoke)(TfLiteContext* context, TfLiteNode* node),
                                     void (*reset)(TfLiteContext* context, void* buffer) = nullptr);

}  // namespace tflite

#endif  // MCUF_TESTS_B_MICRO_KERNELS_KERNEL_UTIL_H_
