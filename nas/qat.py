# SPDX-License-Identifier: Apache-2.0
"""Quantisation-aware training: weights and activations rounded as the converter will; gradients pass straight through.

    with fake_quantised(net, images):
        train(net, ...)

Rounded are: weights, per output channel; tables of relative positions, those of keys and those of values per tensor
(biases of 16 bits are left as they are); outputs of norms, fully connected layers and activations, per tensor; q, k, v
and the attention's output, per head; the residual stream after every layer, per channel; what is pooled, per part. With
norm="post" a layer's norms round the stream per tensor, and the sums before them are rounded per channel. Ranges are a
running average of the batches' smallest and largest values.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from mcuformer.converter.float_vit import ConvStem, FloatViT, Layer, LowRankLinear, RelativeTables, StemBlock
from mcuformer.converter.ops.int_gelu import ACTIVATIONS
from mcuformer.converter.subnet_config import LayerConfig, SubnetConfig

MOMENTUM = 0.05  # of the running ranges
TINY = 1e-8


def round_through(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | float, low: int) -> torch.Tensor:
    """x rounded to int8 steps (low to 127) of scale around zero; the gradient is that of clamping."""
    clamped = torch.clamp(x / scale + zero, low, 127)
    return ((torch.round(clamped) - clamped).detach() + clamped - zero) * scale


class RoundedWeight(nn.Module):
    """Symmetric per output channel, in [-127, 127]: as converter/ops/weights.py."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        largest = weight.detach().abs().flatten(1).amax(dim=1).clamp_min(TINY)
        return round_through(weight, (largest / 127).reshape(-1, *[1] * (weight.ndim - 1)), 0.0, -127)


class RoundedTable(nn.Module):
    """A part of a table, symmetric, in [-127, 127]. whole: all parts, before they are rounded: they have one scale."""

    def __init__(self, whole: Sequence[nn.Parameter]):
        super().__init__()
        self.whole = tuple(whole)

    def forward(self, part: torch.Tensor) -> torch.Tensor:
        return round_through(part, _step(self.whole), 0.0, -127)


