# SPDX-License-Identifier: Apache-2.0
"""Hugging Face: ViT, DeiT, Dinov2, Dinov2WithRegisters, Beit, Data2VecVision, by the names of transformers 4 and 5.

transformers 5 names a live module's tensors anew, and its `save_pretrained` still writes the names of 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mcuformer.converter.importers import live, relative
from mcuformer.converter.importers.parts import (
    Grid,
    LayerParts,
    Matrix,
    Positions,
    Resize,
    VitParts,
    split_positions,
)
from mcuformer.converter.importers.reading import check_heads, convolution, layer_norm, linear
from mcuformer.converter.importers.settings import Settings
from mcuformer.converter.importers.weights import Weights
from mcuformer.errors import ModelError

NAME = "hf"
TITLE = "Hugging Face transformers: ViT, DeiT, Dinov2, Dinov2WithRegisters, Beit, Data2VecVision"
MARK = "embeddings.patch_embeddings.projection.weight"
SETTINGS = (
    "num_heads", "activation", "norm_epsilon", "mean", "std", "pool", "grid_shape", "depth", "attention_scale",
    "patch_size",
)  # fmt: skip
NEEDED = ("num_heads", "activation", "norm_epsilon", "mean", "std")
FOREIGN = ()

PREFIXES = ("vit.", "deit.", "dinov2.", "dinov2_with_registers.", "beit.", "data2vec_vision.", "")
"""Before the encoder's names, where there is a head."""

KINDS = {
    "vit": ("ViTModel", "ViTForImageClassification"),
    "deit": ("DeiTModel", "DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"),
    "dinov2": ("Dinov2Model", "Dinov2ForImageClassification"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"),
    "beit": ("BeitModel", "BeitForImageClassification"),
    "data2vec-vision": ("Data2VecVisionModel", "Data2VecVisionForImageClassification"),
}
"""model_type -> architectures."""

MEANS = ("beit", "data2vec-vision")  # whose pooler is the mean of patches, or the first token

# transformers 5, transformers 4
ATTENTION = (
    {"q": "attention.q_proj", "k": "attention.k_proj", "v": "attention.v_proj", "proj": "attention.o_proj"},
    {
        "q": "attention.attention.query", "k": "attention.attention.key", "v": "attention.attention.value",
        "proj": "attention.output.dense",
    },
)  # fmt: skip
TABLE = "relative_position_bias_table"
MLPS = (("mlp.fc1", "mlp.fc2"), ("intermediate.dense", "output.dense"))
NORMS = (("layernorm_before", "layernorm_after"), ("norm1", "norm2"))
ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu-tanh", "gelu_pytorch_tanh": "gelu-tanh",
    "gelu_fast": "gelu-tanh", "quick_gelu": "quick-gelu", "silu": "silu", "swish": "silu", "relu": "relu",
    "hardswish": "hardswish",
}  # fmt: skip


def settings_of(module: nn.Module) -> dict[str, Any] | None:
    """What a live module says; None if it is of another family."""
    path, _, kind = live.class_name(module).rpartition(".")
    if not path.startswith("transformers.models."):
        return None
    config: Any = getattr(module, "config", None)
    if not any(kind in kinds for kinds in KINDS.values()):
        return None
    return {
        **config_settings({**config.to_dict(), "architectures": [kind]}),
        "norm_epsilon": live.norm_epsilon(module),
    }


