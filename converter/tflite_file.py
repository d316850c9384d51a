# SPDX-License-Identifier: Apache-2.0
"""The int8 graph as a .tflite flatbuffer, and back, verified.

Metadata of the file:
- OfflineMemoryAllocation: the memory plan, which every TFLM honours.
- mcuformer.model: zlib-compressed JSON: format, config, schedule, scales of all activations, predicted sizes.
- mcuformer.checksum: 16 magic bytes and the SHA-256 of the file with the digest's bytes zero.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import zlib
from dataclasses import dataclass

import flatbuffers
import flatbuffers.flexbuffers
import numpy as np

from mcuformer.converter.graph import Graph, Op, Tensor
from mcuformer.converter.ops import OPS, PREFIX
from mcuformer.converter.quantise import Quantisation
from mcuformer.errors import ModelError

FORMAT = "mcuformer.model/2"
PLAN_METADATA = "OfflineMemoryAllocation"
MODEL_METADATA = "mcuformer.model"
CHECKSUM_METADATA = "mcuformer.checksum"
CHECKSUM_MAGIC = b"MCUFormer-SHA256"
DIGEST_BYTES = 32
FILE_IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # of every constant in the file
DTYPES = ("int8", "uint8", "int16", "int32")


@dataclass(frozen=True)
class ModelFile:
    """What a file holds. offsets: one an entry of graph.tensors, -1 for constants. info: the model metadata."""

    graph: Graph
    offsets: tuple[int, ...]
    info: dict


def _schema():
    from mcuformer.converter import tflite_schema_generated

    return tflite_schema_generated


def write(graph: Graph, offsets: list[int], info: dict, with_plan: bool = True) -> bytes:
    """The file's bytes. offsets: one a tensor, -1 for constants. Without plan the runtime places all tensors."""
    s = _schema()
    stored = [tensor for tensor in graph.tensors if not tensor.external]
    info = {**info, "external": [_external_entry(graph, i) for i in range(len(stored), len(graph.tensors))]}

    class AlignedBuffer(s.BufferT):
        """A buffer whose data starts at a multiple of ALIGNMENT in the file."""

        def Pack(self, builder):
            data = None
            if self.data is not None:
                content = bytes(self.data)
                builder.StartVector(1, len(content), ALIGNMENT)
                builder.head -= len(content)
                builder.Bytes[builder.head : builder.head + len(content)] = content
                data = builder.EndVector()
            s.BufferStart(builder)
            if data is not None:
                s.BufferAddData(builder, data)
            return s.BufferEnd(builder)

    buffers = [AlignedBuffer()]

    def add_buffer(content: bytes) -> int:
        buffer = AlignedBuffer()
        buffer.data = content
        buffers.append(buffer)
        return len(buffers) - 1

    model = s.ModelT()
    model.version = 3
    model.description = "MCUFormer"
    subgraph = s.SubGraphT()
    subgraph.name = "main"
    subgraph.inputs, subgraph.outputs = [i for i in graph.inputs if i < len(stored)], [graph.output]
    subgraph.tensors = []
    for tensor in stored:
        t = s.TensorT()
        t.name, t.shape = tensor.name, list(tensor.shape)
        t.type = getattr(s.TensorType, tensor.dtype.name.upper())
        t.buffer = add_buffer(_little_endian(tensor.data)) if tensor.is_constant else 0
        if tensor.quantisation is not None and not tensor.quantisation.per_channel:
            q = s.QuantizationParametersT()
            q.scale, q.zeroPoint = [float(tensor.quantisation.scale)], [tensor.quantisation.zero_point]
            t.quantization = q
        subgraph.tensors.append(t)
    kinds = list(dict.fromkeys(op.kind for op in graph.ops))
    model.operatorCodes = []
    for kind in kinds:
        code = s.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = s.BuiltinOperator.CUSTOM
        code.customCode, code.version = PREFIX + kind, 1
        model.operatorCodes.append(code)
    subgraph.operators = []
    for op in graph.ops:
        o = s.OperatorT()
        o.opcodeIndex = kinds.index(op.kind)
        o.inputs, o.outputs = [i if i < len(stored) else -1 for i in op.inputs], [op.output]
        if op.options_dict:
            o.customOptions = list(flatbuffers.flexbuffers.Dumps(op.options_dict))
            o.customOptionsFormat = s.CustomOptionsFormat.FLEXBUFFERS
        subgraph.operators.append(o)
    model.subgraphs = [subgraph]

    model.metadata = []

    def add_metadata(name: str, content: bytes) -> None:
        entry = s.MetadataT()
        entry.name, entry.buffer = name, add_buffer(content)
        model.metadata.append(entry)

    if with_plan:
        add_metadata(PLAN_METADATA, struct.pack(f"<3i{len(stored)}i", 1, 0, len(stored), *offsets[: len(stored)]))
    add_metadata(MODEL_METADATA, _pack_info(graph, info))
    add_metadata(CHECKSUM_METADATA, CHECKSUM_MAGIC + bytes(DIGEST_BYTES))
    model.buffers = buffers
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    content = bytearray(builder.Output())
    at = content.rindex(CHECKSUM_MAGIC) + len(CHECKSUM_MAGIC)
    content[at : at + DIGEST_BYTES] = hashlib.sha256(content).digest()
    return bytes(content)


