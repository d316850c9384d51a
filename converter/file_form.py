# SPDX-License-Identifier: Apache-2.0
"""The graph as the file has it: there, the constants and options of a Streamed op are one tensor, `params`.

In memory every op has its constants as tensors and its options as fields. In the file and in C a Streamed op has the
inputs (stream, params, staged weights or none), since every tensor of a file costs arena. Other ops are the same in
both, but that a file leaves out their last inputs of OPTIONAL_LAST where they lack them: so a file of an op that got
such an input later stays as it was. And the keys of two options differ: OPTION_KEYS. The option `wide` is in no file:
there the type of the residual stream says it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from mcuformer.converter.graph import Graph, Op, Tensor
from mcuformer.converter.ops import params_blob, stem_block
from mcuformer.converter.ops.int_attention import HEAD_PARAMS
from mcuformer.converter.ops.packed_weights import matrix_shape
from mcuformer.converter.ops.relative_position import HEAD_PARAMS as RELATIVE_HEAD_PARAMS

STREAM, PARAMS, WEIGHTS = 0, 1, 2  # inputs of a Streamed op in the file
OPTION_KEYS = {"tokens_per_read": "block", "blocks_per_read": "blocks"}  # field of options -> its key in the file


@dataclass(frozen=True)
class InParams:
    """Options of a Streamed op in the file: none, they are in its params."""


def option_key(name: str) -> str:
    """The key that the file has for a field of options."""
    return OPTION_KEYS.get(name, name)


def option_names(options: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Values by the names of their fields. options: the dataclass; values: by key or by name."""
    names = {option_key(field.name): field.name for field in fields(options)}
    return {names.get(key, key): value for key, value in values.items()}


def has_params(op: Op) -> bool:
    """Whether the op's constants and options are one tensor in the file."""
    return hasattr(op.module, "LAYOUT")


def stored_tensors(graph: Graph) -> int:
    """Number of tensors in the graph's file; external ones are not counted."""
    stored = sum(not tensor.external for tensor in graph.tensors)
    for op in filter(has_params, graph.ops):
        stored -= sum(i >= 0 and graph.tensors[i].is_constant and not graph.tensors[i].external for i in op.inputs) - 1
    return stored


def constant_bytes(graph: Graph, op: Op) -> int:
    """Bytes of an op's constants in the file."""
    constants = [graph.tensors[i] for i in op.inputs if i >= 0 and graph.tensors[i].is_constant]
    inside = [tensor for tensor in constants if not tensor.external]
    return _params(graph, op).size if has_params(op) else sum(tensor.bytes for tensor in inside)


def _sections(op: Op) -> int:
    """How many of the op's constants are in its params: layers it lacks are left out."""
    return max(i for i, tensor in enumerate(op.inputs) if tensor >= 0)


def _params(graph: Graph, op: Op) -> np.ndarray:
    tensors = [graph.tensors[i] if i >= 0 else None for i in op.inputs[1 : 1 + _sections(op)]]
    constants = [None if tensor is None or tensor.external else tensor.data for tensor in tensors]
    scalars = np.array(op.module.LAYOUT.to_scalars(op.options), np.int32)
    return params_blob.pack([scalars, *constants])


def to_file_form(graph: Graph) -> tuple[Graph, list[int]]:
    """The graph as the file has it, and the file's tensor for each of the graph's; -1 for those in params."""
    of_params: dict[int, Op] = {}  # the op whose params hold a constant
    for op in filter(has_params, graph.ops):
        of_params.update((i, op) for i in op.inputs[1:] if i >= 0)
    result, place = Graph(), [-1] * len(graph.tensors)
    params: dict[int, int] = {}  # op, by its output -> tensor of the file
    weights: dict[int, int] = {}
    for i, tensor in enumerate(graph.tensors):
        if i not in of_params:
            place[i] = result.add_tensor(tensor)
            continue
        op = of_params[i]
        name = graph.tensors[op.output].name
        if tensor.external:
            if op.output not in weights:
                weights[op.output] = result.add_tensor(_staged_weights(graph, op, f"{name}/weights"))
        elif op.output not in params:
            data = _params(graph, op)
            params[op.output] = result.add_tensor(Tensor(f"{name}/params", data.shape, data.dtype, None, data))
    for op in graph.ops:
        inputs = tuple(place[i] if i >= 0 else -1 for i in op.inputs)
        options = op.options
        if has_params(op):
            inputs = (place[op.inputs[0]], params[op.output], weights.get(op.output, -1))
            options = InParams()
        else:
            inputs = _without_optional_last(op, inputs)
            options = replace(options, wide=0) if hasattr(options, "wide") else options
        result.ops.append(Op(op.kind, inputs, place[op.output], options))
    result.inputs, result.output = [place[i] for i in graph.inputs], place[graph.output]
    return result, place


def _is_wide(graph: Graph, op: Op) -> bool:
    """Whether the residual stream that passes through the op is int16."""
    names = getattr(op.module, "WIDE", ())
    tensors = [op.output if name == "output" else op.inputs[op.module.INPUTS.index(name)] for name in names]
    return any(i >= 0 and graph.tensors[i].dtype == np.int16 for i in tensors)


def _least_inputs(op: Op) -> int:
    """How many inputs the op has in every file."""
    return len(op.module.INPUTS) - len(getattr(op.module, "OPTIONAL_LAST", ()))


def _without_optional_last(op: Op, inputs: tuple[int, ...]) -> tuple[int, ...]:
    while len(inputs) > _least_inputs(op) and inputs[-1] < 0:
        inputs = inputs[:-1]
    return inputs


