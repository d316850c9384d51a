// SPDX-License-Identifier: Apache-2.0
//
// Where every activation and scratch buffer lies in the arena: converter/memory/plan.py on the device. Both give the
// same plan. No heap, no TFLM.
#ifndef MCUF_BUFFER_PLACEMENT_H_
#define MCUF_BUFFER_PLACEMENT_H_

#include <cstdint>

namespace mcuformer {

constexpr int32_t kBufferAlignment = 16;
constexpr int kMaxBuffers = INT16_MAX;

// 40 bytes, as in TFLM's own planner. The fields that the caller fills in come first.
struct PlannedBuffer {
  int32_t size;        // bytes, a multiple of kBufferAlignment
  int32_t first;       // in use from this step
  int32_t last;        // to this one
  int32_t tensor;      // the caller's
  int32_t offset;      // out: bytes from the arena's start; in: the same if `fixed`
  int16_t overwrites;  // the buffer that this one overwrites, which is used for the last time in step `first`;
                       // kNoBuffer: none. Linked buffers share an offset; links between a fixed and another buffer
                       // are ignored. Out: the first of those that share it.
  bool fixed;          // stays where it is
  bool placed;         // internal, as all below
  int32_t best_offset;
  int32_t group_size;
  int32_t group_last;
  int16_t order;
};

constexpr int16_t kNoBuffer = -1;

enum class Placement {
  kDone,
  kBadLink,    // `overwrites` is out of range, does not end where this one begins, or is overwritten twice
  kBadOffset,  // a fixed offset is negative or not aligned
  kOverlap,    // two fixed buffers are in use at the same time, at the same place
  kTooLarge,   // more than 2 GB
};

// Places buffers[0 .. tensors) and then the scratch, buffers[tensors .. count), as TFLM does: largest first, the last
// requested first among equals. *head_bytes is where the highest ends. *culprit: the buffer that is wrong.
Placement PlaceBuffers(PlannedBuffer* buffers, int tensors, int count, int32_t* head_bytes, int* culprit);

}  // namespace mcuformer

#endif  // MCUF_BUFFER_PLACEMENT_H_
