// SPDX-License-Identifier: Apache-2.0
#include "staged_weights.h"

#include "../external_context.h"

namespace mcuformer {

int32_t CheckedOption(const Node* node, const char* key) {
  int64_t value = 0;
  return ReadOption(node, key, &value) ? static_cast<int32_t>(value) : 0;
}

void CheckStagedOptions(PrepareCheck* check, const Node* node) {
  if (!check->ok()) return;
  check->Require(CheckedOption(node, "tile_bytes") != 0,
                 "tensor 'weights' is missing, and so is option 'tile_bytes' of staged weights");
  check->Option("tile_bytes", 4, MCUF_MAX_TILE_BYTES);
  check->Option("weights_offset", 0, INT32_MAX);
}

mcuf_staged_weights StagedOptions(const Node* node) {
  const mcuf_staged_weights staged = {nullptr, CheckedOption(node, "tile_bytes"),
                                      CheckedOption(node, "weights_offset")};
  return staged;
}

Status FindWeightSource(Context* context, const char* op, int32_t tile_bytes, const mcuf_weight_source** source) {
  if (tile_bytes == 0) return kOk;
  const mcuf_external_context* sources = ExternalSources(context);
  if (sources == nullptr || sources->weights.read == nullptr) {
    MCUF_LOG(context, "%s: no source of weights: set an mcuf_external_context", op);
    return kError;
  }
  *source = &sources->weights;
  return kOk;
}

}  // namespace mcuformer
