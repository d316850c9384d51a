# SPDX-License-Identifier: Apache-2.0
"""The float network that a SubnetConfig describes: what is trained, calibrated and lowered."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from mcuformer.converter.subnet_config import LayerConfig, SubnetConfig

Record = Callable[[str, torch.Tensor], None]
"""Called with a tensor's name (as in the int8 graph) and its float value, tokens last but one."""

NORM_EPSILON = 1e-6


def _ignore(name: str, value: torch.Tensor) -> None:
    pass


class LowRankLinear(nn.Module):
    """y = V (U x) + b with U [rank, in] and V [out, rank] (MCUFormer, low-rank decomposition)."""

    def __init__(self, in_features: int, out_features: int, rank: int):
        super().__init__()
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features)

    def forward(self, x: torch.Tensor, record: Record = _ignore, name: str = "") -> torch.Tensor:
        x = self.down(x)
        record(f"{name}.rank", x)
        return self.up(x)


class Mlp(nn.Module):
    """fc2(gelu(fc1(x))), each matrix dense or of low rank."""

    def __init__(self, embed_dim: int, layer: LayerConfig):
        super().__init__()

        def matrix(inputs: int, outputs: int) -> nn.Linear | LowRankLinear:
            return nn.Linear(inputs, outputs) if layer.rank is None else LowRankLinear(inputs, outputs, layer.rank)

        self.fc1 = matrix(embed_dim, layer.mlp_dim)
        self.fc2 = matrix(layer.mlp_dim, embed_dim)

    def forward(self, x: torch.Tensor, record: Record, name: str) -> torch.Tensor:
        x = self.fc1(x, record, f"{name}.fc1") if isinstance(self.fc1, LowRankLinear) else self.fc1(x)
        record(f"{name}.fc1.pre", x)
        x = F.gelu(x)
        record(f"{name}.fc1", x)
        return self.fc2(x, record, f"{name}.fc2") if isinstance(self.fc2, LowRankLinear) else self.fc2(x)


class Attention(nn.Module):
    """Multi-head attention; query heads may share key/value heads."""

    def __init__(self, embed_dim: int, layer: LayerConfig):
        super().__init__()
        self.layer = layer
        self.qkv = nn.Linear(embed_dim, layer.qkv_dim)
        self.proj = nn.Linear(layer.q_dim, embed_dim)

    def forward(self, x: torch.Tensor, record: Record, name: str) -> torch.Tensor:
        batch, tokens, _ = x.shape
        layer = self.layer
        qkv = self.qkv(x)
        record(f"{name}.qkv", qkv)
        q, k, v = (
            part.reshape(batch, tokens, -1, layer.head_dim).transpose(1, 2)
            for part in qkv.split([layer.q_dim, layer.kv_dim, layer.kv_dim], dim=-1)
        )
        group = layer.num_heads // layer.kv_heads
        if group > 1:
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, layer.q_dim)
        record(f"{name}.attention", x)
        return self.proj(x)


class Layer(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, embed_dim: int, layer: LayerConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=NORM_EPSILON)
        self.attention = Attention(embed_dim, layer)
        self.norm2 = nn.LayerNorm(embed_dim, eps=NORM_EPSILON)
        self.mlp = Mlp(embed_dim, layer)

    def forward(self, x: torch.Tensor, record: Record, name: str) -> torch.Tensor:
        y = self.norm1(x)
        record(f"{name}.norm1", y)
        x = x + self.attention(y, record, name)
        record(f"{name}.proj", x)
        y = self.norm2(x)
        record(f"{name}.norm2", y)
        x = x + self.mlp(y, record, name)
        record(f"{name}.fc2", x)
        return x


class ConvStem(nn.Module):
    """3x3 convolutions of stride 2 with batch norm, ReLU between them."""

    def __init__(self, in_channels: int, channels: tuple[int, ...]):
        super().__init__()
        inputs = (in_channels, *channels[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=2, padding=1, bias=False) for i, o in zip(inputs, channels, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in channels)

    def forward(self, x: torch.Tensor, record: Record) -> torch.Tensor:
        last = len(self.convs) - 1
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            if i < last:
                x = F.relu(x)
                record(f"stem.{i}", x.flatten(2).transpose(1, 2))
        return x


class FloatViT(nn.Module):
    """Pre-norm ViT: patch embedding (or convolution stem) + position table, layers, norm, mean over tokens, head.

    forward(images): float NCHW in [-1, 1] (cropped to whole patches) -> logits [N, num_classes].
    `record` is called with every tensor that the int8 graph holds.
    """

    def __init__(self, config: SubnetConfig):
        super().__init__()
        self.config = config
        self.notes: dict = {}  # plain values that subnet.pt keeps beside the weights
        d = config.embed_dim
        self.stem: nn.Conv2d | ConvStem
        if config.stem == "patch":
            self.stem = nn.Conv2d(config.in_channels, d, config.patch_size, stride=config.patch_size)
        else:
            self.stem = ConvStem(config.in_channels, config.conv_channels)
        self.position = nn.Parameter(torch.zeros(1, config.tokens, d))
        self.layers = nn.ModuleList(Layer(d, layer) for layer in config.layers)
        self.norm = nn.LayerNorm(d, eps=NORM_EPSILON)
        self.head = nn.Linear(d, config.num_classes)

    def forward(self, images: torch.Tensor, record: Record = _ignore) -> torch.Tensor:
        x = self.stem(images, record) if isinstance(self.stem, ConvStem) else self.stem(images)
        x = x.flatten(2).transpose(1, 2) + self.position
        record("embed", x)
        for i, layer in enumerate(self.layers):
            x = layer(x, record, f"layers.{i}")
        x = self.norm(x)
        record("norm", x)
        x = x.mean(dim=1)
        record("mean", x)
        x = self.head(x)
        record("head", x)
        return x


POSITION_STD = 0.5  # of a new position table: with few tokens and minutes of training, 0.02 learns slower


def initialise(net: FloatViT, seed: int) -> FloatViT:
    """Fills the network with seeded random weights: normal, of variance 2 / (in + out) for matrices (Glorot) and
    1 / in for convolutions; biases 0."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in, fan_out = module.weight[0].numel(), module.weight.shape[0]
            std = (2.0 / (fan_in + fan_out)) ** 0.5 if isinstance(module, nn.Linear) else fan_in**-0.5
            nn.init.trunc_normal_(module.weight, std=std, a=-3 * std, b=3 * std, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(net.position, std=POSITION_STD, generator=generator)
    return net
