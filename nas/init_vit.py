# SPDX-License-Identifier: Apache-2.0
"""A supernet's first weights from a network trained elsewhere, at least as large.

MCUFormer starts from AutoFormer's weights this way.

    init_from_vit(supernet, load_subnet("subnet.pt"))

Channels, heads and layers are the network's first ones, as they are. A matrix of low rank gets the best factors of the
network's (SVD), the largest singular values first, so that every smaller rank is best too. A subnet with the
network's own patches starts with its very patch embedding and positions: a larger patch of the supernet is the least
one that folds back to it (as FlexiViT resizes), a finer position table the interpolated one, corrected by the least
amount. Relative positions are those of the same distances in tokens, beyond the network's those of its furthest. A
block in the stem that the network lacks starts anew; one that it has must be in the space. The head starts anew unless
it is kept. So a subnet of all the network's dimensions, dense or of full rank, has its logits.
"""

from __future__ import annotations

import itertools
import os

import torch
from torch import nn

from mcuformer.converter.float_vit import FloatViT, Layer, LowRankLinear
from mcuformer.converter.subnet_config import LayerConfig, SubnetConfig
from mcuformer.errors import ConfigError
from mcuformer.nas import relative
from mcuformer.nas.search_space import FIXED
from mcuformer.nas.supernet import SuperNet, resize_both, stem_of
from mcuformer.sizes import size_text

SAME = ("in_channels", "stem", *FIXED)
AT_LEAST = ("embed_dim", "depth")
AT_LEAST_PER_LAYER = ("num_heads", "mlp_dim")


@torch.no_grad()
def init_from_vit(
    supernet: SuperNet, net: FloatViT, path: str | os.PathLike = "the network", *, keep_head: bool = False
) -> None:
    """Fills `supernet` with weights of `net`. path: of its file, for messages; keep_head: its head too.

    ConfigError, naming the field and both values, if the network is smaller than the space's largest subnet, or of
    another kind.
    """
    _check(supernet, net.config, path, keep_head)
    source = {name: value.detach().cpu().double() for name, value in net.state_dict().items()}
    hull = supernet.hull
    for name, parameter in supernet.whole.named_parameters():
        matrix = ".mlp." in name or (".attention." in name and relative.MARK not in name)
        if matrix or (name.startswith("head.") and not keep_head):
            continue
        if name.startswith("stem.blocks.") and name not in source:
            continue
        if name == "position":
            value = _position(source[name], supernet, net.config)
        elif name == "stem.weight":
            value = _patch_weight(source[name], hull, net.config)
        elif relative.MARK in name:
            value = relative.for_grid(name, source[name], net.config.grid_shape, supernet.grid_shape)
        elif name == "head.weight":
            value = source[name].unflatten(1, (len(hull.pool_parts), -1))[..., : hull.embed_dim].flatten(1)
        else:
            value = source[name]
        parameter.copy_(value[tuple(slice(size) for size in parameter.shape)])
    largest = supernet.space.largest().layers[0]
    for target, given, layer in zip(supernet.whole.layers, net.layers, net.config.layers, strict=False):
        assert isinstance(target, Layer) and isinstance(given, Layer)
        qkv = _product(given.attention.qkv)
        _fill_matrix(target.attention.qkv, *(_qkv(value, layer, largest, hull.layers[0]) for value in qkv))
        _fill_matrix(target.attention.proj, *_product(given.attention.proj))
        for one, other in ((target.mlp.fc1, given.mlp.fc1), (target.mlp.fc2, given.mlp.fc2)):
            _fill_matrix(one, *_product(other))
    if hull.stem == "conv":
        _copy_statistics(supernet, source, net.config)


def _check(supernet: SuperNet, config: SubnetConfig, path: str | os.PathLike, keep_head: bool) -> None:
    space, hull = supernet.space, supernet.hull
    for field in SAME:
        if (ours := getattr(hull, field)) != (theirs := getattr(config, field)):
            raise ConfigError(
                f"{path}: has {field} = {theirs!r}, the space {ours!r}; give a space with {field}: {theirs}, or "
                "another network"
            )
    if config.patch_padding != (padding := space.padding_for(config.patch_size)):
        raise ConfigError(
            f"{path}: has patch_padding = {config.patch_padding} at patch_size = {size_text(config.patch_size)}, the "
            f"space {padding}; give a space with patch_padding: {{{size_text(config.patch_size)}: "
            f"{config.patch_padding}}}, or another network"
        )
    if keep_head and space.num_classes != config.num_classes:
        raise ConfigError(
            f"{path}: has num_classes = {config.num_classes}, the space {space.num_classes}: its head cannot be kept; "
            "leave out --keep-head, and a new one is trained"
        )
    for field in AT_LEAST:
        _at_least(path, field, getattr(config, field), getattr(hull, field))
    for i, layer in enumerate(config.layers[: hull.depth]):
        if layer.head_dim != space.head_dim:
            raise ConfigError(
                f"{path}: has head_dim = {layer.head_dim} in layer {i}, the space {space.head_dim}; give a space with "
                f"head_dim: {layer.head_dim}, or another network"
            )
        for field in AT_LEAST_PER_LAYER:
            _at_least(path, field, getattr(layer, field), getattr(hull.layers[0], field), f" in layer {i}")
    if len(config.conv_channels) != len(hull.conv_channels):
        raise ConfigError(
            f"{path}: has a stem of {len(config.conv_channels)} convolutions (patch_size = {config.patch_size}), the "
            f"space of {len(hull.conv_channels)} (patch_size = {hull.patch_size}); give a space of the same patch_size"
        )
    for i, (theirs, ours) in enumerate(zip(config.conv_channels, hull.conv_channels, strict=True)):
        _at_least(path, f"stem_channels[{i}]", theirs, ours)
    _check_blocks(config, hull, path)


