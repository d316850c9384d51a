// SPDX-License-Identifier: Apache-2.0
//
// Adds the custom ops to the interpreter of the tflite-micro wheel, which looks up RegisterMcuformerOps by
// name. The wheel's functions are bound by symbol; each assumption about its memory layout (host_abi.h) is
// checked before use, and memory that may be foreign is read through the kernel, so an unknown wheel gives
// an error, never a crash.
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <initializer_list>

#include "external_context.h"
#include "op_resolver.h"

namespace mcuformer {
namespace host {
namespace {

static_assert(sizeof(void*) == 8, "the host library is for 64-bit machines");
static_assert(sizeof(EvalTensor) == 24, "TfLiteEvalTensor");
static_assert(sizeof(Node) == 56, "TfLiteNode");
static_assert(sizeof(Registration) == 56, "TFLMRegistration");
static_assert(sizeof(PythonOpsResolver) == 13624, "tflite::PythonOpsResolver");

constexpr size_t kMessageBytes = 512;
thread_local char last_error[kMessageBytes];
thread_local mcuf_external_context sources = {MCUF_EXTERNAL_CONTEXT_MAGIC, nullptr, nullptr, {nullptr, nullptr}};

bool Fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
bool Fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_error, sizeof(last_error), format, arguments);
  va_end(arguments);
  return false;
}

// Copies `bytes` at `address`; false if any of them cannot be read. A pipe refuses unreadable memory
// (EFAULT).
bool SafeRead(const void* address, void* target, size_t bytes) {
  constexpr size_t kPiece = 4096;  // fits into an empty pipe
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return false;
  const char* from = static_cast<const char*>(address);
  char* to = static_cast<char*>(target);
  bool ok = true;
  while (ok && bytes > 0) {
    const size_t piece = bytes < kPiece ? bytes : kPiece;
    const ssize_t written = write(pipe_ends[1], from, piece);
    ok = written > 0 && read(pipe_ends[0], to, static_cast<size_t>(written)) == written;
    if (!ok) break;
    from += written;
    to += written;
    bytes -= static_cast<size_t>(written);
  }
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  return ok;
}

bool SafeReadPointer(const void* address, const void** pointer) {
  return reinterpret_cast<uintptr_t>(address) % sizeof(void*) == 0 && SafeRead(address, pointer, sizeof(*pointer));
}

// The wheel's own functions. They are called by name, so nothing depends on the order of its virtual
// functions.
struct Wheel {
  void* const* context_vtable = nullptr;  // of MicroInterpreterContext
  void* (*allocate_persistent)(void* micro_context, size_t bytes) = nullptr;
  Status (*request_scratch)(void* micro_context, size_t bytes, int* index) = nullptr;
  void* (*get_scratch)(void* micro_context, int index) = nullptr;
  EvalTensor* (*get_eval_tensor)(void* micro_context, int tensor) = nullptr;
  void* (*external_context)(void* micro_context) = nullptr;
  int impl_offset = -1;  // of impl_ in TfLiteContext, once known
};

Wheel wheel;  // written by Bind, impl_offset by MicroContextOf; with the same values each time

// Mangled names of TFLM, which is in namespace tflite::micro since 2026-10 and was in tflite before.
class Symbols {
 public:
  explicit Symbols(void* library) : library_(library), space_("6tflite5micro") {
    if (Get("_ZTVN", "23MicroInterpreterContextE") == nullptr) space_ = "6tflite";
  }

  void* Get(const char* before, const char* after) const {
    char name[160];
    snprintf(name, sizeof(name), "%s%s%s", before, space_, after);
    return dlsym(library_, name);
  }

