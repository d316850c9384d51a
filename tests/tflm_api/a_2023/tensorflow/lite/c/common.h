// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_A_2023_C_COMMON_H_
#define MCUF_TESTS_A_2023_C_COMMON_H_

#include <cstddef>
#include <cstdint>

#include "../../../../shared/types.inc"

struct TfLiteContext {
  void* impl_;
};

#include "../../../../shared/registration_before_2023.inc"

#endif  // MCUF_TESTS_A_2023_C_COMMON_H_
