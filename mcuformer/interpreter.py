# SPDX-License-Identifier: Apache-2.0
"""The official tflite-micro interpreter on the host, with the project's kernels."""

from __future__ import annotations

import ctypes
import operator
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter import tflite_file
from mcuformer.converter.file_form import to_file_form
from mcuformer.converter.graph import Graph, to_int8
from mcuformer.converter.memory.arena import plan_arena
from mcuformer.converter.ops import OPS
from mcuformer.converter.passes.staging import is_staged, weights_path, with_weights
from mcuformer.converter.passes.strips import in_strips, takes_strips
from mcuformer.errors import ConfigError, DataError, ModelError, PlanError, ToolchainError

MOST_ARENA_BYTES = 1 << 31  # a mistake rather than a wish


def _runtime():
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError as error:
        raise ToolchainError(
            f"the tflite-micro interpreter cannot be imported ({error}): on x86-64 Linux, pip install tflite-micro; it "
            'has no build for other machines, where Interpreter(model, engine="c") runs the same kernels'
        ) from error
    return runtime


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


class _Session:
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

    def invoke(self, *inputs: np.ndarray) -> np.ndarray:
        """int8 inputs with batch dimension 1 -> the int8 output.

        Keeps the seconds the call took, and the (bytes, reads) of staged weights.
        """
        source = None
        for i, (tensor, value) in enumerate(zip(self._graph.inputs, inputs, strict=True)):
            if self._graph.tensors[tensor].external:
                source = _rows_of(value[0])
            else:
                self._interpreter.set_input(value, i)
        kernel_library.set_image_source(source)
        read = []
        weights = None if self._weights is None else _weights_from(self._weights, read)
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
        return np.array(self._interpreter.GetTensor(index, 0)["tensor_data"])

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


def _rows_of(image: np.ndarray):
    """The callback that brings rows of an int8 image [H, W, C]."""
    image = np.ascontiguousarray(image)

    def rows(_user, first: int, count: int, target: int) -> int:
        strip = image[first : first + count]
        ctypes.memmove(target, strip.ctypes.data, strip.nbytes)
        return len(strip)

    return kernel_library.IMAGE_ROWS(rows)


def _weights_from(content: bytes, read: list[int]):
    """The callback that brings staged weights; notes the bytes of every read."""
    memory = np.frombuffer(content, np.int8)

    def bring(_user, offset: int, count: int, target: int) -> int:
        piece = memory[offset : offset + count]
        ctypes.memmove(target, piece.ctypes.data, piece.nbytes)
        read.append(piece.nbytes)
        return piece.nbytes

    return kernel_library.WEIGHTS(bring)


def _reason(error: Exception, printed: str) -> str:
    own = kernel_library.last_error() or kernel_library.last_log()
    said = own or " ".join(printed.split()) or str(error)
    return f"the interpreter refused the model: {said}"


