// SPDX-License-Identifier: Apache-2.0
//
// Runs a model in the tflite-micro wheel with the planner for firmware, which the wheel's Python interface does not
// offer: the wheel's own MicroInterpreter and MicroAllocator around a TokenOverwritePlanner. Functions are found by
// name. Assumptions about layout are checked; one that no check can reach may still crash, so Python runs this in a
// process of its own (mcuformer/planner_run.py).
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "external_context.h"
#include "token_overwrite_planner.h"

MCUF_EXPORT bool RegisterMcuformerOps(void* resolver);
MCUF_EXPORT const char* mcuf_host_last_error();

namespace mcuformer {
namespace host {
namespace {

static_assert(offsetof(Tensor, bytes) == 40 && sizeof(Tensor) == 56, "the start of TfLiteTensor");

// The wheel's functions.
struct Runtime {
  void (*construct_resolver)(void* resolver);
  void* (*create_allocator)(uint8_t* arena, size_t bytes, MicroMemoryPlanner* planner);
  size_t (*used_bytes)(const void* allocator);
  void (*construct)(void* interpreter, const void* model, const void* resolver, void* allocator, void* variables,
                    void* profiler);
  void (*destroy)(void* interpreter);
  Status (*allocate_tensors)(void* interpreter);
  Status (*invoke)(void* interpreter);
  Status (*set_external_context)(void* interpreter, void* context);
  Tensor* (*input)(void* interpreter, size_t index);
  Tensor* (*output)(void* interpreter, size_t index);
};

// Binds all functions, or returns the name of the first missing one.
const char* Bind(void* library, Runtime* runtime) {
  const struct {
    void* function;
    const char* name;
  } symbols[] = {
      {&runtime->construct_resolver, "_ZN6tflite17PythonOpsResolverC1Ev"},
      {&runtime->create_allocator, "_ZN6tflite5micro14MicroAllocator6CreateEPhmPNS0_18MicroMemoryPlannerE"},
      {&runtime->used_bytes, "_ZNK6tflite5micro14MicroAllocator10used_bytesEv"},
      {&runtime->construct,
       "_ZN6tflite5micro16MicroInterpreterC1EPKNS_5ModelERKNS0_15MicroOpResolverEPNS0_14MicroAllocatorEPNS0_"
       "22MicroResourceVariablesEPNS0_22MicroProfilerInterfaceE"},
      {&runtime->destroy, "_ZN6tflite5micro16MicroInterpreterD1Ev"},
      {&runtime->allocate_tensors, "_ZN6tflite5micro16MicroInterpreter15AllocateTensorsEv"},
      {&runtime->invoke, "_ZN6tflite5micro16MicroInterpreter6InvokeEv"},
      {&runtime->set_external_context, "_ZN6tflite5micro16MicroInterpreter23SetMicroExternalContextEPv"},
      {&runtime->input, "_ZN6tflite5micro16MicroInterpreter5inputEm"},
      {&runtime->output, "_ZN6tflite5micro16MicroInterpreter6outputEm"},
  };
  for (const auto& symbol : symbols) {
    void* address = dlsym(library, symbol.name);
    if (address == nullptr) return symbol.name;
    memcpy(symbol.function, &address, sizeof(address));
  }
  return nullptr;
}

// The wheel's own planner has its virtual functions in the order that host_abi.h declares.
bool PlannerLayoutIsKnown(void* library) {
  static const char* const kNames[] = {
      "_ZN6tflite5micro19GreedyMemoryPlannerD1Ev",
      "_ZN6tflite5micro19GreedyMemoryPlannerD0Ev",
      "_ZN6tflite5micro19GreedyMemoryPlanner9AddBufferEiii",
      "_ZN6tflite5micro19GreedyMemoryPlanner9AddBufferEiiii",
      "_ZN6tflite5micro19GreedyMemoryPlanner20GetMaximumMemorySizeEv",
      "_ZN6tflite5micro19GreedyMemoryPlanner14GetBufferCountEv",
      "_ZN6tflite5micro19GreedyMemoryPlanner18GetOffsetForBufferEiPi",
      "_ZN6tflite5micro19GreedyMemoryPlanner4InitEPhi",
      "_ZNK6tflite5micro19GreedyMemoryPlanner21preserves_all_tensorsEv",
      "_ZN6tflite5micro19GreedyMemoryPlanner15PrintMemoryPlanEv",
  };
  void* const* vtable = static_cast<void* const*>(dlsym(library, "_ZTVN6tflite5micro19GreedyMemoryPlannerE"));
  if (vtable == nullptr) return false;
  vtable += 2;  // after the offset to top and the type information
  for (const char* name : kNames) {
    void* const function = dlsym(library, name);
    if (function == nullptr || *vtable++ != function) return false;
  }
  return true;
}

// Storage for one of the wheel's objects, several times as large as it is known to be; the second half must stay
// untouched.
class Storage {
 public:
  explicit Storage(size_t bytes) : bytes_(bytes), data_(static_cast<uint8_t*>(aligned_alloc(64, bytes))) {
    if (data_ != nullptr) memset(data_, kUntouched, bytes_);
  }
  ~Storage() { free(data_); }
  void* get() { return data_; }
  bool HeldOut() const {
    for (size_t i = bytes_ / 2; i < bytes_; ++i) {
      if (data_[i] != kUntouched) return false;
    }
    return true;
  }

