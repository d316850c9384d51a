# SPDX-License-Identifier: Apache-2.0
"""The int8 graph as a .tflite flatbuffer and back, verified.

Metadata of the file:
- OfflineMemoryAllocation: the memory plan, which every TFLM honours.
- mcuformer.model: zlib-compressed JSON: format, config, schedule, scales of all activations, predicted sizes.
- mcuformer.checksum: 16 magic bytes and the SHA-256 of the file with the digest's bytes zero.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import operator
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flatbuffers
import flatbuffers.flexbuffers
import numpy as np

from mcuformer.checks import shown
from mcuformer.converter import file_form
from mcuformer.converter.graph import Graph, Op, Tensor
from mcuformer.converter.model_check import DAMAGE, check_model, words
from mcuformer.converter.ops import PREFIX
from mcuformer.converter.quantise import Quantisation
from mcuformer.errors import ModelError, ToolchainError

FORMAT = "mcuformer.model/2"
PLAN_METADATA = "OfflineMemoryAllocation"
MODEL_METADATA = "mcuformer.model"
CHECKSUM_METADATA = "mcuformer.checksum"
CHECKSUM_MAGIC = b"MCUFormer-SHA256"
DIGEST_BYTES = 32
FILE_IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # of every constant in the file
MOST_INFO_BYTES = 1 << 24  # of the metadata, unpacked
MOST_DIMS = 4  # of a tensor's shape
DTYPES = ("int8", "uint8", "int16", "int32")


@dataclass(frozen=True)
class ModelFile:
    """What a file holds. offsets: one per entry of graph.tensors, -1 for constants. info: the model metadata."""

    graph: Graph
    offsets: tuple[int, ...]
    info: dict


def _schema():
    from mcuformer.converter import tflite_schema_generated

    return tflite_schema_generated


def write(graph: Graph, offsets: Sequence[int], info: dict, with_plan: bool = True) -> bytes:
    """The file's bytes. offsets: one per tensor, -1 for constants. Without a plan the runtime places all tensors."""
    filed, place = file_form.to_file_form(graph)
    stored = sum(not tensor.external for tensor in filed.tensors)
    external = [_external_entry(filed, i) for i in range(stored, len(filed.tensors))]
    metadata = {}
    if with_plan:
        planned = file_form.moved(offsets, place, len(filed.tensors))[:stored]
        metadata[PLAN_METADATA] = struct.pack(f"<3i{stored}i", 1, 0, stored, *planned)
    metadata[MODEL_METADATA] = _pack_info(graph, {**info, "external": external})
    metadata[CHECKSUM_METADATA] = CHECKSUM_MAGIC + bytes(DIGEST_BYTES)
    return _with_checksum(flatbuffer(filed, metadata))


def _with_checksum(content: bytes) -> bytes:
    """Puts the checksum into a file that still has zeros for it."""
    at = content.rindex(CHECKSUM_MAGIC) + len(CHECKSUM_MAGIC)
    return content[:at] + hashlib.sha256(content).digest() + content[at + DIGEST_BYTES :]


def flatbuffer(filed: Graph, metadata: dict[str, bytes]) -> bytes:
    """A graph in file form, and metadata by name, as a flatbuffer."""
    s = _schema()
    buffers = _Buffers(s)
    model = s.ModelT()
    model.version = 3
    model.description = "MCUFormer"
    model.operatorCodes = []
    kinds = list(dict.fromkeys(op.kind for op in filed.ops))
    for kind in kinds:
        code = s.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = s.BuiltinOperator.CUSTOM
        code.customCode, code.version = PREFIX + kind, 1
        model.operatorCodes.append(code)
    model.subgraphs = [_subgraph(filed, kinds, buffers, s)]
    model.metadata = []
    for name, content in metadata.items():
        entry = s.MetadataT()
        entry.name, entry.buffer = name, buffers.add(content)
        model.metadata.append(entry)
    model.buffers = buffers.held
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def _subgraph(filed: Graph, kinds: list[str], buffers: _Buffers, s) -> Any:
    stored = sum(not tensor.external for tensor in filed.tensors)
    subgraph = s.SubGraphT()
    subgraph.name = "main"
    subgraph.inputs, subgraph.outputs = [i for i in filed.inputs if i < stored], [filed.output]
    subgraph.tensors = []
    for tensor in filed.tensors[:stored]:
        t = s.TensorT()
        t.name, t.shape = tensor.name, list(tensor.shape)
        t.type = getattr(s.TensorType, tensor.dtype.name.upper())
        t.buffer = 0 if tensor.data is None else buffers.add(_little_endian(tensor.data))
        if tensor.quantisation is not None and not tensor.quantisation.per_channel:
            q = s.QuantizationParametersT()
            q.scale, q.zeroPoint = [float(tensor.quantisation.scale)], [tensor.quantisation.zero_point]
            t.quantization = q
        subgraph.tensors.append(t)
    subgraph.operators = []
    for op in filed.ops:
        o = s.OperatorT()
        o.opcodeIndex = kinds.index(op.kind)
        o.inputs, o.outputs = [i if i < stored else -1 for i in op.inputs], [op.output]
        if options := _changed_options(op.options):
            o.customOptions = list(flatbuffers.flexbuffers.Dumps(options))
            o.customOptionsFormat = s.CustomOptionsFormat.FLEXBUFFERS
        subgraph.operators.append(o)
    return subgraph