def _check_blocks(config: SubnetConfig, hull: SubnetConfig, path: str | os.PathLike) -> None:
    both = itertools.zip_longest(hull.block_hidden, config.block_hidden, fillvalue=0)
    for i, (have, given) in enumerate(both):
        if given and not have:
            raise ConfigError(
                f"{path}: has a block behind stem convolution {i}, the space none; give a space with one in "
                "stem_blocks, or another network"
            )
        if given:
            _at_least(path, f"hidden channels of the block behind stem convolution {i}", given, have)


def _at_least(path: str | os.PathLike, field: str, theirs: int, ours: int, where: str = "") -> None:
    if theirs < ours:
        raise ConfigError(
            f"{path}: has {field} = {theirs}{where}, the space up to {ours}; give a network at least as large, or a "
            "space with smaller choices"
        )


def _position(table: torch.Tensor, supernet: SuperNet, config: SubnetConfig) -> torch.Tensor:
    """[1, patch tokens, d] of the supernet's grid."""
    have, want = config.grid_shape, supernet.grid_shape
    if have == want:
        return table
    values = table[0].unflatten(0, have)

    def resized(values: torch.Tensor, matrices: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.einsum("ai,bj,ijd->abd", *matrices, values)

    made = resized(values, _matrices(have, want))
    if all(h <= w for h, w in zip(have, want, strict=True)):  # as the supernet makes the net's grid of it
        down = _matrices(want, have)
        inverse = torch.linalg.pinv(down[0]), torch.linalg.pinv(down[1])
        made = made + resized(values - resized(made, down), inverse)
    return made.flatten(0, 1)[None]


def _patch_weight(weight: torch.Tensor, hull: SubnetConfig, config: SubnetConfig) -> torch.Tensor:
    """[d, channels, height, width] of the supernet's patch: the least that SuperNet folds back to `weight`."""
    if config.patch_shape == hull.patch_shape:
        return weight
    rows, columns = (torch.linalg.pinv(matrix) for matrix in _matrices(config.patch_shape, hull.patch_shape))
    return torch.einsum("ai,bj,dcab->dcij", rows, columns, weight)


def _matrices(inputs: tuple[int, int], outputs: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = resize_both(inputs, outputs, torch.device("cpu"))
    return rows.double(), columns.double()


def _qkv(value: torch.Tensor, layer: LayerConfig, largest: LayerConfig, hull: LayerConfig) -> torch.Tensor:
    """Rows of q, k and v for the supernet, of the network's weight or bias. Each key/value head is the one that the
    network gives to the first query head that reads it in the largest subnet."""
    q, k, v = value.split((layer.q_dim, layer.kv_dim, layer.kv_dim))
    group = largest.num_heads // largest.kv_heads
    readers = [min(head * group, layer.num_heads - 1) for head in range(hull.kv_heads)]
    heads = [reader * layer.kv_heads // layer.num_heads for reader in readers]
    k, v = (part.unflatten(0, (layer.kv_heads, -1))[heads].flatten(0, 1) for part in (k, v))
    return torch.cat([q[: hull.q_dim], k, v])


def _product(source: nn.Linear | LowRankLinear) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [out, in] and bias."""
    last = source.up if isinstance(source, LowRankLinear) else source
    weight = last.weight.double()
    if isinstance(source, LowRankLinear):
        weight = weight @ source.down.weight.double()
    return weight.cpu(), last.bias.double().cpu()


def _fill_matrix(target: nn.Linear | LowRankLinear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """The first outputs and inputs of a matrix; as factors, those with the least squared error."""
    if isinstance(target, LowRankLinear):
        rank, inputs = target.down.weight.shape
        u, values, v = torch.linalg.svd(weight[: len(target.up.weight), :inputs], full_matrices=False)
        root = values[:rank].sqrt()
        target.up.weight.copy_(u[:, :rank] * root)
        target.down.weight.copy_(root[:, None] * v[:rank])
        target = target.up
    else:
        outputs, inputs = target.weight.shape
        target.weight.copy_(weight[:outputs, :inputs])
    target.bias.copy_(bias[: len(target.bias)])


def _copy_statistics(supernet: SuperNet, source: dict[str, torch.Tensor], config: SubnetConfig) -> None:
    """Batch-norm statistics of the stem that equals the network's; those of narrower ones are not known."""
    if stem_of(config) in supernet.stems:
        for name, value in supernet.statistics(config).items():
            value.copy_(source[name])
