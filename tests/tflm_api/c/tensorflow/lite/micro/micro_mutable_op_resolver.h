// SPDX-License-Identifier: Apache-2.0
#ifndef MCUF_TESTS_C_MICRO_MICRO_MUTABLE_OP_RESOLVER_H_
#define MCUF_TESTS_C_MICRO_MICRO_MUTABLE_OP_RESOLVER_H_

#include "tensorflow/lite/micro/micro_common.h"

namespace tflite {
namespace micro {

#include "../../../../shared/micro_mutable_op_resolver.inc"

}  // namespace micro
}  // namespace tflite

#endif  // MCUF_TESTS_C_MICRO_MICRO_MUTABLE_OP_RESOLVER_H_