 private:
  static constexpr uint8_t kUntouched = 0xA5;
  size_t bytes_;
  uint8_t* data_;
};

constexpr size_t kResolverBytes = 65536, kInterpreterBytes = 16384;

// The tensor's data; nullptr if it does not have `bytes` bytes inside the arena.
void* DataInArena(const Tensor* tensor, size_t bytes, const uint8_t* arena, size_t arena_bytes) {
  if (tensor == nullptr || tensor->bytes != bytes) return nullptr;
  const uintptr_t data = reinterpret_cast<uintptr_t>(tensor->data), start = reinterpret_cast<uintptr_t>(arena);
  return data >= start && bytes <= arena_bytes && data - start <= arena_bytes - bytes ? tensor->data : nullptr;
}

// What a camera and a flash chip would deliver, from memory.
struct Memory {
  const int8_t* data;
  size_t bytes;
  size_t row_bytes;  // of the image
};

bool Copy(const Memory& memory, int64_t offset, int64_t bytes, int8_t* target) {
  if (offset < 0 || bytes < 0 || offset + bytes > static_cast<int64_t>(memory.bytes)) return false;
  memcpy(target, memory.data + offset, static_cast<size_t>(bytes));
  return true;
}

int32_t ReadRows(void* user, int32_t first_row, int32_t row_count, int8_t* rows) {
  const Memory& image = *static_cast<const Memory*>(user);
  const int64_t row = static_cast<int64_t>(image.row_bytes);
  return Copy(image, first_row * row, row_count * row, rows) ? row_count : 0;
}

int32_t ReadWeights(void* user, int32_t offset, int32_t bytes, int8_t* target) {
  return Copy(*static_cast<const Memory*>(user), offset, bytes, target) ? bytes : 0;
}

}  // namespace
}  // namespace host
}  // namespace mcuformer

// One run of a model; filled in by the caller down to `runs`.
struct mcuf_host_planner_run {
  const char* runtime;   // path of the wheel's library, which is already loaded
  const uint8_t* model;  // aligned to 16 bytes
  size_t model_bytes;
  uint8_t* arena;  // aligned to 16 bytes
  size_t arena_bytes;
  const int8_t* inputs;  // runs * input_bytes
  size_t input_bytes;
  int8_t* outputs;  // runs * output_bytes
  size_t output_bytes;
  size_t runs;
  size_t image_row_bytes;  // bytes per row of an image in strips; 0: the image is a tensor
  const int8_t* weights;   // staged ones, or nullptr
  size_t weights_bytes;
  size_t total;  // out: used_bytes() of the allocator, head and tail
  size_t head;   // out: the planner's
  char message[512];
};

