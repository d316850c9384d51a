// SPDX-License-Identifier: Apache-2.0
//
// The binary interface of the TensorFlow Lite Micro inside the tflite-micro wheel (x86-64 Linux). The wheel ships no
// headers, so the few structures that a kernel touches are declared here by their layout; host_plugin.cc checks each
// assumption before it relies on it. Without a wheel, the planner is compiled with these declarations alone.
#ifndef MCUF_HOST_ABI_H_
#define MCUF_HOST_ABI_H_

#include <cstddef>
#include <cstdint>

// What Python calls.
#if defined(_WIN32)
#define MCUF_EXPORT extern "C" __declspec(dllexport)
#else
#define MCUF_EXPORT extern "C" __attribute__((visibility("default")))
#endif

MCUF_EXPORT const char* mcuf_host_last_log();
MCUF_EXPORT void mcuf_host_clear_log();

namespace mcuformer {
namespace host {

enum Status : int { kStatusOk = 0, kStatusError = 1 };

// TfLiteType
enum Type : int { kTypeFloat32 = 1, kTypeInt32 = 2, kTypeUInt8 = 3, kTypeInt16 = 7, kTypeInt8 = 9 };

// TfLiteIntArray. `data` has `size` elements.
struct IntArray {
  int size;
  int data[1];
};

// TfLiteEvalTensor
struct EvalTensor {
  void* data;
  IntArray* dims;
  Type type;
};

// TfLiteNode
struct Node {
  IntArray* inputs;
  IntArray* outputs;
  IntArray* intermediates;
  void* user_data;
  void* builtin_data;
  const void* custom_initial_data;
  int custom_initial_data_size;
};

// TfLiteContext. Its layout changed often; only impl_, a pointer to the MicroInterpreterContext, is used.
struct Context;

// TFLMRegistration
struct Registration {
  void* (*init)(Context* context, const char* buffer, size_t length);
  void (*free)(Context* context, void* buffer);
  Status (*prepare)(Context* context, Node* node);
  Status (*invoke)(Context* context, Node* node);
  void (*reset)(Context* context, void* buffer);
  int32_t builtin_code;
  const char* custom_name;
};

constexpr int32_t kBuiltinCustom = 32;       // BuiltinOperator_CUSTOM
constexpr unsigned kResolverCapacity = 200;  // PythonOpsResolver = MicroMutableOpResolver<200>

// tflite::PythonOpsResolver. The first two virtual functions are FindOp(BuiltinOperator) and FindOp(const
// char*).
struct PythonOpsResolver {
  void** vtable;
  Registration registrations[kResolverCapacity];
  unsigned registrations_length;
  int builtin_codes[kResolverCapacity];
  void* builtin_parsers[kResolverCapacity];
  unsigned builtin_count;
};

// TfLiteTensor, as MicroInterpreter::input and ::output return it.
struct Tensor {
  unsigned char quantization[24];
  void* data;
  IntArray* dims;
  size_t bytes;
  Type type;
};

class ErrorReporter;

// tflite::micro::MicroMemoryPlanner: its virtual functions in order. host_planner_run.cc checks it.
class MicroMemoryPlanner {
 public:
  virtual ~MicroMemoryPlanner() {}
  virtual Status AddBuffer(int size, int first_time_used, int last_time_used) = 0;
  virtual Status AddBuffer(int size, int first_time_used, int last_time_used, int offline_offset) = 0;
  virtual size_t GetMaximumMemorySize() = 0;
  virtual int GetBufferCount() = 0;
  virtual Status GetOffsetForBuffer(int buffer_index, int* offset) = 0;
  virtual Status Init(unsigned char* scratch_buffer, int scratch_buffer_size) = 0;
  virtual bool preserves_all_tensors() const = 0;
  virtual void PrintMemoryPlan() {}
};

// What kernels call, bound to the wheel's own functions by host_plugin.cc.
EvalTensor* GetEvalTensor(const Context* context, int tensor);
void* AllocatePersistent(Context* context, size_t bytes);
Status RequestScratch(Context* context, size_t bytes, int* index);
void* GetScratch(Context* context, int index);
void* ExternalContext(Context* context);  // set by mcuf_host_set_image_source

// What Log prints with: the wheel's own function, which writes to stderr; nullptr until the wheel is bound.
extern void (*log_print)(const char* format, ...);

// Keeps one line for mcuf_host_last_log(), and prints it if there is something to print with.
void Log(const char* format, ...) __attribute__((format(printf, 1, 2)));

// True if the node and its tensors look as declared above, so that a wheel of another layout gives an
// error.
bool LayoutIsKnown(const Context* context, const Node* node);

}  // namespace host
}  // namespace mcuformer

#endif  // MCUF_HOST_ABI_H_
