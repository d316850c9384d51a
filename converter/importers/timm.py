# SPDX-License-Identifier: Apache-2.0
"""timm: VisionTransformer, VisionTransformerDistilled and Beit; the checkpoints of DeiT, DINOv2 and BEiT name tensors
alike."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mcuformer.converter.importers import live, relative
from mcuformer.converter.importers.parts import Grid, LayerParts, Matrix, VitParts, split_positions
from mcuformer.converter.importers.reading import check_heads, convolution, layer_norm, linear
from mcuformer.converter.importers.settings import Settings
from mcuformer.converter.importers.weights import Weights
from mcuformer.errors import ConfigError, ModelError

NAME = "timm"
TITLE = "timm VisionTransformer, VisionTransformerDistilled (DeiT) and Beit"
MARK = "patch_embed.proj.weight"
SETTINGS = (
    "num_heads", "activation", "norm_epsilon", "mean", "std", "pool", "grid_shape", "prefix_positions",
    "attention_scale", "patch_size", "arch",
)  # fmt: skip
NEEDED = ("num_heads", "activation", "norm_epsilon", "mean", "std")
FOREIGN = ()

DISTILLED = "timm.models.deit.VisionTransformerDistilled"
CLASSES = ("timm.models.vision_transformer.VisionTransformer", "timm.models.beit.Beit", DISTILLED)
# Whose classes may differ from the plain ones without a tensor that tells.
PARTS = {"blocks.{}": "Block", "blocks.{}.attn": "Attention", "blocks.{}.mlp": "Mlp", "patch_embed": "PatchEmbed"}
POOLS = {"token": "token", "avg": "mean"}
# Arguments of a model in its config.json that the weights show, or that only training needs.
CONFIG_ARGUMENTS = {
    "img_size", "patch_size", "in_chans", "num_classes", "global_pool", "drop_rate", "pos_drop_rate", "patch_drop_rate",
    "proj_drop_rate", "attn_drop_rate", "drop_path_rate",
}  # fmt: skip


def settings_of(module: nn.Module) -> dict[str, Any] | None:
    """What a live module says; None if it is of another family."""
    if live.class_name(module) not in CLASSES:
        return None
    vit: Any = module
    for i in range(len(vit.blocks)):
        _check_parts(module, i)
    if vit.patch_embed.dynamic_img_pad:
        raise ModelError("patch_embed pads images to whole patches: make it with dynamic_img_pad=False")
    said = {
        "num_heads": [block.attn.num_heads for block in vit.blocks],
        "activation": live.activation(block.mlp.act for block in vit.blocks),
        "norm_epsilon": live.norm_epsilon(module),
        "grid_shape": list(vit.patch_embed.grid_size),
        "prefix_positions": 0 if getattr(vit, "no_embed_class", False) else vit.num_prefix_tokens,
        **_pixels(getattr(module, "pretrained_cfg", None), vit.patch_embed.proj.in_channels),
    }
    if live.class_name(module) != DISTILLED:
        said["pool"] = _pool(vit)
    return said


def _check_parts(module: nn.Module, block: int) -> None:
    """ModelError if a block, or the patch embedding, is other than the plain one."""
    for form, kind in PARTS.items():
        part = module.get_submodule(path := form.format(block))
        if type(part).__name__ != kind:
            raise ModelError(f"{path} is a {type(part).__name__}, not a plain {kind}: its network is not read")
    attention: Any = module.get_submodule(f"blocks.{block}.attn")
    head_dim = attention.proj.in_features // attention.num_heads
    if abs(attention.scale * head_dim**0.5 - 1) > 1e-6:
        raise ModelError(
            f"blocks.{block}.attn.scale = {attention.scale}, not 1 / sqrt({head_dim}): give its state_dict() with "
            "attention_scale"
        )


def _pixels(config: Any, channels: int | None = None) -> dict[str, list[float]]:
    """mean and std, if a pretrained config says them; not those of colours for a network made for other channels."""
    values = config if isinstance(config, dict) else vars(config) if config is not None else {}
    said = {name: list(values[name]) for name in ("mean", "std") if values.get(name) is not None}
    return {name: value for name, value in said.items() if channels is None or len(value) == channels}


def _pool(vit: Any) -> str | None:
    if vit.global_pool not in ("", *POOLS):
        raise ModelError(f"global_pool = '{vit.global_pool}': the head can read {', '.join(POOLS)}; train it again")
    if vit.global_pool == "avg" and getattr(vit, "pool_include_prefix", False):
        return "mean-all"
    return POOLS.get(vit.global_pool)


ARCHITECTURES = Path(__file__).with_name("timm_architectures.json")
"""Made by tools/timm_architectures.py, where timm is installed: name -> its settings, sizes and pixels."""


@functools.cache
def _architectures() -> dict[str, Any]:
    return json.loads(ARCHITECTURES.read_text(encoding="utf-8"))


def architecture(name: str) -> dict[str, Any]:
    """The settings of timm's architecture `name`; pixels of its tag ("vit_tiny_patch16_224.augreg_in21k"), or without
    one if all of its pretrained weights have the same. ConfigError if it is unknown, ModelError if it is refused."""
    known = _architectures()
    arch, _, tag = name.partition(".")
    if arch not in known:
        near = difflib.get_close_matches(arch, known, 3)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise ConfigError(f"arch = {name!r}: no plain ViT, DeiT or BEiT of timm's{hint}")
    found = known[arch]
    if "refused" in found:
        raise ModelError(f"arch = {name!r}: {found['refused']}")
    pixels = found["pixels"]
    if tag and tag not in pixels:
        raise ConfigError(f"arch = {name!r}: its tags are {', '.join(pixels) or 'none'}")
    choices = [pixels[tag]] if tag else list(pixels.values())
    said = dict(found["settings"])
    if choices and all(choice == choices[0] for choice in choices):
        said["mean"], said["std"] = choices[0]
    return said


def config_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """arch, pool, mean and std of a config.json as timm's save_for_hf writes it. KeyError if it names no architecture,
    ModelError if the network was made with other arguments than its architecture's."""
    arch = content["architecture"]
    if not isinstance(arch, str):
        raise ModelError(f"architecture = {arch!r}: not a name")
    known, arguments = architecture(arch), content.get("model_args") or {}
    if changed := sorted(set(arguments) - CONFIG_ARGUMENTS):
        raise ModelError(f"model_args has {', '.join(changed)}: not the plain {arch}; import the module itself")
    said = {"arch": arch, **_pixels(content.get("pretrained_cfg"))}
    pool = content.get("global_pool")
    if "pool" in known and pool is not None:  # else the two heads say it
        if pool not in POOLS:
            raise ModelError(f"global_pool = {pool!r}: the head can read {', '.join(POOLS)}; train it again")
        said["pool"] = POOLS[pool]
    return said