class Interpreter:
    """Runs a converted model: images in, logits out.

    Interpreter(model): a path, the bytes of a .tflite file, or what convert() returned. A damaged or foreign file
    raises ModelError before the interpreter sees it. arena_bytes: size of the arena; left out, as large as needed;
    PlanError where it is too small. strips: the image is handed over a few rows at a time, through the callback that a
    camera would serve; the arena holds no image. (A model converted with strips is always run so.) weights: path or
    bytes of the weights file of a model with staged weights; left out, the file beside the model.
    """

    def __init__(self, model, arena_bytes: int | None = None, strips: bool = False, weights=None):
        name, content = _content_of(model)
        stored = tflite_file.read(content, name)
        self.weights = weights_of(model, stored, weights, name)
        if strips and not takes_strips(stored.graph):
            content = _with_strips(stored)
            stored = tflite_file.read(content, name)
        self.graph = stored.graph
        if self.weights is not None:
            self.graph = with_weights(self.graph, stored.info["weights"], self.weights, name)
        self.info = stored.info
        self._content = content
        needed = int(self.info["needed_bytes"])
        if arena_bytes is None:
            arena_bytes = needed
        elif isinstance(arena_bytes, bool) or not isinstance(arena_bytes, int) or arena_bytes > MOST_ARENA_BYTES:
            raise ConfigError(f"arena_bytes = {arena_bytes!r}: must be a whole number, at most {MOST_ARENA_BYTES}")
        elif arena_bytes < needed:
            raise PlanError(f"arena_bytes = {arena_bytes} is too small: {name} needs {needed} bytes")
        self._session = _Session(content, self.graph, arena_bytes, weights=self.weights)
        self.invoke_ms: float | None = None

    @property
    def arena_used_bytes(self) -> int:
        """The whole arena in use, head and tail, as the interpreter counts it."""
        return self.allocations["total"]

    @property
    def allocations(self) -> dict[str, int]:
        """Bytes of the arena: "total", "head" (activations, scratch) and "tail" (what the interpreter keeps)."""
        return self._session.allocations()

    @property
    def weights_read(self) -> tuple[int, int]:
        """Bytes and reads of staged weights in the last image's run; (0, 0) where weights are in the model."""
        return self._session.weights_read

    @property
    def image_size(self) -> int:
        """Height and width of the images it takes, in pixels."""
        return self.graph.tensors[self.graph.inputs[0]].shape[1]

    @property
    def class_names(self) -> list[str]:
        return self.info["class_names"]

    def __call__(self, images: np.ndarray, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """uint8 [n, H, W, C] (or one image) -> float32 logits [n, classes]; afterwards invoke_ms is the median."""
        images = self._check(images)
        logits = np.empty((len(images), self.graph.tensors[self.graph.output].shape[-1]), np.int8)
        seconds = []
        for i, image in enumerate(images):
            logits[i] = self._session.invoke(to_int8(image)[None])[0]
            seconds.append(self._session.seconds)
            if progress:
                progress(i + 1, len(images))
        if seconds:
            self.invoke_ms = float(np.median(seconds) * 1e3)
        return self.graph.logits(logits)

    def reference(self, images: np.ndarray) -> np.ndarray:
        """What __call__ must return, computed by the integer reference in numpy."""
        return self.graph.reference(self._check(images))

    def layer_outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Every activation of one image (uint8 [H, W, C]) by name, dequantised, without batch dimension.

        Runs a copy of the model without memory plan, in which no tensor overwrites another.
        """
        images = self._check(image)
        if len(images) != 1:
            raise DataError(f"layer_outputs takes one image, not {len(images)}")
        content = tflite_file.write(self.graph, [], self.info, with_plan=False)
        # Every tensor and scratch buffer by itself, a full tensor struct of each in the tail, and room for gaps.
        separate = sum(tensor.bytes + 16 for tensor in self.graph.tensors if not tensor.is_constant)
        separate += sum(self.graph.scratch_bytes(op) + 16 for op in self.graph.ops)
        separate = separate * 3 // 2 + 192 * len(self.graph.tensors) + (1 << 16)
        arena_bytes = int(self.info["needed_bytes"]) + separate
        session = _Session(content, self.graph, arena_bytes, keep_all=True, weights=self.weights)
        session.invoke(to_int8(images))
        _, place = to_file_form(self.graph)
        outputs = {}
        for op in self.graph.ops:
            tensor = self.graph.tensors[op.output]
            value = session.tensor(place[op.output]).reshape(tensor.shape[1:])
            outputs[tensor.name] = tensor.dequantise(value).astype(np.float32)
        return outputs

    def _check(self, images: np.ndarray) -> np.ndarray:
        images = np.asarray(images)
        want = self.graph.tensors[self.graph.inputs[0]].shape[1:]
        if images.dtype != np.uint8:
            raise DataError(f"images have dtype {images.dtype}: give uint8 values, 0 to 255")
        if images.shape == want:
            images = images[None]
        if images.ndim != 4 or images.shape[1:] != want:
            raise DataError(
                f"images have shape {images.shape}: the model takes [n, {want[0]}, {want[1]}, {want[2]}] (NHWC)"
            )
        return images


def _with_strips(stored: tflite_file.ModelFile) -> bytes:
    graph = in_strips(stored.graph)
    plan = plan_arena(graph)
    return tflite_file.write(graph, plan.tensor_offsets(graph), {**stored.info, **plan.sizes})


def weights_of(model, stored: tflite_file.ModelFile, weights, name: str) -> bytes | None:
    """The bytes of a model's weights file, None where its weights are in the model. ModelError where it is missing."""
    if not is_staged(stored.graph):
        if weights is not None:
            raise ConfigError(f"{name}: has its weights in the model and takes no weights file")
        return None
    if isinstance(weights, bytes | bytearray | memoryview):
        return bytes(weights)
    if weights is None and hasattr(model, "weights_content"):
        return model.weights_content
    if weights is None and not isinstance(model, str | os.PathLike):
        raise ModelError(f"{name}: its weights are staged: give the weights file, weights=...")
    path = weights_path(model) if weights is None else Path(weights)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{name}: takes its weights from {path}, which cannot be read ({error.strerror}): keep the two files "
            "together, or name the weights file"
        ) from error


