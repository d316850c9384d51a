# SPDX-License-Identifier: Apache-2.0
"""VitParts -> FloatViT: everything that a family has and the network has not is folded into its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mcuformer.checks import is_whole
from mcuformer.converter.float_vit import FloatViT, Layer
from mcuformer.converter.importers.parts import LayerParts, Matrix, VitParts
from mcuformer.converter.subnet_config import MAX_FEATURES, MAX_IMAGE_SIZE, MAX_PATCH_SIZE, Size, SubnetConfig
from mcuformer.errors import ConfigError, McuformerError, ModelError

HEAD_STD = 0.02  # of a new head


def resized(parts: VitParts, image_size: Size | None) -> tuple[VitParts, tuple[int, int]]:
    """The network for images of another size, and (height, width) of its images. None: as it was trained."""
    patch, both = parts.stem.weight.shape[2:], 2 * parts.padding
    if image_size is None:
        image_size = parts.image_shape or _shape_of_grid(parts)
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(sides) != 2 or not all(is_whole(side, 1, MAX_IMAGE_SIZE) for side in sides):
        raise ConfigError(
            f"image_size = {image_size!r}: must be pixels from 1 to {MAX_IMAGE_SIZE}, or (height, width) of them"
        )
    height, width = sides
    grid = (height + both) // patch[0], (width + both) // patch[1]
    if min(grid) < 1:
        raise ConfigError(f"image_size = {image_size}: smaller than a patch of {patch[0]} x {patch[1]} pixels")
    if grid == parts.grid_shape:
        return parts, (height, width)
    if parts.grid_assumed and grid[0] * grid[1] == len(parts.position):
        raise ConfigError(
            f"image_size = {image_size}: the {len(parts.position)} positions are those of {grid[0]} x {grid[1]} or of "
            f"{parts.grid_shape[0]} x {parts.grid_shape[1]} patches; set grid_shape, such as "
            f"grid_shape=[{grid[0]},{grid[1]}]"
        )
    position = parts.resize(parts.position, parts.grid_shape, grid)
    layers = [
        layer if layer.relative is None else dataclasses.replace(layer, relative=layer.relative.resized(grid))
        for layer in parts.layers
    ]
    return dataclasses.replace(parts, position=position, grid_shape=grid, layers=layers), (height, width)


def with_patch_size(parts: VitParts) -> VitParts:
    """The network with patches of parts.patch_size, as FlexiViT and timm resize them, for images of the same size."""
    patch_size = parts.patch_size
    if patch_size is None:
        return parts
    patch = (patch_size[0], patch_size[1]) if isinstance(patch_size, tuple | list) else (patch_size, patch_size)
    old = tuple(parts.stem.weight.shape[2:])
    if max(patch) > MAX_PATCH_SIZE:
        raise ConfigError(f"patch_size = {patch_size}: at most {MAX_PATCH_SIZE} pixels")
    if patch == old:
        return parts
    weight = pi_resize(parts.stem.weight, patch)
    shape = parts.image_shape or _shape_of_grid(parts)
    return dataclasses.replace(parts, stem=Matrix(weight, parts.stem.bias), image_shape=shape)


def pi_resize(weight: torch.Tensor, patch: tuple[int, int]) -> torch.Tensor:
    """[d, channels, height, width] -> [d, channels, *patch]: the kernel whose product with a resized patch is nearest
    to the old one's with the patch itself (FlexiViT, equation 4), for antialiased bicubic resizing."""
    outputs, channels, height, width = weight.shape
    basis = torch.eye(height * width, dtype=torch.float64).reshape(-1, 1, height, width)
    resize = torch.nn.functional.interpolate(basis, patch, mode="bicubic", antialias=True).flatten(1).T
    return (weight.flatten(2) @ torch.linalg.pinv(resize)).reshape(outputs, channels, *patch)


