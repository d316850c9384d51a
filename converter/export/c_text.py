# SPDX-License-Identifier: Apache-2.0
"""Python values as C99: constant arrays, structs with designated initialisers, strings."""

from __future__ import annotations

import re
import textwrap

import numpy as np

from mcuformer.converter.ops.c_call import Int64, Structs

KEPT = "\0"  # a space that wrapped() does not break
C_TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "int32": "int32_t"}


def identifier(name: str) -> str:
    """A tensor's name as part of a C name."""
    return re.sub(r"\W", "_", name)


def string(text: str) -> str:
    """A C string literal; everything but printable ASCII as octal escapes."""
    escaped = "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode("utf-8"))
    return f'"{escaped}"'


def array(name: str, values: np.ndarray) -> str:
    """The definition of a constant array, aligned by the macro MCUF_ALIGNED."""
    flat = values.reshape(-1)
    rows = (",".join(map(str, flat[i : i + 32].tolist())) for i in range(0, len(flat), 32))
    return f"MCUF_ALIGNED const {C_TYPES[values.dtype.name]} {name}[{len(flat)}] = {{\n" + ",\n".join(rows) + "};\n"


def declaration(name: str, values: np.ndarray) -> str:
    return f"extern const {C_TYPES[values.dtype.name]} {name}[{values.size}];"


def struct(fields: dict) -> str:
    """{.field = value, ...}: values are C text, integers, dictionaries (structs), lists or Structs.

    With Structs it initialises a constant outside of functions: there their array is a constant too.
    """
    return "{" + (", ".join(f".{name}{KEPT}={KEPT}{_value(value)}" for name, value in fields.items()) or "0") + "}"


def int64(value: int) -> str:
    return f"INT64_C({value})"


def _value(value) -> str:
    if isinstance(value, dict):
        return struct(value)
    if isinstance(value, list):
        return "{" + ", ".join(map(_value, value)) + "}"
    if isinstance(value, Structs):
        return f"(const{KEPT}{value.type_name}[]){{" + ", ".join(map(struct, value.entries)) + "}"
    return int64(value) if isinstance(value, Int64) else str(value)


def wrapped(text: str, indent: str = "    ") -> str:
    """Long code broken at spaces into lines of at most 120 columns."""
    lines = textwrap.wrap(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(KEPT, " ")
