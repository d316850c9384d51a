# SPDX-License-Identifier: Apache-2.0
"""torchvision: VisionTransformer (vit_b_16 and its like)."""

from __future__ import annotations

from typing import Any

from torch import nn

from mcuformer.converter.importers import live
from mcuformer.converter.importers.parts import LayerParts, Matrix, Resize, VitParts, split_positions
from mcuformer.converter.importers.reading import check_heads, convolution, layer_norm, linear
from mcuformer.converter.importers.settings import Settings
from mcuformer.converter.importers.weights import Weights

NAME = "torchvision"
TITLE = "torchvision VisionTransformer"
MARK = "conv_proj.weight"
SETTINGS = (
    "num_heads", "activation", "norm_epsilon", "mean", "std", "pool", "grid_shape", "attention_scale", "patch_size",
)  # fmt: skip
NEEDED = ("num_heads", "norm_epsilon", "mean", "std")
FOREIGN = ((r"^conv_proj\.\w+\.", "a convolutional stem, which is not read; only one patch embedding is"),)

RESIZE = Resize(align_corners=True)  # as its interpolate_embeddings()


def settings_of(module: nn.Module) -> dict[str, Any] | None:
    """What a live module says; None if it is of another family."""
    if live.class_name(module) != "torchvision.models.vision_transformer.VisionTransformer":
        return None
    vit: Any = module
    grid = vit.image_size // vit.patch_size
    blocks = list(vit.encoder.layers)
    return {
        "num_heads": [block.num_heads for block in blocks],
        "activation": live.activation(block.mlp[1] for block in blocks),
        "norm_epsilon": live.norm_epsilon(module),
        "grid_shape": [grid, grid],
    }


def read(weights: Weights, settings: Settings) -> VitParts:
    stem = convolution(weights, "conv_proj")
    d = stem.outputs
    prefix = weights.take("class_token", 1, 1, d)[0]
    table = weights.take("encoder.pos_embedding", 1, None, d)[0]
    positions = split_positions(table, (1,), settings.get("grid_shape"), weights.error)
    form = "encoder.layers.encoder_layer_{}."
    count = weights.count(form)
    num_heads = settings.per_layer("num_heads", count)
    return VitParts(
        stem=stem, prefix=positions.of(prefix), position=positions.patches, grid_shape=positions.grid_shape,
        grid_assumed=positions.grid_assumed,
        layers=[_layer(weights, form.format(i), d, num_heads[i], settings) for i in range(count)],
        norm=layer_norm(weights, "encoder.ln", d),
        heads=[linear(weights, "heads.head", None, d)] if "heads.head.weight" in weights else [],
        pool=settings.implied("pool", "token", "torchvision's head reads"),
        activation=settings.get("activation", "gelu"),
        norm_epsilon=settings.need("norm_epsilon"), mean=settings.need("mean"), std=settings.need("std"), resize=RESIZE,
        patch_size=settings.get("patch_size"),
    )  # fmt: skip


def _layer(weights: Weights, at: str, d: int, num_heads: int, settings: Settings) -> LayerParts:
    name = f"{at}self_attention.in_proj"
    qkv = Matrix(weights.take(f"{name}_weight", 3 * d, d), weights.maybe(f"{name}_bias", 3 * d))
    check_heads(weights, f"{name}_weight", qkv, num_heads)
    fc1, fc2 = ("mlp.0", "mlp.3") if f"{at}mlp.0.weight" in weights else ("mlp.linear_1", "mlp.linear_2")
    first = linear(weights, f"{at}{fc1}", None, d)
    return LayerParts(
        num_heads=num_heads, norm1=layer_norm(weights, f"{at}ln_1", d), qkv=qkv,
        proj=linear(weights, f"{at}self_attention.out_proj", d, d), norm2=layer_norm(weights, f"{at}ln_2", d),
        fc1=first, fc2=linear(weights, f"{at}{fc2}", d, first.outputs),
        attention_scale=settings.get("attention_scale"),
    )  # fmt: skip
