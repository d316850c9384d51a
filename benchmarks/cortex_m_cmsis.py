# SPDX-License-Identifier: Apache-2.0
"""CMSIS-NN's fully connected layer, for benchmarks/cortex_m.py: what it took, and an app, for which users bring headers
and library."""

from __future__ import annotations

COUNTED = {
    (49, 96, 96): (1_082_419, 868_139), (49, 96, 384): (4_314_067, 3_472_238),
    (196, 192, 768): (61_586_664, 47_660_270), (196, 768, 192): (56_054_663, 43_067_535),
    (1, 192, 1000): (409_139, 995_110), (37, 100, 75): (665_496, 562_896), (5, 33, 17): (10_656, 11_126),
    (3, 31, 29): (10_684, 13_420), (17, 200, 1): (10_185, 21_309), (17, 200, 2): (16_298, 12_735),
    (1, 7, 3): (399, 472), (1, 1, 1): (159, 113), (1, 10, 1): (208, 169), (1, 10, 2): (289, 388),
    (1, 10, 3): (411, 513), (1, 10, 10): (884, 1_501), (1, 100, 1): (392, 707), (1, 100, 2): (616, 1_238),
    (1, 100, 3): (921, 1_903), (1, 100, 10): (2_516, 5_758), (1, 1100, 1): (2_772, 6_707),
    (1, 1100, 2): (4_366, 10_803), (1, 1100, 3): (7_051, 17_467), (1, 1100, 10): (21_266, 53_578),
    (2, 10, 1): (382, 279), (2, 10, 2): (544, 480), (2, 10, 3): (788, 717), (2, 10, 10): (1_736, 1_975),
    (2, 100, 1): (748, 1_359), (2, 100, 2): (1_196, 1_522), (2, 100, 3): (1_806, 2_839), (2, 100, 10): (4_996, 7_188),
    (2, 1100, 1): (5_508, 13_359), (2, 1100, 2): (8_696, 13_212), (2, 1100, 3): (14_066, 26_529),
    (2, 1100, 10): (42_496, 65_638), (3, 10, 1): (555, 389), (3, 10, 2): (799, 650), (3, 10, 3): (1_165, 993),
    (3, 10, 10): (2_588, 2_815), (3, 100, 1): (1_104, 2_009), (3, 100, 2): (1_777, 2_003),
    (3, 100, 3): (2_692, 3_966), (3, 100, 10): (7_477, 9_583), (3, 1100, 1): (8_244, 20_009),
    (3, 1100, 2): (13_026, 17_257), (3, 1100, 3): (21_081, 37_220), (3, 1100, 10): (63_726, 85_853),
    (5, 10, 1): (901, 609), (5, 10, 2): (1_308, 893), (5, 10, 3): (1_918, 1_458), (5, 10, 10): (4_288, 4_030),
    (5, 100, 1): (1_816, 3_309), (5, 100, 2): (2_938, 2_748), (5, 100, 3): (4_463, 6_013),
    (5, 100, 10): (12_438, 13_308), (5, 1100, 1): (13_716, 33_309), (5, 1100, 2): (21_688, 23_692),
    (5, 1100, 3): (35_113, 56_956), (5, 1100, 10): (106_188, 118_028), (17, 10, 1): (2_977, 1_929),
    (17, 10, 2): (4_361, 2_351), (17, 10, 3): (6_435, 4_236), (17, 10, 10): (14_493, 11_320),
    (17, 100, 1): (6_088, 11_109), (17, 100, 2): (9_903, 7_218), (17, 100, 3): (15_088, 18_283),
    (17, 100, 10): (42_203, 35_658), (17, 1100, 1): (46_548, 113_109), (17, 1100, 2): (73_660, 62_302),
    (17, 1100, 3): (119_305, 175_367), (17, 1100, 10): (360_960, 311_078),
}  # fmt: skip
"""(tokens, inputs, outputs) -> instructions of app()'s two functions: CMSIS-NN 99f736a, Cortex-M4, -O3, gcc 12.2."""


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
static const int8_t weights[OUT * K] = {{1}};
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
