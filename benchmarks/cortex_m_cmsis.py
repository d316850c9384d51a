# SPDX-License-Identifier: Apache-2.0
"""CMSIS-NN's fully connected layer as an app, for benchmarks/cortex_m.py. Users bring headers and library."""

from __future__ import annotations


def app(tokens: int, features: int, out: int) -> str:
    """C that prints instructions of arm_fully_connected_s8 and of arm_nn_mat_mult_nt_t_s8 at one shape."""
    return f"""
#include "arm_nnfunctions.h"
#include "arm_nnsupportfunctions.h"
#include "board.h"
#define N {tokens}
#define K {features}
#define OUT {out}
static int8_t input[N * K], output[N * OUT];
static const int8_t weights[OUT * K] = {{1, 2, 3}};
static const int32_t bias[OUT] = {{5}};
static int32_t multipliers[OUT], shifts[OUT], sums[OUT];

static int report(uint32_t first, uint32_t second, arm_cmsis_nn_status status) {{
  board_print_number((int32_t)board_instructions(first, second));
  board_print("\\n");
  return status != ARM_CMSIS_NN_SUCCESS;
}}

int main(void) {{
  for (int i = 0; i < N * K; ++i) input[i] = (int8_t)(i * 37);
  for (int i = 0; i < OUT; ++i) multipliers[i] = 1500000000, shifts[i] = -9;
  const cmsis_nn_fc_params params = {{5, 0, 3, {{-128, 127}}}};
  const cmsis_nn_per_tensor_quant_params scale = {{1500000000, -9}};
  const cmsis_nn_dims in = {{N, 1, 1, K}}, filter = {{K, 1, 1, OUT}}, bias_dims = {{1, 1, 1, OUT}};
  const cmsis_nn_dims to = {{N, 1, 1, OUT}};
  const cmsis_nn_context context = {{sums, sizeof(sums)}};
#if defined(ARM_MATH_MVEI)
  arm_vector_sum_s8(sums, K, OUT, weights, 5, 0, bias);
#endif
  uint32_t first = board_ticks();
  arm_cmsis_nn_status status = arm_fully_connected_s8(&context, &params, &scale, &in, input, &filter, weights,
                                                      &bias_dims, bias, &to, output);
  if (report(first, board_ticks(), status)) return 2;
  first = board_ticks();
  status = arm_nn_mat_mult_nt_t_s8(input, weights, bias, output, multipliers, shifts, N, OUT, K, 5, 3, -128, 127, OUT,
                                   K);
  return report(first, board_ticks(), status) ? 3 : 0;
}}
"""
