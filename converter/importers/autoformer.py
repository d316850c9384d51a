# SPDX-License-Identifier: Apache-2.0
"""AutoFormer's and MCUFormer's supernets, and the subnet that a config takes of one.

A matrix of a subnet is the first rows and columns of the supernet's; of q, k and v (with change_qkv) the weight's rows
are interleaved (q0, k0, v0, q1, ...) and the bias is not: it is q, then k, then v, of the subnet's width. MCUFormer has
every matrix as three factors; those of q, k, v are all interleaved. Relative positions are tables for rows ("v") and
columns ("h"), of which the first entry is for pairs with the class token, and a subnet's are the first channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mcuformer.converter.importers.parts import (
    LayerParts,
    Matrix,
    Positions,
    RelativeTables,
    VitParts,
    split_positions,
    without_positions,
)
from mcuformer.converter.importers.settings import Settings
from mcuformer.converter.importers.weights import Weights
from mcuformer.errors import ConfigError, ModelError

NAME = "autoformer"
TITLE = "AutoFormer and MCUFormer supernets, with a subnet's config"
MARK = "patch_embed_super.proj.weight"
SETTINGS = (
    "embed_dim", "depth", "num_heads", "mlp_ratio", "rank_ratio", "change_qkv", "head_dim", "pool", "mean", "std",
    "grid_shape",
)  # fmt: skip
NEEDED = ("embed_dim", "depth", "num_heads", "mlp_ratio", "change_qkv", "pool", "mean", "std")
FOREIGN = ()

HEAD_DIM = 64  # with change_qkv, in both projects' code
PADDING = {28: 6, 32: 8}  # a patch's height -> pixels that MCUFormer's code puts around the image

Take = Callable[[str, int, int], Matrix]  # (name, outputs, inputs)


def settings_of(module: nn.Module) -> dict[str, Any] | None:
    """What a live module says, with the subnet that its set_sample_config() chose; None if of another family."""
    if type(module).__name__ != "Vision_TransformerSuper":
        return None
    net: Any = module
    if net.sample_embed_dim is None:
        raise ModelError("no subnet is chosen: call set_sample_config() first")
    if net.scale or len(set(net.sample_embed_dim)) > 1:
        raise ModelError("scale=True, or widths that differ between layers: the network has one width, without scales")
    chosen = net.blocks[: net.sample_layer_num]
    attention = chosen[0].attn
    said = {
        "embed_dim": net.sample_embed_dim[0],
        "depth": net.sample_layer_num,
        "num_heads": list(net.sample_num_heads[: net.sample_layer_num]),
        "mlp_ratio": list(net.sample_mlp_ratio[: net.sample_layer_num]),
        "change_qkv": attention.change_qkv,
        "pool": "mean" if net.gp else "token",
        "image_shape": tuple(net.patch_embed_super.img_size),
    }
    if hasattr(attention, "rank_ratio"):
        said["rank_ratio"] = attention.rank_ratio
    return said


def read(weights: Weights, settings: Settings) -> VitParts:
    d, depth = settings.need("embed_dim"), settings.need("depth")
    stem_weight = weights.take(MARK, None, None, None, None)
    stem = Matrix(_first(weights, MARK, stem_weight, d), _first(weights, "bias", weights.take(_bias(MARK), None), d))
    count = weights.count("blocks.{}.")
    if depth > count:
        raise ConfigError(f"depth = {depth}: the supernet has {count} layers")
    factored = "blocks.0.fc11.weight" in weights
    token = _first(weights, "cls_token", weights.take("cls_token", 1, 1, None)[0].T, d).T
    positions = _positions(weights, settings, d)
    ratios, num_heads = settings.per_layer("mlp_ratio", depth), settings.per_layer("num_heads", depth)
    pool = settings.need("pool")
    pre_norm = "norm.weight" in weights
    read_layer = _Layer(weights, settings, d, factored)
    layers = [read_layer(i, num_heads[i], ratios[i]) for i in range(depth)]
    rows, columns = positions.grid_shape
    if layers[0].relative is not None and rows != columns:
        raise weights.error(f"relative positions of {rows} x {columns} patches: AutoFormer reads them as of a square")
    weights.leave_out([(rf"^blocks\.{i}\.", "a layer that the subnet leaves out") for i in range(depth, count)])
    return VitParts(
        stem=stem, prefix=positions.of(token), position=positions.patches, grid_shape=positions.grid_shape,
        grid_assumed=positions.grid_assumed, layers=layers,
        norm=_norm(weights, "norm", d) if pre_norm else None, norm_order="pre" if pre_norm else "post",
        heads=[_slice(weights, "head", None, d)] if "head.weight" in weights else [], pool=pool, activation="gelu",
        norm_epsilon=1e-5, mean=settings.need("mean"), std=settings.need("std"),
        padding=PADDING.get(stem_weight.shape[2], 0) if factored else 0, image_shape=settings.get("image_shape"),
    )  # fmt: skip


def _positions(weights: Weights, settings: Settings, d: int) -> Positions:
    if "pos_embed" in weights:
        table = _first(weights, "pos_embed", weights.take("pos_embed", 1, None, None)[0].T, d).T
        return split_positions(table, (1,), settings.get("grid_shape"), weights.error)
    return without_positions(settings.need("grid_shape"), d, grid_assumed=False)


class _Layer:
    """Reads the subnet's layers."""

    def __init__(self, weights: Weights, settings: Settings, d: int, factored: bool):
        self.weights, self.d, self.factored = weights, d, factored
        self.change_qkv = settings.need("change_qkv")
        self.rank_ratio: float = settings.need("rank_ratio") if factored else 1.0
        self.head_dim = settings.get("head_dim", HEAD_DIM) if self.change_qkv else None

    def __call__(self, i: int, num_heads: int, mlp_ratio: float) -> LayerParts:
        weights, d, at = self.weights, self.d, f"blocks.{i}."
        scale = None
        if self.head_dim is not None:
            q_dim = num_heads * self.head_dim
        else:  # all of q, k and v, on more or fewer heads
            name = f"{at}attn.qkv3.weight" if self.factored else f"{at}attn.qkv.weight"
            q_dim = weights.shape(name)[0] // 3
            if q_dim % num_heads or num_heads > d:
                raise ConfigError(f"num_heads = {num_heads} in layer {i}: does not divide q's width of {q_dim}")
            scale = (d // num_heads) ** -0.5
        mlp_dim = int(d * mlp_ratio)
        fc1, fc2 = self._mlp(at, mlp_dim)
        qkv, proj = self._qkv(at, q_dim), self._proj(at, q_dim)
        if not _rank_fits(qkv, proj, min(d, q_dim)):
            qkv, proj = qkv.dense(), proj.dense()
        return LayerParts(
            num_heads=num_heads, norm1=_norm(weights, f"{at}attn_layer_norm", d), qkv=qkv, proj=proj,
            norm2=_norm(weights, f"{at}ffn_layer_norm", d), fc1=fc1, fc2=fc2, attention_scale=scale,
            relative=self._relative(at, q_dim // num_heads),
        )  # fmt: skip

    def _relative(self, at: str, head_dim: int) -> RelativeTables | None:
        names = {part: f"{at}attn.rel_pos_embed_{part}.embeddings_table_" for part in "kv"}
        if f"{names['k']}v" not in self.weights:
            for name in names.values():
                self.weights.maybe(f"{name}v"), self.weights.maybe(f"{name}h")
            return None

        def tables(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            rows, columns = (
                _first(self.weights, f"{name}{part}", self.weights.take(f"{name}{part}", None, None).T, head_dim).T
                for part in "vh"
            )
            if len(rows) % 2 or len(rows) != len(columns) or len(rows) < 2:
                raise self.weights.error(
                    f"tensor '{name}v' has {len(rows)} entries and '{name}h' {len(columns)}: needs as many, one for "
                    "the class token and an odd number of distances"
                )
            return rows[1:], columns[1:], rows[:1] + columns[:1]

        return RelativeTables(tables(names["k"]), tables(names["v"]))

    def _qkv(self, at: str, q_dim: int) -> Matrix:
        take = self._interleaved if self.change_qkv else self._plain
        return self._matrix(f"{at}attn.qkv", 3 * q_dim, self.d, take)

    def _proj(self, at: str, q_dim: int) -> Matrix:
        return self._matrix(f"{at}attn.proj", self.d, q_dim, self._plain)

    def _mlp(self, at: str, mlp_dim: int) -> tuple[Matrix, Matrix]:
        rank = int(min(self.d, mlp_dim) * self.rank_ratio)
        fc1 = self._matrix(f"{at}fc1", mlp_dim, self.d, self._plain, rank)
        return fc1, self._matrix(f"{at}fc2", self.d, mlp_dim, self._plain, rank)

    def _matrix(self, name: str, outputs: int, inputs: int, take: Take, rank: int | None = None) -> Matrix:
        """A matrix; of MCUFormer's three factors the first two are one, and their biases go into the last.

        rank: of the factors that the subnet takes; None: all of it."""
        if not self.factored:
            return take(name, outputs, inputs)
        rank = self.weights.shape(f"{name}1.weight")[0] if rank is None else rank
        first, second = take(f"{name}1", rank, inputs), take(f"{name}2", rank, rank)
        third = take(f"{name}3", outputs, rank)
        bias = third.offset + third.weight @ (second.offset + second.weight @ first.offset)
        return Matrix(third.weight, bias, second.weight @ first.weight)

    def _plain(self, name: str, outputs: int, inputs: int) -> Matrix:
        return _slice(self.weights, name, outputs, inputs)

    def _interleaved(self, name: str, outputs: int, inputs: int) -> Matrix:
        matrix = self._plain(name, outputs, inputs)
        return Matrix(torch.cat([matrix.weight[part::3] for part in range(3)]), matrix.bias)


def _rank_fits(qkv: Matrix, proj: Matrix, most: int) -> bool:
    """Whether the matrices around attention stay two factors each: those of a supernet have its rank, which is often
    above the width of the subnet."""
    return qkv.rank == proj.rank and qkv.rank <= most


def _bias(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"


def _slice(weights: Weights, name: str, outputs: int | None, inputs: int) -> Matrix:
    """The first rows and columns of name.weight and name.bias, which may be missing."""
    weight = weights.take(f"{name}.weight", None, None)
    bias = weights.maybe(f"{name}.bias", weight.shape[0])
    outputs = weight.shape[0] if outputs is None else outputs
    weight = _first(weights, f"{name}.weight", _first(weights, f"{name}.weight", weight, outputs).T, inputs).T
    return Matrix(weight, None if bias is None else bias[:outputs])


def _norm(weights: Weights, name: str, d: int) -> Matrix:
    parts = (_first(weights, f"{name}.{part}", weights.take(f"{name}.{part}", None), d) for part in ("weight", "bias"))
    return Matrix(*parts)


def _first(weights: Weights, name: str, tensor: torch.Tensor, count: int) -> torch.Tensor:
    if count > len(tensor):
        raise weights.error(f"tensor '{name}': the subnet needs {count} of its {len(tensor)} rows or columns")
    return tensor[:count]
