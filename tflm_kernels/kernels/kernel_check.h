// SPDX-License-Identifier: Apache-2.0
//
// What the Prepare functions share: checks that log one line which names the op, the tensor or option and the
// value.
#ifndef MCUF_KERNELS_KERNEL_CHECK_H_
#define MCUF_KERNELS_KERNEL_CHECK_H_

#include "../core/mcuf_packing.h"
#include "../core/mcuf_types.h"
#include "../tflm_compat.h"

namespace mcuformer {

constexpr int kMaxRank = 4;

// A wanted shape. 64 bit, so that products of options and dimensions can be wanted without overflow.
struct Shape {
  explicit Shape(int64_t a) : rank(1), size{a} {}
  Shape(int64_t a, int64_t b) : rank(2), size{a, b} {}
  Shape(int64_t a, int64_t b, int64_t c) : rank(3), size{a, b, c} {}
  Shape(int64_t a, int64_t b, int64_t c, int64_t d) : rank(4), size{a, b, c, d} {}
  explicit Shape(const EvalTensor* tensor);

  int rank;
  int64_t size[kMaxRank];
};

// Dimension `index` of a tensor, from the end if negative (-1: the last); 0 if there is no such
// dimension.
int32_t Dim(const EvalTensor* tensor, int index);

// Tokens of a tensor: the product of all dimensions except the last; INT32_MAX if it is larger.
int32_t Tokens(const EvalTensor* tensor);

// Elements of a tensor; INT32_MAX if there are more.
int32_t Elements(const EvalTensor* tensor);

// Whether a tensor is int16, as the residual stream is if it is wide.
inline bool IsWide(const EvalTensor* tensor) { return tensor != nullptr && tensor->type == kInt16; }

// An integer option of a node; false if it is missing or not an integer.
bool ReadOption(const Node* node, const char* key, int64_t* value);

// The limits of a layer's constants, for Kernel().
constexpr char kLayerLimits[] = "bias from -2^30 to 2^30, multiplier from 0, pairs of rows 4-byte aligned";

// The checks of one Prepare, called in sequence. The first failure is logged and makes all later checks no-ops, so
// sizes and options can be used unchecked in between; read tensor data only while ok().
class PrepareCheck {
 public:
  // Checks the number of inputs, and that there is one output.
  PrepareCheck(Context* context, Node* node, const char* op, int min_inputs, int max_inputs);

  bool ok() const { return ok_; }
  Status status() const { return ok_ ? kOk : kError; }

  // What Init allocated; a zeroed dummy if it could not.
  template <typename T>
  T* OpData() {
    static_assert(sizeof(T) <= kOpDataBytes, "op data counts against the arena");
    static_assert(sizeof(T) <= sizeof(spare_), "spare_ stands in for op data");
    Require(node_->user_data != nullptr, "the arena is too small for the op's data");
    return static_cast<T*>(ok_ ? node_->user_data : static_cast<void*>(spare_));
  }

  // An int8 tensor of 1 to 4 dimensions that are all at least 1, and no constant: Eval may write to it.
  const EvalTensor* Activation(int input, const char* name);
  const EvalTensor* OutputActivation();

  // The same on the residual stream: int8, or int16 if the stream is wide.
  const EvalTensor* Stream(int input, const char* name);
  const EvalTensor* OutputStream();

  // If ok(): whether the node has this input, and a dimension of it (0 if not).
  bool Has(int input) const { return ok_ && Input(context_, node_, input) != nullptr; }
  int32_t InputDim(int input, int index) const { return ok_ ? Dim(Input(context_, node_, input), index) : 0; }

  // `rank` dimensions, the first of them 1.
  void SingleBatch(const EvalTensor* tensor, const char* name, int rank);
  void ShapeIs(const EvalTensor* tensor, const char* name, const Shape& wanted);
  void SameShape(const EvalTensor* tensor, const char* name, const EvalTensor* wanted);
  // All dimensions except the last.
  void SameTokens(const EvalTensor* tensor, const char* name, const EvalTensor* wanted);

  // A constant of the model. Optional: passes if missing.
  void Constant(int input, const char* name, Type type, const Shape& wanted);
  void OptionalConstant(int input, const char* name, Type type, const Shape& wanted);

  // An integer option; `min` after a failure.
  int64_t Option(const char* key, int64_t min, int64_t max);

  // The same; `missing` if the node has no such integer.
  int64_t OptionOr(const char* key, int64_t missing, int64_t min, int64_t max);

  // An integer option from -128 to 127; -128 after a failure.
  int8_t Int8Option(const char* key) { return static_cast<int8_t>(Option(key, INT8_MIN, INT8_MAX)); }

  // Inputs weights, bias and multiplier of a layer with `out` outputs, consecutive from `first`. Weights have the shape
  // `rows`, or `pairs` if option "packing" says so; they may be missing, which the caller must judge. Returns the
  // packing, plain rows without that option.
  uint8_t Layer(int first, int64_t out, const Shape& rows, const Shape& pairs);

  void Require(bool condition, const char* message);

  // What the kernel's _check says of the parameters; `limits` says in a few words which constants it takes.
  void Kernel(mcuf_status status, const char* limits);

  void Scratch(int32_t bytes, int* index);

 private:
  static constexpr size_t kOpDataBytes = 16;

  bool Readable(const EvalTensor* tensor, const char* name, Type type);
  const EvalTensor* InArena(const EvalTensor* tensor, const char* name, Type type = kInt8);
  uint8_t Packing();

  Context* context_;
  Node* node_;
  const char* op_;
  bool ok_;
  int64_t spare_[2];
};

// Init of an op with op data of type T. The data is filled in Prepare.
template <typename T>
void* InitOpData(Context* context, const char*, size_t) {
  return AllocatePersistent(context, sizeof(T));
}

// The end of an Eval: logs a kernel's error.
Status EvalStatus(Context* context, const char* op, mcuf_status status);

}  // namespace mcuformer

#endif  // MCUF_KERNELS_KERNEL_CHECK_H_
