# SPDX-License-Identifier: Apache-2.0
"""What a model file states, checked before anything believes it: graph, constants, memory plan and metadata.

A file may be damaged and have a checksum that fits. Every function raises ValueError that says what is wrong; what the
kernels trust beside (ranges of constants) their own checks refuse, in Prepare and in the engines.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mcuformer.checks import shown
from mcuformer.converter.file_form import has_params
from mcuformer.converter.graph import Graph, Op, Tensor
from mcuformer.converter.memory.arena import stored_plan
from mcuformer.converter.ops import wide_activations
from mcuformer.converter.ops.int_attention import HEAD_PARAMS
from mcuformer.converter.ops.packed_weights import ROWS, matrix_shape
from mcuformer.converter.ops.relative_position import HEAD_PARAMS as RELATIVE_HEAD_PARAMS
from mcuformer.converter.passes.staging import is_staged, restaged
from mcuformer.converter.passes.strips import takes_strips
from mcuformer.converter.quantise import Quantisation
from mcuformer.converter.skeleton import Schedule, skeleton
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ToolchainError
from mcuformer.sound import LogMel

DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, AssertionError, MemoryError,
    RecursionError,
)  # fmt: skip
"""What looking at a damaged graph raises, but for a ToolchainError: of that the file knows nothing."""


# The kernels' limits (tflm_kernels/core/mcuf_types.h, mcuf_weight_source.h), within which sizes of scratch fit 32 bits.
MOST_TOKENS = MOST_FEATURES = 1 << 14
MOST_STRIDE = 4 * MOST_FEATURES
MOST_IMAGE_SIDE = 4096
MOST_TILE_BYTES = 1 << 20
# Options that sizes of scratch are made of.
SIZES = (
    "tokens_at_once", "pixels_at_once", "kv_heads_at_once", "kv_heads", "head_dim", "grid_rows", "grid_columns",
    "in_features", "tokens_per_read", "blocks_per_read", "patch_size", "patch_width", "padding", "strip_rows",
    "tile_bytes",
)  # fmt: skip


@contextmanager
def at(place: str) -> Iterator[None]:
    """Whatever a damaged `place` raises becomes a ValueError that names it."""
    try:
        yield
    except ToolchainError:
        raise
    except DAMAGE as error:
        raise ValueError(f"{place}: {words(error)}") from error


def words(error: BaseException) -> str:
    """An error in one line; the kind too, where it was not raised to be read."""
    said = " ".join(str(error).split())
    return said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}"


def check_model(graph: Graph, offsets: Sequence[int], info: dict[str, Any]) -> None:
    """All that a file says. offsets: of the memory plan, one per tensor, -1 for constants; info: its metadata."""
    check_graph(graph)
    for op in graph.ops:
        with at(f"{op.kind} {graph.tensors[op.output].name}"):
            check_constants(graph, op)
            _check_weights(graph, op)
    _check_scales(graph)
    with at("its staged weights"):
        _check_staged(graph, info["weights"])
    with at("its memory plan"):
        _check_plan(graph, offsets, info)
    _check_info(graph, info)


def check_graph(graph: Graph) -> None:
    """That every activation is made once, by an op that makes its shape of inputs that are there by then."""
    made = set(graph.inputs)
    with at("its tensors"):
        if len(graph.inputs) != len(made):
            raise ValueError("an input is there twice")
        for i in graph.inputs:
            on_stream = graph.tensors[i].dtype == np.int16  # of an op alone; who reads it is checked below
            _check_activation(graph, i, np.int16 if on_stream else np.int8)
        if not graph.ops or graph.output != graph.ops[-1].output:
            raise ValueError("the last op does not make the output")
    for number, op in enumerate(graph.ops):
        with at(f"op {number}, {op.kind}"):
            if op.output in made:
                raise ValueError(f"{graph.tensors[op.output].name} is made twice")
            _check_options(op)
            _check_sizes(graph, op)
            wide = wide_activations(op.module, op.options)
            _check_activation(graph, op.output, np.int16 if "output" in wide else np.int8)
            _check_shapes(graph, op, made)
            made.add(op.output)


def _check_options(op: Op) -> None:
    """Options are whole numbers, or tuples of them, or of such tuples."""
    for field in dataclasses.fields(op.options):
        value = getattr(op.options, field.name)
        for number in _numbers(value):
            if isinstance(number, bool) or not isinstance(number, int):
                raise ValueError(f"option {field.name} = {shown(value)}: must be whole")


def _numbers(value: Any) -> list[Any]:
    return [number for one in value for number in _numbers(one)] if isinstance(value, tuple) else [value]


def _check_sizes(graph: Graph, op: Op) -> None:
    """That the op's options are within the kernels' limits."""
    for name in SIZES:
        value, most = getattr(op.options, name, 0), MOST_TILE_BYTES if name == "tile_bytes" else MOST_TOKENS
        if not 0 <= value <= most:
            raise ValueError(f"option {name} = {value}: must be 0 to {most}")
    if getattr(op.options, "kv_heads_at_once", 0) > getattr(op.options, "kv_heads", 0):
        raise ValueError(f"kv_heads_at_once = {op.options.kv_heads_at_once} of {op.options.kv_heads} kv_heads")
    for inputs, outputs in op.module.matrices(graph.dims(op)) if hasattr(op.module, "matrices") else ():
        if max(inputs, outputs) > MOST_STRIDE:
            raise ValueError(f"a matrix of {inputs} to {outputs} features: at most {MOST_STRIDE}")


def _check_activation(graph: Graph, i: int, dtype: type) -> None:
    tensor = graph.tensors[i]
    if i < 0 or tensor.is_constant or tensor.dtype != dtype:
        raise ValueError(f"{tensor.name} is no {np.dtype(dtype).name} activation")
    if len(tensor.shape) < 2 or tensor.shape[0] != 1 or min(tensor.shape) < 1:
        raise ValueError(f"{tensor.name} has shape {tensor.shape}, needs a batch of 1 and no empty dimension")
    *sides, last = tensor.shape[1:]
    most = MOST_TOKENS if len(sides) < 2 else MOST_IMAGE_SIDE
    if last > MOST_STRIDE or max(sides, default=1) > most:
        raise ValueError(f"{tensor.name} has shape {tensor.shape}: at most {most} and {MOST_STRIDE} channels")


def _check_shapes(graph: Graph, op: Op, made: set[int]) -> None:
    """That the output has the shape that the op makes; an activation which it adds has the same."""
    if len(op.inputs) != len(op.module.INPUTS):
        raise ValueError(f"has {len(op.inputs)} inputs, needs {len(op.module.INPUTS)}")
    tensors = [graph.tensors[i] if i >= 0 else None for i in op.inputs]
    output = graph.tensors[op.output]
    shape = tuple(op.module.output_shape(op.options, [None if tensor is None else tensor.shape for tensor in tensors]))
    if shape != output.shape:
        raise ValueError(f"{output.name} has shape {output.shape}, needs {shape}")
    for position, (i, tensor) in enumerate(zip(op.inputs, tensors, strict=True)):
        if tensor is None or tensor.is_constant or (tensor.external and i not in graph.inputs):
            continue
        if i not in made:
            raise ValueError(f"reads {tensor.name} before it is made")
        if (tensor.dtype == np.int16) != (op.module.INPUTS[position] in wide_activations(op.module, op.options)):
            raise ValueError(f"{tensor.name} is {tensor.dtype}, which {op.kind} does not read")
        if position > 0 and tensor.shape != output.shape:
            raise ValueError(f"{tensor.name} has shape {tensor.shape}, needs {output.shape}")


def check_constants(graph: Graph, op: Op) -> None:
    """That constants have the sizes which the op's dimensions give; what is missing the kernel's check tells."""
    dims, roles = graph.dims(op), dict(zip(op.module.INPUTS, op.inputs, strict=True))
    inside = {
        role: graph.tensors[i]
        for role, i in roles.items()
        if i >= 0 and graph.tensors[i].is_constant and not graph.tensors[i].external
    }
    if has_params(op):
        sizes = dict(zip(op.module.INPUTS[1:], op.module.section_bytes(dims)[1:], strict=False))
        wanted = {role: sizes.get(role, 0) for role in inside}
    else:
        sizes = op.module.constant_bytes(dims)
        if len(inside) > len(sizes):
            raise ValueError(f"has {len(inside)} constants ({', '.join(inside)}), needs {len(sizes)}")
        wanted = dict(zip(inside, sizes, strict=False))
    for role, size in wanted.items():
        if inside[role].bytes != size:
            raise ValueError(f"{role} has {inside[role].bytes} bytes, needs {size}")
        if has_params(op):
            continue  # its constants got their shapes from its dimensions
        shape = _constant_shape(graph, op, role, inside[role].bytes // inside[role].dtype.itemsize)
        if inside[role].shape != shape:
            raise ValueError(f"{role} has shape {inside[role].shape}, needs {shape}")


def _constant_shape(graph: Graph, op: Op, role: str, elements: int) -> tuple[int, ...]:
    """The shape of a constant that has its size: one dimension, but for weights and tables of rows."""
    if role in getattr(op.module, "WEIGHTS", ()):
        return _weights_shape(graph, op, elements)
    channels = graph.tensors[op.output].shape[-1]
    if role == "position":
        return 1, elements // channels, channels
    columns = {"prefix": channels, "head_params": HEAD_PARAMS, "relative_params": RELATIVE_HEAD_PARAMS}.get(role)
    if role == "relative_bias":
        columns = elements // graph.dims(op).num_heads
    elif role in ("relative_keys", "relative_values"):
        columns = graph.dims(op).head_dim
    return (elements,) if columns is None else (elements // columns, columns)


def _weights_shape(graph: Graph, op: Op, elements: int) -> tuple[int, ...]:
    """Of an op's one matrix: as packed, after a dimension of fields where it is in several."""
    dims = graph.dims(op)
    if dims.packing == ROWS and hasattr(op.module, "rows_shape"):
        return op.module.rows_shape(dims)
    ((inputs, outputs),) = op.module.matrices(dims)
    shape = matrix_shape(inputs, outputs, dims.packing)
    return (elements // math.prod(shape), *shape) if hasattr(dims, "fields") else shape


def _check_weights(graph: Graph, op: Op) -> None:
    """That no weight is -128: two products with it do not fit where kernels add them up."""
    matrices = graph.weights(op)
    for role, i in zip(op.module.INPUTS, op.inputs, strict=True):
        if i < 0 or not role.endswith("weights") or (i in matrices and graph.dims(op).packing != ROWS):
            continue
        data = graph.tensors[i].data
        if data is not None and data.min() < -127:
            raise ValueError(f"{graph.tensors[i].name} has a weight of {data.min()}: must be -127 to 127")


def _check_scales(graph: Graph) -> None:
    """That every activation has a name of its own and a scale."""
    activations = [graph.tensors[i] for i in (*graph.inputs, *(op.output for op in graph.ops))]
    if len({tensor.name for tensor in activations}) != len(activations):
        raise ValueError("two activations have one name")
    for tensor in activations:
        if tensor.quantisation is None:
            raise ValueError(f"has no scale of {tensor.name}")
        _check_quantisation(tensor, tensor.quantisation)


def _check_quantisation(tensor: Tensor, quantisation: Quantisation) -> None:
    last, features, zero_point = tensor.shape[-1], tensor.features, quantisation.zero_point
    if features is not None and not (type(features) is int and 1 <= features <= last):
        raise ValueError(f"{tensor.name} has {shown(features)} features of {last}")
    scale = np.asarray(quantisation.scale)
    if scale.dtype != np.float64 or not np.isfinite(scale).all() or not (scale > 0).all():
        raise ValueError(f"{tensor.name} has a scale that is not above 0")
    if quantisation.per_channel and scale.shape != (features or last,):
        raise ValueError(f"{tensor.name} has {scale.size} scales for {features or last} channels")
    if type(zero_point) is not int or not -128 <= zero_point <= 127:
        raise ValueError(f"{tensor.name} has zero_point {shown(zero_point)}: must be -128 to 127")
    if tensor.dtype == np.int16 and (zero_point != 0 or quantisation.per_channel):
        raise ValueError(f"{tensor.name} is int16: must have one scale and zero_point 0")


def _check_staged(graph: Graph, weights: Any) -> None:
    """That weights alone are staged, that ops read them where the weights file has them, and that it is described."""
    for op in graph.ops:
        matrices = graph.weights(op)
        for i in op.inputs:
            tensor = graph.tensors[i]
            if i < 0 or not tensor.external or i in graph.inputs:
                continue
            if i not in matrices or tensor.dtype != np.int8:
                raise ValueError(f"{tensor.name} is no matrix of {graph.tensors[op.output].name}")
            if not has_params(op) and tensor.shape != (shape := _weights_shape(graph, op, math.prod(tensor.shape))):
                raise ValueError(f"{tensor.name} has shape {tensor.shape}, needs {shape}")
    for op, placed in zip(graph.ops, restaged(graph).ops, strict=True):
        if op != placed:
            stated, right = op.options.weights_offset, placed.options.weights_offset
            raise ValueError(f"{graph.tensors[op.output].name} reads them from byte {stated}, they begin at {right}")
    if not is_staged(graph):
        if weights is not None:
            raise ValueError("described, but no op has any")
    elif not isinstance(weights, dict) or set(weights) != {"bytes", "sha256"}:
        raise ValueError(f"described as {shown(weights)}: must be their bytes and sha256")


def _check_plan(graph: Graph, offsets: Sequence[int], info: dict[str, Any]) -> None:
    """That no tensor lies over another in use, and that the stated sizes are those of this very plan."""
    plan = stored_plan(graph, offsets)
    for name, size in plan.sizes.items():
        if type(info[name]) is not int or info[name] != size:
            raise ValueError(f"{name} = {shown(info[name])}, but the plan takes {size}")


def _check_info(graph: Graph, info: dict[str, Any]) -> None:
    """That config, classes, board and front end are those of the graph."""
    with at("its config"):
        config = SubnetConfig.from_dict(info["config"])
        _check_network(graph, config, info["schedule"])
    names, outputs = info["class_names"], graph.tensors[graph.output].shape[-1]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names = {shown(names)}: must be a list of text")
    if len(names) != config.num_classes:
        raise ValueError(f"has {len(names)} class_names for {outputs} outputs")
    if not isinstance(info["board"], str | None):
        raise ValueError(f"board = {shown(info['board'])}: must be a name")
    if not isinstance(info.get("core"), str | None):
        raise ValueError(f"core = {shown(info['core'])}: must be a core's key")
    if (values := info.get("front_end")) is not None:
        with at("its front_end"):
            made = LogMel.from_dict(values).image_shape
        if made != config.image_shape:
            sides = [" x ".join(map(str, shape)) for shape in (config.image_shape, made)]
            raise ValueError(f"takes {sides[0]}, its front end makes {sides[1]}")


def _check_network(graph: Graph, config: SubnetConfig, schedule: str) -> None:
    """That the config's ops are the graph's: the same kinds in the same order, as large."""
    if config.depth > len(graph.ops):
        raise ValueError(f"has {config.depth} layers for {len(graph.ops)} ops")
    way = Schedule(
        schedule, takes_strips(graph), "staged" if is_staged(graph) else "xip",
        fuse_gelu=all(op.kind != "IntGeLU" for op in graph.ops),
        stem_ops=any(op.kind == "StemConv" for op in graph.ops), wide=int(graph.is_wide),
    )  # fmt: skip
    wanted = [(step.kind, step.module, step.dims) for _, step in skeleton(config, way).steps()]
    if len(wanted) != len(graph.ops):
        raise ValueError(f"makes {len(wanted)} ops, the model has {len(graph.ops)}")
    image = graph.tensors[graph.inputs[0]].shape[1:]
    if image != config.image_shape:
        raise ValueError(f"takes images of {config.image_shape}, the model {image}")
    for op, (kind, module, dims) in zip(graph.ops, wanted, strict=True):
        found = graph.dims(op)
        if op.kind != kind:
            raise ValueError(f"makes a {kind} where the model has {op.kind}")
        for size in (module.output_elements, module.weight_elements, module.macs):
            if size(found) != size(dims):
                name = graph.tensors[op.output].name
                raise ValueError(f"gives {name} {size(dims):,} {size.__name__}, the model has {size(found):,}")
