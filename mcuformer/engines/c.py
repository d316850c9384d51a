# SPDX-License-Identifier: Apache-2.0
"""Engine "c": the C kernels, called one after another through ctypes, as the C export calls them.

Nothing of an interpreter is needed, so it runs wherever the kernels compile. Before anything is placed in memory, each
op is checked: that its tensors have the shapes that its kernel reads and writes, that constants are as large as its
dimensions say, and what the kernel's own `_check` function checks. A damaged model is a ModelError.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.graph import Graph, Op
from mcuformer.converter.memory.c_arena import plan_c_arena
from mcuformer.converter.model_check import DAMAGE, check_constants, check_graph, words
from mcuformer.converter.ops import c_call
from mcuformer.engines import c_structs, callbacks
from mcuformer.engines.c_structs import Address, Memory, Struct, aligned, structs
from mcuformer.engines.session import MOST_ARENA_BYTES, Loaded, RunLock, check_arena
from mcuformer.errors import McuformerError, ModelError

NOWHERE = Address(0)  # of an activation, before it has a place


def open_session(loaded: Loaded, arena_bytes: int | None) -> Session:
    """See Engine. The arena is that of the C export with the image in it."""
    return Session(loaded, arena_bytes)


def open_keeping_all(loaded: Loaded) -> Session:
    """See Engine. Every activation has a buffer of its own."""
    return Session(loaded, None, keep_all=True)


@dataclass
class _Context:
    """The addresses of one op, for c_call. places: where activations are; None: nowhere yet."""

    graph: Graph
    places: Mapping[int, Address] | None
    scratch: Address
    source: Address
    rows_fn: ctypes.c_void_p
    user: None = None

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self._tensor(tensor).shape

    def address(self, tensor: int) -> Address:
        if self._tensor(tensor).is_constant:
            raise ValueError(f"{self._tensor(tensor).name} is a constant")
        return NOWHERE if self.places is None else self.places[tensor]

    def tensor(self, tensor: int) -> Memory | None:
        if tensor < 0 or self._tensor(tensor).external:
            return None
        found = self._tensor(tensor)
        if found.data is None:
            raise ValueError(f"{found.name} is not a constant")
        return Memory.of(found.data)

    def null(self) -> None:
        return None

    def symbol(self, name: str) -> Address:
        return Address(kernel_library.address_of(name))

    def staged(self, tile_bytes: int, offset: int) -> dict[str, Any]:
        fields = {"source": self.source, "tile_bytes": tile_bytes, "offset": offset}
        return {"staged": fields} if tile_bytes else {}

    def _tensor(self, tensor: int):
        if tensor < 0:
            raise ValueError("an input is missing")
        return self.graph.tensors[tensor]


@dataclass(frozen=True)
class _Step:
    """One op: status = function(*args). copy: (target, source, bytes) before it. keep: what args point to."""

    name: str
    function: Callable[..., int]
    args: tuple[Any, ...]
    copy: tuple[Address, Address, int] | None
    keep: list[Any] = field(default_factory=list)


class Session:
    """A model as a list of calls. One run at a time: others wait, from whatever thread."""

    def __init__(self, loaded: Loaded, arena_bytes: int | None, keep_all: bool = False):
        self._graph, self._weights = loaded.graph, loaded.weights
        self._source = structs()[c_structs.WEIGHT_SOURCE]()
        self._rows_fn = ctypes.c_void_p()
        self._lock = RunLock()
        self.seconds, self.weights_read = 0.0, (0, 0)
        with _refusing("its graph"):
            check_graph(self._graph)
        for op in self._graph.ops:
            self._step(op, None, NOWHERE)
        with _refusing("its activations"):
            arena_bytes = self._place(loaded.name, arena_bytes, keep_all)
        self._arena_bytes = arena_bytes
        places = {tensor: Address(memory.ctypes.data) for tensor, memory in self._buffers.items()}
        self._steps = [self._step(op, places, self._scratch_of.get(i, NOWHERE)) for i, op in enumerate(self._graph.ops)]

    def _place(self, name: str, arena_bytes: int | None, keep_all: bool) -> int:
        """Gives every activation and all scratch its memory; returns the bytes of the arena."""
        graph = self._graph
        if keep_all:
            scratch = [graph.scratch_bytes(op) for op in graph.ops]
            sizes = {op.output: graph.tensors[op.output].bytes for op in graph.ops}
            sizes.update((i, graph.tensors[i].bytes) for i in graph.inputs if not graph.tensors[i].external)
            needed = sum(sizes.values()) + max(scratch)
            self._arena = _memory(max(scratch))
            self._buffers = {tensor: _memory(size) for tensor, size in sizes.items()}
            self._scratch_of = {i: Address(self._arena.ctypes.data) for i in range(len(scratch))}
            return needed
        planned = plan_c_arena(graph, keep_inputs=True)
        needed = planned.bytes
        check_arena(arena_bytes, needed, name)
        self._arena = _memory(needed)
        self._buffers = {
            tensor: self._arena[offset : offset + graph.tensors[tensor].bytes]
            for tensor, offset in planned.offsets.items()
        }
        self._buffers[graph.output] = _memory(graph.tensors[graph.output].bytes)
        self._scratch_of = {i: Address(self._arena.ctypes.data + at) for i, at in planned.scratch.items()}
        return needed

    def _step(self, op: Op, places: Mapping[int, Address] | None, scratch: Address) -> _Step:
        """The call of an op, checked. places: None before anything has a place."""
        name, copy = f"{op.kind} {self._graph.tensors[op.output].name}", None
        with _refusing(name):
            if places is not None and "stream" in op.module.INPUTS and places[op.inputs[0]] != places[op.output]:
                # Kernels of Streamed ops know one address alone: they work over a copy of the stream.
                stream, output = op.inputs[0], places[op.output]
                copy = (output, places[stream], self._graph.tensors[stream].bytes)
                places = {**places, stream: output}
            source = Address(ctypes.addressof(self._source) if self._weights is not None else 0)
            context = _Context(self._graph, places, scratch, source, self._rows_fn)
            if places is None:
                check_constants(self._graph, op)
            call = op.module.call(op, context)
            params = None if call.params is None else c_structs.filled(structs()[call.params[0]], call.params[1])
            _check_call(call, params)
            args = tuple(_argument(arg, params) for arg in call.args)
        return _Step(name, getattr(kernel_library.load(), call.function), args, copy, [call, params])

    def invoke(self, *inputs: np.ndarray) -> np.ndarray:
        """int8 inputs with batch dimension 1 -> the int8 output.

        Keeps the seconds the kernels took, and the (bytes, reads) of staged weights.
        """
        with self._lock:
            rows = None
            read: list[int] = []
            for tensor, value in zip(self._graph.inputs, inputs, strict=True):
                if self._graph.tensors[tensor].external:
                    rows = callbacks.rows_of(value[0])
                else:
                    self._buffers[tensor][...] = value.reshape(-1).view(np.int8)
            self._rows_fn.value = ctypes.cast(rows, ctypes.c_void_p).value if rows is not None else None
            weights = None if self._weights is None else callbacks.weights_from(self._weights, read)
            self._source.read = ctypes.cast(weights, ctypes.c_void_p) if weights is not None else None
            start = time.perf_counter()
            try:
                for step in self._steps:
                    if step.copy is not None:
                        ctypes.memmove(*step.copy)
                    if status := step.function(*step.args):
                        raise _refused(step.name, kernel_library.status_text(status))
            finally:
                self._rows_fn.value = self._source.read = None
            self.seconds = time.perf_counter() - start
            self.weights_read = (sum(read), len(read))
            return self.tensor(self._graph.output)

    def tensor(self, index: int) -> np.ndarray:
        """A copy of an activation, of its shape and type."""
        tensor = self._graph.tensors[index]
        return self._buffers[index].view(tensor.dtype).reshape(tensor.shape).copy()

    def allocations(self) -> dict[str, int]:
        """The arena is all head: there is no interpreter that keeps anything."""
        return {"total": self._arena_bytes, "head": self._arena_bytes, "tail": 0}


def _memory(size: int) -> np.ndarray:
    """int8 zeros, aligned. ValueError if it is more than any real model needs."""
    if not 0 <= size <= MOST_ARENA_BYTES:
        raise ValueError(f"{size} bytes of memory; at most {MOST_ARENA_BYTES} are possible")
    return aligned(size)


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """A model whose part `name` makes no sense is a ModelError."""
    try:
        yield
    except McuformerError:
        raise
    except DAMAGE as error:
        raise _refused(name, words(error)) from error


def _refused(name: str, why: str) -> ModelError:
    return ModelError(f"the kernels refuse the model: {name}: {why}")


def _check_call(call: c_call.Call, params: Struct | None) -> None:
    """What the kernel trusts: by its own check, and the arguments that this does not see. ValueError."""
    if call.params is not None and params is not None:
        more: tuple[Any, ...] = ()
        if call.function == "mcuf_in_place_fc_s8":
            more = (call.args[2] is not None,)  # is there a residual?
        elif call.function == "mcuf_decomposed_patch_embed_strips_s8":
            more = (ctypes.c_int32(c_structs.integer("strip_rows", call.args[1])),)
        function = "mcuf_streamed_stem_s8" if call.function == "mcuf_streamed_stem_strips_s8" else call.function
        check = getattr(kernel_library.load(), f"{function}_check")
        if status := check(ctypes.byref(params), *more):
            raise ValueError(kernel_library.status_text(status))
    for arg in call.args:
        if isinstance(arg, Memory) and arg.values.dtype != np.int8:  # those of params have their type there
            raise ValueError(f"a table is {arg.values.dtype}, needs int8")


def _argument(arg: Any, params: Struct | None) -> Any:
    """An argument of a Call for ctypes."""
    if arg is c_call.PARAMS and params is not None:
        return ctypes.byref(params)
    if arg is None or isinstance(arg, ctypes.c_void_p):
        return arg
    if isinstance(arg, Address):
        return ctypes.c_void_p(arg)
    return ctypes.c_int32(c_structs.integer("an argument", arg))
