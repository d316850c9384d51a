// SPDX-License-Identifier: Apache-2.0
//
// Which of an op's inputs its output may stand over, in order of preference, as the list in mcuformer_ops.h has it.
#ifndef MCUF_OVERWRITABLE_INPUTS_H_
#define MCUF_OVERWRITABLE_INPUTS_H_

#include <cstdint>

#include "mcuformer_ops.h"

namespace mcuformer {

constexpr int kMaxOverwritable = 2;

struct OverwritableInputs {
  const char* op;
  int8_t inputs[kMaxOverwritable];  // positions; -1: no more
};

#define MCUF_OVERWRITABLE(constant, name, registration, first, second) {constant, {first, second}},
constexpr OverwritableInputs kOverwritableInputs[] = {MCUF_OPS(MCUF_OVERWRITABLE)};
#undef MCUF_OVERWRITABLE

}  // namespace mcuformer

#endif  // MCUF_OVERWRITABLE_INPUTS_H_
