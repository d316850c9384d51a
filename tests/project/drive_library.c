/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads the compiled kernels and calls them without Python: the scratch getters, five kernels on values that every
 * machine makes alike, the planner. Prints the results; test_platforms.py compares them with those of this machine. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <windows.h>
typedef HMODULE library_handle;
#else
#include <dlfcn.h>
typedef void* library_handle;
#endif

#include "mcuf_in_place_fc_s8.h"
#include "mcuf_int_attention_s8.h"
#include "mcuf_int_layer_norm_s8.h"
#include "mcuf_token_mean_s8.h"

static library_handle library;

static void open_library(const char* path) {
#if defined(_WIN32)
  library = LoadLibraryA(path);
#else
  library = dlopen(path, RTLD_NOW);
#endif
  if (library == NULL) {
    printf("%s cannot be loaded\n", path);
    exit(1);
  }
}

/* Writes the address of a function to *function, a pointer to one. */
static void find(const char* name, void* function) {
#if defined(_WIN32)
  FARPROC address = GetProcAddress(library, name);
#else
  void* address = dlsym(library, name);
#endif
  if (address == NULL) {
    printf("%s is missing\n", name);
    exit(1);
  }
  memcpy(function, &address, sizeof(address));
}

static bool has(const char* name) {
#if defined(_WIN32)
  return GetProcAddress(library, name) != NULL;
#else
  return dlsym(library, name) != NULL;
#endif
}

static uint32_t state = 1;

static int32_t next(int32_t low, int32_t high) {
  state = state * 1664525u + 1013904223u;
  return low + (int32_t)((state >> 8) % (uint32_t)(high - low + 1));
}

static void fill(int8_t* values, int32_t count) {
  for (int32_t i = 0; i < count; ++i) values[i] = (int8_t)next(-127, 127);
}

static void show(const char* name, mcuf_status status, const int8_t* values, int32_t count) {
  printf("%s %d:", name, (int)status);
  for (int32_t i = 0; i < count; ++i) printf(" %d", values[i]);
  printf("\n");
}

static void scratch(void) {
  int32_t (*one)(int32_t), (*three)(int32_t, int32_t, int32_t), (*attention)(int32_t, int32_t, int32_t);
  int32_t (*four)(int32_t, int32_t, int32_t, int32_t);
  int32_t (*eight)(int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t);
  int32_t (*ten)(int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t);
  find("mcuf_stem_conv_s8_scratch_bytes", &one);
  find("mcuf_int_attention_s8_scratch_bytes", &attention);
  find("mcuf_in_place_fc_s8_scratch_bytes", &three);
  find("mcuf_streamed_mlp_s8_scratch_bytes", &four);
  find("mcuf_decomposed_patch_embed_s8_scratch_bytes", &eight);
  find("mcuf_streamed_attention_s8_scratch_bytes", &ten);
  printf("scratch %d %d %d %d %d %d\n", (int)one(24), (int)attention(49, 32, 0), (int)three(96, 1024, 8),
         (int)four(4, 96, 384, 0), (int)eight(96, 3, 16, 96, 1, 0, 0, 1), (int)ten(36, 4, 96, 3, 3, 1, 32, 0, 0, 0));
}

enum { kTokens = 7, kIn = 37, kOut = 22, kHeads = 2, kHeadDim = 9, kQkv = 3 * kHeads * kHeadDim };

static int8_t input[kTokens * kQkv], output[kTokens * kQkv], weights[kIn * kOut], table[256];
static int32_t work[4096];

static void gelu(void) {
  mcuf_status (*run)(const int8_t*, const int8_t*, int8_t*, int32_t);
  find("mcuf_int_gelu_s8", &run);
  fill(input, 64);
  fill(table, 256);
  show("gelu", run(table, input, output, 64), output, 64);
}

static void mean(void) {
  /* Of 10 and 20, and of -128 and 127: 15 and -0.5, rounded half up. */
  const int8_t tokens[4] = {10, -128, 20, 127};
  const mcuf_token_mean_params params = {.tokens = 2, .features = 2, .multiplier = 1 << 24};
  mcuf_status (*run)(const mcuf_token_mean_params*, const int8_t*, int8_t*);
  find("mcuf_token_mean_s8", &run);
  show("mean", run(&params, tokens, output), output, 2);
}

static void layer_norm(void) {
  static int16_t gamma[kIn];
  static int32_t beta[kIn];
  mcuf_int_layer_norm_params params = {kTokens, kIn, -3, 1000, gamma, beta, NULL};
  mcuf_status (*run)(const mcuf_int_layer_norm_params*, const int8_t*, int8_t*);
  for (int i = 0; i < kIn; ++i) gamma[i] = (int16_t)next(500, 4000), beta[i] = next(-1000000, 1000000);
  fill(input, kTokens * kIn);
  find("mcuf_int_layer_norm_s8", &run);
  show("layer_norm", run(&params, input, output), output, kTokens * kIn);
}

static void fc(void) {
  static int32_t bias[kOut], multiplier[kOut];
  mcuf_in_place_fc_params params = {0};
  mcuf_status (*run)(const mcuf_in_place_fc_params*, const int8_t*, const int8_t*, int8_t*, void*);
  for (int i = 0; i < kOut; ++i) bias[i] = next(-20000, 20000), multiplier[i] = next(1 << 21, 1 << 23);
  fill(input, kTokens * kIn);
  fill(weights, kIn * kOut);
  params.tokens = kTokens;
  params.in_features = params.in_stride = kIn;
  params.out_features = kOut;
  params.zero_point = 5;
  params.weights = weights;
  params.bias = bias;
  params.multiplier = multiplier;
  params.gelu_table = table;
  find("mcuf_in_place_fc_s8", &run);
  show("fc", run(&params, input, NULL, output, work), output, kTokens * kOut);
}

static void attention(void) {
  static const int32_t heads[kHeads][MCUF_ATTENTION_HEAD_PARAMS] = {{3 << 18, 3 << 29, -1, 0},
                                                                    {5 << 18, 3 << 29, 0, 2}};
  const mcuf_int_attention_params params = {kTokens,           kHeads, kHeads,   kHeadDim, kQkv,
                                            kHeads * kHeadDim, 4,      heads[0], {0}};
  mcuf_status (*run)(const mcuf_int_attention_params*, const int8_t*, int8_t*, void*);
  fill(input, kTokens * kQkv);
  find("mcuf_int_attention_s8", &run);
  show("attention", run(&params, input, output, work), output, kTokens * kHeads * kHeadDim);
}

/* Three buffers of 64, 32 and 48 bytes, the second over the first. */
static void placement(void) {
  const int size[3] = {64, 32, 48}, first[3] = {0, 1, 1}, last[3] = {1, 2, 2}, over[3] = {-1, 0, -1};
  const int fixed[3] = {-1, -1, -1};
  int offset[3] = {0};
  int (*run)(int, int, const int*, const int*, const int*, const int*, const int*, int*);
  find("mcuf_host_place_buffers", &run);
  const int head = run(3, 3, size, first, last, over, fixed, offset);
  printf("placement %d: %d %d %d\n", head, offset[0], offset[1], offset[2]);
}

int main(int count, char** arguments) {
  if (count != 2) return 2;
  open_library(arguments[1]);
  scratch();
  gelu();
  mean();
  layer_norm();
  fc();
  attention();
  placement();
  fprintf(stderr, "ops of the interpreter: %s\n", has("RegisterMcuformerOps") ? "yes" : "no");
  return 0;
}
