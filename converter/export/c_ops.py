# SPDX-License-Identifier: Apache-2.0
"""Every op of a graph as C: a constant params struct and a call of its kernel.

One function an op: (op, context) -> Call. The context names constants and addresses of activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mcuformer.converter.export.c_text import int64
from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import params_blob, streamed_attention, streamed_mlp
from mcuformer.converter.ops.packed_weights import row_bytes_and_rows

ATTENTION_WORDS = 4  # int32 of head_params a head


@dataclass(frozen=True)
class Call:
    """params: type and fields of the op's struct (None: it has none); text: the call; `&params` names the struct."""

    params: tuple[str, dict] | None
    text: str


@dataclass(frozen=True)
class Context:
    """What an op's C needs to know. constant(name, values) -> name of the C array; address(tensor) -> where it is;
    source: the mcuf_weight_source of staged weights."""

    graph: Graph
    constant: Callable[[str, np.ndarray], str]
    address: Callable[[int], str]
    scratch: str
    source: str

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self.graph.tensors[tensor].shape

    def tensor(self, tensor: int) -> str:
        """The C array of a constant tensor, NULL where there is none in the program."""
        if tensor < 0 or self.graph.tensors[tensor].external:
            return "NULL"
        stored = self.graph.tensors[tensor]
        return self.constant(stored.name, stored.data)

    def staged(self, tile_bytes: int, offset: int) -> dict:
        """The field of staged weights; none where tile_bytes is 0."""
        return {"staged": {"source": self.source, "tile_bytes": tile_bytes, "offset": offset}} if tile_bytes else {}


def call_of(op: Op, context: Context) -> Call:
    """The C of one op."""
    return _CALLS[op.kind](op, context)


def _rows(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[:-1]))


def _decomposed_patch_embed(op: Op, c: Context) -> Call:
    image, weights, bias, multiplier, position, position_scale = op.inputs
    _, height, width, channels = c.shape(image)
    fields = {
        "image_height": height, "image_width": width, "channels": channels, "patch_size": op.options.patch_size,
        "embed_dim": c.shape(op.output)[-1], "zero_point": op.options.zero_point, "packing": op.options.packing,
        "weights": c.tensor(weights), "bias": c.tensor(bias), "multiplier": c.tensor(multiplier),
        "position": c.tensor(position), "position_scale": c.tensor(position_scale), "blocks": op.options.blocks or 1,
        **c.staged(op.options.tile_bytes, op.options.weights_offset),
    }  # fmt: skip
    out = c.address(op.output)
    if op.options.strip_rows:
        rows = f"{op.options.strip_rows}, rows_fn, user"
        text = f"mcuf_decomposed_patch_embed_strips_s8(&params, {rows}, {out}, {c.scratch})"
    else:
        text = f"mcuf_decomposed_patch_embed_s8(&params, {c.address(image)}, {out}, {c.scratch})"
    return Call(("mcuf_decomposed_patch_embed_params", fields), text)


def _stem_conv(op: Op, c: Context) -> Call:
    source, weights, bias, multiplier, position, position_scale = op.inputs
    _, height, width, channels = c.shape(source)
    fields = {
        "height": height, "width": width, "in_channels": channels, "out_channels": c.shape(op.output)[-1],
        "pad_value": op.options.pad_value, "zero_point": op.options.zero_point, "act_min": op.options.act_min,
        "packing": op.options.packing, "weights": c.tensor(weights), "bias": c.tensor(bias),
        "multiplier": c.tensor(multiplier),
        "position": c.tensor(position), "position_scale": c.tensor(position_scale),
    }  # fmt: skip
    text = f"mcuf_stem_conv_s8(&params, {c.address(source)}, {c.address(op.output)}, {c.scratch})"
    return Call(("mcuf_stem_conv_params", fields), text)


