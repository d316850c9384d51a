# SPDX-License-Identifier: Apache-2.0
"""The params structs of the int8 core for ctypes, and how much memory their pointers must point to.

The headers in tflm_kernels/core declare them. check_layout() compares every offset with what the compiler made of the
headers (tflm_kernels/host/host_structs.cc), so that a difference is an error and never a crash.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops.decomposed_patch_embed import FIELD
from mcuformer.converter.ops.int_attention import HEAD_PARAMS
from mcuformer.converter.ops.packed_weights import row_bytes_and_rows
from mcuformer.errors import ToolchainError

MAX_FCS = 4  # MCUF_STREAMED_MLP_MAX_FCS


class Address(int):
    """Where something is in memory."""


class Memory(Address):
    """Where a constant's values are. `values` keeps them alive."""

    values: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Memory:
        """values, or a copy where they do not start at a multiple of 16 bytes."""
        values = np.ascontiguousarray(values)
        if values.ctypes.data % ALIGNMENT:
            copy = aligned(values.nbytes).view(values.dtype).reshape(values.shape)
            copy[...] = values
            values = copy
        memory = cls(values.ctypes.data)
        memory.values = values
        return memory


ALIGNMENT = 16


def aligned(size: int) -> np.ndarray:
    """int8 zeros, the first at a multiple of ALIGNMENT."""
    memory = np.zeros(size + ALIGNMENT, np.int8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


@dataclass(frozen=True)
class Pointer:
    """A field that points to constants: their dtype, and how many there are, of the other fields by name."""

    dtype: str
    count: Callable[[Mapping[str, Any]], int]
    optional: bool = False


class Struct(ctypes.Structure):
    """Base of the structs. kinds: field -> its type: int32, int64, a Pointer, void*, a Struct, (Struct, count)."""

    kinds: Mapping[str, Any]


INT32, INT64, VOID = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


def _struct(name: str, **kinds: Any) -> type[Struct]:
    def type_of(kind: Any) -> Any:
        if isinstance(kind, Pointer):
            return VOID
        return kind[0] * kind[1] if isinstance(kind, tuple) else kind

    fields = [(field, type_of(kind)) for field, kind in kinds.items()]
    return type(name, (Struct,), {"_fields_": fields, "kinds": kinds})


def _weights(p: Mapping[str, Any]) -> int:
    return prod(row_bytes_and_rows(p["in_features"], p["out_features"], p["packing"]))


def _field_weights(p: Mapping[str, Any]) -> int:
    side = -(-p["patch_size"] // FIELD)
    return side**2 * prod(row_bytes_and_rows(FIELD**2 * p["channels"], p["embed_dim"], p["packing"]))


def _stem_weights(p: Mapping[str, Any]) -> int:
    return prod(row_bytes_and_rows(9 * p["in_channels"], p["out_channels"], p["packing"]))


def _patches(p: Mapping[str, Any]) -> int:
    return (p["image_height"] // p["patch_size"]) * (p["image_width"] // p["patch_size"])


def _stem_pixels(p: Mapping[str, Any]) -> int:
    return (p["height"] + 1) // 2 * ((p["width"] + 1) // 2)


def _one_each(dtype: str, field: str, optional: bool = False) -> Pointer:
    return Pointer(dtype, lambda p: p[field], optional)


# Weights may be left out, where they are staged: the kernels' own checks tell.
_SOURCE = _struct("mcuf_weight_source", read=VOID, user=VOID)
_STAGED = _struct("mcuf_staged_weights", source=VOID, tile_bytes=INT32, offset=INT32)
_LAYER_NORM = _struct(
    "mcuf_int_layer_norm_params",
    tokens=INT32, features=INT32, zero_point=INT32, epsilon=INT64, gamma=_one_each("int16", "features"),
    beta=_one_each("int32", "features"), factor=_one_each("uint8", "features", optional=True),
)  # fmt: skip
_FULLY_CONNECTED = _struct(
    "mcuf_in_place_fc_params",
    tokens=INT32, in_features=INT32, in_stride=INT32, out_features=INT32, zero_point=INT32, packing=INT32,
    weights=Pointer("int8", _weights, optional=True), bias=_one_each("int32", "out_features"),
    multiplier=_one_each("int32", "out_features"), gelu_table=Pointer("int8", lambda p: 256, optional=True),
    residual_scale=_one_each("int16", "out_features", optional=True), staged=_STAGED, block=INT32,
)  # fmt: skip
_HEAD_PARAMS = Pointer("int32", lambda p: HEAD_PARAMS * p["num_heads"])

STRUCTS: dict[str, type[Struct]] = {
    struct.__name__: struct
    for struct in (
        _SOURCE,
        _STAGED,
        _LAYER_NORM,
        _FULLY_CONNECTED,
        _struct(
            "mcuf_int_attention_params",
            tokens=INT32, num_heads=INT32, kv_heads=INT32, head_dim=INT32, in_stride=INT32, out_stride=INT32,
            zero_point=INT32, head_params=_HEAD_PARAMS,
        ),
        _struct(
            "mcuf_token_mean_params",
            tokens=INT32, features=INT32, in_zero_point=INT32, zero_point=INT32, multiplier=INT32,
        ),
        _struct(
            "mcuf_decomposed_patch_embed_params",
            image_height=INT32, image_width=INT32, channels=INT32, patch_size=INT32, embed_dim=INT32,
            zero_point=INT32, packing=INT32, weights=Pointer("int8", _field_weights, optional=True),
            bias=_one_each("int32", "embed_dim"), multiplier=_one_each("int32", "embed_dim"),
            position=Pointer("int8", lambda p: _patches(p) * p["embed_dim"], optional=True),
            position_scale=_one_each("int16", "embed_dim", optional=True), staged=_STAGED, blocks=INT32,
        ),
        _struct(
            "mcuf_stem_conv_params",
            height=INT32, width=INT32, in_channels=INT32, out_channels=INT32, pad_value=INT32, zero_point=INT32,
            act_min=INT32, packing=INT32, weights=Pointer("int8", _stem_weights),
            bias=_one_each("int32", "out_channels"), multiplier=_one_each("int32", "out_channels"),
            position=Pointer("int8", lambda p: _stem_pixels(p) * p["out_channels"], optional=True),
            position_scale=_one_each("int16", "out_channels", optional=True),
        ),
        _struct(
            "mcuf_streamed_attention_params",
            tokens=INT32, block=INT32, num_heads=INT32, kv_heads=INT32, kv_heads_at_once=INT32, head_dim=INT32,
            zero_point=INT32, head_params=_HEAD_PARAMS, norm=_LAYER_NORM, qkv=_FULLY_CONNECTED, proj=_FULLY_CONNECTED,
        ),
        _struct(
            "mcuf_streamed_mlp_params",
            tokens=INT32, block=INT32, norm=_LAYER_NORM, fc_count=INT32, fcs=(_FULLY_CONNECTED, MAX_FCS),
        ),
    )
}  # fmt: skip


def filled(struct: type[Struct], fields: Mapping[str, Any]) -> Struct:
    """The struct of these fields, the others 0. They are integers, a Memory, another Address or None, dictionaries
    (structs) or lists of them. ValueError where a number does not fit its field, or a constant is missing, of another
    type, or of another size than the kernel reads."""
    params = struct()
    for name, kind in struct.kinds.items():
        value = fields.get(name)
        if isinstance(kind, Pointer):
            setattr(params, name, _pointed_to(name, kind, value, fields))
        elif name not in fields:
            continue
        elif isinstance(kind, tuple):
            if len(value) > kind[1]:
                raise ValueError(f"{name} has {len(value)} entries, at most {kind[1]} are possible")
            for i, entry in enumerate(value):
                getattr(params, name)[i] = filled(kind[0], entry)
        elif issubclass(kind, Struct):
            setattr(params, name, filled(kind, value))
        elif kind is VOID:
            setattr(params, name, value)
        else:
            setattr(params, name, integer(name, value, 64 if kind is INT64 else 32))
    if unknown := fields.keys() - struct.kinds.keys():
        raise AssertionError(f"{struct.__name__} has no {', '.join(unknown)}")
    return params


def integer(name: str, value: Any, bits: int = 32) -> int:
    """The value as an int. ValueError where it does not fit."""
    value = operator.index(value)
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise ValueError(f"{name} = {value} does not fit {bits} bits")
    return value


def _pointed_to(name: str, kind: Pointer, value: Memory | None, fields: Mapping[str, Any]) -> int | None:
    if value is None:
        if not kind.optional:
            raise ValueError(f"{name} is missing")
        return None
    check_values(name, value, kind.dtype, kind.count(fields))
    return value


def check_values(name: str, memory: Memory, dtype: str, count: int) -> None:
    """ValueError where a constant has another dtype or number of values than the kernel reads."""
    if memory.values.dtype != dtype or memory.values.size != count:
        raise ValueError(f"{name} has {memory.values.size} {memory.values.dtype}, needs {count} {dtype}")


def check_layout(structs: Mapping[str, type[Struct]] = STRUCTS) -> None:
    """Raises ToolchainError where the library was compiled with other structs than these."""
    here = {}
    for name, struct in structs.items():
        here[name, ""] = (0, ctypes.sizeof(struct))
        for field, _ in struct._fields_:  # type: ignore[misc]
            place = getattr(struct, field)
            here[name, field] = (place.offset, place.size)
    compiled = kernel_library.struct_layout()
    for key in sorted(here.keys() | compiled.keys()):
        if here.get(key) != compiled.get(key):
            raise ToolchainError(
                f"{kernel_library.LIBRARY} was built from other sources than this package: (offset, bytes) of "
                f"{'.'.join(filter(None, key))} are {compiled.get(key)} there and {here.get(key)} here; build it "
                "again: run `pip install -e .` in the project's folder"
            )
