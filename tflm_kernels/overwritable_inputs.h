// SPDX-License-Identifier: Apache-2.0
//
// Which of an op's inputs its output may stand over, in order of preference. The converter's modules say the same
// in OVERWRITES; a test compares.
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

// Ops that are not here overwrite nothing.
constexpr OverwritableInputs kOverwritableInputs[] = {
    {kDecomposedPatchEmbedName, {0, -1}}, {kInPlaceFcName, {5, 0}},  // the residual stream first, else the input tokens
    {kIntAttentionName, {0, -1}},         {kIntGeluName, {0, -1}},     {kIntLayerNormName, {0, -1}},
    {kStreamedAttentionName, {0, -1}},    {kStreamedMlpName, {0, -1}}, {kTokenMeanName, {0, -1}},
};

}  // namespace mcuformer

#endif  // MCUF_OVERWRITABLE_INPUTS_H_
