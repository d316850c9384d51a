// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_C_C_COMMON_H_
#define MCUF_TESTS_C_C_COMMON_H_

#include <cstddef>
#include <cstdint>

namespace tflite {
namespace micro {

#include "../../../../shared/types.inc"

struct TfLiteContext {
  void* impl_;
};

}  // namespace micro
}  // namespace tflite

#endif  // MCUF_TESTS_C_C_COMMON_H_