def _content_of(model) -> tuple[str, bytes]:
    if isinstance(model, bytes | bytearray | memoryview):
        return "model", bytes(model)
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        try:
            return str(path), path.read_bytes()
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from error
    if hasattr(model, "content"):
        return "model", model.content
    raise ConfigError(f"a model is a path, bytes or what convert() returned, not {type(model).__name__}")


def run_op(
    name: str,
    inputs: dict[str, np.ndarray],
    constants: dict[str, np.ndarray] | None = None,
    options: dict | None = None,
) -> np.ndarray:
    """Runs one custom op alone in the real interpreter.

    name: such as "IntLayerNorm". inputs: its activations by name, int8 with a leading batch dimension of 1, such as
    {"input": x}; constants: its constant tensors by name; options: its integers by name (see
    mcuformer.converter.ops). Returns the int8 output. ModelError with the kernel's words where it refuses.
    """
    if name not in OPS:
        raise ConfigError(f"op {name!r}: must be one of {', '.join(OPS)}")
    module = OPS[name]
    for given in (*inputs, *(constants or {})):
        if given not in module.INPUTS:
            raise ConfigError(f"{name} has no input {given!r}: it has {', '.join(module.INPUTS)}")
    try:
        values = {key: _whole_numbers(value) for key, value in (options or {}).items()}
        parsed = module.Options(**values)
    except TypeError as error:
        raise ConfigError(f"options of {name}: {error}") from error
    for key, value in values.items():
        if not all(-(1 << 63) <= number < 1 << 63 for number in (value if isinstance(value, tuple) else (value,))):
            raise ConfigError(f"option {key} = {value} of {name}: does not fit 64 bits")
    graph = Graph()
    indices = {}
    for role, value in inputs.items():
        value = np.asarray(value)
        if value.dtype != np.int8:
            raise DataError(f"input {role!r} of {name} has dtype {value.dtype}: activations are int8")
        indices[role] = graph.add_input(role, value.shape)
    try:
        graph.output = graph.add_op(name, "output", parsed, indices, dict(constants or {}))
        content = tflite_file.write(graph, [-1] * len(graph.tensors), {"weights": None}, with_plan=False)
    except (TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise ConfigError(f"{name}: its inputs or options do not make sense, or one is missing ({error})") from error
    activations = sum(2 * t.bytes + 1024 for t in graph.tensors) + (1 << 20)
    session = _Session(content, graph, activations)
    return session.invoke(*(np.ascontiguousarray(value) for value in inputs.values()))


def _whole_numbers(value):
    """An option: an integer, or a tuple of integers. TypeError for anything else."""
    if isinstance(value, tuple | list):
        return tuple(operator.index(number) for number in value)
    return operator.index(value)