 private:
  void* library_;
  const char* space_;
};

template <typename Function>
void BindMember(const Symbols& symbols, const char* member, Function* function) {
  char name[96];
  snprintf(name, sizeof(name), "23MicroInterpreterContext%s", member);
  *function = reinterpret_cast<Function>(symbols.Get("_ZN", name));
}

// Where the vtable of a class starts for its objects: after the offset to top and the type information.
void* const* VtableStart(void* symbol) { return symbol == nullptr ? nullptr : static_cast<void* const*>(symbol) + 2; }

// Checks that `vtable` is that of the wheel's PythonOpsResolver, and binds the wheel's functions.
bool Bind(const void* vtable) {
  Dl_info info = {};
  if (dladdr(vtable, &info) == 0 || info.dli_fname == nullptr) {
    return Fail("the given object is not a resolver of the tflite-micro interpreter");
  }
  void* library = dlopen(info.dli_fname, RTLD_NOLOAD | RTLD_LAZY);
  if (library == nullptr) {
    return Fail("the given object is not a resolver of the tflite-micro interpreter, but comes from %s",
                info.dli_fname);
  }
  // The handle is not closed: the wheel stays loaded as long as its functions are bound.
  void* const* const resolver_vtable = VtableStart(dlsym(library, "_ZTVN6tflite17PythonOpsResolverE"));
  if (resolver_vtable == nullptr || resolver_vtable != vtable) {
    return Fail("the given object is not a resolver of the tflite-micro interpreter (%s)", info.dli_fname);
  }
  const Symbols symbols(library);
  Wheel found = wheel;
  found.context_vtable = VtableStart(symbols.Get("_ZTVN", "23MicroInterpreterContextE"));
  BindMember(symbols, "24AllocatePersistentBufferEm", &found.allocate_persistent);
  BindMember(symbols, "27RequestScratchBufferInArenaEmPi", &found.request_scratch);
  BindMember(symbols, "16GetScratchBufferEi", &found.get_scratch);
  BindMember(symbols, "13GetEvalTensorEi", &found.get_eval_tensor);
  BindMember(symbols, "16external_contextEv", &found.external_context);
  const auto print = reinterpret_cast<void (*)(const char*, ...)>(dlsym(library, "_Z11MicroPrintfPKcz"));
  if (found.context_vtable == nullptr || found.allocate_persistent == nullptr || found.request_scratch == nullptr ||
      found.get_scratch == nullptr || found.get_eval_tensor == nullptr || print == nullptr) {
    return Fail("this version of tflite-micro lacks a function that the ops need (%s)", info.dli_fname);
  }
  // FindOp is called through the vtable: its first two entries must be the two FindOp of a resolver for 200
  // ops.
  void* const find_builtin = symbols.Get("_ZNK", "22MicroMutableOpResolverILj200EE6FindOpENS_15BuiltinOperatorE");
  void* const find_custom = symbols.Get("_ZNK", "22MicroMutableOpResolverILj200EE6FindOpEPKc");
  if (find_builtin == nullptr || find_custom == nullptr || resolver_vtable[0] != find_builtin ||
      resolver_vtable[1] != find_custom) {
    return Fail("this version of tflite-micro has a resolver of unknown layout (%s)", info.dli_fname);
  }
  wheel = found;
  log_print = print;
  return true;
}

const Registration* FindBuiltin(const PythonOpsResolver* resolver, int32_t code) {
  using Function = const Registration* (*)(const PythonOpsResolver*, int32_t);
  return reinterpret_cast<Function>(resolver->vtable[0])(resolver, code);
}

const Registration* FindCustom(const PythonOpsResolver* resolver, const char* name) {
  using Function = const Registration* (*)(const PythonOpsResolver*, const char*);
  return reinterpret_cast<Function>(resolver->vtable[1])(resolver, name);
}

bool IsShortString(const char* text) {
  constexpr size_t kMaxLength = 256;
  for (size_t i = 0; i < kMaxLength; ++i) {
    char c;
    if (!SafeRead(text + i, &c, 1)) return false;
    if (c == '\0') return true;
  }
  return false;
}

// Checks that the registrations lie where host_abi.h says: the wheel's own FindOp must find each of them
// there.
bool CheckRegistrations(const PythonOpsResolver* resolver) {
  const unsigned length = resolver->registrations_length;
  bool known =
      length > 0 && length <= kResolverCapacity && resolver->builtin_count > 0 && resolver->builtin_count <= length;
  for (unsigned i = 0; known && i < length; ++i) {
    const Registration& op = resolver->registrations[i];
    known = op.builtin_code != kBuiltinCustom || IsShortString(op.custom_name);
  }
  unsigned builtins = 0;
  for (unsigned i = 0; known && i < length; ++i) {
    const Registration& op = resolver->registrations[i];
    const bool custom = op.builtin_code == kBuiltinCustom;
    builtins += custom ? 0 : 1;
    known = &op == (custom ? FindCustom(resolver, op.custom_name) : FindBuiltin(resolver, op.builtin_code));
  }
  return (known && builtins == resolver->builtin_count) ||
         Fail("this version of tflite-micro has a resolver of unknown layout");
}

// The AddCustom that the wheel has inlined away, for AddMcuformerOps.
class ResolverView {
 public:
  explicit ResolverView(PythonOpsResolver* resolver) : resolver_(resolver) {}

