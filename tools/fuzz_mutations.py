# SPDX-License-Identifier: Apache-2.0
"""The ways in which tools/fuzz_models.py damages a model, each with its checksum made anew.

A mutation changes a Mutant in place: the flatbuffer as objects, its buffers as bytes, or last the file itself.
"""

from __future__ import annotations

import json
import pickle
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import flatbuffers
import flatbuffers.flexbuffers

from mcuformer.converter import tflite_file
from mcuformer.converter import tflite_schema_generated as schema
from mcuformer.converter.passes.staging import weights_info

NUMBERS = (0, 1, -1, 2, 3, 4, 16, 127, 128, -128, 255, 256, 999, 1 << 15, 1 << 16, 1 << 30, (1 << 31) - 1, -(1 << 31))
OTHERS = (
    None, True, False, "", "x", "é", [], {}, [1], [[]], 0.5, -1.5, 1e300, float("nan"), float("inf"), 1 << 40, 1 << 70,
)  # fmt: skip
OPTION_NAMES = ("x", "tile_bytes", "packing", "zero_point", "block", "weights_offset")


@dataclass(frozen=True)
class Seed:
    """A sound model. weights: its weights file; None: its weights are in the model. arena_bytes: what it needs;
    image_shape: height, width, channels."""

    name: str
    content: bytes
    weights: bytes | None
    arena_bytes: int
    image_shape: tuple[int, int, int]


@dataclass
class Mutant:
    """What is to be damaged. model: ModelT, whose buffers' data are bytes; file: done to the file at last."""

    model: Any
    weights: bytes | None
    file: Callable[[bytes], bytes] = bytes

    @property
    def graph(self) -> Any:
        return self.model.subgraphs[0]

    def metadata(self, name: str) -> bytes:
        return self.model.buffers[self._buffer(name)].data

    def set_metadata(self, name: str, content: bytes) -> None:
        self.model.buffers[self._buffer(name)].data = content

    def _buffer(self, name: str) -> int:
        return next(entry.buffer for entry in self.model.metadata if entry.name == name.encode())

    def constants(self) -> list[int]:
        """Buffers of constants."""
        held = {tensor.buffer for tensor in self.graph.tensors}
        return sorted(i for i in held if self.model.buffers[i].data)

    def content(self) -> bytes:
        """The file, with a checksum that fits."""
        self.set_metadata(tflite_file.CHECKSUM_METADATA, tflite_file.CHECKSUM_MAGIC + bytes(tflite_file.DIGEST_BYTES))
        buffers = tflite_file._Buffers(schema)
        for buffer in self.model.buffers[1:]:
            buffers.add(buffer.data or b"")
            if buffer.data is None:
                buffers.held[-1].data = None
        self.model.buffers = buffers.held
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), file_identifier=tflite_file.FILE_IDENTIFIER)
        return repaired(self.file(bytes(builder.Output())))


def repaired(content: bytes) -> bytes:
    """The file with a checksum that fits; as it is, if it has none."""
    at = content.rfind(tflite_file.CHECKSUM_MAGIC) + len(tflite_file.CHECKSUM_MAGIC)
    if at < len(tflite_file.CHECKSUM_MAGIC) or at + tflite_file.DIGEST_BYTES > len(content):
        return content
    return tflite_file._with_checksum(
        content[:at] + bytes(tflite_file.DIGEST_BYTES) + content[at + tflite_file.DIGEST_BYTES :]
    )