def _int_layer_norm(op: Op, c: Context) -> Call:
    source, gamma, beta, factor = op.inputs
    shape = c.shape(source)
    fields = {
        "tokens": _rows(shape), "features": shape[-1], "zero_point": op.options.zero_point,
        "epsilon": int64(op.options.epsilon), "gamma": c.tensor(gamma), "beta": c.tensor(beta),
        "factor": c.tensor(factor),
    }  # fmt: skip
    text = f"mcuf_int_layer_norm_s8(&params, {c.address(source)}, {c.address(op.output)})"
    return Call(("mcuf_int_layer_norm_params", fields), text)


def _in_place_fc(op: Op, c: Context) -> Call:
    source, weights, bias, multiplier, gelu_table, residual, residual_scale = op.inputs
    stride = c.shape(source)[-1]
    fields = {
        "tokens": _rows(c.shape(source)), "in_features": min(c.shape(weights)[1], stride), "in_stride": stride,
        "out_features": c.shape(op.output)[-1], "zero_point": op.options.zero_point, "packing": op.options.packing,
        "weights": c.tensor(weights),
        "bias": c.tensor(bias), "multiplier": c.tensor(multiplier), "gelu_table": c.tensor(gelu_table),
        "residual_scale": c.tensor(residual_scale), **c.staged(op.options.tile_bytes, op.options.weights_offset),
        "block": op.options.block,
    }  # fmt: skip
    added = c.address(residual) if residual >= 0 else "NULL"
    text = f"mcuf_in_place_fc_s8(&params, {c.address(source)}, {added}, {c.address(op.output)}, {c.scratch})"
    return Call(("mcuf_in_place_fc_params", fields), text)


def _int_gelu(op: Op, c: Context) -> Call:
    source, table = op.inputs
    count = int(np.prod(c.shape(source)))
    text = f"mcuf_int_gelu_s8({c.tensor(table)}, {c.address(source)}, {c.address(op.output)}, {count})"
    return Call(None, text)


def _int_attention(op: Op, c: Context) -> Call:
    qkv, head_params = op.inputs
    _, tokens, stride = c.shape(qkv)
    fields = {
        "tokens": tokens, "num_heads": c.shape(head_params)[0], "kv_heads": op.options.kv_heads,
        "head_dim": op.options.head_dim, "in_stride": stride, "out_stride": stride,
        "zero_point": op.options.zero_point, "head_params": c.tensor(head_params),
    }  # fmt: skip
    text = f"mcuf_int_attention_s8(&params, {c.address(qkv)}, {c.address(op.output)}, {c.scratch})"
    return Call(("mcuf_int_attention_params", fields), text)


def _token_mean(op: Op, c: Context) -> Call:
    _, tokens, features = c.shape(op.inputs[0])
    fields = {
        "tokens": tokens, "features": features, "in_zero_point": op.options.in_zero_point,
        "zero_point": op.options.zero_point, "multiplier": op.options.multiplier,
    }  # fmt: skip
    text = f"mcuf_token_mean_s8(&params, {c.address(op.inputs[0])}, {c.address(op.output)})"
    return Call(("mcuf_token_mean_params", fields), text)


