// SPDX-License-Identifier: Apache-2.0
//
// Plans a model's arena on the device: an op's output overwrites an input that it may overwrite and that is used for
// the last time there; everything else is packed around it. For models without an offline plan; if a model has one, its
// offsets are kept and checked.
//
//   mcuformer::TokenOverwritePlanner planner(model_data, model_data_len);
//   tflite::MicroAllocator* allocator = tflite::MicroAllocator::Create(arena, sizeof(arena), &planner);
//   tflite::MicroInterpreter interpreter(tflite::GetModel(model_data), resolver, allocator);
//
// The planner must live as long as the interpreter, and plans only that model. It logs one line and AllocateTensors
// fails if it cannot read the file, if the buffers are not the model's, or if two tensors of an offline plan collide.
#ifndef MCUF_TOKEN_OVERWRITE_PLANNER_H_
#define MCUF_TOKEN_OVERWRITE_PLANNER_H_

#include "buffer_placement.h"
#include "tflm_compat.h"

namespace mcuformer {

// None of these functions says `override`, because TFLM's versions differ: until 2022-09 they were given an
// ErrorReporter, and preserves_all_tensors came in 2023-08.
class TokenOverwritePlanner : public compat::MicroMemoryPlanner {
 public:
  // model: the .tflite file's bytes, which must stay. bytes: their number, beyond which nothing is read; leave it
  // out only for a file that is known to be whole.
  explicit TokenOverwritePlanner(const void* model, size_t bytes = INT32_MAX)
      : model_(static_cast<const uint8_t*>(model)),
        model_bytes_(bytes < INT32_MAX ? static_cast<uint32_t>(bytes) : INT32_MAX) {}

  // scratch_buffer: room for 40 bytes per buffer, until the offsets have been read.
  Status Init(unsigned char* scratch_buffer, int scratch_buffer_size);

  Status AddBuffer(int size, int first_time_used, int last_time_used);
  Status AddBuffer(int size, int first_time_used, int last_time_used, int offline_offset);
  Status AddBuffer(compat::ErrorReporter*, int size, int first, int last) { return AddBuffer(size, first, last); }
  Status AddBuffer(compat::ErrorReporter*, int size, int first, int last, int offset) {
    return AddBuffer(size, first, last, offset);
  }

  size_t GetMaximumMemorySize();  // 0 without a plan
  int GetBufferCount() { return count_; }
  Status GetOffsetForBuffer(int buffer_index, int* offset);
  Status GetOffsetForBuffer(compat::ErrorReporter*, int index, int* offset) {
    return GetOffsetForBuffer(index, offset);
  }

  bool preserves_all_tensors() const { return false; }

  void operator delete(void*) {}  // there is no heap, but the virtual destructor wants one

 private:
  enum State { kAdding, kPlanned, kFailed };

  bool Plan();        // once; false without a plan
  bool MatchModel();  // tells which buffer is which tensor, and which it overwrites
  bool Link();
  int Find(uint32_t tensor) const;

  const uint8_t* model_;
  uint32_t model_bytes_;
  PlannedBuffer* buffers_ = nullptr;
  int capacity_ = 0;
  int count_ = 0;
  int tensor_count_ = 0;  // of the buffers; the rest is scratch
  int32_t head_bytes_ = 0;
  State state_ = kFailed;
};

}  // namespace mcuformer

#endif  // MCUF_TOKEN_OVERWRITE_PLANNER_H_
