# SPDX-License-Identifier: Apache-2.0
"""Engine "tflm": the official interpreter of the tflite-micro wheel, with the project's kernels as its custom ops."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter import tflite_file
from mcuformer.converter.file_form import to_file_form
from mcuformer.converter.graph import Graph
from mcuformer.engines import callbacks
from mcuformer.engines.session import Loaded, RunLock, check_arena
from mcuformer.errors import McuformerError, ModelError, ToolchainError

OLDEST = "0.dev20261012203412"
"""The first build of the wheel that the ops know how to register in, as setup.cfg says too."""


@functools.cache
def _installed() -> str | None:
    """The version of the wheel; None if there is none that pip knows of."""
    try:
        return importlib.metadata.version("tflite-micro")
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_version() -> None:
    """ToolchainError if the wheel is too old."""
    build = re.fullmatch(r"0\.dev(\d{8,14})", _installed() or "")
    if build is not None and build[1].ljust(14, "0") < OLDEST.removeprefix("0.dev"):
        raise ToolchainError(
            f"tflite-micro {_installed()} is older than {OLDEST}, the first that works: pip install -U tflite-micro, "
            'or run the model with engine="c"'
        )


def _runtime():
    _check_version()
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError as error:
        raise ToolchainError(
            f"the tflite-micro interpreter cannot be imported ({error}): on x86-64 Linux, pip install tflite-micro; it "
            'has no build for other machines, where Interpreter(model, engine="c") runs the same kernels'
        ) from error
    return runtime


def is_here() -> bool:
    """Whether the wheel can be imported and the compiled kernels have the ops for it.

    ToolchainError if it is there, but too old.
    """
    _check_version()
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


class _Printed:
    """text: what C code printed to stderr while captured() lasted."""

    text = ""


_CAPTURING = RunLock()


@functools.cache
def _memory_file() -> tuple[ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]:
    """A FILE in memory, where its text is, and the text's bytes after a flush.

    Made once and never closed: a thread that prints may still hold it.
    """
    text, size = ctypes.c_void_p(), ctypes.c_size_t()
    libc = ctypes.CDLL(None)
    libc.open_memstream.restype = ctypes.c_void_p
    return ctypes.c_void_p(libc.open_memstream(ctypes.byref(text), ctypes.byref(size))), text, size


@contextmanager
def captured() -> Iterator[_Printed]:
    """Within the `with`, collects what C code prints to stderr, from whatever thread. One at a time: others wait.

    It changes the C library's variable, not file descriptor 2: what Python and other processes print goes where it
    went, and there need not be a stderr at all.
    """
    printed = _Printed()
    with _CAPTURING:
        libc = ctypes.CDLL(None)
        stream, text, size = _memory_file()
        libc.fseek(stream, ctypes.c_long(0), 0)
        stderr = ctypes.c_void_p.in_dll(libc, "stderr")
        before = stderr.value
        stderr.value = stream.value
        try:
            yield printed
        finally:
            stderr.value = before
            libc.fflush(stream)
            if text.value is not None:
                printed.text = ctypes.string_at(text.value, size.value).decode(errors="replace")


class Session:
    """One interpreter of the wheel around a model's bytes. One run at a time: others wait, from whatever thread."""

    def __init__(
        self, content: bytes, graph: Graph, arena_bytes: int, keep_all: bool = False, weights: bytes | None = None
    ):
        runtime = _runtime()
        registerer = kernel_library.registerer()
        config = runtime.InterpreterConfig
        with captured() as printed:
            kernel_library.clear_log()
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
            raise _refused(error, printed.text) from error
        self._graph = graph
        self._lock = RunLock()
        self._weights = weights
        self.weights_read = (0, 0)
        self.seconds = 0.0

    def invoke(self, *inputs: np.ndarray) -> np.ndarray:
        """int8 inputs with batch dimension 1 -> the int8 output.

        Keeps the seconds the call took, and the (bytes, reads) of staged weights.
        """
        with self._lock:
            return self._invoke(inputs)

    def _invoke(self, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
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
        return np.array(self._interpreter.get_output(0))

    def tensor(self, index: int) -> np.ndarray:
        """A tensor of the graph."""
        with self._lock:
            return np.array(self._interpreter.GetTensor(self._place[index], 0)["tensor_data"])

    @functools.cached_property
    def _place(self) -> list[int]:
        """The file's tensor of every tensor of the graph."""
        return to_file_form(self._graph)[1]

    def allocations(self) -> dict[str, int]:
        """Bytes of "total", "head" and "tail" as the interpreter's recording allocator counts them."""
        with self._lock, captured() as printed:
            self._interpreter.print_allocations()
        found = dict(re.findall(r"Arena allocation (total|head|tail) (\d+) bytes", printed.text))
        if set(found) != {"total", "head", "tail"}:
            raise ToolchainError(f"this tflite-micro prints its allocations in an unknown form: {printed.text[:200]!r}")
        return {name: int(size) for name, size in found.items()}


def _refused(error: Exception, printed: str) -> McuformerError:
    """Why the interpreter could not be made: of the wheel, if the ops found no way into it, else of the model."""
    if own := kernel_library.last_error():
        return ToolchainError(
            f"tflite-micro {_installed() or ''}: {own}; pip install another version of it, or run the model with "
            'engine="c"'
        )
    return ModelError(_reason(error, printed))


def _reason(error: Exception, printed: str) -> str:
    own = kernel_library.last_log()
    said = own or " ".join(printed.split()) or str(error)
    return f"the interpreter refused the model: {said}"