def check_intact(content: bytes, name: str = "model") -> None:
    """Raises ModelError where the bytes are not a whole, undamaged MCUFormer file."""
    if len(content) < 8 or content[4:8] != FILE_IDENTIFIER:
        raise ModelError(f"{name}: not a .tflite file ({len(content)} bytes without the identifier TFL3)")
    at = content.rfind(CHECKSUM_MAGIC) + len(CHECKSUM_MAGIC)
    if at < len(CHECKSUM_MAGIC) or at + DIGEST_BYTES > len(content):
        raise ModelError(
            f"{name}: no MCUFormer checksum: damaged, cut short, or not made by mcuformer; convert it again"
        )
    zeroed = content[:at] + bytes(DIGEST_BYTES) + content[at + DIGEST_BYTES :]
    if hashlib.sha256(zeroed).digest() != content[at : at + DIGEST_BYTES]:
        raise ModelError(f"{name}: the checksum does not match: the file is damaged; copy or convert it again")


def read(content: bytes, name: str = "model") -> ModelFile:
    """Parses and verifies a file written by `write`. Raises ModelError for anything else."""
    check_intact(content, name)
    try:
        return _parse(content)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, struct.error, zlib.error) as error:
        raise ModelError(f"{name}: not a model this version reads ({type(error).__name__}: {error})") from error


def _parse(content: bytes) -> ModelFile:
    s = _schema()
    model = s.ModelT.InitFromObj(s.Model.GetRootAs(content))
    (subgraph,) = model.subgraphs

    def data_of(index: int) -> bytes | None:
        data = model.buffers[index].data
        return None if data is None else bytes(data)

    metadata = {entry.name.decode(): data_of(entry.buffer) for entry in model.metadata}
    info = json.loads(zlib.decompress(metadata[MODEL_METADATA]))
    if info["format"] != FORMAT:
        raise ValueError(f"format {info['format']!r}, not {FORMAT!r}")
    dtype_of = {getattr(s.TensorType, name.upper()): np.dtype(name) for name in DTYPES}
    scales = info.pop("scales")
    graph = Graph(inputs=[int(i) for i in subgraph.inputs], output=int(subgraph.outputs[0]))
    for t in subgraph.tensors:
        tensor_name, dtype = t.name.decode(), dtype_of[t.type]
        shape = tuple(int(n) for n in t.shape)
        data = data_of(t.buffer)
        if data is not None:
            data = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
        quantisation, features = None, None
        if tensor_name in scales:
            scale, zero_point, features = _unpack_scale(scales[tensor_name])
            quantisation = Quantisation(scale, zero_point)
        graph.tensors.append(Tensor(tensor_name, shape, dtype, quantisation, data, features))
    for o in subgraph.operators:
        code = model.operatorCodes[o.opcodeIndex].customCode.decode()
        kind = code.removeprefix(PREFIX)
        values = flatbuffers.flexbuffers.Loads(bytearray(bytes(o.customOptions))) if o.customOptions is not None else {}
        options = OPS[kind].Options(**values)
        graph.ops.append(Op(kind, tuple(int(i) for i in o.inputs), int(o.outputs[0]), options))
    stored = len(graph.tensors)
    offsets = tuple([-1] * stored)
    if PLAN_METADATA in metadata:
        numbers = np.frombuffer(metadata[PLAN_METADATA], "<i4")
        offsets = tuple(int(n) for n in numbers[3:])
        if len(offsets) != stored:
            raise ValueError(f"plan of {len(offsets)} tensors for {stored}")
    for tensor_name, shape, step, position in info.pop("external"):
        image = tensor_name in scales
        quantisation = Quantisation(*_unpack_scale(scales[tensor_name])[:2]) if image else None
        tensor = Tensor(tensor_name, tuple(shape), np.dtype(np.int8), quantisation, external=True)
        index = graph.add_tensor(tensor)
        if image:
            graph.inputs.append(index)
        inputs = list(graph.ops[step].inputs)
        inputs[position] = index
        graph.ops[step] = dataclasses.replace(graph.ops[step], inputs=tuple(inputs))
        offsets += (-1,)
    return ModelFile(graph, offsets, info)


