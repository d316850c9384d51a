# SPDX-License-Identifier: Apache-2.0
"""vit-pytorch: ViT and SimpleViT whose patches have no LayerNorm, as before version 1.0.

Keyword transformers (KWT) that name their tensors alike come in with norm = post.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mcuformer.converter.importers import live
from mcuformer.converter.importers.foreign import PATCH_NORM
from mcuformer.converter.importers.parts import LayerParts, Matrix, Resize, VitParts, split_positions
from mcuformer.converter.importers.reading import check_heads, layer_norm, linear
from mcuformer.converter.importers.settings import Settings
from mcuformer.converter.importers.weights import Weights
from mcuformer.errors import ConfigError, ModelError

NAME = "vit-pytorch"
TITLE = "vit-pytorch ViT and SimpleViT, before version 1.0; keyword transformers made of it"
MARK = "to_patch_embedding.1.weight"
SETTINGS = (
    "num_heads", "activation", "norm_epsilon", "mean", "std", "pool", "grid_shape", "patch_size", "attention_scale",
    "norm",
)  # fmt: skip
NEEDED = ("num_heads", "patch_size", "mean", "std")
FOREIGN = ((r"^to_patch_embedding\.3\.", PATCH_NORM),)

CLASSES = ("vit_pytorch.vit.ViT", "vit_pytorch.simple_vit.SimpleViT")


def settings_of(module: nn.Module) -> dict[str, Any] | None:
    """What a live module says; None if it is of another family."""
    if live.class_name(module) not in CLASSES:
        return None
    vit: Any = module
    if not isinstance(vit.to_patch_embedding[1], nn.Linear):
        raise ModelError(f"to_patch_embedding[1] is a {type(vit.to_patch_embedding[1]).__name__}: {PATCH_NORM}")
    sides = vit.to_patch_embedding[0].axes_lengths
    blocks = list(vit.transformer.layers)
    activations = [part for _, mlp in blocks for part in mlp.modules() if type(part).__name__.endswith("GELU")]
    said = {
        "num_heads": [getattr(attention, "fn", attention).heads for attention, _ in blocks],
        "activation": live.activation(activations),
        "norm_epsilon": live.norm_epsilon(module),
        "patch_size": [sides["p1"], sides["p2"]],
    }
    if live.class_name(module) == CLASSES[0]:
        said["pool"] = {"cls": "token", "mean": "mean-all"}[vit.pool]
    return said


def read(weights: Weights, settings: Settings) -> VitParts:
    stem = _stem(weights, settings)
    d = stem.outputs
    grid_shape = settings.get("grid_shape")
    resize: Any = Resize(antialias=True)
    if "pos_embedding" in weights:
        prefix = weights.take("cls_token", 1, 1, d)[0]
        table = weights.take("pos_embedding", 1, None, d)[0]
        positions = split_positions(table, (1,), grid_shape, weights.error)
        pool = settings.need("pool")
        if pool == "mean":
            raise ConfigError('pool = "mean": the mean of vit-pytorch includes the class token; set pool=mean-all')
    else:
        prefix = torch.zeros(0, d, dtype=torch.float64)
        rows, columns = settings.need("grid_shape")
        positions = split_positions(sinusoids((rows, columns), d), (0,), (rows, columns), weights.error)
        pool = settings.implied("pool", "mean", "SimpleViT's head reads the")
        resize = lambda position, old, new: sinusoids(new, d)  # noqa: E731
    form = "transformer.layers.{}."
    count = weights.count(form)
    num_heads = settings.per_layer("num_heads", count)
    norm, final_norm, heads = _head(weights, d)
    return VitParts(
        stem=stem, prefix=positions.of(prefix), position=positions.patches, grid_shape=positions.grid_shape,
        grid_assumed=positions.grid_assumed,
        layers=[_layer(weights, form.format(i), d, num_heads[i], settings) for i in range(count)],
        norm=norm, final_norm=final_norm, heads=heads, pool=pool, activation=settings.get("activation", "gelu"),
        norm_epsilon=settings.get("norm_epsilon", 1e-5), mean=settings.need("mean"), std=settings.need("std"),
        resize=resize, norm_order=settings.get("norm", "pre"),
    )  # fmt: skip


def sinusoids(grid_shape: tuple[int, int], d: int) -> torch.Tensor:
    """SimpleViT's position table [rows * columns, d]: sine and cosine of column, then of row, at d / 4 frequencies
    from 1 to 1/10000."""
    if d % 4 or d < 8:
        raise ModelError(f"SimpleViT of width {d}: its positions need a multiple of 4, at least 8")
    frequency = 10000.0 ** -(torch.arange(d // 4, dtype=torch.float64) / (d // 4 - 1))
    rows, columns = (torch.arange(n, dtype=torch.float64)[:, None] * frequency for n in grid_shape)
    row = rows.repeat_interleave(grid_shape[1], dim=0)
    column = columns.repeat(grid_shape[0], 1)
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1)


def _stem(weights: Weights, settings: Settings) -> Matrix:
    """The Linear on flattened patches, (height, width, channel), as a convolution."""
    if len(weights.shape(MARK)) == 1:
        raise weights.error(f"tensor '{MARK}': {PATCH_NORM}")
    matrix = linear(weights, "to_patch_embedding.1", None, None)
    size = settings.need("patch_size")
    height, width = size if isinstance(size, list | tuple) else (size, size)
    inputs = matrix.weight.shape[1]
    if inputs % (height * width):
        raise ConfigError(f"patch_size = {size}: a patch has {inputs} values, which {height} x {width} does not divide")
    weight = matrix.weight.reshape(matrix.outputs, height, width, -1).permute(0, 3, 1, 2)
    return Matrix(weight, matrix.bias)


def _head(weights: Weights, d: int) -> tuple[Matrix | None, str, list[Matrix]]:
    """The last LayerNorm, where it stands, the head."""
    name = "linear_head" if any(name.startswith("linear_head.") for name in weights.tensors) else "mlp_head"
    if f"{name}.0.weight" in weights:  # LayerNorm, Linear
        return layer_norm(weights, f"{name}.0", d), "after", [linear(weights, f"{name}.1", None, d)]
    norm = layer_norm(weights, "transformer.norm", d) if "transformer.norm.weight" in weights else None
    return norm, "before", [linear(weights, name, None, d)] if f"{name}.weight" in weights else []


def _layer(weights: Weights, at: str, d: int, num_heads: int, settings: Settings) -> LayerParts:
    fn = "fn." if f"{at}0.fn.to_qkv.weight" in weights else ""  # wrapped in a PreNorm
    qkv = linear(weights, f"{at}0.{fn}to_qkv", None, d)
    q_dim = check_heads(weights, f"{at}0.{fn}to_qkv.weight", qkv, num_heads)
    out = next((name for name in (f"{at}0.{fn}to_out.0", f"{at}0.{fn}to_out") if f"{name}.weight" in weights), None)
    if out is None and not (num_heads == 1 and q_dim == d):  # where vit-pytorch leaves the projection out
        out = f"{at}0.{fn}to_out.0"
    proj = Matrix(torch.eye(d, dtype=torch.float64)) if out is None else linear(weights, out, d, q_dim)
    at_mlp = f"{at}1.{fn}net."
    places = [i for i in range(8) if f"{at_mlp}{i}.weight" in weights]
    matrices = [i for i in places if len(weights.shape(f"{at_mlp}{i}.weight")) == 2]
    if len(matrices) != 2:
        raise weights.error(f"'{at_mlp}' has {len(matrices)} matrices, needs 2")
    norm2 = f"{at}1.norm" if fn else f"{at_mlp}{places[0]}"
    fc1 = linear(weights, f"{at_mlp}{matrices[0]}", None, d)
    return LayerParts(
        num_heads=num_heads, norm1=layer_norm(weights, f"{at}0.norm", d), qkv=qkv, proj=proj,
        norm2=layer_norm(weights, norm2, d), fc1=fc1, fc2=linear(weights, f"{at_mlp}{matrices[1]}", d, fc1.outputs),
        attention_scale=settings.get("attention_scale"),
    )  # fmt: skip
