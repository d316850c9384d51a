# SPDX-License-Identifier: Apache-2.0
"""CheckModel, which firmware calls before an interpreter follows a file's offsets: every exported model passes, and
damaged ones are refused, with a checksum that matches too."""

import functools
import struct

import model_edits
import numpy as np
import pytest
from conftest import TINY, lively_subnet, structured_images
from model_edits import with_checksum

from mcuformer import convert, kernel_library
from mcuformer.converter import tflite_file
from mcuformer.converter.skeleton import SCHEDULES

OPTIONS = {
    **{schedule: {"schedule": schedule} for schedule in SCHEDULES},
    "board": {"board": "nano33ble"},
    "strips": {"strips": True},
    "staged": {"weights": "staged"},
    "staged strips": {"strips": True, "weights": "staged"},
}
MOST = (1 << 31) - 1


@functools.cache
def content(name="streamed") -> bytes:
    return convert(lively_subnet(TINY, 3), structured_images(TINY, 4), **OPTIONS[name]).content


def changed(change, name="streamed") -> bytes:
    return model_edits.changed(content(name), change)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_model_passes(name):
    assert kernel_library.check_model(content(name)) is None


def test_a_model_written_anew_passes():
    """So that what the next tests change is what they are refused for."""
    assert kernel_library.check_model(changed(lambda model: None)) is None


def test_every_damaged_byte_is_found():
    data = content()
    for at in [*range(0, 200), *range(200, len(data), len(data) // 300)]:
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        assert kernel_library.check_model(bytes(damaged)) is not None, at
    for size in (0, 7, 8, 100, len(data) - 1):
        assert kernel_library.check_model(data[:size]) is not None, size


@pytest.mark.parametrize("length", range(55, 75))
def test_the_checksum_is_sha256_at_every_length_of_a_last_block(length):
    """Nothing after the digest but padding: what follows it is hashed."""
    data = b"\x08\0\0\0TFL3" + bytes(range(length)) + tflite_file.CHECKSUM_MAGIC + bytes(32) + bytes(length % 5)
    assert "checksum" in kernel_library.check_model(data)
    assert "checksum" not in kernel_library.check_model(with_checksum(data))


def plan(model):
    return next(entry.buffer for entry in model.metadata if entry.name == b"OfflineMemoryAllocation")


def offset(value, activation=0):
    """Another place in the plan for an activation."""

    def change(model):
        words = np.frombuffer(bytes(model.buffers[plan(model)].data), "<i4").copy()
        tensors = [i for i, tensor in enumerate(model.subgraphs[0].tensors) if tensor.buffer == 0]
        words[3 + tensors[activation]] = value
        model.buffers[plan(model)].data = np.frombuffer(words.tobytes(), np.uint8)

    return change


def header(word, value):
    def change(model):
        words = np.frombuffer(bytes(model.buffers[plan(model)].data), "<i4").copy()
        words[word] = value
        model.buffers[plan(model)].data = np.frombuffer(words.tobytes(), np.uint8)

    return change


def setting(path, value):
    """An attribute of the schema's objects, such as "subgraphs.0.inputs"."""

    def change(model):
        at, *rest = reversed(path.split("."))
        place = model
        for step in reversed(rest):
            place = place[int(step)] if step.lstrip("-").isdigit() else getattr(place, step)
        if at.lstrip("-").isdigit():
            place[int(at)] = value
        else:
            setattr(place, at, value)

    return change


def all_at_zero(model):
    words = np.frombuffer(bytes(model.buffers[plan(model)].data), "<i4").copy()
    words[3:][words[3:] > 0] = 0
    model.buffers[plan(model)].data = np.frombuffer(words.tobytes(), np.uint8)


def constant_output(model):
    graph = model.subgraphs[0]
    graph.operators[1].outputs = [int(graph.operators[1].inputs[1])]


def longer_constant(model):
    tensor = model.subgraphs[0].tensors[int(model.subgraphs[0].operators[1].inputs[1])]
    tensor.shape = [int(tensor.shape[0]) + 16]


def twice(model):
    model.subgraphs[0].operators.insert(1, model.subgraphs[0].operators[1])


CHANGES = {
    "input -1": (setting("subgraphs.0.inputs", [-1]), "an index is out of range"),
    "input 2^30": (setting("subgraphs.0.inputs", [1 << 30]), "an index is out of range"),
    "two inputs": (setting("subgraphs.0.inputs", [0, 0]), "one input at most"),
    "output 999": (setting("subgraphs.0.outputs", [999]), "no op makes its output"),
    "no output": (setting("subgraphs.0.outputs", []), "one output"),
    "op reads 999": (setting("subgraphs.0.operators.1.inputs", [999, 1, -1]), "an index is out of range"),
    "op makes -1": (setting("subgraphs.0.operators.1.outputs", [-1]), "an index is out of range"),
    "op makes a constant": (constant_output, "the output of an op is a constant"),
    "op code 9": (setting("subgraphs.0.operators.1.opcodeIndex", 9), "an index is out of range"),
    "op not custom": (setting("operatorCodes.0.builtinCode", 9), "not mcuformer's"),
    "op twice": (twice, "made twice"),
    "op left out": (lambda m: m.subgraphs[0].operators.pop(1), "what no op has made before it"),
    "ops turned round": (lambda m: m.subgraphs[0].operators.reverse(), "what no op has made before it"),
    "buffer 9999": (setting("subgraphs.0.tensors.0.buffer", 9999), "an index is out of range"),
    "float tensor": (setting("subgraphs.0.tensors.0.type", 0), "a type or shape that no op takes"),
    "negative shape": (setting("subgraphs.0.tensors.0.shape", [1, -8, 8, 3]), "a type or shape"),
    "2^32 elements": (setting("subgraphs.0.tensors.0.shape", [1 << 16, 1 << 16]), "a type or shape"),
    "longer constant": (longer_constant, "more or fewer bytes than its shape says"),
    "two subgraphs": (lambda m: m.subgraphs.append(m.subgraphs[0]), "not one subgraph"),
    "version": (setting("version", 2), "version 3"),
    "plan version": (header(0, 2), "its memory plan is not one of its tensors"),
    "plan subgraph": (header(1, 1), "its memory plan is not one of its tensors"),
    "plan count": (header(2, 1), "its memory plan is not one of its tensors"),
    "plan at -2": (offset(-16), "an offset that is negative"),
    "plan unaligned": (offset(8), "an offset that is negative"),
    "plan beyond": (offset(MOST - 15), "an offset that is negative"),
    "plan all at 0": (all_at_zero, "over another that is still in use"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_contradicts_itself_is_refused(name):
    change, words = CHANGES[name]
    assert words in kernel_library.check_model(changed(change, "overwrite" if name == "plan all at 0" else "streamed"))


@pytest.mark.parametrize("name", OPTIONS)
def test_damage_with_a_matching_checksum_is_refused_or_harmless(name):
    """Whatever stands in the tables, the check reads nothing outside (make test-sanitize sees it) and ends."""
    data = content(name)
    magic = data.rindex(tflite_file.CHECKSUM_MAGIC)
    rng = np.random.default_rng(len(data))
    refused = 0
    for _ in range(400):
        damaged = bytearray(data)
        at = 4 * int(rng.integers(len(data) // 4))
        if magic - 4 < at < magic + 16:
            continue
        struct.pack_into("<I", damaged, at, int(rng.choice([0, 1, 4, len(data), MOST, 2**32 - 1, rng.integers(2**32)])))
        refused += kernel_library.check_model(with_checksum(bytes(damaged))) is not None
    assert refused > 0
