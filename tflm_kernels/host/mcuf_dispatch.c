/* SPDX-License-Identifier: Apache-2.0
 *
 * mcuf_dispatch.h: which versions of the kernels this processor runs, and the choice among them. */
#include "mcuf_dispatch.h"

#include <string.h>

#if MCUF_AARCH64 && defined(__linux__)
#include <sys/auxv.h>
#endif

static int always(void) { return 1; }

#if MCUF_X86
static int has_avx2(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") != 0;
}
static int has_avx512vnni(void) {
#ifdef MCUF_EMULATED_AVX512
  return has_avx2();
#endif
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("avx512f") != 0 &&
         __builtin_cpu_supports("avx512vnni") != 0;
}
#endif

#if MCUF_AARCH64
static int has_dotprod(void) {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & 1ul << 20) != 0; /* HWCAP_ASIMDDP */
#elif defined(__APPLE__)
  return 1; /* all of Apple's, from the M1 on */
#else
  return 0;
#endif
}
#endif

#define PORTABLE_LOOPS \
  mcuf_block_accumulate_portable, NULL, mcuf_layer_norm_add_portable, mcuf_layer_norm_write_portable
#define AVX2_LOOPS \
  mcuf_block_accumulate_avx2, mcuf_attention_head_avx2, mcuf_layer_norm_add_avx2, mcuf_layer_norm_write_avx2

/* From the slowest to the fastest. portable is what the compiler makes of C: SSE2 on x86-64, NEON on aarch64. */
static const mcuf_host_kernels all_kernels[] = {
    {"portable", always, NULL, PORTABLE_LOOPS},
#if MCUF_X86
    {"avx2", has_avx2, &mcuf_panels_avx2, AVX2_LOOPS},
    {"avx512vnni", has_avx512vnni, &mcuf_panels_avx512vnni, AVX2_LOOPS},
#endif
#if MCUF_AARCH64
    {"dotprod", has_dotprod, &mcuf_panels_dotprod, PORTABLE_LOOPS},
#endif
};
#define KERNELS ((int)(sizeof(all_kernels) / sizeof(all_kernels[0])))

/* NULL until the first call. Threads that get here together find the same. */
static const mcuf_host_kernels* in_use;

const mcuf_host_kernels* mcuf_host_kernels_in_use(void) {
  const mcuf_host_kernels* kernels = __atomic_load_n(&in_use, __ATOMIC_RELAXED);
  if (kernels != NULL) return kernels;
  for (int i = 0; i < KERNELS; ++i) {
    if (all_kernels[i].runs_here()) kernels = &all_kernels[i];
  }
  __atomic_store_n(&in_use, kernels, __ATOMIC_RELAXED);
  return kernels;
}

/* The name of number `index` of all versions that this library has; NULL past the last. */
MCUF_API const char* mcuf_host_kernels_name(int index) {
  return index >= 0 && index < KERNELS ? all_kernels[index].name : NULL;
}

/* Whether this processor runs it. */
MCUF_API int mcuf_host_kernels_run_here(int index) {
  return index >= 0 && index < KERNELS && all_kernels[index].runs_here();
}

MCUF_API const char* mcuf_host_kernels_used(void) { return mcuf_host_kernels_in_use()->name; }

/* Takes this version from now on, while no kernel runs; 0 if this processor does not run it. */
MCUF_API int mcuf_host_use_kernels(int index) {
  if (!mcuf_host_kernels_run_here(index)) return 0;
  __atomic_store_n(&in_use, &all_kernels[index], __ATOMIC_RELAXED);
  return 1;
}

void mcuf_block_accumulate(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k,
                           const int16_t* block, int32_t count, int32_t* acc) {
  mcuf_host_kernels_in_use()->block_accumulate(weights, packing, out_features, k, block, count, acc);
}

int mcuf_attention_head(const mcuf_attention_rows_shape* shape, const int32_t* head, const int8_t* q, int32_t q_stride,
                        const int8_t* keys, const int8_t* values, int32_t count, int8_t* output) {
  mcuf_attention_head_fn* const run = mcuf_host_kernels_in_use()->attention_head;
  return run != NULL && run(shape, head, q, q_stride, keys, values, count, output);
}

mcuf_moments mcuf_layer_norm_add(const mcuf_int_layer_norm_params* params, const int8_t* x) {
  return mcuf_host_kernels_in_use()->layer_norm_add(params, x);
}

void mcuf_layer_norm_write(const mcuf_int_layer_norm_params* params, const mcuf_normalisation* n, const int8_t* x,
                           int8_t* output) {
  mcuf_host_kernels_in_use()->layer_norm_write(params, n, x, output);
}
