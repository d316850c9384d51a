// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_B_MICRO_MICRO_COMMON_H_
#define MCUF_TESTS_B_MICRO_MICRO_COMMON_H_

#include "tensorflow/lite/c/common.h"

#include "../../../../shared/registration_since_2023.inc"

#endif  // MCUF_TESTS_B_MICRO_MICRO_COMMON_H_
