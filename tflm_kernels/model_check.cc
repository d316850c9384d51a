// SPDX-License-Identifier: Apache-2.0
#include "model_check.h"

#include <cstring>

#include "overwritable_inputs.h"
#include "sha256.h"

namespace mcuformer {
namespace {

constexpr uint32_t kAlignment = 16;     // of the file, of what the plan places
constexpr uint32_t kMost = INT32_MAX;   // bytes of anything
constexpr uint32_t kCustom = 32;        // the builtin code of custom ops
constexpr uint32_t kNone = UINT32_MAX;  // an input left out, a tensor that the runtime places
constexpr char kMagic[] = "MCUFormer-SHA256";
constexpr uint32_t kMagicBytes = sizeof(kMagic) - 1;

// Fields of the .tflite schema's tables, in the schema's order, and which of them mcuformer writes, one bit each.
enum ModelField { kVersion = 0, kOperatorCodes = 1, kSubgraphs = 2, kDescription = 3, kBuffers = 4, kMetadata = 6 };
enum SubgraphField { kTensors = 0, kGraphInputs = 1, kGraphOutputs = 2, kOperators = 3, kSubgraphName = 4 };
enum TensorField { kShape = 0, kType = 1, kBuffer = 2, kTensorName = 3, kQuantisation = 4 };
enum QuantisationField { kScale = 2, kZeroPoint = 3 };
enum OperatorField { kOpcodeIndex = 0, kInputs = 1, kOutputs = 2, kCustomOptions = 5 };
enum OperatorCodeField { kOldCode = 0, kCustomCode = 1, kOpVersion = 2, kBuiltinCode = 3 };
enum BufferField { kData = 0 };
enum MetadataField { kMetadataName = 0, kMetadataBuffer = 1 };
constexpr uint32_t kModelFields = 0x5F, kSubgraphFields = 0x1F, kTensorFields = 0x1F, kQuantisationFields = 0x0C,
                   kOperatorFields = 0x67, kOperatorCodeFields = 0x0F, kBufferFields = 0x01, kMetadataFields = 0x03;

// Elements of a vector; at: the first. Both 0 if it is missing.
struct Vector {
  uint32_t at, length;
};

// Reads a flatbuffer by position, within its bounds; position 0 means missing. The first fault is kept; from then on
// numbers read as 0.
class Reader {
 public:
  Reader(const uint8_t* bytes, uint32_t size) : bytes_(bytes), size_(size), wrong_(nullptr) {}

  const char* wrong() const { return wrong_; }
  bool ok() const { return wrong_ == nullptr; }
  void Require(bool condition, const char* text) {
    if (!condition && ok()) wrong_ = text;
  }

  uint32_t Number(uint32_t at, uint32_t width) {
    RequireShape(at <= size_ && width <= size_ - at && at % width == 0);
    uint32_t value = 0;
    if (ok()) memcpy(&value, bytes_ + at, width);  // little-endian, as all of the device
    return value;
  }

  // Where the offset at `at` leads.
  uint32_t Target(uint32_t at) {
    const uint32_t distance = Number(at, 4);
    RequireShape(distance != 0 && distance < size_ - at && (at + distance) % 4 == 0);
    return ok() ? at + distance : 0;
  }

  // The same, to a table that has none but these fields.
  uint32_t Table(uint32_t at, uint32_t fields) {
    const uint32_t table = Target(at), vtable = table - Number(table, 4);  // may wrap; Number checks it
    const uint32_t ends = Number(vtable, 2), table_bytes = Number(vtable + 2, 2);
    RequireShape(ends >= 4 && ends % 2 == 0 && table_bytes >= 4 && table_bytes <= size_ - table);
    for (uint32_t field = 0; ok() && 4 + 2 * field < ends; ++field) {
      const uint32_t offset = Number(vtable + 4 + 2 * field, 2);
      const bool known = field < 32 && (fields >> field & 1) != 0;
      Require(offset == 0 || known, "it has fields that mcuformer does not write");
      RequireShape(offset == 0 || (offset >= 4 && offset < table_bytes));
    }
    return table;
  }

  // A scalar of a table; 0 if it is missing.
  uint32_t Scalar(uint32_t table, int field, uint32_t width) {
    const uint32_t at = Field(table, field);
    return at == 0 ? 0 : Number(at, width);
  }

