# SPDX-License-Identifier: Apache-2.0
"""SuperNet: all subnets of a space in one set of weights (weight entanglement, as in AutoFormer).

    supernet = SuperNet(space)
    logits = supernet(images, config)         # the subnet is an argument, never state
    net = supernet.extract(config)            # a stand-alone FloatViT with the same logits

A subnet is the first rows and columns of every matrix, the first heads and the first layers: the FloatViT of its config
on slices of the supernet's weights, so the network is defined once. Both factors of a matrix of low rank are sliced to
its rank. Tokens: a patch embedding smaller than the largest is the largest one applied to the enlarged patch, folded
into its weights; the position table is interpolated. Relative positions are those of the same distance in tokens: the
middle of the largest grid's. The head reads one or two vectors of embed_dim: it is sliced in each.

Convolution stems of all patch sizes share their first convolutions and the blocks behind them, smaller blocks the first
hidden channels; the last convolution, which makes the tokens, each number of convolutions has its own. A stem has batch
norms, whose statistics depend on the channels and blocks before them and on the size of the image: calibrate() measures
them for every stem in the space; forward() in eval mode and extract() use the subnet's. A space of both stems has a
patch embedding beside the convolutions, and one position table for both.

A subnet of a smaller image_size takes the images of the data resized, as the data would be read for it: by averages of
the pixels around, of whole levels.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from mcuformer.converter.float_vit import FloatViT, ignore, initialise, initialise_matrix
from mcuformer.converter.ops import relative_position
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ConfigError, ModelError
from mcuformer.nas import relative, saved_network
from mcuformer.nas.search_space import SearchSpace

FORMAT = "mcuformer.supernet/1"
QKV = tuple(f"attention.qkv.{factor}{part}" for factor in ("", "up.") for part in ("weight", "bias"))  # rows by head
STATISTICS = ("mean", "var")  # of a batch norm


class SuperNet(nn.Module):
    """forward(images, config): float NCHW in [-1, 1] -> logits [N, num_classes] of the subnet `config`.

    ValueError if the space does not hold the config, or its batch-norm statistics are unknown in eval mode.
    """

    def __init__(self, space: SearchSpace, seed: int = 0):
        super().__init__()
        self.space = space
        self.notes: dict = {}  # plain values that supernet.pt keeps beside the weights
        self.hull = _hull(space)
        whole = FloatViT(self.hull)
        self.grid_shape = _grid_shape(space)  # of the position table
        position = torch.empty(1, math.prod(self.grid_shape), self.hull.embed_dim)
        whole.position = nn.Parameter(position)
        for name, value in list(whole.named_parameters()):
            if relative.MARK in name:
                owner, _, leaf = name.rpartition(".")
                table = relative.for_grid(name, value.detach(), self.hull.grid_shape, self.grid_shape)
                setattr(whole.get_submodule(owner), leaf, nn.Parameter(table))
        initialise(whole, seed)
        self.whole = whole  # holds the weights; its own forward is never called
        if len(space.kinds) > 1:  # the hull's stem is of convolutions
            self.patch = _patch_embedding(self.hull, seed)
        self.lasts = _last_convolutions(space, self.hull, seed)
        self.stems = sorted({stem_of(config) for config in space.embeddings()})
        for config in sorted(_space_stems(space), key=stem_of):
            for name, channels in _norms(config):
                for kind in STATISTICS:
                    self.register_buffer(self._buffer(config, name, kind), torch.full((channels,), torch.nan))

    def forward(self, images: torch.Tensor, config: SubnetConfig) -> torch.Tensor:
        skeleton, images = _skeleton(config).train(self.training), resized(images, config)
        return torch.func.functional_call(skeleton, self.weights(config) | _buffers(config, images.device), (images,))

    def weights(self, config: SubnetConfig) -> dict[str, torch.Tensor]:
        """The subnet's weights by name in FloatViT: views of the supernet's or made from them; differentiable."""
        if not self.space.holds(config):
            raise ValueError(f"the supernet's space does not hold {config}")
        whole = self._weights_for(config)
        made: dict[str, torch.Tensor] = {}
        for name, shape in _shapes(config):
            if name == "position":
                made[name] = self._position(config)
            elif name == "stem.weight":
                made[name] = self._patch_weight(whole[name], config)
            elif relative.MARK in name:
                table = relative.for_grid(name, whole[name], self.grid_shape, config.grid_shape)
                made[name] = table[tuple(slice(size) for size in shape)]
            elif name == "head.weight":
                parts = whole[name].unflatten(1, (len(config.pool_parts), -1))
                made[name] = parts[..., : config.embed_dim].flatten(1)
            elif name.endswith(QKV):
                layer = config.layers[int(name.split(".")[1])]
                value, most = whole[name], self.hull.layers[0]
                value = value if value.ndim == 1 else value[:, : shape[1]]
                rows = (layer.q_dim, layer.kv_dim, layer.kv_dim)
                parts = value.split((most.q_dim, most.kv_dim, most.kv_dim))
                made[name] = torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])
            else:
                made[name] = whole[name][tuple(slice(size) for size in shape)]
        if config.stem == "conv":
            made |= self._known_statistics(config)
        return made

    def _weights_for(self, config: SubnetConfig) -> dict[str, torch.Tensor]:
        """The weights to slice, by name in FloatViT: a patch embedding beside convolutions, and a stem of fewer
        convolutions the last one, have weights of their own."""
        whole: dict[str, torch.Tensor] = {name: getattr(module, leaf) for name, module, leaf in self._places}
        count = len(config.conv_channels)
        if config.stem != self.hull.stem:
            whole |= {f"stem.{name}": value for name, value in self.patch.named_parameters()}
        elif count < len(self.hull.conv_channels):
            for name, value in self.lasts[str(count)].named_parameters():
                kind, leaf = name.split(".")
                whole[f"stem.{kind}s.{count - 1}.{leaf}"] = value
        return whole

    @functools.cached_property
    def _places(self) -> list[tuple[str, nn.Module, str]]:
        """Each weight's name, module and name there; kept, since named_parameters() walks all modules."""
        names = (name for name, _ in self.whole.named_parameters())
        split = ((name, *name.rpartition(".")) for name in names)
        return [(name, self.whole.get_submodule(owner), leaf) for name, owner, _, leaf in split]

    def _position(self, config: SubnetConfig) -> torch.Tensor:
        table = self.whole.position[0, :, : config.embed_dim]
        if self.grid_shape == config.grid_shape:
            return table[None]
        rows, columns = resize_both(self.grid_shape, config.grid_shape, table.device)
        table = torch.einsum("ai,bj,ijd->abd", rows, columns, table.unflatten(0, self.grid_shape))
        return table.flatten(0, 1)[None]

    def _patch_weight(self, weight: torch.Tensor, config: SubnetConfig) -> torch.Tensor:
        weight = weight[: config.embed_dim]
        if config.patch_shape == self.hull.patch_shape:
            return weight
        rows, columns = resize_both(config.patch_shape, self.hull.patch_shape, weight.device)
        return torch.einsum("ia,jb,dcij->dcab", rows, columns, weight)

    def _buffer(self, config: SubnetConfig, norm: str, kind: str) -> str:
        """The name of a buffer: statistics of a stem's batch norm, by the norm's name in FloatViT."""
        place = norm.removeprefix("stem.norms.").removeprefix("stem.blocks.").removesuffix("_norm").replace(".", "_")
        return f"stem{self.stems.index(stem_of(config))}_{kind}{place}"

    def statistics(self, config: SubnetConfig) -> dict[str, torch.Tensor]:
        """The batch-norm statistics of the subnet's stem by name in FloatViT: the supernet's buffers."""
        return {
            f"{name}.running_{kind}": getattr(self, self._buffer(config, name, kind))
            for name, _ in _norms(config)
            for kind in STATISTICS
        }

    def _known_statistics(self, config: SubnetConfig) -> dict[str, torch.Tensor]:
        made = {}
        for name, value in self.statistics(config).items():
            if not self.training and bool(value[0].isnan()):
                raise ValueError("batch-norm statistics are not known yet: call calibrate(images) after training")
            made[name] = value.clone()  # training would write to it
            counted = name.rpartition(".")[0] + ".num_batches_tracked"
            made[counted] = torch.zeros((), dtype=torch.long, device=value.device)
        return made

    @torch.no_grad()
    def calibrate(self, images: torch.Tensor) -> None:
        """Measures the batch-norm statistics of every stem on a few hundred images, float NCHW."""
        alike: dict[tuple, list[SubnetConfig]] = {}  # but for embed_dim, the channels of the last convolution
        for config in sorted(_space_stems(self.space), key=stem_of, reverse=True):
            channels, *rest = stem_of(config)
            alike.setdefault((channels[:-1], *rest), []).append(config)
        for widest, *others in alike.values():
            self._calibrate_stem(widest, resized(images, widest))
            measured = self.statistics(widest)
            for config in others:
                for name, value in self.statistics(config).items():
                    value.copy_(measured[name][: len(value)])

    def _calibrate_stem(self, config: SubnetConfig, images: torch.Tensor) -> None:
        stem, whole = _skeleton(config).stem.eval(), self._weights_for(config)
        shapes = [(name, shape) for name, shape in _shapes(config) if name.startswith("stem.")]
        values = {name: whole[name][tuple(map(slice, shape))] for name, shape in shapes} | self.statistics(config)
        values = {name.removeprefix("stem."): value for name, value in values.items()}
        norms = [module for module in stem.modules() if isinstance(module, nn.BatchNorm2d)]
        hooks = [norm.register_forward_pre_hook(_measure) for norm in norms]
        try:
            torch.func.functional_call(stem, values, (images, ignore))
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def extract(self, config: SubnetConfig) -> FloatViT:
        """The subnet as a stand-alone network, on the CPU and in eval mode; of images of its size the same logits."""
        training = self.training
        self.eval()
        weights = {name: value.detach().cpu().clone() for name, value in self.weights(config).items()}
        self.train(training)
        net = FloatViT(config)
        net.load_state_dict(weights)
        return net.eval()


