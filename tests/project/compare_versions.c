/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads the compiled kernels and runs fully connected layers of random sizes by every version of them that
 * this processor runs: all must give the bytes of the first, the portable one. Prints the versions. For processors on
 * which no Python runs here; test_platforms.py calls it. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mcuf_in_place_fc_s8.h"

enum { kLayers = 400, kMostTokens = 40, kMostInputs = 200, kMostOutputs = 70 };

static uint32_t state = 1;

static int32_t next(int32_t low, int32_t high) {
  state = state * 1664525u + 1013904223u;
  return low + (int32_t)((state >> 8) % (uint32_t)(high - low + 1));
}

static void fill(int8_t* values, int32_t count, int32_t least) {
  for (int32_t i = 0; i < count; ++i) values[i] = (int8_t)next(least, 127);
}

static int8_t input[kMostTokens * kMostInputs], weights[kMostInputs * kMostOutputs], table[256];
static int8_t residual[kMostTokens * kMostOutputs];
static int16_t scale[kMostOutputs];
static int32_t bias[kMostOutputs], multiplier[kMostOutputs], work[4096];

typedef mcuf_status fc_function(const mcuf_in_place_fc_params*, const int8_t*, const int8_t*, int8_t*, void*);

static mcuf_in_place_fc_params random_layer(void) {
  mcuf_in_place_fc_params p = {0};
  p.tokens = next(1, kMostTokens);
  p.in_features = p.in_stride = next(1, kMostInputs);
  p.out_features = next(1, kMostOutputs);
  p.zero_point = next(-128, 127);
  p.weights = weights;
  p.bias = bias;
  p.multiplier = multiplier;
  p.residual_scale = next(0, 1) ? scale : NULL;
  p.gelu_table = next(0, 1) ? table : NULL;
  fill(input, p.tokens * p.in_features, -128);
  fill(weights, p.in_features * p.out_features, -127);
  fill(residual, p.tokens * p.out_features, -128);
  fill(table, 256, -128);
  for (int i = 0; i < p.out_features; ++i) {
    bias[i] = next(-20000, 20000);
    multiplier[i] = next(1 << 18, 1 << 23);
    scale[i] = (int16_t)next(0, 32767);
  }
  return p;
}

static void run_layers(fc_function* run, int8_t* output) {
  state = 1;
  for (int i = 0; i < kLayers; ++i, output += kMostTokens * kMostOutputs) {
    const mcuf_in_place_fc_params p = random_layer();
    const mcuf_status status = run(&p, input, p.residual_scale == NULL ? NULL : residual, output, work);
    if (status != MCUF_OK) exit(3);
  }
}

/* dlsym() gives a pointer to an object: copied, since C does not convert it to one to a function. */
static void find(void* library, const char* name, void* function) {
  void* address = dlsym(library, name);
  if (address == NULL) exit(4);
  memcpy(function, &address, sizeof(address));
}

int main(int count, char** arguments) {
  const char* (*name_of)(int);
  int (*runs_here)(int), (*use)(int);
  fc_function* run;
  void* library = count == 2 ? dlopen(arguments[1], RTLD_NOW) : NULL;
  const size_t bytes = (size_t)kLayers * kMostTokens * kMostOutputs;
  int8_t *want = calloc(bytes, 1), *got = calloc(bytes, 1);
  if (library == NULL || want == NULL || got == NULL) return 2;
  find(library, "mcuf_host_kernels_name", &name_of);
  find(library, "mcuf_host_kernels_run_here", &runs_here);
  find(library, "mcuf_host_use_kernels", &use);
  find(library, "mcuf_in_place_fc_s8", &run);
  for (int i = 0; name_of(i) != NULL; ++i) {
    if (!runs_here(i)) {
      printf("%s: not here\n", name_of(i));
      continue;
    }
    use(i);
    memset(got, 0, bytes);
    run_layers(run, i == 0 ? want : got);
    printf("%s: %s\n", name_of(i), i == 0 || memcmp(got, want, bytes) == 0 ? "exact" : "DIFFERS");
  }
  free(got);
  free(want);
  return 0;
}