def _check_sizes(weights: Weights, arch: str, d: int, depth: int) -> None:
    """ModelError if the weights are not of the architecture."""
    found = _architectures()[arch.partition(".")[0]]
    for what, have, wanted in (("width", d, found["embed_dim"]), ("layers", depth, found["depth"])):
        if have != wanted:
            raise weights.error(f"{what} {have}, and arch = {arch!r} has {wanted}: another architecture, or cut short")


def read(weights: Weights, settings: Settings) -> VitParts:
    stem = convolution(weights, "patch_embed.proj")
    d, count = stem.outputs, weights.count("blocks.{}.")
    if (arch := settings.get("arch")) is not None:
        _check_sizes(weights, arch, d, count)
    prefix, distilled = _prefix(weights, d)
    if "pos_embed" in weights:
        table = weights.take("pos_embed", 1, None, d)[0]
        choice = settings.get("prefix_positions")
        if choice is not None and choice > len(prefix):
            raise ConfigError(f"prefix_positions = {choice}: there are {len(prefix)} prefix tokens")
        has_class = int("cls_token" in weights)
        choices = (0, has_class, len(prefix)) if choice is None else (choice,)
        positions = split_positions(table, tuple(sorted(set(choices))), settings.get("grid_shape"), weights.error)
    else:
        positions = relative.positions(weights, settings, _tables("blocks.0."), d)
    norm, final_norm = _final_norm(weights, d)
    heads, pool = _heads(weights, settings, d, distilled)
    num_heads = settings.per_layer("num_heads", count)
    return VitParts(
        stem=stem, prefix=positions.of(prefix), position=positions.patches, grid_shape=positions.grid_shape,
        grid_assumed=positions.grid_assumed,
        layers=[
            _layer(weights, f"blocks.{i}.", d, num_heads[i], settings, positions.grid_shape)
            for i in range(count)
        ],
        norm=norm, final_norm=final_norm, norm_pre=layer_norm(weights, "norm_pre", d) if "norm_pre.weight" in weights
        else None, heads=heads, pool=pool, activation=settings.need("activation"),
        norm_epsilon=settings.need("norm_epsilon"), mean=settings.need("mean"), std=settings.need("std"),
        patch_size=settings.get("patch_size"),
    )  # fmt: skip


