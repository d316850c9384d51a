// SPDX-License-Identifier: Apache-2.0
//
// Parts of the firmware on their own, for tests: the planner, the placement of buffers, the table of what ops may
// overwrite, the reader of options, the check of a model. None of them needs an interpreter.
#include <cstdlib>

#include "flexbuffer_options.h"
#include "model_check.h"
#include "overwritable_inputs.h"
#include "token_overwrite_planner.h"

// CheckModel; model: aligned to 16 bytes.
MCUF_EXPORT const char* mcuf_host_check_model(const void* model, size_t bytes) {
  return mcuformer::CheckModel(model, bytes);
}

// Row `index` of kOverwritableInputs: the op's name, nullptr past the end, and its input at place `place`, or -1.
MCUF_EXPORT const char* mcuf_host_overwriting_op(int index) {
  const int count = sizeof(mcuformer::kOverwritableInputs) / sizeof(mcuformer::kOverwritableInputs[0]);
  return index >= 0 && index < count ? mcuformer::kOverwritableInputs[index].op : nullptr;
}
MCUF_EXPORT int mcuf_host_overwritable_input(int index, int place) {
  return place < mcuformer::kMaxOverwritable ? mcuformer::kOverwritableInputs[index].inputs[place] : -1;
}

// PlaceBuffers on arrays of `count`, the first `tensors` of which are tensors; fixed: an offset, or -1. Writes offsets;
// returns the head's bytes, or minus the Placement.
MCUF_EXPORT int mcuf_host_place_buffers(int tensors, int count, const int* size, const int* first, const int* last,
                                        const int* overwrites, const int* fixed, int* offsets) {
  using namespace mcuformer;
  auto* buffers = static_cast<PlannedBuffer*>(calloc(static_cast<size_t>(count) + 1, sizeof(PlannedBuffer)));
  if (buffers == nullptr) return INT32_MIN;
  for (int i = 0; i < count; ++i) {
    buffers[i].size = size[i];
    buffers[i].first = first[i];
    buffers[i].last = last[i];
    buffers[i].overwrites = static_cast<int16_t>(overwrites[i]);
    buffers[i].fixed = fixed[i] != -1;
    buffers[i].offset = fixed[i];
  }
  int32_t head = 0;
  int culprit;
  const Placement result = PlaceBuffers(buffers, tensors, count, &head, &culprit);
  for (int i = 0; i < count; ++i) offsets[i] = buffers[i].offset;
  free(buffers);
  return result == Placement::kDone ? head : -static_cast<int>(result);
}

// The calls that TFLM makes to a TokenOverwritePlanner, in order; workspace: for Init. Writes offsets; returns the
// head's bytes, or -1 with a log line.
MCUF_EXPORT int mcuf_host_plan_model(const void* model, size_t model_bytes, unsigned char* workspace,
                                     int workspace_bytes, int count, const int* size, const int* first, const int* last,
                                     const int* fixed, int* offsets) {
  using namespace mcuformer;
  mcuf_host_clear_log();
  TokenOverwritePlanner planner(model, model_bytes);
  if (planner.Init(workspace, workspace_bytes) != kOk) return -1;
  for (int i = 0; i < count; ++i) {
    const Status status = fixed[i] == -1 ? planner.AddBuffer(size[i], first[i], last[i])
                                         : planner.AddBuffer(size[i], first[i], last[i], fixed[i]);
    if (status != kOk) return -1;
  }
  for (int i = 0; i < planner.GetBufferCount(); ++i) {
    if (planner.GetOffsetForBuffer(i, &offsets[i]) != kOk) return -1;
  }
  return static_cast<int>(planner.GetMaximumMemorySize());
}

// ReadInt of flexbuffer_options.h.
MCUF_EXPORT bool mcuf_flexbuffer_int(const uint8_t* buffer, size_t length, const char* key, int64_t* value) {
  return mcuformer::ReadInt(buffer, length, key, value);
}
