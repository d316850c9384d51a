# SPDX-License-Identifier: Apache-2.0
"""The params structs of the C kernels for ctypes, read from their headers.

structs() is checked against what the library was compiled with, so that a difference is an error and never a crash.
"""

from __future__ import annotations

import ctypes
import functools
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mcuformer import kernel_library, sources
from mcuformer.converter.ops import c_call
from mcuformer.errors import ToolchainError
from mcuformer.native import headers_digest

ALIGNMENT = 16
WEIGHT_SOURCE = "mcuf_weight_source"

INT32, INT64, VOID = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
INTEGERS = {"int32_t": INT32, "int64_t": INT64}
DTYPES = {"int8_t": "int8", "uint8_t": "uint8", "int16_t": "int16", "int32_t": "int32"}


class Address(int):
    """Where something is in memory."""


class Memory(Address):
    """Where a constant's values are. `values` keeps them alive."""

    values: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Memory:
        """values, or a copy if they do not start at a multiple of ALIGNMENT bytes."""
        values = np.ascontiguousarray(values)
        if values.ctypes.data % ALIGNMENT:
            copy = aligned(values.nbytes).view(values.dtype).reshape(values.shape)
            copy[...] = values
            values = copy
        memory = cls(values.ctypes.data)
        memory.values = values
        return memory


def aligned(size: int) -> np.ndarray:
    """int8 zeros, the first at a multiple of ALIGNMENT."""
    memory = np.zeros(size + ALIGNMENT, np.int8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


@dataclass(frozen=True)
class Pointer:
    """A field that points to constants of this dtype."""

    dtype: str


@dataclass(frozen=True)
class StructPointer:
    """A field that points to structs of this type, or to one that is kept elsewhere."""

    struct: type[Struct]


class Struct(ctypes.Structure):
    """Base of the structs. kinds: field -> INT32, INT64, a Pointer, a StructPointer, VOID, a Struct, or (Struct,
    count)."""

    kinds: Mapping[str, Any]
    pointed_to: list[Any]  # arrays of structs that fields point to, kept alive


@functools.cache
def structs() -> dict[str, type[Struct]]:
    """What read_structs() makes of the C kernels' headers. ToolchainError if the library was compiled with others."""
    check_headers()
    return read_structs(sorted(sources.c_kernel_folder().glob("*.h")))


def check_headers() -> None:
    """ToolchainError if the library was compiled with other headers than the package has."""
    compiled, here = kernel_library.headers(), headers_digest(sources.kernels_folder())
    if compiled != here:
        raise ToolchainError(
            f"{kernel_library.LIBRARY} was built from other sources than this package (its headers are "
            f"{compiled or 'unknown'}, here {here}); build it again: run `pip install -e .` in the project's folder"
        )


def read_structs(headers: Iterable[Path]) -> dict[str, type[Struct]]:
    """The params of every kernel, declared as `typedef struct { ... } name;`, the structs that they are made of, and
    mcuf_weight_source. ToolchainError if a field is of an unknown kind.
    """
    text = "\n".join(path.read_text(encoding="utf-8") for path in headers)
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    limits = {name: int(value) for name, value in re.findall(r"^#define (\w+) (\d+)\s*$", text, re.MULTILINE)}
    bodies = {name: body for body, name in re.findall(r"typedef struct \{([^}]*)\} (\w+);", text)}
    functions = set(re.findall(r"typedef \w+ \(\*(\w+)\)", text))
    found: dict[str, type[Struct]] = {}

    def kind_of(type_name: str, is_pointer: bool, size: str | None) -> Any:
        if is_pointer and type_name in bodies:
            return StructPointer(struct_of(type_name))
        if is_pointer:
            return Pointer(DTYPES[type_name]) if type_name in DTYPES else VOID
        if type_name in functions:
            return VOID
        kind = INTEGERS.get(type_name) or struct_of(type_name)
        return kind if size is None else (kind, limits[size])

    def struct_of(name: str) -> type[Struct]:
        if name not in found:
            kinds: dict[str, Any] = {}
            for declaration in filter(None, (" ".join(part.split()) for part in bodies[name].split(";"))):
                match = re.fullmatch(r"(?:const )?(\w+)(\*?) (\w+(?:, \w+)*)(?:\[(\w+)\])?", declaration)
                if match is None:
                    raise KeyError(declaration)
                kinds.update((field, kind_of(match[1], bool(match[2]), match[4])) for field in match[3].split(", "))
            found[name] = make_struct(name, kinds)
        return found[name]

    for name in bodies:
        if name.endswith("_params") or name == WEIGHT_SOURCE:
            try:
                struct_of(name)
            except KeyError as error:
                raise ToolchainError(
                    f"{name} of the C kernels' headers has a field of an unknown kind: {error}"
                ) from error
    return found


def make_struct(name: str, kinds: Mapping[str, Any]) -> type[Struct]:
    """A Struct with these fields."""

    def type_of(kind: Any) -> Any:
        if isinstance(kind, Pointer | StructPointer):
            return VOID
        return kind[0] * kind[1] if isinstance(kind, tuple) else kind

    fields = [(field, type_of(kind)) for field, kind in kinds.items()]
    return type(name, (Struct,), {"_fields_": fields, "kinds": dict(kinds)})


def filled(struct: type[Struct], fields: Mapping[str, Any]) -> Struct:
    """The struct of these fields, the others 0. They are integers, a Memory, another Address, None, dictionaries
    (structs), lists of them or Structs. ValueError if a number does not fit its field or a constant has another dtype.
    """
    params = struct()
    params.pointed_to = []
    for name, value in fields.items():
        kind = struct.kinds[name]
        if isinstance(kind, tuple):
            if len(value) > kind[1]:
                raise ValueError(f"{name} has {len(value)} entries, at most {kind[1]} are possible")
            for i, entry in enumerate(value):
                getattr(params, name)[i] = filled(kind[0], entry)
            continue
        if isinstance(kind, StructPointer) and isinstance(value, c_call.Structs):
            array = (kind.struct * len(value.entries))(*(filled(kind.struct, entry) for entry in value.entries))
            params.pointed_to.append(array)
            value = ctypes.addressof(array)
        elif isinstance(kind, Pointer):
            if value is not None and value.values.dtype != kind.dtype:
                raise ValueError(f"{name} is {value.values.dtype}, needs {kind.dtype}")
        elif kind is INT32 or kind is INT64:
            value = integer(name, value, 32 if kind is INT32 else 64)
        elif kind is not VOID and not isinstance(kind, StructPointer):
            value = filled(kind, value)
        setattr(params, name, value)
    return params


def integer(name: str, value: Any, bits: int = 32) -> int:
    """The value as an int. ValueError if it does not fit."""
    value = operator.index(value)
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise ValueError(f"{name} = {value} does not fit {bits} bits")
    return value
