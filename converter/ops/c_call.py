# SPDX-License-Identifier: Apache-2.0
"""The call of an op's C kernel: the fields of its params struct, and its arguments.

An op module's `call(op, context)` describes the call once; an export writes it as C text, the host runs it with ctypes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Int64(int):
    """A field of 64 bits."""


@dataclass(frozen=True)
class Structs:
    """A field that points to an array of structs: their type, and the fields of each."""

    type_name: str
    entries: list[dict[str, Any]]


class Params:
    """Among the arguments: the address of the params struct."""


PARAMS = Params()


class Context(Protocol):
    """What a call needs to know about the network around its op. Values are what the caller builds calls from: C text
    or addresses."""

    scratch: Any  # where scratch begins
    rows_fn: Any  # mcuf_image_rows_fn and its user pointer, for an image in strips
    user: Any

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of a tensor of the graph."""

    def address(self, tensor: int) -> Any:
        """Where an activation is."""

    def tensor(self, tensor: int) -> Any:
        """A constant's values; a null pointer if `tensor` is -1 or its values are in no program (staged weights)."""

    def null(self) -> Any:
        """The null pointer."""

    def symbol(self, name: str) -> Any:
        """The address of a constant of the C kernels."""

    def staged(self, tile_bytes: int, offset: int) -> dict[str, Any]:
        """The field `staged` of weights that are read in tiles; no field if tile_bytes is 0."""


@dataclass(frozen=True)
class Call:
    """function: a C kernel; params: type and fields of the struct it takes (None: none); args: in order,
    PARAMS for the struct's address. Fields are integers, values of a Context, dictionaries (structs), lists or
    Structs."""

    function: str
    params: tuple[str, dict[str, Any]] | None
    args: tuple[Any, ...]


def call(function: str, fields: dict[str, Any], *args: Any) -> Call:
    """The call mcuf_<function>_s8(&params, *args), where params is a mcuf_<function>_params."""
    return Call(f"mcuf_{function}_s8", (f"mcuf_{function}_params", fields), (PARAMS, *args))


def prefix(c: Context, tensor: int, name: str = "prefix") -> dict[str, Any]:
    """The fields of a prefix [tokens, d], which is the field `name`; no fields if `tensor` is -1."""
    return {} if tensor < 0 else {"prefix_tokens": c.shape(tensor)[0], name: c.tensor(tensor)}