static bool Fail(mcuf_host_planner_run* run, const char* what, const char* more = "") {
  snprintf(run->message, sizeof(run->message), "%s%s", what, more);
  return false;
}

// True if all runs are done; otherwise the reason is in `message`.
MCUF_EXPORT bool mcuf_host_run_with_planner(mcuf_host_planner_run* run) {
  using namespace mcuformer;
  using namespace mcuformer::host;
  mcuf_host_clear_log();
  void* library = dlopen(run->runtime, RTLD_NOLOAD | RTLD_LAZY);
  if (library == nullptr) return Fail(run, "the tflite-micro interpreter is not loaded");
  Runtime runtime;
  if (const char* missing = Bind(library, &runtime)) return Fail(run, "this version of tflite-micro lacks ", missing);
  if (!PlannerLayoutIsKnown(library)) return Fail(run, "this version of tflite-micro has planners of unknown layout");

  Storage resolver(kResolverBytes), interpreter(kInterpreterBytes);
  if (resolver.get() == nullptr || interpreter.get() == nullptr) return Fail(run, "out of memory");
  runtime.construct_resolver(resolver.get());
  if (!resolver.HeldOut()) return Fail(run, "this version of tflite-micro has a resolver of unknown size");
  if (!RegisterMcuformerOps(resolver.get())) return Fail(run, mcuf_host_last_error());

  TokenOverwritePlanner planner(run->model, run->model_bytes);
  void* allocator = runtime.create_allocator(run->arena, run->arena_bytes, &planner);
  if (allocator == nullptr) return Fail(run, "the arena is too small for its allocator");
  uint32_t root;
  memcpy(&root, run->model, sizeof(root));
  runtime.construct(interpreter.get(), run->model + root, resolver.get(), allocator, nullptr, nullptr);
  if (!interpreter.HeldOut()) return Fail(run, "this version of tflite-micro has an interpreter of unknown size");

  bool ok = runtime.allocate_tensors(interpreter.get()) == kStatusOk;
  if (!ok) Fail(run, "the interpreter refused the model: ", mcuf_host_last_log());
  // As firmware does it.
  const bool strips = run->image_row_bytes > 0;
  Memory image = {nullptr, run->input_bytes, run->image_row_bytes};
  Memory weights = {run->weights, run->weights_bytes, 0};
  mcuf_external_context sources = {MCUF_EXTERNAL_CONTEXT_MAGIC, ReadRows, &image, {ReadWeights, &weights}};
  if (ok && (strips || run->weights != nullptr)) {
    ok = runtime.set_external_context(interpreter.get(), &sources) == kStatusOk;
    if (!ok) Fail(run, "the interpreter did not take the external context");
  }
  for (size_t i = 0; ok && i < run->runs; ++i) {
    void* out = DataInArena(runtime.output(interpreter.get(), 0), run->output_bytes, run->arena, run->arena_bytes);
    image.data = run->inputs + i * run->input_bytes;
    ok = out != nullptr;
    if (ok && !strips) {
      void* in = DataInArena(runtime.input(interpreter.get(), 0), run->input_bytes, run->arena, run->arena_bytes);
      ok = in != nullptr;
      if (ok) memcpy(in, image.data, run->input_bytes);
    }
    if (!ok) {
      Fail(run, "the interpreter's input and output are not what the model says");
      break;
    }
    ok = runtime.invoke(interpreter.get()) == kStatusOk;
    if (!ok) Fail(run, "the interpreter failed: ", mcuf_host_last_log());
    if (ok) memcpy(run->outputs + i * run->output_bytes, out, run->output_bytes);
  }
  run->total = runtime.used_bytes(allocator);
  run->head = planner.GetMaximumMemorySize();
  runtime.destroy(interpreter.get());
  dlclose(library);
  return ok;
}
