// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_A_CORE_API_ERROR_REPORTER_H_
#define MCUF_TESTS_A_CORE_API_ERROR_REPORTER_H_

#include <cstdarg>

namespace tflite {

class ErrorReporter {
 public:
  virtual ~ErrorReporter() {}
  virtual int Report(const char* format, va_list arguments) = 0;
};

}  // namespace tflite

#endif  // MCUF_TESTS_A_CORE_API_ERROR_REPORTER_H_
