// SPDX-License-Identifier: Apache-2.0
//
// Staged weights (see core/mcuf_weight_source.h) in an op: the model has no weights tensor; options say where in the
// weights file they lie. Options are parsed again in every run: cheap next to reading the weights, while op data would
// cost arena.
#ifndef MCUF_KERNELS_STAGED_WEIGHTS_H_
#define MCUF_KERNELS_STAGED_WEIGHTS_H_

#include "../core/mcuf_weight_source.h"
#include "kernel_check.h"

namespace mcuformer {

// Checks the options tile_bytes and weights_offset of an op whose weights are staged, for StagedOptions.
void CheckStagedOptions(PrepareCheck* check, const Node* node);

// An integer option that Prepare has checked; 0 if it is missing.
int32_t CheckedOption(const Node* node, const char* key);

// Both, without source.
mcuf_staged_weights StagedOptions(const Node* node);

// The source of staged weights; logs an error if the firmware has not set it. *source stays as it is if weights are
// not staged (tile_bytes 0).
Status FindWeightSource(Context* context, const char* op, int32_t tile_bytes, const mcuf_weight_source** source);

}  // namespace mcuformer

#endif  // MCUF_KERNELS_STAGED_WEIGHTS_H_
