# SPDX-License-Identifier: Apache-2.0
"""Writes a .tflite model of one custom op and runs it in the interpreter of the tflite-micro wheel."""

from __future__ import annotations

import copy
import dataclasses

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers
from tflite_micro.python.tflite_micro import runtime
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from mcuformer import kernel_library

TYPES = {
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "float32": schema.TensorType.FLOAT32,
}


@dataclasses.dataclass
class Activation:
    """A tensor whose values come at run time."""

    shape: tuple
    dtype: str = "int8"


@dataclasses.dataclass
class Model:
    """One op. inputs: name -> Activation, array (a constant) or None (an optional tensor left out), in order. output:
    an Activation, or an array, which no op may overwrite."""

    op: str
    inputs: dict
    output: Activation | np.ndarray
    options: dict | bytes | None = None
    extra_outputs: int = 0

    def changed(self, change) -> Model:
        """A copy that `change` has worked on."""
        model = copy.deepcopy(self)
        change(model)
        return model

    def to_bytes(self, offsets: list | None = None) -> bytes:
        """The file. offsets: where each tensor stands in the arena, -1 where the runtime is to choose."""
        model = schema.ModelT()
        model.version = 3
        model.buffers = [schema.BufferT()]
        graph = schema.SubGraphT()
        graph.tensors, graph.inputs, indices = [], [], []
        for name, value in self.inputs.items():
            if value is None:
                indices.append(-1)
                continue
            indices.append(len(graph.tensors))
            if isinstance(value, Activation):
                graph.inputs.append(len(graph.tensors))
                graph.tensors.append(_tensor(name, value.shape, value.dtype, 0))
            else:
                graph.tensors.append(_tensor(name, value.shape, value.dtype.name, _add_buffer(model, value.tobytes())))
        graph.outputs = []
        for i in range(1 + self.extra_outputs):
            graph.outputs.append(len(graph.tensors))
            constant = isinstance(self.output, np.ndarray)
            dtype = self.output.dtype.name if constant else self.output.dtype
            buffer = _add_buffer(model, self.output.tobytes()) if constant else 0
            graph.tensors.append(_tensor(f"output{i}", self.output.shape, dtype, buffer))
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = 0, indices, graph.outputs
        if self.options is not None:
            raw = self.options if isinstance(self.options, bytes) else flexbuffers.Dumps(self.options)
            op.customOptions = list(raw)
        graph.operators = [op]
        model.subgraphs = [graph]
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode, code.version = self.op, 1
        model.operatorCodes = [code]
        if offsets is not None:
            plan = np.array([1, 0, len(offsets), *offsets], np.int32)
            metadata = schema.MetadataT()
            metadata.name, metadata.buffer = "OfflineMemoryAllocation", _add_buffer(model, plan.tobytes())
            model.metadata = [metadata]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def _tensor(name: str, shape: tuple, dtype: str, buffer: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), TYPES[dtype], buffer
    return tensor


def _add_buffer(model: schema.ModelT, data: bytes) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def interpreter(data: bytes, arena_size: int = 1 << 17) -> runtime.Interpreter:
    """The model, prepared. Raises RuntimeError where the interpreter refuses it; the reason is in last_log()."""
    kernel_library.load()
    kernel_library.clear_log()
    return runtime.Interpreter.from_bytes(
        data, custom_op_registerers=[kernel_library.REGISTERER], arena_size=arena_size
    )


def run(model: Model, *inputs: np.ndarray, offsets: list | None = None) -> np.ndarray:
    """The output for these values of the activations, in order."""
    network = interpreter(model.to_bytes(offsets))
    for i, values in enumerate(inputs):
        network.set_input(values, i)
    network.invoke()
    return network.get_output(0)