def resized(images: torch.Tensor, config: SubnetConfig) -> torch.Tensor:
    """float NCHW in [-1, 1] of a network's size, resized as Pillow does it when data are read: rows, then columns, each
    rounded to whole levels."""
    height, width, _ = config.image_shape
    if images.shape[2:] == (height, width):
        return images
    levels = (images + 1) * 127.5
    for size in ((images.shape[2], width), (height, width)):
        levels = torch.floor(F.interpolate(levels, size=size, mode="bilinear", antialias=True) + 0.5)
    return levels / 127.5 - 1


def _hull(space: SearchSpace) -> SubnetConfig:
    """The config with the largest of every dimension: the weights'. Patches enclose all others."""
    heads, configs = max(space.num_heads), list(space.embeddings())
    patch = tuple(max(sides) for sides in zip(*(config.patch_shape for config in configs), strict=True))
    stems = [space.stem_for(patch[0], stem) for stem in space.stems]
    channels, blocks = (_largest([getattr(stem, name) for stem in stems]) for name in ("channels", "blocks"))
    return dataclasses.replace(
        space.largest(), image_size=space.image_size, patch_size=patch, patch_padding=0, stem_channels=channels,
        stem_blocks=blocks, num_heads=heads, kv_heads=heads, mlp_ratio=max(space.mlp_ratio),
    )  # fmt: skip