  // A table's vector of elements of `width` bytes.
  Vector Elements(uint32_t table, int field, uint32_t width) {
    Vector vector = {0, 0};
    const uint32_t at = Field(table, field), target = at == 0 ? 0 : Target(at);
    if (target == 0) return vector;
    const uint32_t length = Number(target, 4);
    RequireShape(length <= (size_ - target - 4) / width && (target + 4) % width == 0);
    if (ok()) vector = {target + 4, length};
    return vector;
  }

  // A table's string, which ends with a zero behind it.
  Vector String(uint32_t table, int field) {
    const Vector text = Elements(table, field, 1);
    RequireShape(text.at != 0 && Number(text.at + text.length, 1) == 0);
    return text;
  }

  bool Equals(const Vector& text, const char* wanted) const {
    return ok() && text.length == strlen(wanted) && memcmp(bytes_ + text.at, wanted, text.length) == 0;
  }

  uint32_t Word(const Vector& vector, uint32_t index) {
    Require(index < vector.length, "an index is out of range");
    return Number(vector.at + 4 * index, 4);
  }
  // A table of a vector of tables.
  uint32_t Item(const Vector& vector, uint32_t index) {
    Require(index < vector.length, "an index is out of range");
    return Target(vector.at + 4 * index);
  }

  // Where a table has a field; 0: nowhere.
  uint32_t Field(uint32_t table, int field) {
    const uint32_t vtable = table - Number(table, 4), slot = 4 + 2 * static_cast<uint32_t>(field);
    if (slot >= Number(vtable, 2)) return 0;
    const uint32_t offset = Number(vtable + slot, 2);
    return offset == 0 || !ok() ? 0 : table + offset;
  }

 private:
  void RequireShape(bool condition) { Require(condition, "it is not a whole flatbuffer"); }

  const uint8_t* bytes_;
  uint32_t size_;
  const char* wrong_;
};

// The bytes of an element; 0: no type of mcuformer's.
uint32_t TypeBytes(uint32_t type) {
  constexpr uint8_t kBytes[] = {0, 0, 4, 1, 0, 0, 0, 2, 0, 1};  // int32, uint8, int16, int8
  return type < sizeof(kBytes) ? kBytes[type] : 0;
}

class Check {
 public:
  Check(const uint8_t* bytes, uint32_t size) : r_(bytes, size) {}

  const char* Run() {
    const uint32_t model = r_.Table(0, kModelFields);
    codes_ = r_.Elements(model, kOperatorCodes, 4);
    buffers_ = r_.Elements(model, kBuffers, 4);
    const Vector subgraphs = r_.Elements(model, kSubgraphs, 4), metadata = r_.Elements(model, kMetadata, 4);
    if (r_.Field(model, kDescription) != 0) r_.String(model, kDescription);
    r_.Require(r_.Scalar(model, kVersion, 4) == 3, "it is not of version 3 of the format");
    r_.Require(subgraphs.length == 1, "it has not one subgraph");
    if (!r_.ok()) return r_.wrong();
    const uint32_t graph = r_.Table(subgraphs.at, kSubgraphFields);
    tensors_ = r_.Elements(graph, kTensors, 4);
    inputs_ = r_.Elements(graph, kGraphInputs, 4);
    outputs_ = r_.Elements(graph, kGraphOutputs, 4);
    ops_ = r_.Elements(graph, kOperators, 4);
    if (r_.Field(graph, kSubgraphName) != 0) r_.String(graph, kSubgraphName);
    Tables();
    for (uint32_t i = 0; i < metadata.length && r_.ok(); ++i) Metadata(r_.Table(metadata.at + 4 * i, kMetadataFields));
    for (uint32_t i = 0; i < tensors_.length && r_.ok(); ++i) TensorIsWhole(i);
    Graph();
    for (uint32_t i = 0; i < ops_.length && r_.ok() && plan_.length > 0; ++i) Place(i);
    return r_.wrong();
  }

