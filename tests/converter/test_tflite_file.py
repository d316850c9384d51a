# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from flatbuffers import flexbuffers
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

from mcuformer import convert
from mcuformer.converter import tflite_file
from mcuformer.converter.file_form import option_names
from mcuformer.converter.graph import Graph
from mcuformer.converter.ops import OPS, decomposed_patch_embed, in_place_fc, stem_conv
from mcuformer.converter.quantise import Quantisation
from mcuformer.errors import ModelError


def test_read_gives_back_what_was_written(tiny_model):
    stored = tflite_file.read(tiny_model.content)
    assert tflite_file.same(tiny_model.graph, stored.graph) is None
    assert list(stored.offsets) == tiny_model.offsets
    assert stored.info["arena_bytes"] == tiny_model.plan.arena_bytes


def test_writing_is_deterministic(tiny_model):
    assert tflite_file.write(tiny_model.graph, tiny_model.offsets, tiny_model.info) == tiny_model.content


def test_every_constant_is_aligned_to_16(tiny_model):
    model = schema.Model.GetRootAs(tiny_model.content)
    checked = 0
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            data = buffer.DataAsNumpy()
            start = data.__array_interface__["data"][0] - np.frombuffer(tiny_model.content, np.uint8).ctypes.data
            assert start % 16 == 0, f"buffer {i} starts at {start}"
            checked += 1
    assert checked > 50
    assert len(tiny_model.content) % 16 == 0


def test_stock_readers_see_a_plain_model(tiny_model):
    """By the schema alone: custom ops by name, weights inside, the plan's metadata, FlexBuffers options."""
    model = schema.ModelT.InitFromPackedBuf(tiny_model.content, 0)
    names = {code.customCode.decode() for code in model.operatorCodes}
    assert names == {
        "mcuformer.DecomposedPatchEmbed", "mcuformer.IntLayerNorm", "mcuformer.InPlaceFC", "mcuformer.IntAttention",
        "mcuformer.TokenMean",
    }  # fmt: skip
    assert all(code.builtinCode == schema.BuiltinOperator.CUSTOM for code in model.operatorCodes)
    (plan,) = [m for m in model.metadata if m.name == b"OfflineMemoryAllocation"]
    numbers = np.frombuffer(bytes(model.buffers[plan.buffer].data), "<i4")
    assert numbers[:3].tolist() == [1, 0, len(model.subgraphs[0].tensors)]
    assert numbers[3:].tolist() == tiny_model.offsets
    for tensor in model.subgraphs[0].tensors:
        buffer = model.buffers[tensor.buffer]
        assert not buffer.offset, "weights must lie inside the flatbuffer"


def option_keys(content: bytes, kind: str) -> set[str]:
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    codes = [code.customCode.decode() for code in model.operatorCodes]
    ops = [op for op in model.subgraphs[0].operators if codes[op.opcodeIndex] == f"mcuformer.{kind}"]
    return set().union(*(flexbuffers.Loads(bytearray(bytes(op.customOptions))) for op in ops))


def test_two_options_keep_the_keys_that_files_have(tiny_net, tiny_images):
    """What Python and C call blocks_per_read and tokens_per_read."""
    content = convert(tiny_net, tiny_images, schedule="overwrite", weights="staged").content
    staged = {"tile_bytes", "weights_offset", "zero_point"}
    assert option_keys(content, "DecomposedPatchEmbed") == staged | {"patch_size", "blocks"}
    assert option_keys(content, "InPlaceFC") == staged | {"in_features", "block"}


def test_options_are_known_by_key_and_by_name():
    assert option_names(in_place_fc.Options, {"block": 4, "packing": 1}) == {"tokens_per_read": 4, "packing": 1}
    assert option_names(in_place_fc.Options, {"tokens_per_read": 4}) == {"tokens_per_read": 4}
    assert option_names(decomposed_patch_embed.Options, {"blocks": 2, "block": 1}) == {"blocks_per_read": 2, "block": 1}


def test_no_constant_is_planned_and_every_activation_is(tiny_model):
    for tensor, offset in zip(tiny_model.graph.tensors, tiny_model.offsets, strict=True):
        assert (offset == -1) == tensor.is_constant, tensor.name


def written(graph: Graph) -> bytes:
    return tflite_file.write(graph, [-1] * len(graph.tensors), {})