def _largest(choices: list[tuple[int, ...] | None]) -> tuple[int, ...] | None:
    """The largest number at each place of those that are given."""
    given = [choice for choice in choices if choice is not None]
    return tuple(map(max, zip(*given, strict=True))) if given else None


def _grid_shape(space: SearchSpace) -> tuple[int, int]:
    """The most rows and the most columns of patches."""
    rows, columns = zip(*(config.grid_shape for config in space.embeddings()), strict=True)
    return max(rows), max(columns)


def _patch_embedding(hull: SubnetConfig, seed: int) -> nn.Conv2d:
    """One that encloses all patches."""
    patch = nn.Conv2d(hull.in_channels, hull.embed_dim, hull.patch_shape, hull.patch_shape)
    initialise_matrix(patch, torch.Generator().manual_seed(seed))
    return patch


def _last_convolutions(space: SearchSpace, hull: SubnetConfig, seed: int) -> nn.ModuleDict:
    """The last convolution, and its batch norm, of stems with fewer convolutions than the hull's, by their number."""
    counts = {len(config.conv_channels) for config in space.embeddings()} - {0, len(hull.conv_channels)}
    generator, lasts = torch.Generator().manual_seed(seed), nn.ModuleDict()
    for count in sorted(counts):
        inputs = (hull.in_channels, *hull.conv_channels)[count - 1]
        conv = nn.Conv2d(inputs, hull.embed_dim, 3, stride=2, padding=1, bias=False)
        initialise_matrix(conv, generator)
        lasts[str(count)] = nn.ModuleDict({"conv": conv, "norm": nn.BatchNorm2d(hull.embed_dim)})
    return lasts


def _space_stems(space: SearchSpace) -> Iterator[SubnetConfig]:
    """A subnet of each convolution stem and size of its image."""
    return (config for config in {stem_of(c): c for c in space.embeddings()}.values() if config.conv_channels)