@cache
def _parsed(content: bytes) -> bytes:
    """A file as a pickled ModelT of plain values: the fastest to copy."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    for buffer in model.buffers:
        buffer.data = None if buffer.data is None else bytes(buffer.data)
    graph = model.subgraphs[0]
    graph.inputs, graph.outputs = _ints(graph.inputs), _ints(graph.outputs)
    for tensor in graph.tensors:
        tensor.shape = _ints(tensor.shape)
    for op in graph.operators:
        op.inputs, op.outputs = _ints(op.inputs), _ints(op.outputs)
        op.customOptions = None if op.customOptions is None else _ints(op.customOptions)
    return pickle.dumps(model)


def _ints(values: Any) -> list[int]:
    return [int(value) for value in values] if not isinstance(values, int) else []


def _number(value: int, rng: random.Random) -> int:
    """Another whole number of 32 bits."""
    near = (value + 1, value - 1, value * 2, value // 2, -value, value ^ 1 << rng.randrange(31))
    return (rng.choice(NUMBERS if rng.random() < 0.5 else near) + (1 << 31)) % (1 << 32) - (1 << 31)


def _change_list(values: list[int], rng: random.Random, least: int = -(1 << 31)) -> None:
    """One number is another, is left out, doubled or added, or two are swapped."""
    how = rng.randrange(8)
    if not values or how == 0:
        values.insert(rng.randrange(len(values) + 1), max(least, rng.choice(NUMBERS)))
    elif how == 1:
        del values[rng.randrange(len(values))]
    elif how == 2:
        i, j = rng.randrange(len(values)), rng.randrange(len(values))
        values[i], values[j] = values[j], values[i]
    else:
        i = rng.randrange(len(values))
        values[i] = max(least, _number(values[i], rng))


def _shape(mutant: Mutant, rng: random.Random) -> None:
    _change_list(rng.choice(mutant.graph.tensors).shape, rng)


def _tensor(mutant: Mutant, rng: random.Random) -> None:
    """Its type, buffer, name or scale."""
    tensor, other = rng.choice(mutant.graph.tensors), rng.choice(mutant.graph.tensors)
    how = rng.randrange(6)
    if how == 0:
        tensor.type = rng.choice((0, 2, 3, 7, 9, rng.randrange(24)))
    elif how == 1:
        tensor.buffer = rng.choice((0, other.buffer, rng.randrange(len(mutant.model.buffers))))
    elif how == 2:
        tensor.buffer = max(0, _number(tensor.buffer, rng))
    elif how == 3:
        tensor.name = rng.choice((None, b"", other.name, b"\xff", b"x" * 300))
    elif how == 4:
        tensor.quantization = other.quantization
    else:
        mutant.graph.tensors.insert(rng.randrange(len(mutant.graph.tensors) + 1), other)


def _edges(mutant: Mutant, rng: random.Random) -> None:
    """Inputs and outputs of an op: another number, or another tensor."""
    op = rng.choice(mutant.graph.operators)
    values = rng.choice((op.inputs, op.inputs, op.outputs))
    if values and rng.random() < 0.5:
        values[rng.randrange(len(values))] = rng.randrange(-1, len(mutant.graph.tensors))
    else:
        _change_list(values, rng)


def _code(mutant: Mutant, rng: random.Random) -> None:
    codes, op = mutant.model.operatorCodes, rng.choice(mutant.graph.operators)
    code, how = rng.choice(codes), rng.randrange(6)
    if how < 2:
        op.opcodeIndex = rng.randrange(len(codes)) if how else max(0, _number(op.opcodeIndex, rng))
    elif how == 2:
        code.builtinCode = rng.choice((0, 1, 9, 32, 25, 200, -1))
    elif how == 3:
        code.deprecatedBuiltinCode = rng.choice((0, 9, 32, 25, 127, -1))
    elif how == 4:
        code.customCode = rng.choice((None, b"", b"IntGeLU", b"mcuformer.", b"mcuformer.Nothing", codes[0].customCode))
    else:
        code.version = _number(code.version, rng)


def _order(mutant: Mutant, rng: random.Random) -> None:
    ops = mutant.graph.operators
    at, how = rng.randrange(len(ops)), rng.randrange(4)
    if how == 0:
        ops.insert(rng.randrange(len(ops) + 1), ops[at])
    elif how == 1:
        del ops[at]
    elif how == 2:
        ops.insert(rng.randrange(len(ops)), ops.pop(at))
    else:
        copy = pickle.loads(pickle.dumps(ops[at]))
        ops.insert(rng.randrange(len(ops) + 1), copy)
        copy.outputs = list(rng.choice(ops).outputs)


def _ends(mutant: Mutant, rng: random.Random) -> None:
    """Inputs and outputs of the graph."""
    values = rng.choice((mutant.graph.inputs, mutant.graph.outputs))
    if values and rng.random() < 0.5:
        values[rng.randrange(len(values))] = rng.randrange(-1, len(mutant.graph.tensors))
    else:
        _change_list(values, rng)


def _other_value(value: Any, rng: random.Random) -> Any:
    """What an option or an entry of JSON may become."""
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.7:
        return _number(value, rng)
    if isinstance(value, float) and rng.random() < 0.5:
        return rng.choice((-value, 0.0, value * 2, 1e-300, 1e38, float("nan")))
    return rng.choice(OTHERS + NUMBERS)


def _options(mutant: Mutant, rng: random.Random) -> None:
    op = rng.choice([op for op in mutant.graph.operators if op.customOptions] or mutant.graph.operators)
    if rng.random() < 0.3 and op.customOptions:
        raw = bytearray(op.customOptions)
        raw[rng.randrange(len(raw))] = rng.choice((0, 255, rng.randrange(256)))
        op.customOptions = list(raw[: rng.choice((len(raw), len(raw), rng.randrange(len(raw) + 1)))])
        return
    values = flatbuffers.flexbuffers.Loads(bytearray(op.customOptions)) if op.customOptions else {}
    keys, how = list(values), rng.randrange(5)
    if not keys or how == 0:
        values[rng.choice(OPTION_NAMES)] = rng.choice(NUMBERS)
    elif how == 1:
        del values[rng.choice(keys)]
    else:
        key = rng.choice(keys)
        values[key] = _other_value(values[key], rng)
    try:
        op.customOptions = list(flatbuffers.flexbuffers.Dumps(values))
    except (OverflowError, ValueError, RuntimeError, struct.error):  # a number or key that no flexbuffer holds
        op.customOptions = None


def _plan(mutant: Mutant, rng: random.Random) -> None:
    words = list(struct.unpack(f"<{len(mutant.metadata(tflite_file.PLAN_METADATA)) // 4}i",
                               mutant.metadata(tflite_file.PLAN_METADATA)))  # fmt: skip
    how = rng.randrange(6)
    if how == 0:
        _change_list(words, rng)
    elif how == 1:
        words[3:] = [min(word, 0) for word in words[3:]]  # all at 0
    elif how == 2:
        words[rng.randrange(3)] = rng.choice(NUMBERS)
    else:
        at = rng.randrange(3, len(words))
        words[at] = rng.choice(
            (words[at] + rng.choice((-16, 16, 1, -1, 4, 64)), rng.choice(words), rng.choice(NUMBERS))
        )
    mutant.set_metadata(tflite_file.PLAN_METADATA, struct.pack(f"<{len(words)}i", *words))


def _info(mutant: Mutant) -> dict[str, Any]:
    return json.loads(zlib.decompress(mutant.metadata(tflite_file.MODEL_METADATA)))


def _set_info(mutant: Mutant, info: Any) -> None:
    mutant.set_metadata(tflite_file.MODEL_METADATA, zlib.compress(json.dumps(info).encode(), 1))


def _change_entry(inside: Any, key: Any, rng: random.Random, left_out: float) -> None:
    """An entry of a dict or list is another, or left out as often as said."""
    if rng.random() < left_out:
        del inside[key]
    else:
        inside[key] = _other_value(inside[key], rng)


def _sizes(mutant: Mutant, rng: random.Random) -> None:
    """The sizes that the metadata state."""
    info = _info(mutant)
    keys = sorted(key for key, value in info.items() if isinstance(value, int) and not isinstance(value, bool))
    key = "needed_bytes" if rng.random() < 0.5 else rng.choice(keys)
    _change_entry(info, key, rng, 0.1)
    _set_info(mutant, info)


def _entries(mutant: Mutant, rng: random.Random) -> None:
    """Any entry of the metadata, however deep; or the JSON's text."""
    info = _info(mutant)
    if rng.random() < 0.1:
        text = bytearray(json.dumps(info).encode())
        text[rng.randrange(len(text))] = rng.randrange(256)
        mutant.set_metadata(tflite_file.MODEL_METADATA, zlib.compress(bytes(text), 1))
        return
    inside: Any = info
    while True:
        keys = sorted(inside) if isinstance(inside, dict) else range(len(inside))
        key = rng.choice(list(keys))
        if not isinstance(inside[key], dict | list) or not inside[key] or rng.random() < 0.15:
            break
        inside = inside[key]
    _change_entry(inside, key, rng, 0.15)
    _set_info(mutant, info)


