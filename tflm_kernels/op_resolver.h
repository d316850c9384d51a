// SPDX-License-Identifier: Apache-2.0
//
// Adds all custom ops to a resolver:
//
//   tflite::MicroMutableOpResolver<mcuformer::kOpCount + 2> resolver;
//   if (mcuformer::AddMcuformerOps(resolver) != kTfLiteOk) return;
#ifndef MCUF_OP_RESOLVER_H_
#define MCUF_OP_RESOLVER_H_

#include "mcuformer_ops.h"

namespace mcuformer {

struct OpEntry {
  const char* name;
  Registration (*registration)();
};

// The one list of ops.
constexpr OpEntry kOps[] = {
    {kDecomposedPatchEmbedName, Register_DECOMPOSED_PATCH_EMBED},
    {kInPlaceFcName, Register_IN_PLACE_FC},
    {kIntAttentionName, Register_INT_ATTENTION},
    {kIntGeluName, Register_INT_GELU},
    {kIntLayerNormName, Register_INT_LAYER_NORM},
    {kStemConvName, Register_STEM_CONV},
    {kStreamedAttentionName, Register_STREAMED_ATTENTION},
    {kStreamedMlpName, Register_STREAMED_MLP},
    {kTokenMeanName, Register_TOKEN_MEAN},
};

// What the capacity of a MicroMutableOpResolver must leave for them.
constexpr unsigned kOpCount = sizeof(kOps) / sizeof(kOps[0]);

// Resolver: a MicroMutableOpResolver<N>. The error of its AddCustom where it has no room or an op is there
// already; ops added before that stay.
template <class Resolver>
Status AddMcuformerOps(Resolver& resolver) {
  for (const OpEntry& op : kOps) {
    Registration registration = op.registration();
    const Status status = resolver.AddCustom(op.name, &registration);
    if (status != kOk) return status;
  }
  return kOk;
}

}  // namespace mcuformer

#endif  // MCUF_OP_RESOLVER_H_
