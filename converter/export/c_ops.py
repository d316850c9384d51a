# SPDX-License-Identifier: Apache-2.0
"""Each op of a graph as C text: a constant params struct, and the call of its kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.ops import c_call


@dataclass(frozen=True)
class Call:
    """params: type and fields of the op's struct (None: it has none); text: the call; `&params` names the struct."""

    params: tuple[str, dict] | None
    text: str


@dataclass(frozen=True)
class Context:
    """What the C of an op needs to know. constant(name, values) -> name of the C array; address(tensor) -> where it is;
    source: the mcuf_weight_source of staged weights. A mcuformer.converter.ops.c_call.Context of C text."""

    graph: Graph
    constant: Callable[[str, np.ndarray], str]
    address: Callable[[int], str]
    scratch: str
    source: str
    rows_fn: str = "rows_fn"
    user: str = "user"

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self.graph.tensors[tensor].shape

    def null(self) -> str:
        return "NULL"

    def tensor(self, tensor: int) -> str:
        """The C array of a constant tensor, NULL if the program has none."""
        if tensor < 0 or self.graph.tensors[tensor].external:
            return self.null()
        stored = self.graph.tensors[tensor]
        assert stored.data is not None
        return self.constant(stored.name, stored.data)

    def symbol(self, name: str) -> str:
        return f"&{name}"

    def staged(self, tile_bytes: int, offset: int) -> dict:
        """The staged-weights field; none if tile_bytes is 0."""
        return {"staged": {"source": self.source, "tile_bytes": tile_bytes, "offset": offset}} if tile_bytes else {}


def call_of(op: Op, context: Context) -> Call:
    """The C of one op."""
    call = op.module.call(op, context)
    args = ("&params" if arg is c_call.PARAMS else str(arg) for arg in call.args)
    return Call(call.params, f"{call.function}({', '.join(args)})")


def kernel_header(op: Op) -> str:
    """The header of an op's kernel: it has the name of the Python module."""
    return f"mcuf_{op.module.__name__.rpartition('.')[2]}_s8.h"
