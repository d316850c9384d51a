# SPDX-License-Identifier: Apache-2.0
"""Small CNNs, the baselines of baselines.py: in PyTorch, to be trained like our networks, and the same in Keras for the
stock converter.

A network is a 3x3 convolution of stride 2, blocks, and a fully connected layer on the mean over all positions. A block
with an expansion is an inverted residual, as in MobileNetV2 and MCUNet: 1x1, depthwise, 1x1 without activation, and its
input added where shapes are equal. One without is a depthwise separable convolution, as in DS-CNN. Every convolution
but the inverted residual's last is followed by ReLU6; batch norms are folded into the Keras network's convolutions.
Padding is TensorFlow's SAME, which pads less before than behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Block(NamedTuple):
    """channels: outputs; stride and kernel: of the depthwise convolution; expansion: 0 for a separable convolution."""

    channels: int
    stride: int = 1
    expansion: int = 0
    kernel: int = 3


@dataclass(frozen=True)
class CnnConfig:
    """stem: outputs of the first convolution."""

    image_size: int
    stem: int
    blocks: tuple[Block, ...]
    in_channels: int = 1
    num_classes: int = 10

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.image_size, self.image_size, self.in_channels


def inverted_residuals(image_size: int, stem: int, stages: tuple[tuple[int, int, int, int], ...]) -> CnnConfig:
    """stages: (channels, blocks, stride of the first block, expansion) of each, as MobileNetV2's table."""
    blocks = [
        Block(channels, stride if i == 0 else 1, expansion)
        for channels, count, stride, expansion in stages
        for i in range(count)
    ]
    return CnnConfig(image_size, stem, tuple(blocks))


class Conv(nn.Module):
    """Convolution, batch norm, ReLU6 if active. x: [n, inputs, height, width]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.active = active

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        pads = []
        for length in (x.shape[3], x.shape[2]):
            missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads += [missing // 2, missing - missing // 2]
        x = self.norm(self.conv(F.pad(x, pads)))
        return F.relu6(x) if self.active else x


class CnnBlock(nn.Module):
    """A Block on `inputs` channels."""

    def __init__(self, inputs: int, block: Block):
        super().__init__()
        hidden = inputs * (block.expansion or 1)
        convs = [Conv(inputs, hidden, 1)] if block.expansion > 1 else []
        convs.append(Conv(hidden, hidden, block.kernel, block.stride, groups=hidden))
        convs.append(Conv(hidden, block.channels, 1, active=block.expansion == 0))
        self.convs = nn.Sequential(*convs)
        self.residual = block.expansion > 0 and block.stride == 1 and block.channels == inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.convs(x) if self.residual else self.convs(x)


class Cnn(nn.Module):
    """forward(images): float NCHW in [-1, 1] -> logits [n, num_classes]."""

    def __init__(self, config: CnnConfig, seed: int = 0):
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = Conv(config.in_channels, config.stem, 3, stride=2)
            widths = [config.stem, *(block.channels for block in config.blocks)]
            self.blocks = nn.Sequential(*map(CnnBlock, widths, config.blocks))
            self.head = nn.Linear(widths[-1], config.num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))


def keras_twin(net: Cnn):
    """The same network as a Keras model with a batch of one, float NHWC in [-1, 1] -> logits, batch norms folded."""
    from tensorflow import keras

    net.eval()
    pending = []  # (layer, kernel, bias), set once the layers are built

    def convolve(x, module: Conv):
        conv = fuse_conv_bn_eval(module.conv, module.norm)
        assert conv.bias is not None
        options = {
            "kernel_size": conv.kernel_size[0], "strides": conv.stride[0], "padding": "same",
            "activation": keras.activations.relu6 if module.active else None,
        }  # fmt: skip
        weight = conv.weight.detach().numpy()
        if conv.groups > 1:
            layer, kernel = keras.layers.DepthwiseConv2D(**options), weight.transpose(2, 3, 0, 1)
        else:
            layer, kernel = keras.layers.Conv2D(conv.out_channels, **options), weight.transpose(2, 3, 1, 0)
        pending.append((layer, kernel, conv.bias.detach().numpy()))
        return layer(x)

    image = keras.Input(net.config.image_shape, batch_size=1)
    x = convolve(image, net.stem)
    for block in net.blocks:
        assert isinstance(block, CnnBlock)
        y = x
        for module in block.convs:
            assert isinstance(module, Conv)
            y = convolve(y, module)
        x = keras.layers.Add()([x, y]) if block.residual else y
    head = keras.layers.Dense(net.config.num_classes)
    pending.append((head, net.head.weight.detach().numpy().T, net.head.bias.detach().numpy()))
    model = keras.Model(image, head(keras.layers.GlobalAveragePooling2D()(x)))
    for layer, kernel, bias in pending:
        layer.set_weights([np.ascontiguousarray(kernel), bias])
    return model


def macs(config: CnnConfig) -> int:
    """Multiply-accumulates of one image."""
    side = -(-config.image_size // 2)
    total = side * side * 9 * config.in_channels * config.stem
    inputs = config.stem
    for block in config.blocks:
        hidden = inputs * (block.expansion or 1)
        total += side * side * inputs * hidden * (block.expansion > 1)
        side = -(-side // block.stride)
        total += side * side * hidden * (block.kernel**2 + block.channels)
        inputs = block.channels
    return total + inputs * config.num_classes