def _with_optional_last(op: Op, inputs: tuple[int, ...]) -> tuple[int, ...]:
    left_out = len(op.module.INPUTS) - len(inputs)
    return inputs if len(inputs) < _least_inputs(op) else (*inputs, *[-1] * left_out)


def _staged_weights(graph: Graph, op: Op, name: str) -> Tensor:
    """All staged matrices of an op, in the order of the weights file."""
    tensors = [graph.tensors[i] for i in graph.weights(op)]
    size = sum(params_blob.align(tensor.bytes) for tensor in tensors)
    return Tensor(name, (size,), np.dtype(np.int8), external=True)


def from_file_form(graph: Graph) -> tuple[Graph, list[int]]:
    """Undoes to_file_form: the graph, and its tensor for each of the file's; -1 for params and staged weights.

    ValueError if params are damaged.
    """
    owner = {i: op for op in graph.ops if has_params(op) for i in op.inputs[PARAMS:] if i >= 0}
    unpacked = {op.output: _unpacked(graph, op) for op in graph.ops if has_params(op)}
    result, place = Graph(), [-1] * len(graph.tensors)
    constants: dict[int, dict[str, int]] = {output: {} for output in unpacked}
    for i, tensor in enumerate(graph.tensors):
        if i not in owner:
            place[i] = result.add_tensor(tensor)
            continue
        output = owner[i].output
        for role, constant in unpacked[output][1].items():
            if constant.external == tensor.external:
                constants[output][role] = result.add_tensor(constant)
    for op in graph.ops:
        inputs = tuple(place[i] if i >= 0 else -1 for i in op.inputs)
        options = op.options
        if has_params(op):
            roles = constants[op.output]
            inputs = (place[op.inputs[STREAM]], *(roles.get(role, -1) for role in op.module.INPUTS[1:]))
            options = unpacked[op.output][0]
        else:
            inputs = _with_optional_last(op, inputs)
        if _is_wide(graph, op):
            options = replace(options, wide=1)
        result.ops.append(Op(op.kind, inputs, place[op.output], options))
    result.inputs, result.output = [place[i] for i in graph.inputs], place[graph.output]
    return result, place


def _unpacked(graph: Graph, op: Op) -> tuple[Any, dict[str, Tensor]]:
    """Options and constants, by role, of an op in the file. Staged weights are external, without data."""
    module, layout = op.module, op.module.LAYOUT
    scalars, *sections = params_blob.unpack(graph.tensors[op.inputs[PARAMS]].values)
    options = layout.from_scalars(np.frombuffer(scalars, "<i4").tolist())
    name = graph.tensors[op.output].name
    arrays = {role: params_blob.array(section, layout.dtypes[role])
              for role, section in zip(layout.dtypes, sections, strict=False)}  # fmt: skip
    for role, shape in _table_shapes(options, arrays, graph.tensors[op.output].shape[-1]).items():
        if (section := arrays.get(role)) is not None:
            arrays[role] = section.reshape(shape)
    shapes = [graph.tensors[op.inputs[STREAM]].shape, *(None if a is None else a.shape for a in arrays.values())]
    shapes += [None] * (len(module.INPUTS) - len(shapes))
    dims = module.dims(options, shapes)
    constants, is_staged = {}, getattr(dims, "tile_bytes", 0) > 0
    roles = [role for role in module.WEIGHTS if arrays.get(role.replace("_weights", "_bias")) is not None]
    matrices = dict(zip(roles, module.matrices(dims), strict=False))
    for role, values in arrays.items():
        if role in matrices:
            inputs, outputs = matrices[role]
            shape, dtype = matrix_shape(inputs, outputs, dims.packing), np.dtype(np.int8)
            data = None if is_staged or values is None else values.reshape(shape)
            constants[role] = Tensor(f"{name}/{role}", shape, dtype, None, data, external=is_staged)
        elif values is not None:
            constants[role] = Tensor(f"{name}/{role}", values.shape, values.dtype, None, values)
    if is_staged and op.inputs[WEIGHTS] >= 0:
        have = graph.tensors[op.inputs[WEIGHTS]].shape[0]
        sizes = [math.prod(matrix_shape(inputs, outputs, dims.packing)) for inputs, outputs in matrices.values()]
        want = sum(map(params_blob.align, sizes))
        if have != want:
            raise ValueError(f"staged weights of {have} bytes for {want}")
    return options, constants


def _table_shapes(options: Any, arrays: dict[str, np.ndarray | None], features: int) -> dict[str, tuple[int, ...]]:
    """Shapes of an op's constants that are no vectors, but for matrices. features: of its output."""
    shapes: dict[str, tuple[int, ...]] = {"position": (1, -1, features), "prefix": (-1, features)}
    shapes |= {role: (stem_block.TAPS, -1) for role in arrays if role.endswith("_depthwise_weights")}
    if (head_params := arrays.get("head_params")) is not None:
        shapes |= {
            "head_params": (-1, HEAD_PARAMS), "relative_params": (-1, RELATIVE_HEAD_PARAMS),
            "relative_bias": (head_params.size // HEAD_PARAMS, -1), "relative_keys": (-1, options.head_dim),
            "relative_values": (-1, options.head_dim),
        }  # fmt: skip
    return shapes


def moved(offsets: Sequence[int], place: Sequence[int], tensors: int) -> list[int]:
    """Offsets of the tensors in one form -> in the other, which has `tensors`; -1 for one without counterpart.

    place: as to_file_form() or from_file_form() returns it.
    """
    found = [-1] * tensors
    for offset, at in zip(offsets, place, strict=True):
        if at >= 0:
            found[at] = offset
    return found
