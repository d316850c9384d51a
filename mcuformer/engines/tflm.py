# SPDX-License-Identifier: Apache-2.0
"""Engine "tflm": the official interpreter of the tflite-micro wheel, with the project's kernels as its custom ops."""

from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
import time

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter import tflite_file
from mcuformer.converter.file_form import to_file_form
from mcuformer.converter.graph import Graph
from mcuformer.engines import callbacks
from mcuformer.engines.session import Loaded, check_arena
from mcuformer.errors import ModelError, ToolchainError


def _runtime():
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError as error:
        raise ToolchainError(
            f"the tflite-micro interpreter cannot be imported ({error}): on x86-64 Linux, pip install tflite-micro; it "
            'has no build for other machines, where Interpreter(model, engine="c") runs the same kernels'
        ) from error
    return runtime


def is_here() -> bool:
    """Whether the wheel can be imported and the compiled kernels have the ops for it."""
    try:
        _runtime()
    except ToolchainError:
        return False
    return kernel_library.has_ops()


def open_session(loaded: Loaded, arena_bytes: int | None) -> Session:
    """See Engine."""
    arena_bytes = check_arena(arena_bytes, int(loaded.info["needed_bytes"]), loaded.name)
    return Session(loaded.content, loaded.graph, arena_bytes, weights=loaded.weights)


def open_keeping_all(loaded: Loaded) -> Session:
    """See Engine. A plan and keeping all exclude each other: this runs a copy of the model without plan."""
    graph = loaded.graph
    content = tflite_file.write(graph, [], loaded.info, with_plan=False)
    # Every tensor and scratch buffer by itself, a full tensor struct of each in the tail, and room for gaps.
    separate = sum(tensor.bytes + 16 for tensor in graph.tensors if not tensor.is_constant)
    separate += sum(graph.scratch_bytes(op) + 16 for op in graph.ops)
    separate = separate * 3 // 2 + 192 * len(graph.tensors) + (1 << 16)
    arena_bytes = int(loaded.info["needed_bytes"]) + separate
    return Session(content, graph, arena_bytes, keep_all=True, weights=loaded.weights)


class _Captured:
    """Collects what C code prints to stderr, at file descriptor level."""

    def __enter__(self):
        sys.stderr.flush()
        self._saved = os.dup(2)
        self._file = tempfile.TemporaryFile()
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *_):
        os.dup2(self._saved, 2)
        os.close(self._saved)
        self._file.seek(0)
        self.text = self._file.read().decode(errors="replace")
        self._file.close()


class Session:
    """One interpreter of the wheel around a model's bytes."""

    def __init__(
        self, content: bytes, graph: Graph, arena_bytes: int, keep_all: bool = False, weights: bytes | None = None
    ):
        runtime = _runtime()
        registerer = kernel_library.registerer()
        kernel_library.clear_log()
        config = runtime.InterpreterConfig
        with _Captured() as captured:
            try:
                self._interpreter = runtime.Interpreter.from_bytes(
                    content,
                    custom_op_registerers=[registerer],
                    arena_size=arena_bytes,
                    intrepreter_config=config.kPreserveAllTensors if keep_all else config.kAllocationRecording,
                )
                error = None
            except Exception as raised:  # the wheel raises several kinds
                error = raised
        if error is not None:
            raise ModelError(_reason(error, captured.text)) from error
        self._graph = graph
        self._weights = weights
        self.weights_read = (0, 0)
        self.seconds = 0.0

    def invoke(self, *inputs: np.ndarray) -> np.ndarray:
        """int8 inputs with batch dimension 1 -> the int8 output.

        Keeps the seconds the call took, and the (bytes, reads) of staged weights.
        """
        source = None
        for i, (tensor, value) in enumerate(zip(self._graph.inputs, inputs, strict=True)):
            if self._graph.tensors[tensor].external:
                source = callbacks.rows_of(value[0])
            else:
                self._interpreter.set_input(value, i)
        kernel_library.set_image_source(source)
        read: list[int] = []
        weights = None if self._weights is None else callbacks.weights_from(self._weights, read)
        kernel_library.set_weight_source(weights)
        start = time.perf_counter()
        try:
            self._interpreter.invoke()
        except Exception as error:
            raise ModelError(_reason(error, "")) from error
        finally:
            kernel_library.set_image_source(None)
            kernel_library.set_weight_source(None)
        self.weights_read = (sum(read), len(read))
        self.seconds = time.perf_counter() - start
        return self._interpreter.get_output(0)

    def tensor(self, index: int) -> np.ndarray:
        """A tensor of the graph."""
        return np.array(self._interpreter.GetTensor(self._place[index], 0)["tensor_data"])

    @functools.cached_property
    def _place(self) -> list[int]:
        """The file's tensor of every tensor of the graph."""
        return to_file_form(self._graph)[1]

    def allocations(self) -> dict[str, int]:
        """Bytes of "total", "head" and "tail" as the interpreter's recording allocator counts them."""
        with _Captured() as captured:
            self._interpreter.print_allocations()
        found = dict(re.findall(r"Arena allocation (total|head|tail) (\d+) bytes", captured.text))
        if set(found) != {"total", "head", "tail"}:
            raise ToolchainError(
                f"this tflite-micro prints its allocations in an unknown form: {captured.text[:200]!r}"
            )
        return {name: int(size) for name, size in found.items()}


def _reason(error: Exception, printed: str) -> str:
    own = kernel_library.last_error() or kernel_library.last_log()
    said = own or " ".join(printed.split()) or str(error)
    return f"the interpreter refused the model: {said}"