  Status AddCustom(const char* name, const Registration* registration) {
    const Registration* present = FindCustom(resolver_, name);
    if (present != nullptr && present->invoke == registration->invoke) return kStatusOk;  // added before
    if (present != nullptr) {
      Fail("the resolver has an op %s from elsewhere", name);
      return kStatusError;
    }
    const unsigned length = resolver_->registrations_length;
    if (length >= kResolverCapacity) {
      Fail("the resolver has no room left: it holds %u ops", length);
      return kStatusError;
    }
    Registration* slot = &resolver_->registrations[length];
    *slot = *registration;
    slot->builtin_code = kBuiltinCustom;
    slot->custom_name = name;
    resolver_->registrations_length = length + 1;
    if (FindCustom(resolver_, name) == slot) return kStatusOk;
    resolver_->registrations_length = length;
    Fail("the resolver does not find %s after adding it", name);
    return kStatusError;
  }

 private:
  PythonOpsResolver* resolver_;
};

bool RegisterOps(void* object) {
  last_error[0] = '\0';
  const void* vtable = nullptr;
  if (object == nullptr || !SafeReadPointer(object, &vtable)) {
    return Fail("the given object is not a resolver of the tflite-micro interpreter");
  }
  if (!Bind(vtable)) return false;
  PythonOpsResolver copy;
  if (!SafeRead(object, &copy, sizeof(copy))) {
    return Fail("the given object is not a resolver of the tflite-micro interpreter");
  }
  auto* resolver = static_cast<PythonOpsResolver*>(object);
  if (!CheckRegistrations(resolver)) return false;
  const unsigned length = resolver->registrations_length;
  ResolverView view(resolver);
  if (AddMcuformerOps(view) == kStatusOk) return true;
  resolver->registrations_length = length;  // all or none
  return false;
}

// The MicroContext of a context: impl_, which is at offset 0 since 2026-10-08, 16 for a few days before
// that, and 24 in older ones. Accepted only if it points to the vtable of a MicroInterpreterContext.
// nullptr otherwise.
void* MicroContextOf(const Context* context) {
  const char* bytes = reinterpret_cast<const char*>(context);
  if (wheel.impl_offset < 0) {
    for (int offset : {0, 16, 24}) {
      const void *impl, *vtable;
      if (SafeReadPointer(bytes + offset, &impl) && SafeReadPointer(impl, &vtable) && vtable == wheel.context_vtable) {
        wheel.impl_offset = offset;
        break;
      }
    }
    if (wheel.impl_offset < 0) return nullptr;
  }
  void* impl;
  memcpy(&impl, bytes + wheel.impl_offset, sizeof(impl));
  return impl;
}

bool IsIntArray(const IntArray* array, int max_size) {
  int size;
  if (!SafeRead(array, &size, sizeof(size)) || size < 0 || size > max_size) return false;
  int last;
  return size == 0 || SafeRead(&array->data[size - 1], &last, sizeof(last));
}

bool TensorsLookRight(void* micro_context, const IntArray* tensors) {
  constexpr int kMaxType = 64, kMaxDimensions = 16;  // more than any model has
  for (int i = 0; i < tensors->size; ++i) {
    if (tensors->data[i] < 0) continue;
    const EvalTensor* tensor = wheel.get_eval_tensor(micro_context, tensors->data[i]);
    EvalTensor copy;
    if (!SafeRead(tensor, &copy, sizeof(copy)) || copy.type < 0 || copy.type > kMaxType ||
        !IsIntArray(copy.dims, kMaxDimensions)) {
      return false;
    }
  }
  return true;
}

}  // namespace

