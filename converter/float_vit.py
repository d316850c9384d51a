# SPDX-License-Identifier: Apache-2.0
"""The float network that a SubnetConfig describes: what is trained, calibrated and lowered."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from mcuformer.converter.ops import relative_position
from mcuformer.converter.subnet_config import LayerConfig, SubnetConfig

Record = Callable[[str, torch.Tensor], None]
"""Called with a tensor's name (as in the int8 graph) and its float value, tokens last but one."""

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick-gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "relu": F.relu,
    "hardswish": F.hardswish,
}
"""Those of int_gelu.ACTIVATIONS."""


def ignore(name: str, value: torch.Tensor) -> None:
    """The Record that keeps nothing."""


class LowRankLinear(nn.Module):
    """y = V (U x) + b with U [rank, in] and V [out, rank] (MCUFormer, low-rank decomposition)."""

    def __init__(self, in_features: int, out_features: int, rank: int):
        super().__init__()
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features)

    def forward(self, x: torch.Tensor, record: Record = ignore, name: str = "") -> torch.Tensor:
        x = self.down(x)
        record(f"{name}.rank", x)
        return self.up(x)


def make_linear(inputs: int, outputs: int, rank: int | None) -> nn.Linear | LowRankLinear:
    """A new matrix [outputs, inputs] with a bias; rank None: dense."""
    return nn.Linear(inputs, outputs) if rank is None else LowRankLinear(inputs, outputs, rank)


def _linear(matrix: nn.Linear | LowRankLinear, x: torch.Tensor, record: Record, name: str) -> torch.Tensor:
    return matrix(x, record, name) if isinstance(matrix, LowRankLinear) else matrix(x)


class Mlp(nn.Module):
    """fc2(activation(fc1(x))), each matrix dense or of low rank."""

    def __init__(self, embed_dim: int, layer: LayerConfig, activation: str = "gelu"):
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc1 = make_linear(embed_dim, layer.mlp_dim, layer.rank)
        self.fc2 = make_linear(layer.mlp_dim, embed_dim, layer.rank)

    def forward(self, x: torch.Tensor, record: Record, name: str) -> torch.Tensor:
        x = _linear(self.fc1, x, record, f"{name}.fc1")
        record(f"{name}.fc1.pre", x)
        x = self.activation(x)
        record(f"{name}.fc1", x)
        return _linear(self.fc2, x, record, f"{name}.fc2")


class RelativeBias(nn.Module):
    """A learnt number for each head and entry of relative_position.bias_entries(), added to the scaled scores."""

    entries: torch.Tensor

    def __init__(self, config: SubnetConfig, layer: LayerConfig):
        super().__init__()
        entries = relative_position.bias_entries(config.grid_shape, config.prefix_tokens)
        self.register_buffer("entries", torch.from_numpy(entries), persistent=False)
        count = relative_position.bias_length(config.grid_shape, config.prefix_tokens)
        self.bias = nn.Parameter(torch.zeros(layer.num_heads, count))

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q, k, v [N, heads, tokens, head_dim] -> the heads' outputs, as q."""
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias[:, self.entries])


class RelativeTables(nn.Module):
    """Learnt vectors, shared by the heads, that are added to keys and to values: one for the rows and one for the
    columns that a key is away from the query, one for all pairs with a prefix token."""

    places: torch.Tensor

    def __init__(self, config: SubnetConfig, layer: LayerConfig):
        super().__init__()
        rows, columns = config.grid_shape
        places = relative_position.table_entries(config.grid_shape, config.prefix_tokens)
        self.register_buffer("places", torch.from_numpy(places), persistent=False)

        def table(entries: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(entries, layer.head_dim))

        self.key_rows, self.key_columns = table(2 * rows - 1), table(2 * columns - 1)
        self.key_prefix = table(1) if config.prefix_tokens else None
        self.value_rows, self.value_columns = table(2 * rows - 1), table(2 * columns - 1)
        self.value_prefix = table(1) if config.prefix_tokens else None

    @property
    def keys(self) -> torch.Tensor:
        """[entries, head_dim]: rows, columns, prefix."""
        return _joined(self.key_rows, self.key_columns, self.key_prefix)

    @property
    def values(self) -> torch.Tensor:
        """As keys."""
        return _joined(self.value_rows, self.value_columns, self.value_prefix)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q, k, v [N, heads, tokens, head_dim] -> the heads' outputs, as q."""
        rows, columns = (place.expand(*q.shape[:2], -1, -1) for place in self.places)
        by_entry = F.pad(q @ self.keys.T, (0, 1))  # the entry after the last one is 0
        scores = q @ k.transpose(-1, -2) + by_entry.gather(-1, rows) + by_entry.gather(-1, columns)
        p = (scores * q.shape[-1] ** -0.5).softmax(dim=-1)
        sums = torch.zeros_like(by_entry).scatter_add(-1, rows, p).scatter_add(-1, columns, p)
        return p @ v + sums[..., :-1] @ self.values