def _words(data: bytes, rng: random.Random) -> bytes:
    """One to three numbers of 8, 16 or 32 bits are others."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        size, form = rng.choice(((1, "b"), (2, "<h"), (4, "<i"), (4, "<i"), (4, "<i")))
        if size > len(made):
            continue
        at = rng.randrange(len(made) // size) * size
        (value,) = struct.unpack_from(form, made, at)
        least = -(1 << (8 * size - 1))
        value = rng.choice((0, 1, -1, least, -least - 1, _number(value, rng)))
        struct.pack_into(form, made, at, (value - least) % (1 << 8 * size) + least)
    return bytes(made)


def _constants(mutant: Mutant, rng: random.Random) -> None:
    """Numbers of a constant; sometimes its end."""
    buffer = mutant.model.buffers[rng.choice(mutant.constants())]
    data = _words(buffer.data, rng)
    how = rng.randrange(12)
    if how == 0:
        data = data[: rng.randrange(len(data) + 1)]
    elif how == 1:
        data += bytes(rng.choice((1, 4, 16, 100)))
    elif how == 2:
        data = rng.choice((bytes(len(data)), b"\x7f" * len(data), b"\x80" * len(data), rng.randbytes(len(data))))
    buffer.data = data


def _params(mutant: Mutant, rng: random.Random) -> None:
    """The head of a Streamed op's params: sections and scalars; of a model without one: any constant."""
    blobs = [t.buffer for t in mutant.graph.tensors if t.name and t.name.endswith(b"/params")]
    if not blobs:
        return _constants(mutant, rng)
    buffer = mutant.model.buffers[rng.choice(blobs)]
    (count,) = struct.unpack_from("<i", buffer.data)
    offset, size = struct.unpack_from("<2i", buffer.data, 4)
    head = 4 + 8 * count
    start, stop = rng.choice(((0, head), (offset, offset + size), (offset, offset + size)))
    buffer.data = buffer.data[:start] + _words(buffer.data[start:stop], rng) + buffer.data[stop:]
    return None


