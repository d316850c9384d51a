// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_A_MICRO_MICRO_ERROR_REPORTER_H_
#define MCUF_TESTS_A_MICRO_MICRO_ERROR_REPORTER_H_

#include "tensorflow/lite/core/api/error_reporter.h"

void MicroPrintf(const char* format, ...);

namespace tflite {

ErrorReporter* GetMicroErrorReporter();

}  // namespace tflite

#endif  // MCUF_TESTS_A_MICRO_MICRO_ERROR_REPORTER_H_