def _prefix(weights: Weights, d: int) -> tuple[torch.Tensor, bool]:
    """Class, distillation and register tokens [n, d], and whether there is one of distillation."""
    distilled = "dist_token" in weights
    names = [name for name in ("cls_token", "dist_token", "reg_token", "register_tokens") if name in weights]
    tokens = [weights.take(name, 1, 1 if name in ("cls_token", "dist_token") else None, d)[0] for name in names]
    return (torch.cat(tokens) if tokens else torch.zeros(0, d, dtype=torch.float64)), distilled


def _final_norm(weights: Weights, d: int) -> tuple[Matrix | None, str]:
    """The last LayerNorm, and whether it stands before or after pooling."""
    found = [name for name in ("norm", "fc_norm") if f"{name}.weight" in weights]
    if len(found) > 1:
        raise weights.error("tensor 'fc_norm.weight': a second LayerNorm after 'norm', which the network has not")
    if not found:
        return None, "before"
    return layer_norm(weights, found[0], d), "before" if found[0] == "norm" else "after"


def _heads(weights: Weights, settings: Settings, d: int, distilled: bool) -> tuple[list[Matrix], str]:
    if distilled:
        if "head_dist.weight" not in weights or "head.weight" not in weights:
            raise weights.error("a distilled network without its two heads: their average is its output; keep both")
        heads = [linear(weights, name, None, d) for name in ("head", "head_dist")]
        return heads, settings.implied("pool", "token+token", "a distilled network's heads read")
    return ([linear(weights, "head", None, d)] if "head.weight" in weights else []), settings.need("pool")


def _layer(weights: Weights, at: str, d: int, num_heads: int, settings: Settings, grid: Grid) -> LayerParts:
    qkv = linear(weights, f"{at}attn.qkv", None, d)
    q_dim = check_heads(weights, f"{at}attn.qkv.weight", qkv, num_heads)
    if qkv.bias is None and (q_bias := weights.maybe(f"{at}attn.q_bias", q_dim)) is not None:  # BEiT: k has none
        v_bias = weights.take(f"{at}attn.v_bias", q_dim)
        qkv = Matrix(qkv.weight, torch.cat([q_bias, torch.zeros_like(q_bias), v_bias]))
    fc1 = linear(weights, f"{at}mlp.fc1", None, d)
    return LayerParts(
        num_heads=num_heads, norm1=layer_norm(weights, f"{at}norm1", d), qkv=qkv,
        proj=linear(weights, f"{at}attn.proj", d, q_dim), norm2=layer_norm(weights, f"{at}norm2", d), fc1=fc1,
        fc2=linear(weights, f"{at}mlp.fc2", d, None), attention_scale=settings.get("attention_scale"),
        layer_scale=(_layer_scale(weights, at, 1, d), _layer_scale(weights, at, 2, d)),
        relative=relative.bias(weights, _tables(at), num_heads, grid, relative.resize_geometric),
    )  # fmt: skip


def _tables(at: str) -> list[str]:
    """Names of BEiT's relative positions: of the layer, of all layers."""
    return [f"{where}.relative_position_bias_table" for where in (f"{at}attn", "rel_pos_bias")]


def _layer_scale(weights: Weights, at: str, half: int, d: int) -> torch.Tensor | None:
    """timm's, or as DeiT III names it."""
    scale = weights.maybe(f"{at}ls{half}.gamma", d)
    return weights.maybe(f"{at}gamma_{half}", d) if scale is None else scale
