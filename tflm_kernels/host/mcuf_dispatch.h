/* SPDX-License-Identifier: Apache-2.0
 *
 * The host's library holds several versions of the functions where the time goes, and takes the fastest that the
 * processor runs. All give the same bits. Compiled with MCUF_DISPATCH, which setup.py alone sets: the core's portable
 * versions then have the suffix _portable; mcuf_dispatch.c, and mcuf_streamed.c, define the names without it. */
#ifndef MCUF_DISPATCH_H_
#define MCUF_DISPATCH_H_

#include "mcuf_attention_rows.h"
#include "mcuf_block.h"
#include "mcuf_int_layer_norm_parts.h"
#include "mcuf_streamed_attention_s8.h"
#include "mcuf_streamed_mlp_s8.h"

/* Which versions there are. Windows' compilers align no stack for AVX2's spilled registers (GCC's bug 54412). */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(_WIN32)
#define MCUF_X86 1
#else
#define MCUF_X86 0
#endif
#if defined(__aarch64__) && defined(__GNUC__) && !defined(_WIN32)
#define MCUF_AARCH64 1
#else
#define MCUF_AARCH64 0
#endif

/* Fully connected layers of many tokens are computed panel by panel: the weights of some outputs, expanded once for all
 * the tokens. Inputs and weights lie in units of four bytes that one lane multiplies at once. */
#define MCUF_PANEL_MOST_OUTPUTS 32
#define MCUF_PANEL_MOST_INPUTS 1536
#define MCUF_PANEL_STEP 16 /* inputs are padded to a multiple of it, tokens and weights with zeros */

typedef struct {
  int8_t weights[MCUF_PANEL_MOST_OUTPUTS * MCUF_PANEL_MOST_INPUTS] __attribute__((aligned(64))); /* [unit][output] */
  int32_t bias[MCUF_PANEL_MOST_OUTPUTS] __attribute__((aligned(64)));
  int32_t multiplier[MCUF_PANEL_MOST_OUTPUTS] __attribute__((aligned(64)));
  int32_t residual_scale[MCUF_PANEL_MOST_OUTPUTS] __attribute__((aligned(64))); /* zeros without residual */
} mcuf_panel;

/* Some tokens and a panel: what one call computes. */
typedef struct {
  const mcuf_panel* panel;
  int32_t units;        /* of a token, with its padding: a multiple of 4 */
  int32_t outputs;      /* of the panel that there are */
  const void* tokens;   /* expanded */
  ptrdiff_t token_size; /* bytes from token to token */
  int32_t zero_point;
  const int8_t* gelu_table; /* or NULL */
  const int8_t* residual;   /* or NULL; of the first token and output, as the output */
  int8_t* output;
  int32_t stride; /* of residual and output, from token to token */
} mcuf_panel_job;

typedef struct {
  int32_t outputs;     /* of a panel */
  int32_t tokens;      /* the most of a job */
  int32_t value_bytes; /* of an input or weight in a unit */
  /* k inputs of a token and its padding. */
  void (*expand)(const int8_t* source, int32_t k, void* token);
  /* Sets the weights from these rows, with zeros for padding, and may change the bias. */
  void (*pack)(const int8_t* const* rows, int32_t k, mcuf_panel* panel);
  void (*multiply)(const mcuf_panel_job* job, int32_t tokens);
} mcuf_panel_kernels;

/* mcuf_attention_rows() for any number of queries. 0 if they are too few or the sizes do not suit, and nothing was
 * done. */
typedef int mcuf_attention_head_fn(const mcuf_attention_rows_shape* shape, const int32_t* head, const int8_t* q,
                                   int32_t q_stride, const int8_t* keys, const int8_t* values, int32_t count,
                                   int8_t* output);

typedef struct {
  const char* name;
  int (*runs_here)(void);
  const mcuf_panel_kernels* panels; /* or NULL: every four tokens as a block */
  void (*block_accumulate)(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k,
                           const int16_t* block, int32_t count, int32_t* acc);
  mcuf_attention_head_fn* attention_head; /* or NULL: every four queries by mcuf_attention_rows() */
  mcuf_moments (*layer_norm_add)(const mcuf_int_layer_norm_params* params, const int8_t* x);
  void (*layer_norm_write)(const mcuf_int_layer_norm_params* params, const mcuf_normalisation* n, const int8_t* x,
                           int8_t* output);
} mcuf_host_kernels;

/* Whether k pairs of packed weights are what packing makes of bytes: others, of a damaged model, can stand for 128,
 * which only the portable versions compute with. */
static inline int mcuf_pairs_are_bytes(const int8_t* pairs, int32_t k) {
  int others = 0;
  for (int32_t i = 0; i < k; ++i) others |= (pairs[2 * i] < 0) & (pairs[2 * i + 1] == INT8_MAX);
  return !others;
}

/* The versions in use. */
const mcuf_host_kernels* mcuf_host_kernels_in_use(void);

/* Tokens that mcuf_fc_tokens() takes at once, of so many. */
int32_t mcuf_fc_tokens_at_once(int32_t in_features, int32_t tokens);

/* Whether all packed weights are what packing makes of bytes, as mcuf_fc_tokens() needs them. */
int mcuf_fc_weights_are_bytes(const int8_t* weights, int32_t packing, int32_t in_features, int32_t out_features);

/* Outputs of the rows for some tokens, which lie in_stride bytes apart. Up to mcuf_fc_tokens_at_once() of them are read
 * before an output is written. False if they are too few, their inputs too many, or the weights no bytes; then nothing
 * was done. residual (or NULL) and output are as for mcuf_block_fc(). */
int mcuf_fc_tokens(const mcuf_fc_rows* rows, const int8_t* input, int32_t in_stride, int32_t tokens,
                   const int8_t* residual, int8_t* output, int32_t stride);

mcuf_attention_head_fn mcuf_attention_head;

/* The portable versions, in core/. */
void mcuf_block_accumulate_portable(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k,
                                    const int16_t* block, int32_t count, int32_t* acc);
mcuf_moments mcuf_layer_norm_add_portable(const mcuf_int_layer_norm_params* params, const int8_t* x);
void mcuf_layer_norm_write_portable(const mcuf_int_layer_norm_params* params, const mcuf_normalisation* n,
                                    const int8_t* x, int8_t* output);
mcuf_status mcuf_streamed_mlp_s8_portable(const mcuf_streamed_mlp_params* params, void* stream, void* scratch);
mcuf_status mcuf_streamed_attention_s8_portable(const mcuf_streamed_attention_params* params, void* stream,
                                                void* scratch);

#if MCUF_X86
extern const mcuf_panel_kernels mcuf_panels_avx2, mcuf_panels_avx512vnni;
void mcuf_block_accumulate_avx2(const int8_t* weights, int32_t packing, int32_t out_features, int32_t k,
                                const int16_t* block, int32_t count, int32_t* acc);
mcuf_attention_head_fn mcuf_attention_head_avx2;
mcuf_moments mcuf_layer_norm_add_avx2(const mcuf_int_layer_norm_params* params, const int8_t* x);
void mcuf_layer_norm_write_avx2(const mcuf_int_layer_norm_params* params, const mcuf_normalisation* n, const int8_t* x,
                                int8_t* output);
#endif
#if MCUF_AARCH64
extern const mcuf_panel_kernels mcuf_panels_dotprod;
#endif

#endif /* MCUF_DISPATCH_H_ */