def _shape_of_grid(parts: VitParts) -> tuple[int, int]:
    """The images' (height, width) by the grid of patches. ConfigError where padding leaves several."""
    height, width = (side * n for side, n in zip(parts.stem.weight.shape[2:], parts.grid_shape, strict=True))
    if parts.padding:
        least, patch = height - 2 * parts.padding, parts.stem.weight.shape[2]
        raise ConfigError(
            f"image_size is not in the checkpoint, and {parts.padding} pixels of padding leave it open: images {least} "
            f"to {least + patch - 1} pixels high have these patches; give image_size (--image-size), such as 224"
        )
    return height, width


def with_classes(parts: VitParts, classes: Sequence[int], names: list[str] | None) -> VitParts:
    """Only these outputs of the head, in this order."""
    if not parts.heads:
        raise ConfigError("classes: the network has no head to take them from; leave them out, or give new_head")
    count = parts.heads[0].outputs
    for index in classes:
        if not 0 <= index < count:
            raise ConfigError(f"classes: {index} is not a class of the head, which has {count}, numbered from 0")
    rows = torch.tensor(list(classes))
    heads = [Matrix(head.weight[rows], head.offset[rows]) for head in parts.heads]
    return dataclasses.replace(parts, heads=heads, class_names=names)


def with_new_head(parts: VitParts, classes: int, seed: int = 0) -> VitParts:
    """An untrained head of so many classes in place of the old one; 0: none."""
    if classes == 0:
        return dataclasses.replace(parts, heads=[], class_names=None)
    inputs = parts.stem.outputs * len(parts.pool.split("+"))
    generator = torch.Generator().manual_seed(seed)
    weight = HEAD_STD * torch.randn(classes, inputs, generator=generator, dtype=torch.float64)
    return dataclasses.replace(parts, heads=[Matrix(weight)], class_names=None)


def with_low_rank(
    parts: VitParts, ratio: float | None, attention_ratio: float | None = None
) -> tuple[VitParts, list[tuple[str, float]]]:
    """Matrices of every layer as two factors each, by their singular values: both of the MLP, of rank
    round(ratio * embed_dim), and those around attention, of round(attention_ratio * embed_dim); None: as they are.

    Also returns ("layers.0.fc1", relative error of the matrix) of each: the Frobenius norm of the difference by its
    own.
    """
    errors = []

    def factors(name: str, matrix: Matrix, rank: int) -> Matrix:
        whole = matrix.product
        u, s, v = torch.linalg.svd(whole, full_matrices=False)
        root = s[:rank].sqrt()
        made = Matrix(u[:, :rank] * root, matrix.bias, root[:, None] * v[:rank])
        errors.append((name, float((whole - made.product).norm() / whole.norm())))
        return made

    layers = []
    for i, layer in enumerate(parts.layers):
        made: dict[str, Any] = {}
        for name, by, most in (
            ("qkv", attention_ratio, layer.qkv.outputs), ("proj", attention_ratio, layer.qkv.outputs // 3),
            ("fc1", ratio, layer.fc1.outputs), ("fc2", ratio, layer.fc1.outputs),
        ):  # fmt: skip
            if by is not None:
                rank = max(1, min(round(by * parts.stem.outputs), most))
                made[name] = factors(f"layers.{i}.{name}", getattr(layer, name), rank)
        layers.append(dataclasses.replace(layer, **made))
    return dataclasses.replace(parts, layers=layers), errors


def assemble(parts: VitParts, image_shape: tuple[int, int], source: str) -> FloatViT:
    """The network for images of image_shape, with everything folded: uint8 x enters as x / 127.5 - 1."""
    net = FloatViT(config_of(parts, image_shape, source))
    with torch.no_grad():
        _fill(net, parts)
    for name, value in net.named_parameters():
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"{source}: {name} is beyond float32 after folding; look at std and attention_scale")
    return net.eval()