def stem_of(config: SubnetConfig) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, int, int]]:
    """What batch-norm statistics depend on: channels, hidden channels of blocks, and the image."""
    return config.conv_channels, config.block_hidden, config.image_shape


@functools.lru_cache(maxsize=256)
def _norms(config: SubnetConfig) -> tuple[tuple[str, int], ...]:
    """(name in FloatViT, channels) of each batch norm."""
    modules = _skeleton(config).named_modules()
    return tuple((name, module.num_features) for name, module in modules if isinstance(module, nn.BatchNorm2d))


def _measure(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor, ...]) -> None:
    """Sets a batch norm's statistics to those of what it is about to normalise."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
    norm.running_var.copy_(inputs[0].var(dim=(0, 2, 3)))


@functools.lru_cache(maxsize=256)
def _skeleton(config: SubnetConfig) -> FloatViT:
    """The network of a config without weights."""
    with torch.device("meta"):
        return FloatViT(config).to("meta")  # what it makes of numpy arrays too


@functools.lru_cache(maxsize=256)
def _shapes(config: SubnetConfig) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(value.shape)) for name, value in _skeleton(config).named_parameters())


def _buffers(config: SubnetConfig, device: torch.device) -> dict[str, torch.Tensor]:
    """Those of relative positions, by name in FloatViT: the entries of each pair of tokens."""
    if config.relative_position == "none":
        return {}
    pairs = _pairs(config.relative_position, config.grid_shape, config.prefix_tokens, device)
    return {name: pairs for name, _ in _skeleton(config).named_buffers() if relative.MARK in name}


@functools.lru_cache(maxsize=16)
def _pairs(kind: str, grid: tuple[int, int], prefix: int, device: torch.device) -> torch.Tensor:
    entries = relative_position.bias_entries if kind == "bias" else relative_position.table_entries
    with torch.inference_mode(False):  # what is kept may be trained through later
        return torch.from_numpy(entries(grid, prefix)).to(device)


@functools.lru_cache(maxsize=64)
def _resize(inputs: int, outputs: int, device: torch.device) -> torch.Tensor:
    """[outputs, inputs]: linear interpolation of a row of values; averages if it shrinks."""
    with torch.inference_mode(False):  # what is kept may be trained through later
        rows = torch.eye(inputs)[:, None, :, None].expand(-1, -1, -1, 2)
        resized = F.interpolate(rows, size=(outputs, 2), mode="bilinear", antialias=True)
        return resized[:, 0, :, 0].T.contiguous().to(device)


def resize_both(
    inputs: tuple[int, int], outputs: tuple[int, int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """_resize() of the rows and of the columns of a grid."""
    return _resize(inputs[0], outputs[0], device), _resize(inputs[1], outputs[1], device)


def save_supernet(supernet: SuperNet, path: str | os.PathLike, notes: dict | None = None) -> None:
    """Writes weights and space as `supernet.pt`, whole or not at all. notes: plain values kept with it."""
    saved_network.write(path, FORMAT, {"space": supernet.space.to_dict()}, supernet, notes)


def load_supernet(path: str | os.PathLike, space: SearchSpace | None = None) -> SuperNet:
    """Reads a `supernet.pt` without unpickling code; values kept with it are in `.notes`.

    space: the space it must have. ModelError if the file is not a supernet, ConfigError if it has another space.
    """
    content = saved_network.read(path, "supernet", FORMAT, "mcuformer train --space")
    try:
        held = SearchSpace.from_dict(content.get("space"))
    except (ConfigError, TypeError) as error:
        raise ModelError(f"{path}: its space is not valid: {error}") from error
    if space is not None:
        check_same_space(held, space, path)
    supernet = SuperNet(held)
    saved_network.fill(supernet, content, path, "space")
    supernet.notes = content["notes"]
    return supernet.eval()


def check_same_space(held: SearchSpace, space: SearchSpace, path: str | os.PathLike) -> None:
    """ConfigError, naming the first key that differs, if a file's space is not the wanted one."""
    ours, theirs = space.to_dict(), held.to_dict()
    for name in [n for n in {**ours, **theirs} if n != "evolution"]:
        if ours.get(name) != theirs.get(name):
            raise ConfigError(
                f"{path}: has another space, with {name} = {theirs.get(name)} instead of {ours.get(name)}; give the "
                "space it was trained with, or another file"
            )