def config_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json says. ModelError if it is of a network that is not read."""
    kind, architectures = config.get("model_type"), config.get("architectures") or []
    if kind not in KINDS:
        raise ModelError(f"model_type = {kind!r}: known are {', '.join(KINDS)}")
    unknown = [name for name in architectures if name not in KINDS[kind]]
    if unknown:
        raise ModelError(f"architecture {unknown[0]}: known are {', '.join(KINDS[kind])}")
    if config.get("use_swiglu_ffn"):
        raise ModelError("use_swiglu_ffn = true: a gated MLP (SwiGLU), which the network has not")
    image, patch = _pair(config["image_size"]), _pair(config["patch_size"])
    said = {
        "num_heads": config["num_attention_heads"],
        "depth": config["num_hidden_layers"],
        "norm_epsilon": config["layer_norm_eps"],
        "grid_shape": [image[0] // patch[0], image[1] // patch[1]],
    }
    activation = config.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise ModelError(f"hidden_act = {activation!r}: known are {', '.join(ACTIVATIONS)}")
    said["activation"] = ACTIVATIONS[activation]
    if any(name in ("Dinov2Model", "Dinov2WithRegistersModel") for name in architectures):
        said["pool"] = "token"  # its pooler_output
    if kind in MEANS:
        said["relative_position"] = any(config.get(f"use_{which}relative_position_bias") for which in ("", "shared_"))
        said["pool"] = "mean" if config.get("use_mean_pooling", True) else "token"
    return said


def processor_settings(processor: Mapping[str, Any]) -> dict[str, Any]:
    """mean and std, from a preprocessor_config.json."""
    said = {name: processor.get(f"image_{name}") for name in ("mean", "std")}
    if not processor.get("do_normalize", True):
        said = {"mean": [0.0], "std": [1.0]}
    scale = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    if abs(scale * 255 - 1) > 1e-6:
        raise ModelError(f"rescale_factor = {scale}: pixels are read from 0 to 1, which is 1/255")
    return {name: list(value) for name, value in said.items() if value is not None}


def class_names(config: Mapping[str, Any]) -> list[str] | None:
    """The names of the classes, if they have some."""
    labels = config.get("id2label") or {}
    names = [str(labels.get(i, labels.get(str(i)))) for i in range(len(labels))]
    return None if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def _pair(size: Any) -> tuple[int, int]:
    return (size[0], size[1]) if isinstance(size, list | tuple) else (size, size)


def read(weights: Weights, settings: Settings) -> VitParts:
    p = next((prefix for prefix in PREFIXES if f"{prefix}{MARK}" in weights), "")
    stem = convolution(weights, f"{p}embeddings.patch_embeddings.projection")
    d = stem.outputs
    e = f"{p}embeddings."
    names = ["cls_token", *(name for name in ("distillation_token", "register_tokens") if f"{e}{name}" in weights)]
    counts = [None if name == "register_tokens" else 1 for name in names]
    prefix = torch.cat([weights.take(f"{e}{n}", 1, count, d)[0] for n, count in zip(names, counts, strict=True)])
    registers = "register_tokens" in names
    shared = [f"{p}shared_position_bias.{TABLE}", f"{p}encoder.relative_position_bias.{TABLE}"]
    placed = len(names) - registers  # registers have no position
    positions = _positions(weights, settings, e, d, placed, shared)
    form = f"{p}layers.{{}}." if f"{p}layers.0.mlp.fc1.weight" in weights else f"{p}encoder.layer.{{}}."
    count = weights.count(form)
    depth = settings.get("depth")
    if depth is not None and depth != count:
        raise weights.error(f"holds {count} layers of {depth}: the checkpoint is cut short")
    num_heads = settings.per_layer("num_heads", count)
    grid = positions.grid_shape
    layers = [_layer(weights, form.format(i), d, num_heads[i], settings, grid, shared) for i in range(count)]
    said = settings.get("relative_position")
    if said is not None and said != any(layer.relative is not None for layer in layers):
        raise weights.error(
            f"{'no ' if said else ''}tensor '{TABLE}' is there, and the config says use_relative_position_bias = "
            f"{str(said).lower()}"
        )
    dinov2 = f"{form.format(0)}norm1.weight" in weights
    means = f"{p}pooler.layernorm.weight" in weights  # of BEiT
    heads, pool = _heads(weights, settings, d, dinov2, means)
    return VitParts(
        stem=stem, prefix=positions.of(prefix), position=positions.patches, grid_shape=positions.grid_shape,
        grid_assumed=positions.grid_assumed, layers=layers, heads=heads, pool=pool,
        norm=layer_norm(weights, f"{p}pooler.layernorm" if means else f"{p}layernorm", d),
        final_norm="after" if means else "before", activation=settings.need("activation"),
        norm_epsilon=settings.need("norm_epsilon"), mean=settings.need("mean"), std=settings.need("std"),
        resize=Resize(antialias=registers),
        patch_size=settings.get("patch_size"),
    )  # fmt: skip


def _positions(weights: Weights, settings: Settings, e: str, d: int, placed: int, shared: list[str]) -> Positions:
    """e: what stands before the embeddings' names; placed: how many prefix tokens have a position."""
    if f"{e}position_embeddings" in weights or not any(TABLE in name for name in weights.tensors):
        table = weights.take(f"{e}position_embeddings", 1, None, d)[0]
        return split_positions(table, (placed,), settings.get("grid_shape"), weights.error)
    tables = [*shared, *(name for name in weights.tensors if name.endswith(TABLE))]
    return relative.positions(weights, settings, tables, d)


