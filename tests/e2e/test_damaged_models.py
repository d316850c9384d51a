# SPDX-License-Identifier: Apache-2.0
"""What a damaged file states is not believed, though its checksum fits: one line, in both engines, before any runs."""

import zlib

import numpy as np
import pytest
from flatbuffers import flexbuffers
from model_edits import changed, with_info, with_metadata

from mcuformer import Interpreter, McuformerError, convert
from mcuformer.converter import model_check, tflite_file
from mcuformer.errors import ModelError, ToolchainError

ENGINES = ("tflm", "c")


@pytest.fixture(scope="module")
def models(tiny_net, tiny_images):
    """name -> what convert() returned."""
    options = {
        "overwrite": {"schedule": "overwrite"}, "streamed": {}, "strips": {"strips": True},
        "staged": {"weights": "staged"},
    }  # fmt: skip
    return {name: convert(tiny_net, tiny_images[:8], **given) for name, given in options.items()}


def refused(content: bytes, model, match: str) -> None:
    weights = model.weights_content or None
    for engine in ENGINES:
        with pytest.raises(ModelError, match=match) as caught:
            Interpreter(content, engine=engine, weights=weights)
        assert "\n" not in str(caught.value)


def test_a_model_written_anew_is_read(models, tiny_images):
    """So that the others are refused for what is changed in them."""
    for model in models.values():
        for engine in ENGINES:
            content = with_info(changed(model.content, lambda model: None), lambda info: None)
            interpreter = Interpreter(content, engine=engine, weights=model.weights_content or None)
            np.testing.assert_array_equal(interpreter(tiny_images[:2]), model.reference(tiny_images[:2]))


@pytest.mark.parametrize("value", [0, 1, None, "x", [], 1 << 40, -5, 3.5, True])
@pytest.mark.parametrize("name", ["needed_bytes", "arena_bytes", "head_bytes"])
def test_sizes_are_compared_with_the_plan(models, name, value):
    model = models["streamed"]
    refused(with_info(model.content, lambda info: info.update({name: value})), model, f"{name} = ")


@pytest.mark.parametrize(
    "name", ["needed_bytes", "config", "schedule", "class_names", "scales", "external", "weights", "format", "board"]
)
def test_no_entry_may_be_missing(models, name):
    for model in models.values():
        refused(with_info(model.content, lambda info: info.pop(name)), model, name)


@pytest.mark.parametrize("index", [-1, 999, 1 << 30, (1 << 31) - 1, -(1 << 31)])
@pytest.mark.parametrize("end", ["inputs", "outputs"])
def test_inputs_and_outputs_of_the_graph_are_tensors(models, end, index):
    model = models["overwrite"]
    refused(changed(model.content, lambda m: setattr(m.subgraphs[0], end, [index])), model, "tensor -?[0-9]+ of")


def ops(change):
    return lambda model: change(model.subgraphs[0].operators)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (ops(lambda ops: ops.insert(2, ops[1])), "made twice"),
        (ops(lambda ops: ops.pop(1)), "before it is made"),
        (ops(lambda ops: ops.pop()), "the last op does not make the output"),
        (ops(lambda ops: ops.insert(1, ops.pop(2))), "before it is made"),
        (ops(lambda ops: ops.clear()), "the last op does not make the output"),
        (ops(lambda ops: setattr(ops[1], "inputs", ops[1].inputs[:1])), "IntLayerNorm"),
        (ops(lambda ops: setattr(ops[1], "inputs", [*ops[1].inputs, 0, 0])), "IntLayerNorm"),
        (ops(lambda ops: setattr(ops[1], "outputs", [])), "values to unpack"),
    ],
)  # fmt: skip
def test_every_op_is_there_once_in_order(models, change, match):
    model = models["overwrite"]
    refused(changed(model.content, change), model, match)


def test_an_output_that_is_a_constant_is_refused(models):
    """An op would write into the model."""

    def change(model):
        graph = model.subgraphs[0]
        graph.tensors[graph.operators[1].outputs[0]].buffer = graph.tensors[graph.operators[0].inputs[1]].buffer

    refused(changed(models["overwrite"].content, change), models["overwrite"], "damaged")


def plan(change):
    """change(offsets): the numbers of the plan after version, subgraph and count."""

    def edit(content):
        numbers = np.frombuffer(content, "<i4").copy()
        change(numbers)
        return numbers.tobytes()

    return edit


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda n: n.__setitem__(0, 2), "plan of"),
        (lambda n: n.__setitem__(2, 1), "plan of"),
        (lambda n: n[3:].__setitem__(n[3:] >= 0, 0), "overlap"),
        (lambda n: n.__setitem__(3, n[3] + 8), "multiple of 16"),
        (lambda n: n.__setitem__(3, -16), "no place"),
        (lambda n: n[3:].__setitem__(n[3:] < 0, 0), "has a place"),
        (lambda n: n.__setitem__(3, 1 << 30), "bytes = "),
    ],
)
def test_the_memory_plan_is_checked(models, change, match):
    model = models["overwrite"]
    refused(with_metadata(model.content, tflite_file.PLAN_METADATA, plan(change)), model, match)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"num_classes": 4}, "its config"), ({"embed_dim": 32}, "its config"), ({"depth": 1}, "its config"),
        ({"image_size": 32}, "its config"), ({"depth": 1 << 40}, "its config"), ({"stem": "conv"}, "its config"),
        ({"mlp_ratio": "x"}, "its config"), ({"x": 1}, "its config"),
    ],
)  # fmt: skip
def test_a_config_of_another_network_is_refused(models, values, match):
    for model in models.values():
        refused(with_info(model.content, lambda info: info["config"].update(values)), model, match)