def _changed_options(options: Any) -> dict[str, int]:
    """Options that differ from their defaults, by their keys."""
    values = {f.name: (getattr(options, f.name), f.default) for f in dataclasses.fields(options)}
    return {file_form.option_key(name): value for name, (value, default) in values.items() if value != default}


class _Buffers:
    """The file's buffers, the first of them empty. Data starts at multiples of ALIGNMENT in the file."""

    def __init__(self, s):
        class AlignedBuffer(s.BufferT):  # type: ignore[name-defined]
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

        self._kind = AlignedBuffer
        self.held = [AlignedBuffer()]

    def add(self, content: bytes) -> int:
        """The index of a new buffer."""
        buffer = self._kind()
        buffer.data = content
        self.held.append(buffer)
        return len(self.held) - 1


def check_intact(content: bytes, name: str = "model") -> None:
    """Raises ModelError if the bytes are not a whole, undamaged MCUFormer file."""
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
    """Parses a file written by `write` and checks all that it states. Raises ModelError for anything else."""
    stored = parse(content, name)
    with _refusing(name):
        check_model(stored.graph, stored.offsets, stored.info)
    return stored


def parse(content: bytes, name: str = "model") -> ModelFile:
    """What a file holds, which may be no network that can be run. Raises ModelError if it is none of `write`'s."""
    check_intact(content, name)
    with _refusing(name):
        return _parse(content)


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except ToolchainError:
        raise
    except (*DAMAGE, struct.error, zlib.error) as error:
        raise ModelError(
            f"{name}: damaged, or not a model that this version reads ({words(error)}): convert it again"
        ) from error


def _parse(content: bytes) -> ModelFile:
    s = _schema()
    model = s.ModelT.InitFromObj(s.Model.GetRootAs(content))
    metadata = {entry.name.decode(): _data_of(model, entry.buffer) or b"" for entry in model.metadata}
    info = json.loads(_unpacked(metadata[MODEL_METADATA]))
    if info["format"] != FORMAT:
        raise ValueError(f"format {shown(info['format'])}, not {FORMAT!r}")
    scales = {name: _unpack_scale(packed) for name, packed in info.pop("scales").items()}
    filed = _parse_graph(model, scales)
    offsets = [-1] * len(filed.tensors)
    if PLAN_METADATA in metadata:
        offsets = _parse_plan(metadata[PLAN_METADATA], len(filed.tensors))
    for name, shape, step, position in info.pop("external"):
        _add_external(filed, name, shape, step, position, scales)
        offsets.append(-1)
    graph, place = file_form.from_file_form(filed)
    return ModelFile(graph, tuple(file_form.moved(offsets, place, len(graph.tensors))), info)


def _unpacked(packed: bytes) -> bytes:
    """The metadata, which is small. ValueError if it is not."""
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(packed, MOST_INFO_BYTES)
    if unpacker.unconsumed_tail:
        raise ValueError(f"metadata of more than {MOST_INFO_BYTES} bytes")
    return content


def _parse_plan(content: bytes, stored: int) -> list[int]:
    """Offsets of the stored tensors."""
    *header, count = struct.unpack("<3i", content[:12])
    if header != [1, 0] or count != stored or len(content) != 12 + 4 * stored:
        raise ValueError(f"plan of {count} tensors in {len(content)} bytes for {stored}")
    return [int(n) for n in np.frombuffer(content, "<i4")[3:]]


def _data_of(model, buffer: int) -> bytes | None:
    data = model.buffers[buffer].data
    return None if data is None else bytes(data)