def _heads(weights: Weights, settings: Settings, d: int, dinov2: bool, means: bool) -> tuple[list[Matrix], str]:
    if "cls_classifier.weight" in weights:
        heads = [linear(weights, name, None, d) for name in ("cls_classifier", "distillation_classifier")]
        return heads, settings.implied("pool", "token+token", "the two classifiers read")
    if "classifier.weight" in weights:
        pool = "token+mean" if dinov2 else "mean" if means else "token"
        head = linear(weights, "classifier", None, 2 * d if dinov2 else d)
        return [head], settings.implied("pool", pool, "the classifier reads")
    return [], settings.implied("pool", "mean", "the pooler makes") if means else settings.need("pool")


def _layer(
    weights: Weights, at: str, d: int, num_heads: int, settings: Settings, grid: Grid, shared: list[str]
) -> LayerParts:
    names = next((names for names in ATTENTION if f"{at}{names['q']}.weight" in weights), ATTENTION[0])
    parts = [linear(weights, f"{at}{names[part]}", None, d) for part in "qkv"]
    if len({part.outputs for part in parts}) > 1:
        raise weights.error(f"q, k and v of '{at}' differ in width: {', '.join(str(p.outputs) for p in parts)}")
    qkv = Matrix(torch.cat([part.weight for part in parts]), torch.cat([part.offset for part in parts]))
    q_dim = check_heads(weights, f"{at}{names['q']}", qkv, num_heads)
    norms = next((pair for pair in NORMS if f"{at}{pair[0]}.weight" in weights), NORMS[0])
    mlp = next((pair for pair in MLPS if f"{at}{pair[0]}.weight" in weights), MLPS[0])
    fc1 = linear(weights, f"{at}{mlp[0]}", None, d)
    tables = [f"{at}relative_position_bias.{TABLE}", f"{at}attention.attention.relative_position_bias.{TABLE}", *shared]
    bias = relative.bias(weights, tables, num_heads, grid, relative.resize_linear)
    if bias is not None and grid[0] != grid[1]:
        raise weights.error(
            f"relative positions of {grid[0]} x {grid[1]} patches: transformers mixes up their rows and columns unless "
            "the grid is a square"
        )
    return LayerParts(
        num_heads=num_heads, norm1=layer_norm(weights, f"{at}{norms[0]}", d), qkv=qkv,
        proj=linear(weights, f"{at}{names['proj']}", d, q_dim), norm2=layer_norm(weights, f"{at}{norms[1]}", d),
        fc1=fc1, fc2=linear(weights, f"{at}{mlp[1]}", d, fc1.outputs), attention_scale=settings.get("attention_scale"),
        layer_scale=(_layer_scale(weights, at, 1, d), _layer_scale(weights, at, 2, d)), relative=bias,
    )  # fmt: skip


def _layer_scale(weights: Weights, at: str, half: int, d: int) -> torch.Tensor | None:
    """Dinov2's, or BEiT's."""
    scale = weights.maybe(f"{at}layer_scale{half}.lambda1", d)
    return weights.maybe(f"{at}lambda_{half}", d) if scale is None else scale