EvalTensor* GetEvalTensor(const Context* context, int tensor) {
  void* micro_context = MicroContextOf(context);
  return micro_context == nullptr ? nullptr : wheel.get_eval_tensor(micro_context, tensor);
}

void* AllocatePersistent(Context* context, size_t bytes) {
  void* micro_context = MicroContextOf(context);
  return micro_context == nullptr ? nullptr : wheel.allocate_persistent(micro_context, bytes);
}

Status RequestScratch(Context* context, size_t bytes, int* index) {
  void* micro_context = MicroContextOf(context);
  return micro_context == nullptr ? kStatusError : wheel.request_scratch(micro_context, bytes, index);
}

// What the interpreter was given, as in firmware; if nothing, what this thread set through the functions below.
void* ExternalContext(Context* context) {
  void* micro_context = MicroContextOf(context);
  void* given =
      micro_context == nullptr || wheel.external_context == nullptr ? nullptr : wheel.external_context(micro_context);
  return given == nullptr ? &sources : given;
}

void* GetScratch(Context* context, int index) {
  void* micro_context = MicroContextOf(context);
  return micro_context == nullptr ? nullptr : wheel.get_scratch(micro_context, index);
}

bool LayoutIsKnown(const Context* context, const Node* node) {
  void* micro_context = MicroContextOf(context);
  Node copy;
  if (micro_context == nullptr || !SafeRead(node, &copy, sizeof(copy))) return false;
  constexpr int kMaxTensors = 64, kMaxOptionBytes = 1 << 20;
  return IsIntArray(copy.inputs, kMaxTensors) && IsIntArray(copy.outputs, kMaxTensors) &&
         copy.custom_initial_data_size >= 0 && copy.custom_initial_data_size <= kMaxOptionBytes &&
         TensorsLookRight(micro_context, copy.inputs) && TensorsLookRight(micro_context, copy.outputs);
}

}  // namespace host
}  // namespace mcuformer

// What the interpreter calls. resolver: a tflite::PythonOpsResolver. All ops are added, or none and false.
// Adding them to the same resolver again changes nothing.
MCUF_EXPORT bool RegisterMcuformerOps(void* resolver) { return mcuformer::host::RegisterOps(resolver); }

// Why the last RegisterMcuformerOps of this thread returned false; empty if it returned true.
MCUF_EXPORT const char* mcuf_host_last_error() { return mcuformer::host::last_error; }

// Where the ops of this thread get image rows from: the wheel cannot set an external context.
MCUF_EXPORT void mcuf_host_set_image_source(mcuf_image_rows_fn rows, void* user) {
  mcuformer::host::sources.image_rows = rows;
  mcuformer::host::sources.image_user = user;
}

// Where the ops of this thread get staged weights from.
MCUF_EXPORT void mcuf_host_set_weight_source(mcuf_weights_fn read, void* user) {
  mcuformer::host::sources.weights.read = read;
  mcuformer::host::sources.weights.user = user;
}