class _Blob:
    """The sections of a Streamed op's params, each as a C array of its own."""

    def __init__(self, op: Op, c: Context, module):
        self._module = module
        self._features = c.shape(op.output)[-1]
        tensor = c.graph.tensors[op.inputs[1]]
        self._sections = params_blob.unpack(tensor.data)
        self._name = tensor.name.removesuffix("/params")
        self._context = c

    def values(self, section: int, dtype: str) -> np.ndarray | None:
        return params_blob.array(self._sections[section], dtype)

    def constant(self, name: str, section: int, dtype: str) -> str:
        values = self.values(section, dtype)
        return "NULL" if values is None else self._context.constant(f"{self._name}/{name}", values)

    def norm(self, section: int, zero_point: int, low: int, high: int) -> dict:
        return {
            "features": len(self.values(section, "int16")), "zero_point": zero_point,
            "epsilon": int64(params_blob.join_int64(low, high)), "gamma": self.constant("gamma", section, "int16"),
            "beta": self.constant("beta", section + 1, "int32"),
            "factor": self.constant("factor", section + 2, "uint8"),
        }  # fmt: skip

    def fully_connected(self, names: list[str], first: int, zero_points: list[int], staged: tuple) -> list:
        """The layers of an op, whose sections begin at `first`. staged: tile_bytes, where their weights begin, and how
        these are packed."""
        tile_bytes, offset, packing = staged
        fields = []
        for i, (inputs, outputs) in enumerate(self._module.layers_of(self._sections, self._features)):
            name, section = names[i], first + 3 * i
            fields.append(
                {
                    "in_features": inputs, "out_features": outputs, "zero_point": zero_points[i],
                    "packing": packing, "weights": self.constant(f"{name}/weights", section, "int8"),
                    "bias": self.constant(f"{name}/bias", section + 1, "int32"),
                    "multiplier": self.constant(f"{name}/multiplier", section + 2, "int32"),
                    **self._context.staged(tile_bytes, offset),
                }
            )  # fmt: skip
            size = math.prod(row_bytes_and_rows(inputs, outputs, packing))
            offset += -(-size // params_blob.ALIGNMENT) * params_blob.ALIGNMENT
        return fields


def _streamed(kind: str, fields: dict, op: Op, c: Context) -> Call:
    stream, output = c.address(op.inputs[0]), c.address(op.output)
    if stream != output:
        raise AssertionError(f"{c.graph.tensors[op.output].name} does not stand over its input")
    return Call((f"mcuf_{kind}_params", fields), f"mcuf_{kind}_s8(&params, {output}, {c.scratch})")


def _streamed_attention(op: Op, c: Context) -> Call:
    module = streamed_attention
    blob = _Blob(op, c, module)
    scalars = blob.values(module.SCALARS, "int32").tolist()
    block, kv_heads, at_once, head_dim, zero_point, norm_zero, low, high, qkv_zero, proj_zero, *staged = scalars
    qkv, proj = blob.fully_connected(["qkv", "proj"], module.QKV, [qkv_zero, proj_zero], staged)
    proj["residual_scale"] = blob.constant("residual_scale", module.RESIDUAL_SCALE, "int16")
    fields = {
        "tokens": c.shape(op.output)[1], "block": block,
        "num_heads": len(blob.values(module.HEAD_PARAMS, "int32")) // ATTENTION_WORDS, "kv_heads": kv_heads,
        "kv_heads_at_once": at_once, "head_dim": head_dim, "zero_point": zero_point,
        "head_params": blob.constant("head_params", module.HEAD_PARAMS, "int32"),
        "norm": blob.norm(module.NORM, norm_zero, low, high), "qkv": qkv, "proj": proj,
    }  # fmt: skip
    return _streamed("streamed_attention", fields, op, c)


def _streamed_mlp(op: Op, c: Context) -> Call:
    module = streamed_mlp
    blob = _Blob(op, c, module)
    scalars = blob.values(module.SCALARS, "int32").tolist()
    block, norm_zero, low, high, gelu_layer, *staged = scalars[: module.FIRST_ZERO_POINT]
    zero_points = scalars[module.FIRST_ZERO_POINT :]
    fcs = blob.fully_connected([f"fc{i}" for i in range(len(zero_points))], module.FIRST_FC, zero_points, staged)
    if gelu_layer >= 0:
        fcs[gelu_layer]["gelu_table"] = blob.constant("gelu_table", module.GELU_TABLE, "int8")
    fcs[-1]["residual_scale"] = blob.constant("residual_scale", module.RESIDUAL_SCALE, "int16")
    fields = {
        "tokens": c.shape(op.output)[1], "block": block, "norm": blob.norm(module.NORM, norm_zero, low, high),
        "fc_count": len(fcs), "fcs": fcs,
    }  # fmt: skip
    return _streamed("streamed_mlp", fields, op, c)


_CALLS = {
    "DecomposedPatchEmbed": _decomposed_patch_embed, "StemConv": _stem_conv, "IntLayerNorm": _int_layer_norm,
    "InPlaceFC": _in_place_fc, "IntGeLU": _int_gelu, "IntAttention": _int_attention, "TokenMean": _token_mean,
    "StreamedAttention": _streamed_attention, "StreamedMLP": _streamed_mlp,
}  # fmt: skip