def _joined(rows: torch.Tensor, columns: torch.Tensor, prefix: torch.Tensor | None) -> torch.Tensor:
    return torch.cat([rows, columns] if prefix is None else [rows, columns, prefix])


def relative_positions(config: SubnetConfig, layer: LayerConfig) -> RelativeBias | RelativeTables | None:
    """Those of a layer, None for none."""
    if config.relative is None:
        return None
    return RelativeTables(config, layer) if config.relative.tables else RelativeBias(config, layer)


class Attention(nn.Module):
    """Multi-head attention; query heads may share key/value heads. The matrices before and after it are dense or of low
    rank. relative: what knows how far keys are away."""

    def __init__(self, embed_dim: int, layer: LayerConfig, relative: RelativeBias | RelativeTables | None = None):
        super().__init__()
        self.layer = layer
        self.relative = relative
        self.qkv = make_linear(embed_dim, layer.qkv_dim, layer.attention_rank)
        self.proj = make_linear(layer.q_dim, embed_dim, layer.proj_rank)

    def forward(self, x: torch.Tensor, record: Record, name: str) -> torch.Tensor:
        batch, tokens, _ = x.shape
        layer = self.layer
        qkv = _linear(self.qkv, x, record, f"{name}.qkv")
        record(f"{name}.qkv", qkv)
        q, k, v = (
            part.reshape(batch, tokens, -1, layer.head_dim).transpose(1, 2)
            for part in qkv.split([layer.q_dim, layer.kv_dim, layer.kv_dim], dim=-1)
        )
        group = layer.num_heads // layer.kv_heads
        if group > 1:
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        heads = F.scaled_dot_product_attention(q, k, v) if self.relative is None else self.relative(q, k, v)
        x = heads.transpose(1, 2).reshape(batch, tokens, layer.q_dim)
        record(f"{name}.attention", x)
        return _linear(self.proj, x, record, f"{name}.proj")


class Layer(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)); with norm="post" norm1(x + attention(x)), norm2(x + mlp(x))."""

    def __init__(self, config: SubnetConfig, layer: LayerConfig):
        super().__init__()
        self.post_norm = config.norm == "post"
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=config.norm_epsilon)
        self.attention = Attention(config.embed_dim, layer, relative_positions(config, layer))
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=config.norm_epsilon)
        self.mlp = Mlp(config.embed_dim, layer, config.activation)

    def forward(self, x: torch.Tensor, record: Record, name: str) -> torch.Tensor:
        x = self._half(x, self.norm1, self.attention, record, name, "norm1", "proj")
        return self._half(x, self.norm2, self.mlp, record, name, "norm2", "fc2")

    def _half(self, x, norm, branch, record, name, norm_name, sum_name) -> torch.Tensor:
        y = x
        if not self.post_norm:
            y = norm(x)
            record(f"{name}.{norm_name}", y)
        x = x + branch(y, record, name)
        record(f"{name}.{sum_name}", x)
        if self.post_norm:
            x = norm(x)
            record(f"{name}.{norm_name}", x)
        return x


def _tokens(x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] -> [N, H * W, C]."""
    return x.flatten(2).transpose(1, 2)


