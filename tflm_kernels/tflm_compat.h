// SPDX-License-Identifier: Apache-2.0
//
// The vocabulary that the kernels use for TensorFlow Lite Micro (TFLM), and the only file that knows its versions:
//
// - 2021-09 to 2023-05: TfLiteRegistration. Before 2022-01 the context is a table of functions, then a MicroContext.
// - 2023-05 to 2026-09: TFLMRegistration, types in the global namespace.
// - since 2026-10: all of it in tflite::micro.
// - MCUF_HOST_PLUGIN: no TFLM headers, but the layout of the tflite-micro wheel (host_abi.h).
//
// TF_LITE_STATIC_MEMORY and TF_LITE_STRIP_ERROR_STRINGS must be the same here as for TFLM's library: Prepare finds out
// about the first, and if they differ from those of the firmware's own sources, the firmware does not link.
//
// Kernels need no temporary tensors. Type, dimensions and the data of constants are known in Prepare; a tensor that has
// data by then is a constant.
#ifndef MCUF_TFLM_COMPAT_H_
#define MCUF_TFLM_COMPAT_H_

#include <cstddef>
#include <cstdint>

#if defined(MCUF_HOST_PLUGIN)

#include "host/host_abi.h"

namespace mcuformer {
namespace compat {

using Context = host::Context;
using Node = host::Node;
using Registration = host::Registration;
using EvalTensor = host::EvalTensor;
using IntArray = host::IntArray;
using Type = host::Type;
using Status = host::Status;
using ErrorReporter = host::ErrorReporter;
using host::MicroMemoryPlanner;

constexpr Status kOk = host::kStatusOk;
constexpr Status kError = host::kStatusError;
constexpr Type kFloat32 = host::kTypeFloat32;
constexpr Type kInt8 = host::kTypeInt8;
constexpr Type kUInt8 = host::kTypeUInt8;
constexpr Type kInt16 = host::kTypeInt16;
constexpr Type kInt32 = host::kTypeInt32;

constexpr char kUnknownLayout[] = "this version of the interpreter has an unknown memory layout";

using host::AllocatePersistent;
using host::ExternalContext;
using host::GetEvalTensor;
using host::GetScratch;
using host::LayoutIsKnown;
using host::RequestScratch;

inline void* TensorData(const EvalTensor* tensor) { return tensor->data; }

}  // namespace compat
}  // namespace mcuformer

// One line of printf style. Use %d (with int) and %s only: small targets print no more.
#define MCUF_LOG(context, ...)         \
  do {                                 \
    (void)(context);                   \
    mcuformer::host::Log(__VA_ARGS__); \
  } while (false)

#else  // TFLM's own headers

#include "tensorflow/lite/c/common.h"

// Where kernels log.
#if __has_include("tensorflow/lite/micro/micro_log.h")
#include "tensorflow/lite/micro/micro_log.h"
#else
#include "tensorflow/lite/micro/micro_error_reporter.h"
#endif

// Where kernels get tensors and memory: a MicroContext, or functions of the TfLiteContext before there was
// one.
#if __has_include("tensorflow/lite/micro/micro_context.h")
#define MCUF_TFLM_HAS_MICRO_CONTEXT 1
#include "tensorflow/lite/micro/micro_context.h"
#else
#define MCUF_TFLM_HAS_MICRO_CONTEXT 0
#endif

// Planners of the arena.
#if __has_include("tensorflow/lite/micro/memory_planner/micro_memory_planner.h")
#include "tensorflow/lite/micro/memory_planner/micro_memory_planner.h"
#endif

// How ops are registered.
#if __has_include("tensorflow/lite/micro/micro_common.h")
#define MCUF_TFLM_HAS_REGISTER_OP 1
#include "tensorflow/lite/micro/kernels/kernel_util.h"
#else
#define MCUF_TFLM_HAS_REGISTER_OP 0
#endif

namespace tflite {
class ErrorReporter;  // what planners were given to log to, until 2022-09
namespace micro {}
}  // namespace tflite

