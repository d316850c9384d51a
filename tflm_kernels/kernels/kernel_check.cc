// SPDX-License-Identifier: Apache-2.0
#include "kernel_check.h"

#include "../flexbuffer_options.h"

namespace mcuformer {

#if !defined(MCUF_HOST_PLUGIN)
void MCUF_STATIC_MEMORY() {}
void MCUF_ERROR_STRINGS() {}
#endif

namespace {

int32_t Product(const EvalTensor* tensor, int count) {
  int64_t product = 1;
  for (int i = 0; i < count; ++i) {
    product *= Dim(tensor, i);
    if (product > INT32_MAX) return INT32_MAX;
  }
  return static_cast<int32_t>(product);
}

int Rank(const EvalTensor* tensor) { return tensor == nullptr || tensor->dims == nullptr ? 0 : tensor->dims->size; }

// A number or a shape such as "[1,49,96]" as text: small targets can print neither lists nor 64-bit numbers.
class Text {
 public:
  explicit Text(int64_t value) { Number(value); }
  explicit Text(const Shape& shape) {
    Put('[');
    for (int i = 0; i < shape.rank && i < kMaxRank; ++i) {
      if (i > 0) Put(',');
      Number(shape.size[i]);
    }
    if (shape.rank > kMaxRank) Put('+');
    Put(']');
  }
  const char* c_str() const { return text_; }

 private:
  void Put(char c) {
    if (length_ + 1 < sizeof(text_)) text_[length_++] = c;
  }
  void Number(int64_t value) {
    if (value < 0) Put('-');
    uint64_t rest = value < 0 ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
    char digits[20];
    int count = 0;
    do {
      digits[count++] = static_cast<char>('0' + rest % 10);
      rest /= 10;
    } while (rest != 0);
    while (count > 0) Put(digits[--count]);
  }