class StemBlock(nn.Module):
    """An inverted residual of stride 1: x + project(depthwise(expand(x))), each with batch norm, ReLU behind the first
    two."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.expand = nn.Conv2d(channels, hidden, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor, record: Record, name: str) -> torch.Tensor:
        hidden = F.relu(self.expand_norm(self.expand(x)))
        record(f"{name}.expand", _tokens(hidden))
        hidden = F.relu(self.depthwise_norm(self.depthwise(hidden)))
        record(f"{name}.depthwise", _tokens(hidden))
        x = x + self.project_norm(self.project(hidden))
        record(f"{name}.block", _tokens(x))
        return x


class ConvStem(nn.Module):
    """3x3 convolutions of stride 2 with batch norm, ReLU between them. hidden: channels inside the block behind each
    convolution but the last, 0 where there is none; empty: no blocks. blocks: those there are, by number of the
    convolution before."""

    def __init__(self, in_channels: int, channels: tuple[int, ...], hidden: tuple[int, ...] = ()):
        super().__init__()
        inputs = (in_channels, *channels[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=2, padding=1, bias=False) for i, o in zip(inputs, channels, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in channels)
        self.blocks = nn.ModuleDict(
            {str(i): StemBlock(channels[i], inside) for i, inside in enumerate(hidden) if inside}
        )

    def forward(self, x: torch.Tensor, record: Record) -> torch.Tensor:
        last = len(self.convs) - 1
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            if i < last:
                x = F.relu(x)
                record(f"stem.{i}", _tokens(x))
                if str(i) in self.blocks:
                    x = self.blocks[str(i)](x, record, f"stem.{i}")
        return x


class FloatViT(nn.Module):
    """ViT: patch embedding (or convolution stem) + position table, prefix tokens, layers, norm, pooling, head.

    forward(images): float NCHW in [-1, 1] (cropped to whole patches) -> logits [N, num_classes], or without a head the
    pooled tokens [N, config.pool_dim]. `record` is called with every tensor that the int8 graph holds.

    position [1, patch tokens, d] is added to the tokens of patches; prefix [1, prefix_tokens, d] stands before them.
    """

    def __init__(self, config: SubnetConfig):
        super().__init__()
        self.config = config
        self.notes: dict = {}  # plain values that subnet.pt keeps beside the weights
        d = config.embed_dim
        self.stem: nn.Conv2d | ConvStem
        if config.stem == "patch":
            self.stem = nn.Conv2d(
                config.in_channels, d, config.patch_shape, stride=config.patch_shape, padding=config.patch_padding
            )
        else:
            self.stem = ConvStem(config.in_channels, config.conv_channels, config.block_hidden)
        self.position = nn.Parameter(torch.zeros(1, config.patch_tokens, d))
        self.prefix = nn.Parameter(torch.zeros(1, config.prefix_tokens, d)) if config.prefix_tokens else None
        self.norm_pre = nn.LayerNorm(d, eps=config.norm_epsilon) if config.norm_pre else None
        self.layers = nn.ModuleList(Layer(config, layer) for layer in config.layers)
        self.norm = None if config.final_norm == "none" else nn.LayerNorm(d, eps=config.norm_epsilon)
        self.head = nn.Linear(config.pool_dim, config.num_classes) if config.num_classes else None

    def forward(self, images: torch.Tensor, record: Record = ignore) -> torch.Tensor:
        x = self.stem(images, record) if isinstance(self.stem, ConvStem) else self.stem(images)
        x = _tokens(x) + self.position
        if self.prefix is not None:
            x = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1)
        record("embed", x)
        if self.norm_pre is not None:
            x = self.norm_pre(x)
            record("norm_pre", x)
        for i, layer in enumerate(self.layers):
            x = layer(x, record, f"layers.{i}")
        x = self.pool(x, record)
        if self.head is not None:
            x = self.head(x)
            record("head", x)
        return x

    def pool(self, x: torch.Tensor, record: Record) -> torch.Tensor:
        """What the head reads, of the layers' tokens: [N, tokens, d] -> [N, pool_dim]."""
        config = self.config
        if self.norm is not None and config.norm_before_pool:
            x = self.norm(x)
            record("norm", x)
        x = torch.stack([x[:, first : first + count].mean(dim=1) for first, count in config.pool_parts], dim=1)
        record("pool", x.flatten(1))
        if self.norm is not None and config.norm_after_pool:
            x = self.norm(x)
            record("norm", x.flatten(1))
        return x.flatten(1)


RELATIVE_STD = 0.02  # of new tables for relative positions
POSITION_STD = 0.5  # of a new position table: with few tokens and minutes of training, 0.02 learns slower


def initialise(net: FloatViT, seed: int) -> FloatViT:
    """Fills the network with seeded random weights: normal, of variance 2 / (in + out) for matrices (Glorot) and
    1 / in for convolutions; biases 0."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            initialise_matrix(module, generator)
    nn.init.trunc_normal_(net.position, std=POSITION_STD, generator=generator)
    if net.prefix is not None:
        nn.init.trunc_normal_(net.prefix, std=POSITION_STD, generator=generator)
    for module in net.modules():
        if isinstance(module, RelativeTables):
            for table in module.parameters():
                nn.init.trunc_normal_(table, std=RELATIVE_STD, generator=generator)
    return net


def initialise_matrix(module: nn.Linear | nn.Conv2d, generator: torch.Generator) -> None:
    """Fills one matrix or convolution as initialise() does."""
    fan_in, fan_out = module.weight[0].numel(), module.weight.shape[0]
    std = (2.0 / (fan_in + fan_out)) ** 0.5 if isinstance(module, nn.Linear) else fan_in**-0.5
    nn.init.trunc_normal_(module.weight, std=std, a=-3 * std, b=3 * std, generator=generator)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
