// SPDX-License-Identifier: Apache-2.0
#include "token_overwrite_planner.h"

#include "overwritable_inputs.h"

namespace mcuformer {
namespace {

constexpr int kOnline = -1;  // the offline offset of a tensor that the planner places

// Fields of the .tflite schema's tables, in the schema's order.
enum ModelField { kOperatorCodes = 1, kSubgraphs = 2, kBuffers = 4 };
enum SubgraphField { kTensors = 0, kGraphOutputs = 2, kOperators = 3 };
enum TensorField { kShape = 0, kType = 1, kBuffer = 2, kIsVariable = 5 };
enum OperatorField { kOpcodeIndex = 0, kInputs = 1, kOutputs = 2 };
enum OperatorCodeField { kCustomCode = 1 };
enum BufferField { kData = 0 };

// Reads a flatbuffer by position, within its bounds; position 0 means missing. What lies outside reads as 0, and
// damaged() is true from then on.
class ModelReader {
 public:
  ModelReader(const uint8_t* bytes, uint32_t size) : bytes_(bytes), size_(size) {}

  bool damaged() const { return damaged_; }

  bool IsModel() {
    return bytes_ != nullptr && size_ >= 8 && bytes_[4] == 'T' && bytes_[5] == 'F' && bytes_[6] == 'L' &&
           bytes_[7] == '3';
  }

  uint32_t Root() { return Target(0); }

  // A little-endian number of `width` bytes.
  uint32_t Number(uint32_t at, uint32_t width) {
    if (at > size_ || width > size_ - at) {
      damaged_ = true;
      return 0;
    }
    uint32_t value = 0;
    for (uint32_t i = 0; i < width; ++i) value |= static_cast<uint32_t>(bytes_[at + i]) << (8 * i);
    return value;
  }

  // A table's scalar; if missing 0, the default of all that are read here.
  uint32_t Scalar(uint32_t table, int field, uint32_t width) {
    const uint32_t at = Field(table, field);
    return at == 0 ? 0 : Number(at, width);
  }

  // A table's vector, string or table.
  uint32_t Child(uint32_t table, int field) {
    const uint32_t at = Field(table, field);
    return at == 0 ? 0 : Target(at);
  }

  uint32_t Length(uint32_t vector) {
    if (vector == 0) return 0;
    const uint32_t length = Number(vector, 4);
    if (length <= size_ - vector) return length;  // each element takes a byte at least
    damaged_ = true;
    return 0;
  }

  uint32_t Word(uint32_t vector, uint32_t index) { return Number(vector + 4 + 4 * index, 4); }
  uint32_t Table(uint32_t vector, uint32_t index) {
    if (index < Length(vector)) return Target(vector + 4 + 4 * index);
    damaged_ = true;
    return 0;
  }

  bool Equals(uint32_t string, const char* text) {
    const uint32_t length = Length(string);
    uint32_t i = 0;
    while (i < length && text[i] != '\0' && Number(string + 4 + i, 1) == static_cast<uint8_t>(text[i])) ++i;
    return string != 0 && i == length && text[i] == '\0';
  }

 private:
  uint32_t Target(uint32_t at) {
    const uint32_t distance = Number(at, 4);
    if (distance != 0 && distance < size_ - at) return at + distance;
    damaged_ = true;
    return 0;
  }

  uint32_t Field(uint32_t table, int field) {
    if (table == 0) return 0;
    const uint32_t vtable = table - Number(table, 4);  // may wrap; Number checks it
    const uint32_t slot = 4 + 2 * static_cast<uint32_t>(field);
    if (slot + 2 > Number(vtable, 2)) return 0;
    const uint32_t offset = Number(vtable + slot, 2);
    return offset == 0 ? 0 : table + offset;
  }