def _parse_graph(model, scales: dict[str, tuple]) -> Graph:
    """The graph in file form, without external tensors."""
    s = _schema()
    dtype_of = {getattr(s.TensorType, name.upper()): np.dtype(name) for name in DTYPES}
    (subgraph,) = model.subgraphs
    count = len(subgraph.tensors)
    (output,) = _indices(subgraph.outputs, count)
    graph = Graph(inputs=_indices(subgraph.inputs, count), output=output)
    for t in subgraph.tensors:
        name, dtype, shape = t.name.decode(), dtype_of[t.type], _shape(t.shape)
        content, data = _data_of(model, t.buffer), None
        if content is not None:
            data = np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
        scale, zero_point, features = scales.get(name, (None, 0, None))
        bits = 16 if dtype == np.int16 else 8
        quantisation = None if scale is None else Quantisation(scale, zero_point, bits)
        graph.tensors.append(Tensor(name, shape, dtype, quantisation, data, features))
    for o in subgraph.operators:
        kind = model.operatorCodes[o.opcodeIndex].customCode.decode().removeprefix(PREFIX)
        (output,) = _indices(o.outputs, count)
        op = Op(kind, tuple(_indices(o.inputs, count, least=-1)), output, None)
        values = flatbuffers.flexbuffers.Loads(bytearray(bytes(o.customOptions))) if o.customOptions is not None else {}
        options = file_form.InParams if file_form.has_params(op) else op.module.Options
        graph.ops.append(dataclasses.replace(op, options=options(**file_form.option_names(options, values))))
    return graph


def _indices(values: Sequence[int], count: int, least: int = 0) -> list[int]:
    """Tensors, by number. ValueError if there is none such."""
    found = [int(i) for i in values]
    if odd := [i for i in found if not least <= i < count]:
        raise ValueError(f"tensor {odd[0]} of {count}")
    return found


def _shape(values: Sequence[int]) -> tuple[int, ...]:
    """ValueError if it is none, or of more than 2^31 - 1 elements."""
    shape = tuple(operator.index(n) for n in values)
    if not 1 <= len(shape) <= MOST_DIMS or min(shape) < 0 or math.prod(shape) >= 1 << 31:
        raise ValueError(f"shape {shown(shape)}")
    return shape


def _add_external(
    graph: Graph, name: str, shape: Sequence[int], step: int, position: int, scales: dict[str, tuple]
) -> None:
    """Adds a tensor that is not in the file to the graph: an image in strips, or staged weights, input `position` of an
    op."""
    is_image = name in scales
    quantisation = Quantisation(*scales[name][:2]) if is_image else None
    if (
        not isinstance(name, str)
        or not 0 <= step < len(graph.ops)
        or not 0 <= position < len(graph.ops[step].module.INPUTS)
    ):
        raise ValueError(f"input {shown(position)} of op {shown(step)} is no place for {shown(name)}")
    index = graph.add_tensor(Tensor(name, _shape(shape), np.dtype(np.int8), quantisation, external=True))
    if is_image:
        graph.inputs.append(index)
    op = graph.ops[step]
    inputs = [*op.inputs, *[-1] * (position + 1 - len(op.inputs))]
    if inputs[position] >= 0:
        raise ValueError(f"input {position} of op {step} is there twice")
    inputs[position] = index
    graph.ops[step] = dataclasses.replace(op, inputs=tuple(inputs))


def same(a: Graph, b: Graph) -> str | None:
    """None if two graphs are equal, ignoring data that no file holds; else the first difference."""
    if (a.inputs, a.output, len(a.tensors), len(a.ops)) != (b.inputs, b.output, len(b.tensors), len(b.ops)):
        return "number of tensors or ops"
    for x, y in zip(a.tensors, b.tensors, strict=True):
        if (x.name, x.shape, x.dtype, x.features) != (y.name, y.shape, y.dtype, y.features):
            return f"tensor {x.name}"
        if x.external != y.external:
            return f"place of tensor {x.name}"
        if not x.external and not _same_data(x.data, y.data):
            return f"data of tensor {x.name}"
        if not _same_quantisation(x.quantisation, y.quantisation):
            return f"quantisation of tensor {x.name}"
    for mine, other in zip(a.ops, b.ops, strict=True):
        if mine != other:
            return f"op that makes {a.tensors[mine.output].name}"
    return None


def _same_data(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and np.array_equal(a, b)


def _same_quantisation(a: Quantisation | None, b: Quantisation | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.zero_point == b.zero_point and np.allclose(a.scale, b.scale, rtol=1e-6, atol=0)


def _external_entry(graph: Graph, tensor: int) -> list:
    """Name, shape, op and input of a tensor that is not in the file: an image in strips, or staged weights."""
    for step, op in enumerate(graph.ops):
        if tensor in op.inputs:
            return [graph.tensors[tensor].name, list(graph.tensors[tensor].shape), step, op.inputs.index(tensor)]
    raise ValueError(f"no op takes {graph.tensors[tensor].name}")


def _little_endian(data: np.ndarray) -> bytes:
    return np.ascontiguousarray(data.astype(data.dtype.newbyteorder("<"))).tobytes()


def _pack_info(graph: Graph, info: dict) -> bytes:
    """Scales of all activations go here: per-channel ones as distinct values and an index per channel."""
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
