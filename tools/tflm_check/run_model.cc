// SPDX-License-Identifier: Apache-2.0
//
// Runs an exported model in a real TFLM: int8 images from standard input, int8 logits to standard output. With
// "planner" as its argument TokenOverwritePlanner plans the arena. Prints the arena used to standard error.
#include <cstdio>
#include <cstring>
#include <type_traits>

#include "mcuformer/external_context.h"
#include "mcuformer/op_resolver.h"
#include "mcuformer/token_overwrite_planner.h"
#include "model.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
#if __has_include("tensorflow/lite/micro/micro_error_reporter.h")
#include "tensorflow/lite/micro/micro_error_reporter.h"
#else
inline void* GetMicroErrorReporter() { return nullptr; }  // named below, and not called
#endif

using namespace tflite;         // NOLINT
using namespace tflite::micro;  // NOLINT

namespace {

alignas(16) uint8_t arena[model_arena_size];
int8_t image[model_image_bytes];

// TFLM before 2022-09 wants an ErrorReporter as the last argument of these; a template, so that only what there is
// compiles.
template <class Interpreter, class... Arguments>
Interpreter& MakeInterpreter(Arguments... arguments) {
  if constexpr (std::is_constructible<Interpreter, Arguments...>::value) {
    static Interpreter interpreter(arguments...);
    return interpreter;
  } else {
    static Interpreter interpreter(arguments..., GetMicroErrorReporter());
    return interpreter;
  }
}

template <class Allocator, class Planner>
auto MakeAllocator(Planner* planner, int) -> decltype(Allocator::Create(arena, sizeof(arena), planner)) {
  return Allocator::Create(arena, sizeof(arena), planner);
}

template <class Allocator, class Planner>
Allocator* MakeAllocator(Planner* planner, long) {  // NOLINT: less wanted than int
  return Allocator::Create(arena, sizeof(arena), planner, GetMicroErrorReporter());
}

#if MODEL_STRIPS
int32_t ReadRows(void*, int32_t first_row, int32_t row_count, int8_t* rows) {
  const size_t row = model_image_bytes / model_image_height;
  memcpy(rows, image + row * static_cast<size_t>(first_row), row * static_cast<size_t>(row_count));
  return row_count;
}
#else
constexpr mcuf_image_rows_fn ReadRows = nullptr;
#endif

#if MODEL_STAGED
int32_t ReadWeights(void* file, int32_t offset, int32_t bytes, int8_t* target) {
  auto* weights = static_cast<FILE*>(file);
  if (fseek(weights, offset, SEEK_SET) != 0) return -1;
  return static_cast<int32_t>(fread(target, 1, static_cast<size_t>(bytes), weights));
}
#endif

}  // namespace

int main(int argc, char** argv) {
  const bool with_planner = argc > 1 && strcmp(argv[1], "planner") == 0;
  static MicroMutableOpResolver<mcuformer::kOpCount> resolver;
  if (mcuformer::AddMcuformerOps(resolver) != kTfLiteOk) return 2;
  if (mcuformer::AddMcuformerOps(resolver) == kTfLiteOk) return 3;  // no room for them twice
  static mcuformer::TokenOverwritePlanner planner(model_data, model_data_len);
  const Model* model = GetModel(model_data);
  const MicroOpResolver& ops = resolver;
  auto& interpreter =
      with_planner ? MakeInterpreter<MicroInterpreter, const Model*, const MicroOpResolver&, MicroAllocator*>(
                         model, ops, MakeAllocator<MicroAllocator>(static_cast<MicroMemoryPlanner*>(&planner), 0))
                   : MakeInterpreter<MicroInterpreter, const Model*, const MicroOpResolver&, uint8_t*, size_t>(
                         model, ops, arena, sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) return 5;
#if MODEL_STRIPS || MODEL_STAGED
  static mcuf_external_context sources = {MCUF_EXTERNAL_CONTEXT_MAGIC, ReadRows, nullptr, {nullptr, nullptr}};
#if MODEL_STAGED
  sources.weights = {ReadWeights, fopen("model.weights", "rb")};
#endif
  if (interpreter.SetMicroExternalContext(&sources) != kTfLiteOk) return 4;
#endif
  while (fread(image, 1, sizeof(image), stdin) == sizeof(image)) {
#if !MODEL_STRIPS
    memcpy(interpreter.input(0)->data.int8, image, sizeof(image));
#endif
    if (interpreter.Invoke() != kTfLiteOk) return 6;
    fwrite(interpreter.output(0)->data.int8, 1, model_classes, stdout);
  }
  fprintf(stderr, "arena %d\n", static_cast<int>(interpreter.arena_used_bytes()));
  return 0;
}
