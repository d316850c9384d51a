# SPDX-License-Identifier: Apache-2.0
"""A converted model on this machine, in the official tflite-micro interpreter or by the kernels alone."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mcuformer import engines, kernel_library
from mcuformer.checks import as_array, as_path, flag, one_of, shown
from mcuformer.converter import file_form, tflite_file
from mcuformer.converter.graph import Graph, to_int8
from mcuformer.converter.memory.arena import plan_arena
from mcuformer.converter.model_check import numbers
from mcuformer.converter.ops import OPS, wide_activations
from mcuformer.converter.passes.scratch import fit_heads
from mcuformer.converter.passes.staging import is_staged, weights_path, with_weights
from mcuformer.converter.passes.strips import in_strips, takes_strips
from mcuformer.engines.session import Loaded
from mcuformer.engines.tflm import Session as _Session  # noqa: F401
from mcuformer.errors import ConfigError, DataError, ModelError
from mcuformer.files import read_bytes
from mcuformer.sizes import Size, shortest

if TYPE_CHECKING:
    from mcuformer.data import FileImages

    Images = np.ndarray | FileImages

BATCH = 64  # images read from files at a time


class Interpreter:
    """Runs a converted model: images in, logits out, or the embedding if the network has no head.

    Interpreter(model): a path, the bytes of a .tflite file, or what convert() returned. A damaged or foreign file
    raises ModelError before the interpreter sees it. arena_bytes: size of the arena; default: as large as needed;
    PlanError if it is too small. strips: the image is handed over a few rows at a time, through the callback that a
    camera would serve; the arena holds no image. (A model converted with strips is always run so.) weights: path or
    bytes of the weights file of a model with staged weights; default: the file beside the model.

    engine: "tflm", the official interpreter of the tflite-micro wheel (x86-64 Linux), or "c", the kernels alone, called
    as the C export calls them (everywhere); both give the same logits, bit for bit. Default: "tflm" if this machine
    has it. `engine` tells which it is.

    Threads may share an interpreter: they take turns. Another process gets a copy of it, by pickle.
    """

    def __init__(
        self, model, arena_bytes: int | None = None, strips: bool = False, weights=None, engine: str | None = None
    ):
        self.engine, strips = engines.choose(engine), flag("strips", strips)
        name, content = _content_of(model)
        stored = tflite_file.read(content, name)
        self.weights = weights_of(model, stored, weights, name)
        if strips and not takes_strips(stored.graph):
            content = _with_strips(stored)
            stored = tflite_file.read(content, name)
        self.graph = stored.graph
        if wrong := kernel_library.check_model(content):
            raise ModelError(f"{name}: damaged: {wrong}; convert it again")
        if self.weights is not None:
            self.graph = with_weights(self.graph, stored.info["weights"], self.weights, name)
        self.info = stored.info
        self._loaded = Loaded(name, content, self.graph, self.info, self.weights)
        self._arena_bytes = arena_bytes
        self._session = engines.get_engine(self.engine).open_session(self._loaded, arena_bytes)
        self.invoke_ms: float | None = None

    def __reduce__(self):
        return Interpreter, (self._loaded.content, self._arena_bytes, False, self.weights, self.engine)

    @property
    def arena_used_bytes(self) -> int:
        """The whole arena in use, head and tail."""
        return self.allocations["total"]

    @property
    def allocations(self) -> dict[str, int]:
        """Bytes of the arena: "total", "head" (activations, scratch) and "tail" (what the interpreter keeps).

        Engine "tflm": as the interpreter's recording allocator counts them. Engine "c": the arena that the C export
        declares with the image in it; it does not hold the logits, and has no tail.
        """
        return self._session.allocations()

    @property
    def weights_read(self) -> tuple[int, int]:
        """Bytes and reads of staged weights in the last image's run; (0, 0) if weights are in the model."""
        return self._session.weights_read

    @property
    def image_size(self) -> Size:
        """Pixels of the images it takes: one number for squares, else (height, width)."""
        _, height, width, _ = self.graph.tensors[self.graph.inputs[0]].shape
        return shortest(height, width)

    @property
    def class_names(self) -> list[str]:
        """Empty for a network without a head."""
        return self.info["class_names"]

    @property
    def output_scale(self) -> float:
        """What one step of the int8 output is worth: (value - output_zero_point) * output_scale."""
        return self.graph.output_scale

    @property
    def output_zero_point(self) -> int:
        return self.graph.output_zero_point

    def __call__(self, images: Images, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """uint8 [n, H, W, C] (or one image) -> float32 logits [n, classes], or embeddings [n, length] of a network
        without a head; afterwards invoke_ms is the median. FileImages are read from their files a few at a time."""
        return self.graph.logits(self.int8_outputs(images, progress))

    def int8_outputs(self, images: Images, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """As __call__, but int8 as the device computes them: worth (value - output_zero_point) * output_scale."""
        images = self._check(images)
        outputs = np.empty((len(images), self.graph.tensors[self.graph.output].shape[-1]), np.int8)
        seconds = []
        for i, image in enumerate(image for batch in _batches(images) for image in batch):
            outputs[i] = self._session.invoke(to_int8(image)[None])[0]
            seconds.append(self._session.seconds)
            if progress:
                progress(i + 1, len(images))
        if seconds:
            self.invoke_ms = float(np.median(seconds) * 1e3)
        return outputs

    def reference(self, images: Images) -> np.ndarray:
        """What __call__ must return, computed by the integer reference in numpy."""
        images = self._check(images)
        if isinstance(images, np.ndarray) or not len(images):
            return self.graph.reference(images[:])
        return np.concatenate([self.graph.reference(batch) for batch in _batches(images)])

    def layer_outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Every activation of one image (uint8 [H, W, C]) by name, dequantised, without batch dimension.

        Runs the model again, in memory where no tensor overwrites another.
        """
        images = self._check(image)[:]
        if len(images) != 1:
            raise DataError(f"layer_outputs takes one image, not {len(images)}")
        session = engines.get_engine(self.engine).open_keeping_all(self._loaded)
        session.invoke(to_int8(images))
        outputs = {}
        for op in self.graph.ops:
            tensor = self.graph.tensors[op.output]
            value = session.tensor(op.output).reshape(tensor.shape[1:])
            outputs[tensor.name] = tensor.dequantise(value).astype(np.float32)
        return outputs

    def _check(self, images: Images) -> Images:
        if not isinstance(images, np.ndarray):
            from mcuformer.data import FileImages  # late: not needed for arrays

            images = images if isinstance(images, FileImages) else as_array(images, "images")
        want = self.graph.tensors[self.graph.inputs[0]].shape[1:]
        if images.dtype != np.uint8:
            raise DataError(f"images have dtype {images.dtype}: give uint8 values, 0 to 255")
        if isinstance(images, np.ndarray) and images.shape == want:
            images = images[None]
        if images.ndim != 4 or images.shape[1:] != want:
            raise DataError(
                f"images have shape {images.shape}: the model takes [n, {want[0]}, {want[1]}, {want[2]}] (NHWC)"
            )
        return images


def _batches(images: Images) -> Iterator[np.ndarray]:
    """All of them, BATCH at a time."""
    return (images[start : start + BATCH] for start in range(0, len(images), BATCH))


def _with_strips(stored: tflite_file.ModelFile) -> bytes:
    graph = in_strips(stored.graph)
    graph = graph if is_staged(graph) else fit_heads(graph)
    plan = plan_arena(graph)
    return tflite_file.write(graph, plan.tensor_offsets(graph), {**stored.info, **plan.sizes})


def weights_of(model, stored: tflite_file.ModelFile, weights, name: str) -> bytes | None:
    """The bytes of a model's weights file; None if its weights are in the model. ModelError if it is missing."""
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
    path = weights_path(model) if weights is None else as_path(weights, "weights")
    try:
        return read_bytes(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ModelError(
            f"{name}: takes its weights from {path}, which cannot be read ({why}): keep the two files together, or "
            "name the weights file"
        ) from error


def _content_of(model) -> tuple[str, bytes]:
    if isinstance(model, bytes | bytearray | memoryview):
        return "model", bytes(model)
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        try:
            return str(path), read_bytes(path)
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
    engine: str | None = None,
) -> np.ndarray:
    """Runs one custom op alone, in an engine as of Interpreter.

    name: such as "IntLayerNorm". inputs: its activations by name, int8 (int16 those on a wide stream, with the option
    wide = 1) with a leading batch dimension of 1, such as
    {"input": x}; constants: its constant tensors by name; options: its integers by name (see
    mcuformer.converter.ops). Returns the int8 output. ModelError with the kernel's words if it refuses.
    """
    module = OPS[one_of("op", name, OPS)]
    inputs, options = _by_name("inputs", inputs), _by_name("options", options)
    given_constants = _by_name("constants", constants)
    for given in (*inputs, *given_constants):
        if given not in module.INPUTS:
            raise ConfigError(f"{name} has no input {given!r}: it has {', '.join(module.INPUTS)}")
    try:
        values = {key: _whole_numbers(value) for key, value in options.items()}
        parsed = module.Options(**file_form.option_names(module.Options, values))
    except TypeError as error:
        raise ConfigError(f"options of {name}: {error}") from error
    for key, value in values.items():
        if not all(-(1 << 63) <= number < 1 << 63 for number in numbers(value)):
            raise ConfigError(f"option {key} = {value} of {name}: does not fit 64 bits")
    for role, value in given_constants.items():
        if value is not None and (dtype := as_array(value, role).dtype.name) not in tflite_file.DTYPES:
            raise DataError(f"{role} of {name} is {dtype}: constants are {', '.join(tflite_file.DTYPES)}")
    graph = Graph()
    indices = {}
    for role, value in inputs.items():
        value = as_array(value, role)
        wanted = np.dtype(np.int16 if role in wide_activations(module, parsed) else np.int8)
        if value.dtype != wanted:
            raise DataError(f"input {role!r} of {name} has dtype {value.dtype}: activations are {wanted}")
        indices[role] = graph.add_input(role, value.shape, dtype=wanted)
    try:
        graph.output = graph.add_op(name, "output", parsed, indices, given_constants)
        content = tflite_file.write(graph, [-1] * len(graph.tensors), {"weights": None}, with_plan=False)
    except (TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise ConfigError(f"{name}: its inputs or options do not make sense, or one is missing ({error})") from error
    activations = sum(2 * t.bytes + 1024 for t in graph.tensors) + (1 << 20)
    loaded = Loaded(name, content, graph, {"needed_bytes": activations})
    session = engines.get_engine(engines.choose(engine)).open_session(loaded, None)
    return session.invoke(*(np.ascontiguousarray(value) for value in inputs.values()))


def _by_name(what: str, given: Any) -> dict[str, Any]:
    """A dictionary of what was given; ConfigError if it is none."""
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"{what} = {shown(given)}: must be a dict, values by name")
    return dict(given or {})


def _whole_numbers(value):
    """An option: an integer, or a tuple of integers, or of such tuples. TypeError for anything else."""
    if isinstance(value, tuple | list):
        return tuple(map(_whole_numbers, value))
    return operator.index(value)