  char text_[56] = {};  // stays zero-terminated
  size_t length_ = 0;
};

const char* TypeName(Type type) {
  switch (type) {
    case kInt8:
      return "int8";
    case kUInt8:
      return "uint8";
    case kInt16:
      return "int16";
    case kInt32:
      return "int32";
    case kFloat32:
      return "float32";
    default:
      return "another type";
  }
}

size_t Alignment(Type type) { return type == kInt32 ? 4 : type == kInt16 ? 2 : 1; }

}  // namespace

Shape::Shape(const EvalTensor* tensor) : rank(Rank(tensor)), size{} {
  for (int i = 0; i < rank && i < kMaxRank; ++i) size[i] = Dim(tensor, i);
}

int32_t Dim(const EvalTensor* tensor, int index) {
  const int rank = Rank(tensor);
  if (index < 0) index += rank;
  return index < 0 || index >= rank ? 0 : tensor->dims->data[index];
}

int32_t Tokens(const EvalTensor* tensor) { return Product(tensor, Rank(tensor) - 1); }

int32_t Elements(const EvalTensor* tensor) { return Product(tensor, Rank(tensor)); }

bool ReadOption(const Node* node, const char* key, int64_t* value) {
  const int length = node->custom_initial_data_size;
  return ReadInt(static_cast<const uint8_t*>(node->custom_initial_data), static_cast<size_t>(length < 0 ? 0 : length),
                 key, value);
}

PrepareCheck::PrepareCheck(Context* context, Node* node, const char* op, int min_inputs, int max_inputs)
    : context_(context), node_(node), op_(op), ok_(true), spare_() {
  if (!LayoutIsKnown(context, node)) {
    MCUF_LOG(context_, "%s: %s", op_, kUnknownLayout);
    ok_ = false;
    return;
  }
  const int inputs = InputCount(node_);
  if (inputs < min_inputs || inputs > max_inputs) {
    MCUF_LOG(context_, "%s: has %d inputs, needs %d to %d", op_, inputs, min_inputs, max_inputs);
    ok_ = false;
  } else if (OutputCount(node_) != 1) {
    MCUF_LOG(context_, "%s: has %d outputs, needs 1", op_, OutputCount(node_));
    ok_ = false;
  }
}

bool PrepareCheck::Readable(const EvalTensor* tensor, const char* name, Type type) {
  if (!ok_) return false;
  ok_ = false;
  if (tensor == nullptr) {
    MCUF_LOG(context_, "%s: tensor '%s' is missing", op_, name);
    return false;
  }
  if (tensor->type != type) {
    MCUF_LOG(context_, "%s: tensor '%s' has %s (TfLiteType %d), needs %s", op_, name, TypeName(tensor->type),
             static_cast<int>(tensor->type), TypeName(type));
    return false;
  }
  bool sized = Rank(tensor) >= 1 && Rank(tensor) <= kMaxRank;
  for (int i = 0; sized && i < Rank(tensor); ++i) sized = Dim(tensor, i) >= 1;
  if (!sized) {
    MCUF_LOG(context_, "%s: tensor '%s' has shape %s, needs 1 to %d dimensions of at least 1", op_, name,
             Text(Shape(tensor)).c_str(), kMaxRank);
    return false;
  }
  if (Elements(tensor) == INT32_MAX) {  // the interpreter's own count of them may have wrapped
    MCUF_LOG(context_, "%s: tensor '%s' has shape %s, too many elements", op_, name, Text(Shape(tensor)).c_str());
    return false;
  }
  return ok_ = true;
}

const EvalTensor* PrepareCheck::InArena(const EvalTensor* tensor, const char* name, Type type) {
  if (!Readable(tensor, name, type)) return nullptr;
  ok_ = Data<void>(tensor) == nullptr;  // what lies in the arena gets its place after Prepare
  if (!ok_) MCUF_LOG(context_, "%s: tensor '%s' is a constant of the model, needs an activation", op_, name);
  return ok_ ? tensor : nullptr;
}

const EvalTensor* PrepareCheck::Activation(int input, const char* name) {
  return InArena(ok_ ? Input(context_, node_, input) : nullptr, name);
}

const EvalTensor* PrepareCheck::OutputActivation() {
  return InArena(ok_ ? Output(context_, node_, 0) : nullptr, "output");
}

const EvalTensor* PrepareCheck::Stream(int input, const char* name) {
  const EvalTensor* tensor = ok_ ? Input(context_, node_, input) : nullptr;
  return InArena(tensor, name, IsWide(tensor) ? kInt16 : kInt8);
}

const EvalTensor* PrepareCheck::OutputStream() {
  const EvalTensor* tensor = ok_ ? Output(context_, node_, 0) : nullptr;
  return InArena(tensor, "output", IsWide(tensor) ? kInt16 : kInt8);
}

void PrepareCheck::SingleBatch(const EvalTensor* tensor, const char* name, int rank) {
  if (!ok_) return;
  ok_ = Rank(tensor) == rank && Dim(tensor, 0) == 1;
  if (!ok_) {
    MCUF_LOG(context_, "%s: tensor '%s' has shape %s, needs %d dimensions and a batch of 1", op_, name,
             Text(Shape(tensor)).c_str(), rank);
  }
}

void PrepareCheck::ShapeIs(const EvalTensor* tensor, const char* name, const Shape& wanted) {
  if (!ok_) return;
  ok_ = wanted.rank == Rank(tensor);
  for (int i = 0; ok_ && i < wanted.rank; ++i) ok_ = Dim(tensor, i) == wanted.size[i];
  if (!ok_) {
    MCUF_LOG(context_, "%s: tensor '%s' has shape %s, needs %s", op_, name, Text(Shape(tensor)).c_str(),
             Text(wanted).c_str());
  }
}

void PrepareCheck::SameShape(const EvalTensor* tensor, const char* name, const EvalTensor* wanted) {
  ShapeIs(tensor, name, Shape(wanted));
}

void PrepareCheck::SameTokens(const EvalTensor* tensor, const char* name, const EvalTensor* wanted) {
  if (!ok_) return;
  Shape shape(wanted);
  shape.size[shape.rank - 1] = Dim(tensor, -1);
  ShapeIs(tensor, name, shape);
}

void PrepareCheck::Constant(int input, const char* name, Type type, const Shape& wanted) {
  const EvalTensor* tensor = ok_ ? Input(context_, node_, input) : nullptr;
  if (!Readable(tensor, name, type)) return;
  ShapeIs(tensor, name, wanted);
  if (!ok_) return;
  const void* data = Data<void>(tensor);
  if (data == nullptr) {
    MCUF_LOG(context_, "%s: tensor '%s' is not a constant, store its values in the model", op_, name);
    ok_ = false;
  } else if (reinterpret_cast<uintptr_t>(data) % Alignment(type) != 0) {
    MCUF_LOG(context_, "%s: tensor '%s' is not aligned to %d bytes in memory", op_, name,
             static_cast<int>(Alignment(type)));
    ok_ = false;
  }
}

void PrepareCheck::OptionalConstant(int input, const char* name, Type type, const Shape& wanted) {
  if (ok_ && Has(input)) Constant(input, name, type, wanted);
}

int64_t PrepareCheck::Option(const char* key, int64_t min, int64_t max) {
  if (!ok_) return min;
  int64_t value = 0;
  ok_ = ReadOption(node_, key, &value);
  if (!ok_) {
    MCUF_LOG(context_, "%s: option '%s' is missing or not an integer", op_, key);
    return min;
  }
  ok_ = value >= min && value <= max;
  if (!ok_) {
    MCUF_LOG(context_, "%s: option '%s' is %s, needs %s to %s", op_, key, Text(value).c_str(), Text(min).c_str(),
             Text(max).c_str());
    return min;
  }
  return value;
}

uint8_t PrepareCheck::Layer(int first, int64_t out, const Shape& rows, const Shape& pairs) {
  const uint8_t packing = Packing();
  OptionalConstant(first, "weights", kInt8, packing == MCUF_PACKING_PAIRS ? pairs : rows);
  Constant(first + 1, "bias", kInt32, Shape(out));
  Constant(first + 2, "multiplier", kInt32, Shape(out));
  return packing;
}

int64_t PrepareCheck::OptionOr(const char* key, int64_t missing, int64_t min, int64_t max) {
  int64_t value = 0;
  return !ok_ || !ReadOption(node_, key, &value) ? missing : Option(key, min, max);
}

uint8_t PrepareCheck::Packing() {
  return static_cast<uint8_t>(OptionOr("packing", MCUF_PACKING_ROWS, MCUF_PACKING_ROWS, MCUF_PACKING_PAIRS));
}

void PrepareCheck::Require(bool condition, const char* message) {
  if (!ok_ || condition) return;
  MCUF_LOG(context_, "%s: %s", op_, message);
  ok_ = false;
}

void PrepareCheck::Kernel(mcuf_status status, const char* limits) {
  if (!ok_ || status == MCUF_OK) return;
  ok_ = false;
  if (status == MCUF_ERROR_VALUE) {
    MCUF_LOG(context_, "%s: %s: needs %s", op_, mcuf_status_text(status), limits);
  } else {
    MCUF_LOG(context_, "%s: %s: input has shape %s, output %s", op_, mcuf_status_text(status),
             Text(Shape(Input(context_, node_, 0))).c_str(), Text(Shape(Output(context_, node_, 0))).c_str());
  }
}

void PrepareCheck::Scratch(int32_t bytes, int* index) {
  if (!ok_ || RequestScratch(context_, static_cast<size_t>(bytes), index) == kOk) return;
  MCUF_LOG(context_, "%s: no scratch buffer of %d bytes available", op_, static_cast<int>(bytes));
  ok_ = false;
}

Status EvalStatus(Context* context, const char* op, mcuf_status status) {
  if (status == MCUF_OK) return kOk;
  MCUF_LOG(context, "%s: %s", op, mcuf_status_text(status));
  return kError;
}

}  // namespace mcuformer