  const uint8_t* bytes_;
  uint32_t size_;
  bool damaged_ = false;
};

// The element's bytes of a TensorType; 0: unknown.
uint32_t TypeBytes(uint32_t type) {
  static constexpr uint8_t kBytes[] = {4, 2, 4, 1, 8, 0, 1, 2, 8, 1, 8, 16, 8, 0, 0, 4, 2};
  return type < sizeof(kBytes) ? kBytes[type] : 0;
}

// 0 if a dimension is; a scalar has one element. Beyond INT32_MAX if there are that many.
uint64_t ElementCount(ModelReader* model, uint32_t tensor) {
  const uint32_t shape = model->Child(tensor, kShape);
  const uint32_t dimensions = model->Length(shape);
  uint64_t count = 1;
  for (uint32_t i = 0; i < dimensions && !model->damaged(); ++i) {
    const uint64_t size = model->Word(shape, i);
    count = count <= INT32_MAX ? count * size : (size == 0 ? 0 : count);
  }
  return count;
}

bool Contains(ModelReader* model, uint32_t vector, uint32_t value) {
  for (uint32_t i = 0; i < model->Length(vector); ++i) {
    if (model->Word(vector, i) == value) return true;
  }
  return false;
}

const OverwritableInputs* FindRule(ModelReader* model, uint32_t operator_code) {
  const uint32_t name = model->Child(operator_code, kCustomCode);
  for (const OverwritableInputs& rule : kOverwritableInputs) {
    if (model->Equals(name, rule.op)) return &rule;
  }
  return nullptr;
}

const char* Text(Placement result) {
  switch (result) {
    case Placement::kBadOffset:
      return "its offline offset is negative or not a multiple of 16";
    case Placement::kOverlap:
      return "the offline plan puts it over another that is still in use";
    case Placement::kTooLarge:
      return "the arena would be larger than 2 GB";
    default:
      return "it cannot overwrite its input";
  }
}

}  // namespace

Status TokenOverwritePlanner::Init(unsigned char* scratch_buffer, int scratch_buffer_size) {
  const uintptr_t misaligned = reinterpret_cast<uintptr_t>(scratch_buffer) % alignof(PlannedBuffer);
  const int skipped = misaligned == 0 ? 0 : static_cast<int>(alignof(PlannedBuffer) - misaligned);
  buffers_ = reinterpret_cast<PlannedBuffer*>(scratch_buffer + skipped);
  capacity_ = (scratch_buffer_size - skipped) / static_cast<int>(sizeof(PlannedBuffer));
  if (scratch_buffer == nullptr || capacity_ < 0) capacity_ = 0;
  if (capacity_ > kMaxBuffers) capacity_ = kMaxBuffers;
  count_ = tensor_count_ = 0;
  head_bytes_ = 0;
  state_ = kAdding;
  return kOk;
}

Status TokenOverwritePlanner::AddBuffer(int size, int first_time_used, int last_time_used) {
  return AddBuffer(size, first_time_used, last_time_used, kOnline);
}

Status TokenOverwritePlanner::AddBuffer(int size, int first_time_used, int last_time_used, int offline_offset) {
  if (state_ != kAdding || count_ >= capacity_ || size < 0 || size % kBufferAlignment != 0) {
    MCUF_LOG(nullptr, "TokenOverwritePlanner: no room for buffer %d of %d bytes: it has room for %d buffers", count_,
             size, capacity_);
    state_ = kFailed;
    return kError;
  }
  PlannedBuffer* buffer = &buffers_[count_++];
  *buffer = PlannedBuffer();
  buffer->size = size;
  buffer->first = first_time_used;
  buffer->last = last_time_used;
  buffer->offset = offline_offset;
  buffer->overwrites = kNoBuffer;
  buffer->fixed = offline_offset != kOnline;
  return kOk;
}

size_t TokenOverwritePlanner::GetMaximumMemorySize() { return Plan() ? static_cast<size_t>(head_bytes_) : 0; }

Status TokenOverwritePlanner::GetOffsetForBuffer(int buffer_index, int* offset) {
  if (!Plan() || buffer_index < 0 || buffer_index >= count_) return kError;
  *offset = static_cast<int>(buffers_[buffer_index].offset);
  return kOk;
}

bool TokenOverwritePlanner::Plan() {
  if (state_ != kAdding) return state_ == kPlanned;
  state_ = kFailed;
  if (!MatchModel() || !Link()) return false;
  int culprit = 0;
  const Placement result = PlaceBuffers(buffers_, tensor_count_, count_, &head_bytes_, &culprit);
  if (result != Placement::kDone) {
    MCUF_LOG(nullptr, "TokenOverwritePlanner: tensor %d: %s", static_cast<int>(buffers_[culprit].tensor), Text(result));
    return false;
  }
  state_ = kPlanned;
  return true;
}

// TFLM adds buffers without saying what they are: tensors by subgraph and index, except constants, variables and empty
// ones, then scratch. Sizes must agree.
bool TokenOverwritePlanner::MatchModel() {
  ModelReader model(model_, model_bytes_);
  if (!model.IsModel()) {
    MCUF_LOG(nullptr, "TokenOverwritePlanner: not the bytes of a .tflite file");
    return false;
  }
  const uint32_t subgraphs = model.Child(model.Root(), kSubgraphs);
  const uint32_t constants = model.Child(model.Root(), kBuffers);
  uint32_t id = 0;  // counts the tensors of all subgraphs
  for (uint32_t s = 0; s < model.Length(subgraphs) && !model.damaged(); ++s) {
    const uint32_t tensors = model.Child(model.Table(subgraphs, s), kTensors);
    for (uint32_t t = 0; t < model.Length(tensors) && !model.damaged(); ++t, ++id) {
      const uint32_t tensor = model.Table(tensors, t);
      const uint32_t data = model.Child(model.Table(constants, model.Scalar(tensor, kBuffer, 4)), kData);
      if (model.Length(data) > 0 || model.Scalar(tensor, kIsVariable, 1) != 0) continue;
      const uint64_t elements = ElementCount(&model, tensor);
      const bool added = tensor_count_ < count_;
      // Until 2022 TFLM added empty tensors too.
      if (elements == 0 && !(added && buffers_[tensor_count_].size == 0)) continue;
      const uint64_t bytes = elements * TypeBytes(model.Scalar(tensor, kType, 1));
      const uint64_t aligned = (bytes + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
      if (model.damaged()) break;
      if (!added || (bytes != 0 && static_cast<uint64_t>(buffers_[tensor_count_].size) != aligned)) {
        MCUF_LOG(nullptr, "TokenOverwritePlanner: not the model of this interpreter: tensor %d needs %d bytes, not %d",
                 static_cast<int>(id), static_cast<int>(aligned),
                 added ? static_cast<int>(buffers_[tensor_count_].size) : 0);
        return false;
      }
      buffers_[tensor_count_++].tensor = static_cast<int32_t>(id);
    }
  }
  if (model.damaged()) {
    MCUF_LOG(nullptr, "TokenOverwritePlanner: the model's bytes are damaged");
    return false;
  }
  // A scratch buffer serves one op; with control flow, also the subgraphs that it calls.
  for (int i = tensor_count_; i < count_; ++i) {
    const bool longer = buffers_[i].first != buffers_[i].last && model.Length(subgraphs) == 1;
    if (buffers_[i].fixed || longer) {
      MCUF_LOG(nullptr, "TokenOverwritePlanner: not the model of this interpreter: it has %d activations, not %d",
               tensor_count_, i + 1);
      return false;
    }
    buffers_[i].tensor = -1;
  }
  return true;
}

// Links each op's output to the first input that it may overwrite and that is used for the last time there.
bool TokenOverwritePlanner::Link() {
  ModelReader model(model_, model_bytes_);
  const uint32_t codes = model.Child(model.Root(), kOperatorCodes);
  const uint32_t subgraphs = model.Child(model.Root(), kSubgraphs);
  uint32_t base = 0;  // id of the subgraph's first tensor
  for (uint32_t s = 0; s < model.Length(subgraphs) && !model.damaged(); ++s) {
    const uint32_t subgraph = model.Table(subgraphs, s);
    const uint32_t operators = model.Child(subgraph, kOperators);
    const uint32_t graph_outputs = model.Child(subgraph, kGraphOutputs);
    const uint32_t tensors = model.Length(model.Child(subgraph, kTensors));
    for (uint32_t o = 0; o < model.Length(operators) && !model.damaged(); ++o) {
      const uint32_t op = model.Table(operators, o);
      const uint32_t inputs = model.Child(op, kInputs), outputs = model.Child(op, kOutputs);
      if (model.Length(outputs) == 0 || model.Word(outputs, 0) >= tensors) continue;
      const int output = Find(base + model.Word(outputs, 0));
      if (output < 0) continue;
      PlannedBuffer* out = &buffers_[output];
      const OverwritableInputs* rule = FindRule(&model, model.Table(codes, model.Scalar(op, kOpcodeIndex, 4)));
      int choice = kMaxOverwritable;  // position in the rule of the input chosen so far
      for (uint32_t i = 0; i < model.Length(inputs); ++i) {
        const uint32_t tensor = model.Word(inputs, i);  // -1 for an optional one left out
        const int input = tensor < tensors ? Find(base + tensor) : -1;
        if (input < 0) continue;
        const PlannedBuffer& in = buffers_[input];
        if (in.first > out->first || in.last < out->first) {
          MCUF_LOG(nullptr,
                   "TokenOverwritePlanner: not the model of this interpreter: op %d reads tensor %d at another time",
                   static_cast<int>(o), static_cast<int>(in.tensor));
          return false;
        }
        if (rule == nullptr || in.last != out->first || input == output || out->first < 0) continue;
        if (Contains(&model, graph_outputs, tensor)) continue;
        for (int c = 0; c < choice; ++c) {
          if (rule->inputs[c] != static_cast<int>(i)) continue;
          out->overwrites = static_cast<int16_t>(input);
          choice = c;
        }
      }
    }
    base += tensors;
  }
  if (model.damaged()) MCUF_LOG(nullptr, "TokenOverwritePlanner: the model's bytes are damaged");
  return !model.damaged();
}

// The buffer of a tensor; -1 if it has none.
int TokenOverwritePlanner::Find(uint32_t tensor) const {
  for (int i = 0; i < tensor_count_; ++i) {
    if (static_cast<uint32_t>(buffers_[i].tensor) == tensor) return i;
  }
  return -1;
}

}  // namespace mcuformer