@pytest.mark.parametrize("names", [["a"], list("abcdef"), [1, 2, 3, 4, 5], None, "abcde", [], {"a": 1}])
def test_class_names_are_as_many_as_outputs(models, names):
    model = models["streamed"]
    refused(with_info(model.content, lambda info: info.update(class_names=names)), model, "class_names")


@pytest.mark.parametrize("schedule", ["overwrite", "x", None, 3])
def test_the_schedule_is_that_of_the_ops(models, schedule):
    model = models["streamed"]
    refused(with_info(model.content, lambda info: info.update(schedule=schedule)), model, "its config")


@pytest.mark.parametrize(
    "scale", [[[0.0], None, 0, None], [[-1.0], None, 0, None], [[1.0], None, 300, None], [[1.0], None, 0.5, None],
              [[1e999], None, 0, None], [[1.0], None, 0, 999], ["x", None, 0, None], [[1.0, 2.0], [0, 1], 0, None], []],
)  # fmt: skip
def test_scales_are_those_of_an_int8_tensor(models, scale):
    model = models["overwrite"]

    def change(info):
        info["scales"][model.graph.tensors[model.graph.output].name] = scale

    refused(with_info(model.content, change), model, "damaged")


def test_staged_weights_are_read_where_they_are(models):
    model = models["staged"]

    def change(m):
        op = next(op for op in m.subgraphs[0].operators if op.customOptions is not None)
        values = flexbuffers.Loads(bytearray(bytes(op.customOptions)))
        values["weights_offset"] = 16
        op.customOptions = list(flexbuffers.Dumps(values))

    refused(changed(model.content, change), model, "reads them from byte 16")


@pytest.mark.parametrize("weights", [None, {}, 3, {"bytes": 1}, {"bytes": 1, "sha256": "x"}])
def test_what_is_said_of_the_weights_file_is_compared_with_it(models, weights):
    model = models["staged"]
    content = with_info(model.content, lambda info: info.update(weights=weights))
    refused(content, model, "staged weights|not the weights")


def test_weights_are_those_that_every_kernel_adds_up(models):
    model = models["overwrite"]
    (op,) = (op for op in model.graph.ops if model.graph.tensors[op.output].name == "head")
    weights = model.graph.tensors[model.graph.weights(op)[0]].data

    def change(m):
        (buffer,) = (b for b in m.buffers if b.data is not None and bytes(b.data)[: weights.size] == weights.tobytes())
        buffer.data = [128, *list(buffer.data)[1:]]  # -128

    refused(changed(model.content, change), model, "has a weight of -128: must be -127 to 127")


@pytest.mark.parametrize("value", [0.5, "x", True, [1], None, {"a": 1}])
def test_options_are_whole_numbers(models, value):
    model = models["overwrite"]

    def change(m):
        op = next(op for op in m.subgraphs[0].operators if op.customOptions is not None)
        values = flexbuffers.Loads(bytearray(bytes(op.customOptions)))
        values["zero_point"] = value
        op.customOptions = list(flexbuffers.Dumps(values))

    refused(changed(model.content, change), model, "must be whole")


def test_metadata_that_unpacks_to_gigabytes_is_refused(models):
    bomb = zlib.compress(b" " * (1 << 25))
    content = with_metadata(models["streamed"].content, tflite_file.MODEL_METADATA, lambda _: bomb)
    refused(content, models["streamed"], "metadata of more than")


def test_metadata_nested_too_deep_is_refused(models):
    deep = zlib.compress(b"[" * 100_000)
    content = with_metadata(models["streamed"].content, tflite_file.MODEL_METADATA, lambda _: deep)
    refused(content, models["streamed"], "RecursionError")


def test_exports_and_inspect_refuse_what_the_interpreter_refuses(models, tmp_path):
    from mcuformer.converter.export.registry import export

    content = with_info(models["streamed"].content, lambda info: info.update(class_names=["a"]))
    (tmp_path / "model.tflite").write_bytes(content)
    with pytest.raises(McuformerError, match="class_names"):
        export(tmp_path / "model.tflite", "c", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_kernels_that_are_missing_are_no_damage_of_the_model(models, monkeypatch):
    def missing(*_):
        raise ToolchainError("no kernels")

    monkeypatch.setattr(model_check, "stored_plan", missing)
    with pytest.raises(ToolchainError, match="^no kernels$"):
        Interpreter(models["overwrite"].content)