def same(a: Graph, b: Graph) -> str | None:
    """None where two graphs are equal, but for data that is in no file; else what differs first."""
    if (a.inputs, a.output, len(a.tensors), len(a.ops)) != (b.inputs, b.output, len(b.tensors), len(b.ops)):
        return "number of tensors or ops"
    for x, y in zip(a.tensors, b.tensors, strict=True):
        if (x.name, x.shape, x.dtype, x.features) != (y.name, y.shape, y.dtype, y.features):
            return f"tensor {x.name}"
        if x.external != y.external:
            return f"place of tensor {x.name}"
        if not x.external and (x.is_constant != y.is_constant or x.is_constant and not np.array_equal(x.data, y.data)):
            return f"data of tensor {x.name}"
        if (x.quantisation is None) != (y.quantisation is None):
            return f"quantisation of tensor {x.name}"
        if x.quantisation is not None and (
            x.quantisation.zero_point != y.quantisation.zero_point
            or not np.allclose(x.quantisation.scale, y.quantisation.scale, rtol=1e-6, atol=0)
        ):
            return f"quantisation of tensor {x.name}"
    for x, y in zip(a.ops, b.ops, strict=True):
        if (x.kind, x.inputs, x.output, x.options) != (y.kind, y.inputs, y.output, y.options):
            return f"op that makes {a.tensors[x.output].name}"
    return None


def _external_entry(graph: Graph, tensor: int) -> list:
    """Name, shape, op and input of a tensor that is not in the file: an image in strips, or staged weights."""
    for step, op in enumerate(graph.ops):
        if tensor in op.inputs:
            return [graph.tensors[tensor].name, list(graph.tensors[tensor].shape), step, op.inputs.index(tensor)]
    raise ValueError(f"no op takes {graph.tensors[tensor].name}")


def _little_endian(data: np.ndarray) -> bytes:
    return np.ascontiguousarray(data.astype(data.dtype.newbyteorder("<"))).tobytes()


def _pack_info(graph: Graph, info: dict) -> bytes:
    """Scales of all activations go here: per-channel ones as distinct values and an index a channel."""
    scales = {}
    for tensor in graph.tensors:
        if tensor.quantisation is None:
            continue
        distinct, index = np.unique(np.atleast_1d(tensor.quantisation.scale), return_inverse=True)
        scales[tensor.name] = [
            [float(value) for value in distinct],
            [int(i) for i in index] if tensor.quantisation.per_channel else None,
            tensor.quantisation.zero_point,
            tensor.features,
        ]
    return zlib.compress(json.dumps({"format": FORMAT, **info, "scales": scales}, sort_keys=True).encode(), 9)


def _unpack_scale(packed: list) -> tuple[float | np.ndarray, int, int | None]:
    distinct, index, zero_point, features = packed
    scale = distinct[0] if index is None else np.array(distinct)[index]
    return scale, zero_point, features