def config_of(parts: VitParts, image_shape: tuple[int, int], source: str) -> SubnetConfig:
    """The network's dimensions. ConfigError, which names the source, if it is beyond what a SubnetConfig can be."""
    for i, layer in enumerate(parts.layers):
        _check_layer(layer, i, source)
    channels = parts.stem.weight.shape[1]
    for name, values in (("mean", parts.mean), ("std", parts.std)):
        if isinstance(values, list | tuple) and len(values) not in (1, channels):
            raise ConfigError(
                f"{name} has {len(values)} values for images of {channels} channels: give one, or {channels}"
            )
    _check_heads(parts, source)
    outputs = parts.heads[0].outputs if parts.heads else 0
    if outputs > MAX_FEATURES:
        raise ConfigError(
            f"{source}: the head has {outputs:,} classes, more than {MAX_FEATURES:,}: choose some with classes "
            "(--classes keep.txt), or start another with new_head (--new-head 10)"
        )
    try:
        return _config(parts, image_shape, outputs)
    except McuformerError as error:
        raise type(error)(f"{source}: {error}") from error


def _check_heads(parts: VitParts, source: str) -> None:
    made = parts.stem.outputs * len(parts.pool.split("+")) // max(1, len(parts.heads))
    for head in parts.heads:
        if head.weight.shape[1] != made:
            raise ConfigError(
                f'{source}: the head reads {head.weight.shape[1]} values, and pool = "{parts.pool}" makes {made}: set '
                "another pool"
            )
    if len({head.outputs for head in parts.heads}) > 1:
        raise ModelError(f"{source}: the two heads have {parts.heads[0].outputs} and {parts.heads[1].outputs} classes")


def _check_layer(layer: LayerParts, i: int, source: str) -> None:
    made, read = layer.fc1.outputs, (layer.fc2.weight if layer.fc2.down is None else layer.fc2.down).shape[1]
    if made != read:
        gated = "a gated one (SwiGLU), which the network has not" if made == 2 * read else "they do not fit"
        raise ModelError(
            f"{source}: the MLP of layer {i} makes {made} values, and its second matrix reads {read}: {gated}"
        )


def _one_head(parts: VitParts) -> Matrix | None:
    """Two heads on two tokens, averaged, are one on both."""
    if len(parts.heads) < 2:
        return parts.heads[0] if parts.heads else None
    first, second = parts.heads
    weight = torch.cat([first.weight, second.weight], dim=1) / 2
    return Matrix(weight, (first.offset + second.offset) / 2)


def _config(parts: VitParts, image_shape: tuple[int, int], num_classes: int) -> SubnetConfig:
    d = parts.stem.outputs

    def per_layer(value: Callable[[LayerParts], float | int | None]):
        values = tuple(value(layer) for layer in parts.layers)
        return values[0] if len(set(values)) == 1 else values

    def head_dim(layer: LayerParts) -> int:
        return layer.qkv.outputs // 3 // layer.num_heads

    def rank_ratio(matrix: Matrix) -> float | None:
        return matrix.rank / d if matrix.rank else None

    relative = {"none" if layer.relative is None else layer.relative.kind for layer in parts.layers}
    if len(relative) > 1:
        raise ModelError(f"relative positions differ between layers ({', '.join(sorted(relative))}): one kind for all")
    plain = all(layer.num_heads * head_dim(layer) == d for layer in parts.layers)
    return SubnetConfig(
        image_size=image_shape,
        in_channels=parts.stem.weight.shape[1],
        patch_size=(parts.stem.weight.shape[2], parts.stem.weight.shape[3]),
        patch_padding=parts.padding,
        embed_dim=d,
        depth=len(parts.layers),
        num_heads=per_layer(lambda layer: layer.num_heads),
        head_dim=None if plain else per_layer(head_dim),
        mlp_ratio=per_layer(lambda layer: layer.fc1.outputs / d),
        rank_ratio=per_layer(lambda layer: rank_ratio(layer.fc1)),
        attention_rank_ratio=per_layer(lambda layer: rank_ratio(layer.qkv)),
        num_classes=num_classes,
        prefix_tokens=len(parts.prefix),
        pool=parts.pool,
        final_norm="none" if parts.norm is None else parts.final_norm,
        norm_pre=parts.norm_pre is not None,
        norm=parts.norm_order,
        norm_epsilon=parts.norm_epsilon,
        activation=parts.activation,
        relative_position=relative.pop() if relative else "none",
    )