 private:
  // That all tables are whole, which are read without checking them again.
  void Tables() {
    for (uint32_t i = 0; i < buffers_.length && r_.ok(); ++i) {
      r_.Elements(r_.Table(buffers_.at + 4 * i, kBufferFields), kData, 1);
    }
    for (uint32_t i = 0; i < codes_.length && r_.ok(); ++i) {
      const uint32_t code = r_.Table(codes_.at + 4 * i, kOperatorCodeFields);
      r_.String(code, kCustomCode);
      r_.Require(r_.Scalar(code, kOldCode, 1) == kCustom && r_.Scalar(code, kBuiltinCode, 4) == kCustom &&
                     r_.Scalar(code, kOpVersion, 4) <= 1,
                 "it has an op that is not mcuformer's");
    }
    for (uint32_t i = 0; i < tensors_.length && r_.ok(); ++i) r_.Table(tensors_.at + 4 * i, kTensorFields);
    for (uint32_t i = 0; i < ops_.length && r_.ok(); ++i) {
      const uint32_t op = r_.Table(ops_.at + 4 * i, kOperatorFields);
      r_.Elements(op, kCustomOptions, 1);
      r_.Item(codes_, r_.Scalar(op, kOpcodeIndex, 4));
    }
  }

  Vector Data(uint32_t buffer) { return r_.Elements(r_.Item(buffers_, buffer), kData, 1); }

  // Finds the plan.
  void Metadata(uint32_t entry) {
    const Vector data = Data(r_.Scalar(entry, kMetadataBuffer, 4));
    if (!r_.Equals(r_.String(entry, kMetadataName), "OfflineMemoryAllocation")) return;
    const Vector words = {data.at, data.length / 4};
    r_.Require(data.length >= 12 && r_.Word(words, 0) == 1 && r_.Word(words, 1) == 0 &&
                   r_.Word(words, 2) == tensors_.length && words.length - 3 == tensors_.length,
               "its memory plan is not one of its tensors");
    plan_ = {data.at + 12, tensors_.length};
  }

  uint32_t Tensor(uint32_t index) { return r_.Item(tensors_, index); }
  bool IsConstant(uint32_t tensor) { return r_.Scalar(Tensor(tensor), kBuffer, 4) != 0; }

  // Of a tensor, by its shape.
  uint32_t Bytes(uint32_t index) {
    const uint32_t tensor = Tensor(index);
    const Vector shape = r_.Elements(tensor, kShape, 4);
    uint64_t bytes = TypeBytes(r_.Scalar(tensor, kType, 1));
    for (uint32_t i = 0; i < shape.length && bytes <= kMost; ++i) bytes *= r_.Word(shape, i);
    r_.Require(shape.length > 0 && bytes > 0 && bytes <= kMost, "a tensor has a type or shape that no op takes");
    return r_.ok() ? static_cast<uint32_t>(bytes) : 0;
  }

  void TensorIsWhole(uint32_t index) {
    const uint32_t tensor = Tensor(index), bytes = Bytes(index);
    r_.String(tensor, kTensorName);
    if (const uint32_t at = r_.Field(tensor, kQuantisation)) {
      const uint32_t quantisation = r_.Table(at, kQuantisationFields);
      r_.Require(
          r_.Elements(quantisation, kScale, 4).length == 1 && r_.Elements(quantisation, kZeroPoint, 8).length == 1,
          "a tensor has not one scale and one zero point");
    }
    const uint32_t held = Data(r_.Scalar(tensor, kBuffer, 4)).length;
    r_.Require(held == (IsConstant(index) ? bytes : 0), "a constant has more or fewer bytes than its shape says");
    if (plan_.length == 0 || !r_.ok()) return;
    const uint32_t offset = r_.Word(plan_, index);
    r_.Require(offset == kNone || (offset % kAlignment == 0 && offset <= kMost - bytes),
               "its memory plan has an offset that is negative, too large or not a multiple of 16");
  }

  Vector InputsOf(uint32_t op) { return r_.Elements(r_.Item(ops_, op), kInputs, 4); }
  uint32_t OutputOf(uint32_t op) { return r_.Word(r_.Elements(r_.Item(ops_, op), kOutputs, 4), 0); }

  bool IsGraphInput(uint32_t tensor) { return inputs_.length > 0 && r_.Word(inputs_, 0) == tensor; }

  // Whether one of the ops [first, end) makes a tensor.
  bool MadeBy(uint32_t tensor, uint32_t first, uint32_t end) {
    while (first < end && OutputOf(first) != tensor) ++first;
    return first < end;
  }

