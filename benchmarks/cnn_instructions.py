# SPDX-License-Identifier: Apache-2.0
"""Instructions of a CNN's layers by CMSIS-NN on a simulated Cortex-M4, for benchmarks/baselines.py.

Every layer is one call of CMSIS-NN's own choice of kernel at the network's dimensions, weights in flash. The mean over
positions is its average pooling. The interpreter around the kernels is not counted, so TFLM takes some more.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from cnns import CnnConfig

from mcuformer.simulator import firmware
from mcuformer.simulator.firmware import MACHINES

MACHINE = "mps2-an386"  # a Cortex-M4

APP = """
#include "arm_nnfunctions.h"
#include "board.h"
static int8_t input[{most}], output[{most}], scratch[{scratch}];
static const int8_t weights[{weights}] = {{1, 2, 3}};
static int32_t bias[{channels}], multipliers[{channels}], shifts[{channels}];
static const cmsis_nn_per_channel_quant_params scales = {{multipliers, shifts}};
static const cmsis_nn_per_tensor_quant_params scale = {{1500000000, -9}};
static cmsis_nn_context context = {{scratch, sizeof(scratch)}};

static int fits(int32_t bytes) {{ return bytes <= (int32_t)sizeof(scratch); }}

static int convolve(int side, int in, int out, int kernel, int stride, int pad, int to) {{
  const cmsis_nn_conv_params params = {{5, 3, {{stride, stride}}, {{pad, pad}}, {{1, 1}}, {{-128, 127}}}};
  const cmsis_nn_dims x = {{1, side, side, in}}, w = {{out, kernel, kernel, in}}, b = {{1, 1, 1, out}};
  const cmsis_nn_dims y = {{1, to, to, out}};
  if (!fits(arm_convolve_wrapper_s8_get_buffer_size(&params, &x, &w, &y))) return 1;
  return arm_convolve_wrapper_s8(&context, &params, &scales, &x, input, &w, weights, &b, bias, &y, output);
}}

__attribute__((unused)) static int depthwise(int side, int in, int out, int kernel, int stride, int pad, int to) {{
  const cmsis_nn_dw_conv_params params = {{5, 3, 1, {{stride, stride}}, {{pad, pad}}, {{1, 1}}, {{-128, 127}}}};
  const cmsis_nn_dims x = {{1, side, side, in}}, w = {{1, kernel, kernel, out}}, b = {{1, 1, 1, out}};
  const cmsis_nn_dims y = {{1, to, to, out}};
  if (!fits(arm_depthwise_conv_wrapper_s8_get_buffer_size(&params, &x, &w, &y))) return 1;
  return arm_depthwise_conv_wrapper_s8(&context, &params, &scales, &x, input, &w, weights, &b, bias, &y, output);
}}

__attribute__((unused)) static int add(int elements) {{
  return arm_elementwise_add_s8(input, output, 5, 1500000000, 0, 5, 1500000000, 0, 20, output, 3, 1500000000, -19,
                                -128, 127, elements);
}}

static int mean(int side, int channels) {{
  const cmsis_nn_pool_params params = {{{{1, 1}}, {{0, 0}}, {{-128, 127}}}};
  const cmsis_nn_dims x = {{1, side, side, channels}}, window = {{1, side, side, 1}}, y = {{1, 1, 1, channels}};
  if (!fits(arm_avgpool_s8_get_buffer_size(1, channels))) return 1;
  return arm_avgpool_s8(&context, &params, &x, input, &window, &y, output);
}}

static int connect(int in, int out) {{
  const cmsis_nn_fc_params params = {{5, 0, 3, {{-128, 127}}}};
  const cmsis_nn_dims x = {{1, 1, 1, in}}, w = {{in, 1, 1, out}}, b = {{1, 1, 1, out}}, y = {{1, 1, 1, out}};
  return arm_fully_connected_s8(&context, &params, &scale, &x, input, &w, weights, &b, bias, &y, output);
}}

int main(void) {{
  for (unsigned i = 0; i < sizeof(input); ++i) input[i] = (int8_t)(i * 37);
  for (int i = 0; i < {channels}; ++i) multipliers[i] = 1500000000, shifts[i] = -9;
  uint32_t total = 0, first;
{calls}
  board_print_number((int32_t)total);
  board_print("\\n");
  return 0;
}}
"""
CALL = "  first = board_ticks();\n  if ({}) return {};\n  total += board_instructions(first, board_ticks());"


class Layer(NamedTuple):
    """A call in the app, and the sizes it needs: elements of its input and output, channels, bytes of weights."""

    call: str
    elements: int
    channels: int
    weights: int


def layers(config: CnnConfig) -> list[Layer]:
    """The layers in order."""
    made = []

    def convolve(side: int, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, depthwise=False) -> int:
        to = -(-side // stride)
        pad = max((to - 1) * stride + kernel - side, 0) // 2
        call = (
            f"{'depthwise' if depthwise else 'convolve'}({side}, {inputs}, {outputs}, {kernel}, {stride}, {pad}, {to})"
        )
        weights = kernel**2 * outputs * (1 if depthwise else inputs)
        made.append(Layer(call, max(side**2 * inputs, to**2 * outputs), outputs, weights))
        return to

    side, channels = convolve(config.image_size, config.in_channels, config.stem, 3, 2), config.stem
    for block in config.blocks:
        hidden = channels * (block.expansion or 1)
        if block.expansion > 1:
            convolve(side, channels, hidden)
        side = convolve(side, hidden, hidden, block.kernel, block.stride, depthwise=True)
        convolve(side, hidden, block.channels)
        if block.expansion and block.stride == 1 and block.channels == channels:
            made.append(Layer(f"add({side**2 * channels})", side**2 * channels, channels, 0))
        channels = block.channels
    made.append(Layer(f"mean({side}, {channels})", side**2 * channels, channels, 0))
    classes = config.num_classes
    return [*made, Layer(f"connect({channels}, {classes})", channels, max(channels, classes), channels * classes)]


def app(config: CnnConfig) -> str:
    """C that prints the instructions of one inference."""
    found = layers(config)
    return APP.format(
        most=max(layer.elements for layer in found), channels=max(layer.channels for layer in found),
        weights=max(layer.weights for layer in found), scratch=32 * 1024,
        calls="\n".join(CALL.format(layer.call, i + 2) for i, layer in enumerate(found)),
    )  # fmt: skip


def count(config: CnnConfig, include: Path, library: Path) -> int:
    """Instructions of one inference. include, library: of CMSIS-NN, built for a Cortex-M4."""
    machine = MACHINES[MACHINE]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "app.c").write_text(app(config))
        objects = firmware.compile_objects([folder / "app.c"], machine.core, folder, [include], firmware.C_FLAGS)
        objects += firmware.firmware_objects(machine, folder / "board")
        run = firmware.run(
            firmware.link(
                [*objects, library], machine, folder / "app.elf", machine.most_ram_bytes, machine.most_flash_bytes, 8192
            )
        )
    if run.status:
        raise RuntimeError(f"layer {run.status - 2} failed: {layers(config)[run.status - 2].call}")
    return int(run.text)