def _fill(net: FloatViT, parts: VitParts) -> None:
    _set(net.stem, _fold_pixels(parts))
    net.position.copy_((parts.position + _padding_position(parts, net.config.image_shape[:2]))[None])
    if net.prefix is not None:
        net.prefix.copy_(parts.prefix[None])
    for target, layer in zip(net.layers, parts.layers, strict=True):
        assert isinstance(target, Layer)
        _set(target.norm1, layer.norm1)
        _set(target.attention.qkv, _fold_attention_scale(layer))
        _set(target.attention.proj, layer.proj.scaled(layer.layer_scale[0]))
        if layer.relative is not None:
            for name, value in layer.relative.tensors(parts.grid_shape).items():
                getattr(target.attention.relative, name).copy_(value)
        _set(target.norm2, layer.norm2)
        _set(target.mlp.fc1, layer.fc1)
        _set(target.mlp.fc2, layer.fc2.scaled(layer.layer_scale[1]))
    for module, matrix in ((net.norm_pre, parts.norm_pre), (net.norm, parts.norm), (net.head, _one_head(parts))):
        if matrix is not None:
            _set(module, matrix)


def _set(module: Any, matrix: Matrix) -> None:
    if matrix.down is not None:
        module.down.weight.copy_(matrix.down)
        module = module.up
    module.weight.copy_(matrix.weight)
    module.bias.copy_(matrix.offset)


def _fold_pixels(parts: VitParts) -> Matrix:
    """The stem on x = 2 p - 1 of pixels p in [0, 1], in place of (p - mean) / std."""
    weight = parts.stem.weight
    std = torch.tensor(parts.std, dtype=torch.float64).expand(weight.shape[1])
    offset = torch.einsum("ocyx,c->o", weight, _pixel_offset(parts))
    return Matrix(weight / (2 * std)[None, :, None, None], parts.stem.offset + offset)


def _pixel_offset(parts: VitParts) -> torch.Tensor:
    """(p - mean) / std where x = 2 p - 1 is 0, per channel."""
    channels = parts.stem.weight.shape[1]
    mean, std = (torch.tensor(v, dtype=torch.float64).expand(channels) for v in (parts.mean, parts.std))
    return (0.5 - mean) / std


def _padding_position(parts: VitParts, image_shape: tuple[int, int]) -> torch.Tensor | float:
    """[patch tokens, d]: a zero around the normalised image is the mean, and around x = 2 p - 1 it is p = 0.5; what the
    stem's new bias adds for those pixels is taken off again."""
    if not parts.padding:
        return 0.0
    weight, added = parts.stem.weight, _pixel_offset(parts)
    inside = torch.nn.functional.conv2d(
        added[None, :, None, None].expand(1, -1, *image_shape), weight, stride=weight.shape[2:], padding=parts.padding
    )
    return inside[0].flatten(1).T - torch.einsum("ocyx,c->o", weight, added)


def _fold_attention_scale(layer: LayerParts) -> Matrix:
    """The network's attention divides by sqrt(head_dim); another scale goes into q."""
    if layer.attention_scale is None:
        return layer.qkv
    q_dim = layer.qkv.outputs // 3
    factor = torch.ones(layer.qkv.outputs, dtype=torch.float64)
    factor[:q_dim] = layer.attention_scale * (q_dim // layer.num_heads) ** 0.5
    return layer.qkv.scaled(factor)