  // That every activation is made once, before it is read.
  void Graph() {
    r_.Require(inputs_.length <= 1 && outputs_.length == 1, "it has not one input at most and one output");
    r_.Require(inputs_.length == 0 || !r_.ok() || !IsConstant(r_.Word(inputs_, 0)), "its input is a constant");
    for (uint32_t i = 0; i < ops_.length && r_.ok(); ++i) {
      const Vector inputs = InputsOf(i);
      for (uint32_t j = 0; j < inputs.length && r_.ok(); ++j) {
        const uint32_t tensor = r_.Word(inputs, j);
        if (tensor == kNone || IsConstant(tensor)) continue;
        r_.Require(IsGraphInput(tensor) || MadeBy(tensor, 0, i), "an op reads what no op has made before it");
      }
      r_.Require(r_.Elements(r_.Item(ops_, i), kOutputs, 4).length == 1, "an op has not one output");
      const uint32_t output = OutputOf(i);
      r_.Require(!IsConstant(output), "the output of an op is a constant");
      r_.Require(!IsGraphInput(output) && !MadeBy(output, 0, i), "a tensor is made twice");
    }
    r_.Require(r_.ok() && MadeBy(r_.Word(outputs_, 0), 0, ops_.length), "no op makes its output");
  }

  bool MayOverwrite(uint32_t op, uint32_t position) {
    const uint32_t code = r_.Item(codes_, r_.Scalar(r_.Item(ops_, op), kOpcodeIndex, 4));
    const Vector name = r_.Elements(code, kCustomCode, 1);
    for (const OverwritableInputs& rule : kOverwritableInputs) {
      if (!r_.Equals(name, rule.op)) continue;
      for (const int8_t input : rule.inputs) {
        if (input >= 0 && static_cast<uint32_t>(input) == position) return true;
      }
    }
    return false;
  }

  bool Meet(uint32_t a, uint32_t b) {
    const uint32_t at = r_.Word(plan_, a), other = r_.Word(plan_, b);
    if (at == kNone || other == kNone) return false;
    return at < other ? other - at < Bytes(a) : at - other < Bytes(b);
  }

  // That the output of an op lies over nothing that is read then or later, but what the op may overwrite.
  void Place(uint32_t op) {
    const uint32_t output = OutputOf(op);
    for (uint32_t later = op; later <= ops_.length && r_.ok(); ++later) {
      const Vector read = later < ops_.length ? InputsOf(later) : outputs_;
      for (uint32_t i = 0; i < read.length && r_.ok(); ++i) {
        const uint32_t tensor = r_.Word(read, i);
        if (tensor == kNone || tensor == output || IsConstant(tensor) || !Meet(tensor, output)) continue;
        const bool overwritten = later == op && r_.Word(plan_, tensor) == r_.Word(plan_, output) && MayOverwrite(op, i);
        r_.Require(overwritten || MadeBy(tensor, op, later),
                   "its memory plan has a tensor over another that is still in use");
      }
    }
  }

  Reader r_;
  Vector codes_ = {0, 0}, buffers_ = {0, 0}, tensors_ = {0, 0}, inputs_ = {0, 0}, outputs_ = {0, 0}, ops_ = {0, 0};
  Vector plan_ = {0, 0};  // offsets; empty without a plan
};

// Where the digest lies: behind the last magic; 0: nowhere.
uint32_t DigestAt(const uint8_t* bytes, uint32_t size) {
  for (uint32_t at = size; at >= kMagicBytes + kDigestBytes; --at) {
    const uint32_t digest = at - kDigestBytes;
    if (memcmp(bytes + digest - kMagicBytes, kMagic, kMagicBytes) == 0) return digest;
  }
  return 0;
}

}  // namespace

const char* CheckModel(const void* model, size_t bytes) {
  const uint8_t* data = static_cast<const uint8_t*>(model);
  if (data == nullptr || bytes < 8 || bytes > kMost || memcmp(data + 4, "TFL3", 4) != 0) return "it is no .tflite file";
  if (reinterpret_cast<uintptr_t>(data) % kAlignment != 0) return "it is not aligned to 16 bytes in memory";
  const uint32_t size = static_cast<uint32_t>(bytes), digest = DigestAt(data, size);
  if (digest == 0) return "it has no checksum of mcuformer: cut short, or of another program";
  if (!HoldsItsDigest(data, size, digest)) return "its checksum does not match: it is damaged";
  return Check(data, size).Run();
}

}  // namespace mcuformer