def _step(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The symmetric scale of a tensor in several parts."""
    return torch.stack([part.detach().abs().amax() for part in parts]).amax().clamp_min(TINY) / 127


class RoundedActivation(nn.Module):
    """groups: 0: one scale and a zero point; else the number of equal channel groups, each with a symmetric scale.

    least() [groups]: the smallest that those scales may be."""

    def __init__(
        self, groups: int = 0, floor: float = -torch.inf, least: Callable[[], torch.Tensor | float] = lambda: 0.0
    ):
        super().__init__()
        self.groups, self.floor, self.least = groups, floor, least
        self.low: torch.Tensor
        self.high: torch.Tensor
        self.register_buffer("low", torch.full((max(1, groups),), torch.nan))
        self.register_buffer("high", torch.full((max(1, groups),), torch.nan))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = x.unflatten(-1, (max(1, self.groups), -1)) if x.ndim != 4 else x.flatten(1).unsqueeze(1)
        if self.training or bool(self.low.isnan().any()):
            self._observe(parts.detach().float())
        if self.groups:
            scale = (torch.maximum(-self.low, self.high) / 127).clamp_min(TINY)
            scale = torch.maximum(scale, torch.as_tensor(self.least(), device=scale.device))[:, None]
            return round_through(parts, scale, 0.0, -128).reshape(x.shape)
        low, high = self.low.clamp(max=0.0).clamp(min=self.floor), self.high.clamp(min=0.0)
        scale = ((high - low) / 255).clamp_min(TINY)
        return round_through(parts, scale, torch.round(-128 - low / scale), -128).reshape(x.shape)

    def _observe(self, parts: torch.Tensor) -> None:
        dims = [d for d in range(parts.ndim) if d != parts.ndim - 2]
        low, high = parts.amin(dim=dims), parts.amax(dim=dims)
        first = self.low.isnan()
        self.low.copy_(torch.where(first, low, self.low.lerp(low, MOMENTUM)))
        self.high.copy_(torch.where(first, high, self.high.lerp(high, MOMENTUM)))


def _pool_groups(config: SubnetConfig) -> int | None:
    """RoundedActivation's groups of what is pooled; None: single tokens, which are rounded already."""
    parts = config.pool_parts
    if all(count == 1 for _, count in parts):
        return None
    read_by_op = config.norm_after_pool or config.num_classes
    if config.norm == "pre" and not config.norm_before_pool and read_by_op:
        return config.pool_dim  # like the stream, per channel
    if len(parts) == 1:
        return 0
    return len(parts) if read_by_op else 1


class _Roundings:
    """The roundings of activations that hang on a network's modules."""

    def __init__(self):
        self.modules = nn.ModuleDict()
        self.handles: list[RemovableHandle] = []

    def _new(self, groups: int, **options) -> RoundedActivation:
        rounding = self.modules[str(len(self.modules))] = RoundedActivation(groups, **options)
        return rounding

    def after(self, module: nn.Module, groups: int = 0, **options) -> None:
        """options: RoundedActivation's."""
        rounding = self._new(groups, **options)
        self.handles.append(module.register_forward_hook(lambda _module, _inputs, output: rounding(output)))

    def before(self, module: nn.Module, groups: int = 0, flat: bool = False) -> None:
        """flat: the groups are of all that an image has, not of each token's channels."""
        rounding = self._new(groups)

        def hook(_module: nn.Module, inputs: tuple) -> tuple:
            x, *rest = inputs
            return rounding(x.flatten(1)).reshape(x.shape) if flat else rounding(x), *rest

        self.handles.append(module.register_forward_pre_hook(hook))


def _table_steps(relative: RelativeTables, dims: LayerConfig) -> torch.Tensor:
    """The scales of the tables for each head of q (0), k and v: int8 adds the tables by factors of at most 1."""
    keys, values = (_step([table]).expand(dims.kv_heads) for table in (relative.keys, relative.values))
    return torch.cat([keys.new_zeros(dims.num_heads), keys, values])


def _hang_roundings(net: FloatViT) -> _Roundings:
    """A rounding wherever the int8 graph has a tensor."""
    made, config = _Roundings(), net.config
    before, after = made.before, made.after
    if isinstance(net.stem, ConvStem):
        for conv in net.stem.convs[1:]:
            before(conv)
        for block in net.stem.blocks.values():
            assert isinstance(block, StemBlock)
            before(block)
            before(block.depthwise)
            before(block.project)
    if net.norm_pre is not None:
        before(net.norm_pre, config.embed_dim)
        after(net.norm_pre, config.embed_dim)
    for layer, dims in zip(net.layers, config.layers, strict=True):
        assert isinstance(layer, Layer)
        if layer.post_norm:
            before(layer.norm1, config.embed_dim)
            before(layer.norm2, config.embed_dim)
        after(layer.norm1)
        for matrix in (layer.attention.qkv, layer.attention.proj):
            if isinstance(matrix, LowRankLinear):
                after(matrix.down)
        steps = {}
        if isinstance(layer.attention.relative, RelativeTables):
            steps["least"] = functools.partial(_table_steps, layer.attention.relative, dims)
        after(layer.attention.qkv, dims.num_heads + 2 * dims.kv_heads, **steps)
        before(layer.attention.proj, dims.num_heads)
        after(layer.norm2)
        for fc in (layer.mlp.fc1, layer.mlp.fc2):
            if isinstance(fc, LowRankLinear):
                after(fc.down)
        after(layer.mlp.fc1, floor=ACTIVATIONS[config.activation].floor)
        before(layer.mlp.fc2)
        if not layer.post_norm:
            after(layer, config.embed_dim)
    reader = net.norm if config.norm_after_pool else net.head
    if (groups := _pool_groups(config)) is not None:
        after(net, groups) if reader is None else before(reader, groups, flat=True)
    if net.norm is not None:
        after(net.norm)
    if net.head is not None:
        after(net.head)
    return made


@contextmanager
def fake_quantised(net: FloatViT, images: torch.Tensor) -> Iterator[None]:
    """Within the `with`, `net` computes as if in int8. images: float NCHW, a few hundred, for the first ranges."""
    where = next(net.parameters()).device
    weighted = [module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for module in weighted:
        parametrize.register_parametrization(module, "weight", RoundedWeight())
    tables = [module for module in net.modules() if isinstance(module, RelativeTables)]
    for table, kind in itertools.product(tables, ("key_", "value_")):
        parts = {name: part for name, part in table.named_parameters() if name.startswith(kind)}
        for name in parts:
            parametrize.register_parametrization(table, name, RoundedTable(list(parts.values())))
    roundings = _hang_roundings(net)
    net.rounded = roundings.modules.to(where)
    training = net.training
    try:
        with torch.no_grad():
            net.eval()(images.to(where))
        net.train(training)
        yield
    finally:
        del net.rounded
        for handle in roundings.handles:
            handle.remove()
        for module in weighted:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        for table in tables:
            for name in list(table.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(table, name, leave_parametrized=False)
