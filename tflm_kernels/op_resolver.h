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

#define MCUF_OP_ENTRY(constant, name, registration, first, second) {constant, registration},
constexpr OpEntry kOps[] = {MCUF_OPS(MCUF_OP_ENTRY)};
#undef MCUF_OP_ENTRY

// The capacity that a MicroMutableOpResolver must have for them.
constexpr unsigned kOpCount = sizeof(kOps) / sizeof(kOps[0]);

// Resolver: a MicroMutableOpResolver<N>. Returns AddCustom's error if the resolver is full or already has an op;
// ops added before stay.
template <class Resolver>
Status AddMcuformerOps(Resolver& resolver) {
#if !defined(MCUF_HOST_PLUGIN)
  MCUF_STATIC_MEMORY();  // not there: compile the kernels with the defines of this source
#if defined(TF_LITE_STRIP_ERROR_STRINGS)
  MCUF_ERROR_STRINGS();
#endif
#endif
  for (const OpEntry& op : kOps) {
    Registration registration = op.registration();
    const Status status = resolver.AddCustom(op.name, &registration);
    if (status != kOk) return status;
  }
  return kOk;
}

}  // namespace mcuformer

#endif  // MCUF_OP_RESOLVER_H_
