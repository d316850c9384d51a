/* SPDX-License-Identifier: Apache-2.0
 *
 * Fully connected layers of many tokens, panel by panel: mcuf_dispatch.h. */
#include <string.h>

#include "mcuf_dispatch.h"

#define MOST_TOKEN_BYTES (160 * 1024) /* of expanded tokens, on the stack */

static ptrdiff_t token_size_of(const mcuf_panel_kernels* kernels, int32_t k) {
  return (ptrdiff_t)((k + MCUF_PANEL_STEP - 1) / MCUF_PANEL_STEP) * MCUF_PANEL_STEP * kernels->value_bytes;
}

/* The kernels for so many tokens of k inputs, or NULL. */
static const mcuf_panel_kernels* kernels_for(int32_t k, int32_t tokens) {
  return k <= MCUF_PANEL_MOST_INPUTS && tokens > MCUF_TOKEN_BLOCK ? mcuf_host_kernels_in_use()->panels : NULL;
}

int32_t mcuf_fc_tokens_at_once(int32_t in_features, int32_t tokens) {
  const mcuf_panel_kernels* kernels = kernels_for(in_features, tokens);
  if (kernels == NULL) return MCUF_TOKEN_BLOCK;
  const int32_t most = (int32_t)(MOST_TOKEN_BYTES / token_size_of(kernels, in_features));
  const int32_t groups = (tokens + most - 1) / most; /* of equal size, or nearly */
  return (tokens + groups - 1) / groups;
}

int mcuf_fc_weights_are_bytes(const int8_t* weights, int32_t packing, int32_t in_features, int32_t out_features) {
  if (packing == MCUF_PACKING_ROWS) return 1;
  for (int32_t o = 0; o < out_features; o += 2) {
    if (!mcuf_pairs_are_bytes(weights + mcuf_packed_offset(o, in_features, packing), in_features)) return 0;
  }
  return 1;
}

/* Row `row` of weights packed in pairs. */
static void unpack_row(const mcuf_fc_rows* rows, int32_t row, int8_t* target) {
  const int8_t* pair = rows->weights + mcuf_packed_offset(row & ~1, rows->in_features, MCUF_PACKING_PAIRS);
  for (int32_t i = 0; i < rows->in_features; ++i) {
    target[i] = row % 2 == 0 ? pair[2 * i] : (int8_t)(pair[2 * i + 1] + (pair[2 * i] < 0));
  }
}

/* Outputs [first, first + outputs). Where there is no row, the last one stands in for it. */
static void __attribute__((noinline)) fill_panel(const mcuf_panel_kernels* kernels, const mcuf_fc_rows* rows,
                                                 int32_t first, int32_t outputs, int has_residual, mcuf_panel* panel) {
  int8_t unpacked[MCUF_PANEL_MOST_OUTPUTS * MCUF_PANEL_MOST_INPUTS];
  const int8_t* sources[MCUF_PANEL_MOST_OUTPUTS];
  for (int32_t i = 0; i < kernels->outputs; ++i) {
    const int32_t o = first + (i < outputs ? i : outputs - 1);
    panel->bias[i] = rows->bias[o];
    panel->multiplier[i] = rows->multiplier[o];
    panel->residual_scale[i] = has_residual ? rows->residual_scale[o] : 0;
    if (rows->packing == MCUF_PACKING_ROWS) {
      sources[i] = rows->weights + (ptrdiff_t)o * rows->in_features;
    } else {
      int8_t* row = unpacked + (ptrdiff_t)i * MCUF_PANEL_MOST_INPUTS;
      unpack_row(rows, o, row);
      sources[i] = row;
    }
  }
  kernels->pack(sources, rows->in_features, panel);
}

static void multiply_tokens(const mcuf_panel_kernels* kernels, const mcuf_fc_rows* rows, const int8_t* expanded,
                            int32_t tokens, const int8_t* residual, int8_t* output, int32_t stride) {
  mcuf_panel panel;
  mcuf_panel_job job;
  job.panel = &panel;
  job.token_size = token_size_of(kernels, rows->in_features);
  job.units = (int32_t)job.token_size / 4;
  job.zero_point = rows->zero_point;
  job.gelu_table = rows->gelu_table;
  job.stride = stride;
  for (int32_t o = 0; o < rows->out_features; o += kernels->outputs) {
    const int32_t left = rows->out_features - o;
    job.outputs = left < kernels->outputs ? left : kernels->outputs;
    fill_panel(kernels, rows, o, job.outputs, residual != NULL, &panel);
    for (int32_t t = 0; t < tokens; t += kernels->tokens) {
      job.tokens = expanded + t * job.token_size;
      job.residual = residual == NULL ? NULL : residual + (ptrdiff_t)t * stride + o;
      job.output = output + (ptrdiff_t)t * stride + o;
      kernels->multiply(&job, tokens - t < kernels->tokens ? tokens - t : kernels->tokens);
    }
  }
}

int mcuf_fc_tokens(const mcuf_fc_rows* rows, const int8_t* input, int32_t in_stride, int32_t tokens,
                   const int8_t* residual, int8_t* output, int32_t stride) {
  const mcuf_panel_kernels* kernels = kernels_for(rows->in_features, tokens);
  if (kernels == NULL) return 0;
  if (!mcuf_fc_weights_are_bytes(rows->weights, rows->packing, rows->in_features, rows->out_features)) return 0;
  int8_t expanded[MOST_TOKEN_BYTES] __attribute__((aligned(64)));
  const ptrdiff_t size = token_size_of(kernels, rows->in_features);
  const int32_t most = mcuf_fc_tokens_at_once(rows->in_features, tokens);
  for (int32_t first = 0; first < tokens; first += most) {
    const int32_t count = tokens - first < most ? tokens - first : most;
    for (int32_t t = 0; t < count; ++t) {
      kernels->expand(input + (ptrdiff_t)(first + t) * in_stride, rows->in_features, expanded + t * size);
    }
    const ptrdiff_t at = (ptrdiff_t)first * stride;
    multiply_tokens(kernels, rows, expanded, count, residual == NULL ? NULL : residual + at, output + at, stride);
  }
  return 1;
}