def _weights(mutant: Mutant, rng: random.Random) -> None:
    """The weights file, half the time with its hash in the model made anew; of a model without one: any constant."""
    if mutant.weights is None:
        return _constants(mutant, rng)
    data = _words(mutant.weights, rng)
    how = rng.randrange(4)
    if how == 0:
        data = data[: rng.randrange(len(data))]
    elif how == 1:
        data += bytes(rng.choice((1, 16, 1000)))
    mutant.weights = data
    if rng.random() < 0.5:
        _set_info(mutant, {**_info(mutant), "weights": weights_info(data)})
    return None


def _bytes(mutant: Mutant, rng: random.Random) -> None:
    """Bytes of the file: offsets and lengths of the flatbuffer."""
    own = random.Random(rng.random())

    def change(content: bytes) -> bytes:
        made = bytearray(content)
        for _ in range(own.choice((1, 1, 2, 4))):
            at = own.randrange(len(made))
            if own.random() < 0.5:
                made[at] = own.choice((0, 255, 128, own.randrange(256)))
            else:
                made[at & ~3 : (at & ~3) + 4] = struct.pack("<i", own.choice(NUMBERS))
        return bytes(made)

    mutant.file = change


def _length(mutant: Mutant, rng: random.Random) -> None:
    own = random.Random(rng.random())

    def change(content: bytes) -> bytes:
        at, size = own.randrange(len(content)), own.choice((1, 4, 16, 256))
        return own.choice(
            (
                content[:at], content[:-size], content + bytes(size), content + own.randbytes(size), content + content,
                content[:at] + content[at + size :], content[:at] + bytes(size) + content[at:],
            )
        )  # fmt: skip

    mutant.file = change


KINDS: dict[str, Callable[[Mutant, random.Random], None]] = {
    "tensor shapes": _shape,
    "tensor types, buffers, names": _tensor,
    "op inputs and outputs": _edges,
    "op codes": _code,
    "ops doubled, left out, moved": _order,
    "graph inputs and outputs": _ends,
    "options": _options,
    "memory plan": _plan,
    "metadata: sizes": _sizes,
    "metadata: other entries": _entries,
    "constants": _constants,
    "params of Streamed ops": _params,
    "weights file": _weights,
    "bytes of the file": _bytes,
    "cut or longer files": _length,
}
SEVERAL = "several of these"


def mutate(seeds: list[Seed], seed: int, number: int) -> tuple[str, Seed, bytes, bytes | None]:
    """Mutant `number`: its kind, the seed it is made of, its file and weights file; always the same."""
    rng = random.Random(f"{seed} {number}")
    kind = rng.choice([*KINDS, SEVERAL])
    for _ in range(100):
        source = rng.choice(seeds)
        mutant = Mutant(pickle.loads(_parsed(source.content)), source.weights)
        for chosen in [kind] if kind != SEVERAL else rng.choices(list(KINDS), k=rng.choice((2, 2, 3, 5))):
            try:
                KINDS[chosen](mutant, rng)
            except (LookupError, ValueError, struct.error, AttributeError, TypeError, StopIteration):
                if kind != SEVERAL:  # else: what an earlier mutation left cannot be changed so
                    raise
        try:
            content = mutant.content()
        except (TypeError, struct.error, AttributeError, OverflowError):  # no flatbuffer can say so
            continue
        if (content, mutant.weights) != (_same(source.content), source.weights):
            return kind, source, content, mutant.weights
    raise AssertionError(f"mutant {number} of seed {seed}: no change in 100 attempts")


@cache
def _same(content: bytes) -> bytes:
    """The file as a Mutant without change writes it."""
    return Mutant(pickle.loads(_parsed(content)), None).content()