namespace mcuformer {
namespace compat {

// TFLM's names are global, in tflite or in tflite::micro, depending on the version.
using namespace ::tflite;         // NOLINT
using namespace ::tflite::micro;  // NOLINT

using Context = TfLiteContext;
using Node = TfLiteNode;
using EvalTensor = TfLiteEvalTensor;
using IntArray = TfLiteIntArray;
using Type = TfLiteType;
using Status = TfLiteStatus;
using ErrorReporter = ::tflite::ErrorReporter;

#if MCUF_TFLM_HAS_REGISTER_OP
// What TFLM's own kernels register: TFLMRegistration, and for a while in 2023-05 still TfLiteRegistration.
using Registration = decltype(RegisterOp(nullptr, nullptr, nullptr));
#else
using Registration = TfLiteRegistration;
#endif

constexpr Status kOk = kTfLiteOk;
constexpr Status kError = kTfLiteError;
constexpr Type kFloat32 = kTfLiteFloat32;
constexpr Type kInt8 = kTfLiteInt8;
constexpr Type kUInt8 = kTfLiteUInt8;
constexpr Type kInt16 = kTfLiteInt16;
constexpr Type kInt32 = kTfLiteInt32;

#if MCUF_TFLM_HAS_MICRO_CONTEXT
inline EvalTensor* GetEvalTensor(const Context* context, int tensor) {
  return GetMicroContext(context)->GetEvalTensor(tensor);
}
inline void* AllocatePersistent(Context* context, size_t bytes) {
  return GetMicroContext(context)->AllocatePersistentBuffer(bytes);
}
inline Status RequestScratch(Context* context, size_t bytes, int* index) {
  return GetMicroContext(context)->RequestScratchBufferInArena(bytes, index);
}
inline void* GetScratch(Context* context, int index) { return GetMicroContext(context)->GetScratchBuffer(index); }
inline void* ExternalContext(Context* context) { return GetMicroContext(context)->external_context(); }
#else
inline EvalTensor* GetEvalTensor(const Context* context, int tensor) { return context->GetEvalTensor(context, tensor); }
inline void* AllocatePersistent(Context* context, size_t bytes) {
  return context->AllocatePersistentBuffer(context, bytes);
}
inline Status RequestScratch(Context* context, size_t bytes, int* index) {
  return context->RequestScratchBufferInArena(context, bytes, index);
}
inline void* GetScratch(Context* context, int index) { return context->GetScratchBuffer(context, index); }
inline void* ExternalContext(Context*) { return nullptr; }
#endif

// With another TF_LITE_STATIC_MEMORY than the library's, the op data that Init allocated is where these sources see a
// field of TfLiteNode that TFLM leaves empty for a custom op.
#if defined(TF_LITE_STATIC_MEMORY)
constexpr char kUnknownLayout[] =
    "TFLM's library was compiled without TF_LITE_STATIC_MEMORY: compile the mcuformer sources without it";
inline bool LayoutIsKnown(const Context*, const Node* node) { return node->builtin_data == nullptr; }
#else
constexpr char kUnknownLayout[] =
    "TFLM's library was compiled with TF_LITE_STATIC_MEMORY: compile the mcuformer sources with it";
inline bool LayoutIsKnown(const Context*, const Node* node) { return node->temporaries == nullptr; }
#endif

inline void* TensorData(const EvalTensor* tensor) { return tensor->data.data; }

template <typename... Arguments>
void Ignore(Arguments&&...) {}

}  // namespace compat
}  // namespace mcuformer

// One line of printf style. Use %d (with int) and %s only: small targets print no more.
#if defined(TF_LITE_STRIP_ERROR_STRINGS)
#define MCUF_LOG(...) mcuformer::compat::Ignore(__VA_ARGS__)
#else
#define MCUF_LOG(context, ...) \
  do {                         \
    (void)(context);           \
    MicroPrintf(__VA_ARGS__);  \
  } while (false)
#endif

// The defines that must be the same everywhere, as functions that do nothing, for the linker to name: kernel_check.cc
// has those that it was compiled with, and op_resolver.h calls those of the firmware's own source.
#if defined(TF_LITE_STATIC_MEMORY)
#define MCUF_STATIC_MEMORY KernelsCompiledWith_TF_LITE_STATIC_MEMORY
#else
#define MCUF_STATIC_MEMORY KernelsCompiledWithout_TF_LITE_STATIC_MEMORY
#endif
#if defined(TF_LITE_STRIP_ERROR_STRINGS)
#define MCUF_ERROR_STRINGS KernelsCompiledWith_TF_LITE_STRIP_ERROR_STRINGS
#else
#define MCUF_ERROR_STRINGS KernelsCompiledWithout_TF_LITE_STRIP_ERROR_STRINGS
#endif

namespace mcuformer {
void MCUF_STATIC_MEMORY();
void MCUF_ERROR_STRINGS();
}  // namespace mcuformer

#endif  // MCUF_HOST_PLUGIN

namespace mcuformer {

using compat::AllocatePersistent;  // Init and Prepare; lives as long as the interpreter; nullptr if the
                                   // arena ends
using compat::Context;
using compat::EvalTensor;
using compat::ExternalContext;  // Eval only; what SetMicroExternalContext was given, nullptr without
using compat::GetScratch;       // Eval only
using compat::IntArray;
using compat::kError;
using compat::kFloat32;
using compat::kInt16;
using compat::kInt32;
using compat::kInt8;
using compat::kOk;
using compat::kUInt8;
using compat::kUnknownLayout;
using compat::LayoutIsKnown;
using compat::Node;
using compat::Registration;
using compat::RequestScratch;  // Prepare only; the index is for GetScratch
using compat::Status;
using compat::Type;

inline int InputCount(const Node* node) { return node->inputs == nullptr ? 0 : node->inputs->size; }
inline int OutputCount(const Node* node) { return node->outputs == nullptr ? 0 : node->outputs->size; }

// Tensor `index` in a node's list; nullptr if the list is shorter, or has -1 (no tensor) there.
inline EvalTensor* TensorAt(const Context* context, const IntArray* tensors, int index) {
  if (tensors == nullptr || index < 0 || index >= tensors->size || tensors->data[index] < 0) return nullptr;
  return compat::GetEvalTensor(context, tensors->data[index]);
}

inline const EvalTensor* Input(const Context* context, const Node* node, int index) {
  return TensorAt(context, node->inputs, index);
}

inline EvalTensor* Output(const Context* context, const Node* node, int index) {
  return TensorAt(context, node->outputs, index);
}

// Data of a tensor; nullptr without a tensor.
template <typename T>
const T* Data(const EvalTensor* tensor) {
  return tensor == nullptr ? nullptr : static_cast<const T*>(compat::TensorData(tensor));
}

template <typename T>
T* MutableData(EvalTensor* tensor) {
  return tensor == nullptr ? nullptr : static_cast<T*>(compat::TensorData(tensor));
}

// A custom op without state between runs.
inline Registration MakeRegistration(void* (*init)(Context*, const char*, size_t), Status (*prepare)(Context*, Node*),
                                     Status (*eval)(Context*, Node*)) {
  Registration registration = {};
  registration.init = init;
  registration.prepare = prepare;
  registration.invoke = eval;
  return registration;
}

}  // namespace mcuformer

#endif  // MCUF_TFLM_COMPAT_H_