def embedding_graph(kind: str, prefix_tokens: int) -> Graph:
    """A network of one op that makes tokens of an image."""
    scale = Quantisation(0.1, 0)
    graph = Graph()
    image = graph.add_input("image", (1, 8, 8, 3), scale)
    weights, patches = (np.ones((1, 6, 48), np.int8), 4) if kind == "DecomposedPatchEmbed" else (
        np.ones((6, 3, 3, 3), np.int8), 16)  # fmt: skip
    constants = {
        "weights": weights, "bias": np.zeros(6, np.int32), "multiplier": np.ones(6, np.int32),
        "position": np.zeros((1, patches, 6), np.int8), "position_scale": np.ones(6, np.int16),
        "prefix": np.arange(6 * prefix_tokens, dtype=np.int8).reshape(-1, 6) if prefix_tokens else None,
    }  # fmt: skip
    options = decomposed_patch_embed.Options(4, 0) if weights.ndim == 3 else stem_conv.Options(0, 0, -128)
    graph.output = graph.add_op(kind, "embed", options, {OPS[kind].INPUTS[0]: image}, constants, scale)
    return graph


@pytest.mark.parametrize("prefix_tokens", [0, 2])
@pytest.mark.parametrize("kind", ["DecomposedPatchEmbed", "StemConv"])
def test_a_prefix_that_is_not_there_is_left_out_at_the_end(kind, prefix_tokens):
    """So that a file of a network without one is what it was before there were prefixes. Readers take both."""
    graph = embedding_graph(kind, prefix_tokens)
    assert len(graph.ops[0].inputs) == 7
    content = written(graph)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    inputs = list(model.subgraphs[0].operators[0].inputs)
    assert inputs == list(range(7 if prefix_tokens else 6))
    assert tflite_file.same(graph, tflite_file.parse(content).graph) is None


@pytest.mark.parametrize("kind", ["DecomposedPatchEmbed", "StemConv"])
def test_a_file_may_say_that_there_is_no_prefix(kind, monkeypatch):
    graph = embedding_graph(kind, 0)
    monkeypatch.setattr(OPS[kind], "OPTIONAL_LAST", ())
    content = written(graph)
    assert list(schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0].operators[0].inputs) == [*range(6), -1]
    monkeypatch.undo()
    assert tflite_file.same(graph, tflite_file.parse(content).graph) is None


def test_only_what_is_optional_may_be_left_out(tiny_model):
    """The reader adds no other inputs, and the writer keeps what stands before one that is there."""
    graph = embedding_graph("DecomposedPatchEmbed", 0)
    (op,) = graph.ops
    assert [part for part in op.inputs if part < 0] == [-1]
    graph.ops = [dataclasses.replace(op, inputs=(*op.inputs[:4], -1, -1, -1))]
    content = written(graph)
    assert list(schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0].operators[0].inputs) == [0, 1, 2, 3, -1, -1]
    assert tflite_file.parse(content).graph.ops[0].inputs == (0, 1, 2, 3, -1, -1, -1)
    graph.ops = [dataclasses.replace(op, inputs=op.inputs[:5])]
    content = written(graph)
    assert tflite_file.parse(content).graph.ops[0].inputs == op.inputs[:5]
    last = [op for op in tiny_model.graph.ops if op.kind == "InPlaceFC"]
    assert {len(op.inputs) for op in last} == {7}  # its last inputs are written even where it lacks them
    model = schema.ModelT.InitFromPackedBuf(tiny_model.content, 0)
    name = [code.customCode for code in model.operatorCodes].index(b"mcuformer.InPlaceFC")
    assert {len(op.inputs) for op in model.subgraphs[0].operators if op.opcodeIndex == name} == {7}


def test_single_bit_flips_are_found(tiny_model):
    rng = np.random.default_rng(5)
    for _ in range(200):
        damaged = bytearray(tiny_model.content)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        with pytest.raises(ModelError):
            tflite_file.read(bytes(damaged))


def test_a_newer_format_is_named(tiny_model, monkeypatch):
    monkeypatch.setattr(tflite_file, "FORMAT", "mcuformer.model/9")
    newer = tflite_file.write(tiny_model.graph, tiny_model.offsets, tiny_model.info)
    monkeypatch.undo()
    with pytest.raises(ModelError, match="mcuformer.model/9"):
        tflite_file.read(newer)


def test_tensorflows_analyzer_reads_it(tiny_model, tmp_path, capfd):
    tensorflow = pytest.importorskip("tensorflow", reason="needs the bench extra (tensorflow)")
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny_model.content)
    tensorflow.lite.experimental.Analyzer.analyze(model_path=str(path))
    assert "mcuformer.InPlaceFC" in capfd.readouterr().out
