# SPDX-License-Identifier: Apache-2.0
"""Engine "c", the kernels without an interpreter: bit-exact as engine "tflm" is, and never a crash.

tests/e2e/test_exactness.py runs 200 random networks through both."""

import ctypes
import dataclasses
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import TINY, lively_subnet, structured_images

from mcuformer import Interpreter, QuantisationOptions, convert, kernel_library, run_op, sources
from mcuformer.converter.export import c_model
from mcuformer.converter.graph import to_int8
from mcuformer.converter.ops import int_gelu, int_layer_norm
from mcuformer.engines import c_structs
from mcuformer.errors import ConfigError, ModelError, PlanError, ToolchainError

CONV = dataclasses.replace(TINY, stem="conv")
BLOCKS = dataclasses.replace(CONV, patch_size=8, stem_channels=(6, 5), stem_blocks=(3, 2))
ONE_TOKEN = dataclasses.replace(TINY, patch_size=16)
ONE_HEAD = dataclasses.replace(TINY, num_heads=1, head_dim=7)
LOW_RANK = dataclasses.replace(TINY, embed_dim=22, kv_heads=1, mlp_ratio=3.0, rank_ratio=0.3)
NETWORKS = {
    "tiny": TINY, "conv stem": CONV, "stem with blocks": BLOCKS, "one token": ONE_TOKEN, "one head": ONE_HEAD,
    "low rank": LOW_RANK,
}  # fmt: skip
CHOICES = {
    "streamed": {"schedule": "streamed"},
    "overwrite": {"schedule": "overwrite"},
    "strips": {"schedule": "streamed", "strips": True},
    "staged": {"schedule": "streamed", "weights": "staged"},
    "staged overwrite in strips": {"schedule": "overwrite", "weights": "staged", "strips": True},
    "pairs": {"schedule": "streamed", "board": "nano33ble"},
    "pairs overwrite": {"schedule": "overwrite", "board": "portenta-h7"},
    "pairs staged": {"schedule": "streamed", "board": "nano33ble", "weights": "staged"},
}


@pytest.fixture(scope="module")
def networks():
    """name -> (network, images)."""
    return {name: (lively_subnet(config, 3), structured_images(config, 6, seed=1)) for name, config in NETWORKS.items()}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("network", NETWORKS)
def test_logits_and_layers_are_those_of_the_reference_and_of_the_interpreter(network, choice, networks):
    net, images = networks[network]
    model = convert(net, images[:4], **CHOICES[choice])
    c, tflm = Interpreter(model, engine="c"), Interpreter(model, engine="tflm")
    want = model.reference(images)
    assert len(np.unique(want)) > 5
    for _ in range(2):  # the second time on a used arena
        np.testing.assert_array_equal(c(images), want)
    np.testing.assert_array_equal(c.reference(images), want)
    np.testing.assert_array_equal(tflm(images), want)
    assert c.weights_read == tflm.weights_read
    assert c.invoke_ms > 0
    outputs, others = c.layer_outputs(images[0]), tflm.layer_outputs(images[0])
    integers = {}
    model.graph.run(to_int8(images[:1]), record=integers.__setitem__)
    assert list(outputs) == list(others) == list(integers)
    tensors = {tensor.name: tensor for tensor in model.graph.tensors}
    for name, output in outputs.items():
        np.testing.assert_array_equal(output, others[name], err_msg=name)
        wanted = tensors[name].dequantise(integers[name][0]).astype(np.float32)
        np.testing.assert_array_equal(output, wanted, err_msg=name)
    np.testing.assert_array_equal(c(images), want)  # layer_outputs left the model as it was


@pytest.mark.parametrize("schedule", ["overwrite", "streamed"])
def test_without_a_table_in_the_layer(networks, schedule):
    """IntGeLU as an op of its own, ranges a tensor; the image handed over in strips."""
    net, images = networks["tiny"]
    options = QuantisationOptions(fuse_gelu=schedule == "streamed", residual="per-tensor")
    model = convert(net, images, quantisation=options, schedule=schedule)
    for strips in (False, True):
        interpreter = Interpreter(model, engine="c", strips=strips)
        np.testing.assert_array_equal(interpreter(images), model.reference(images))


@pytest.mark.parametrize("choice", ["streamed", "overwrite", "strips", "staged"])
def test_the_arena_is_that_of_the_c_export(networks, choice):
    net, images = networks["tiny"]
    model = convert(net, images, **CHOICES[choice])
    interpreter = Interpreter(model, engine="c")
    arena = c_model.generate(model.graph, model.class_names).arena_bytes
    assert interpreter.allocations == {"total": arena, "head": arena, "tail": 0}
    assert interpreter.arena_used_bytes == arena <= model.plan.head_bytes
    with pytest.raises(PlanError, match=f"needs {arena} bytes"):
        Interpreter(model, arena - 1, engine="c")
    np.testing.assert_array_equal(Interpreter(model, arena, engine="c")(images), model.reference(images))


def test_the_default_is_the_interpreter_where_it_is(tiny_model, monkeypatch):
    assert Interpreter(tiny_model).engine == "tflm"
    monkeypatch.setitem(sys.modules, "tflite_micro.python.tflite_micro", None)  # an import of it fails
    assert Interpreter(tiny_model).engine == "c"
    with pytest.raises(ToolchainError, match='engine="c"'):
        Interpreter(tiny_model, engine="tflm")
    monkeypatch.undo()
    monkeypatch.setattr(kernel_library, "has_ops", lambda: False)
    assert Interpreter(tiny_model).engine == "c"


@pytest.mark.parametrize("engine", ["", "TFLM", "numpy", 3])
def test_no_such_engine(tiny_model, engine):
    with pytest.raises(ConfigError, match=r"^engine = .*: must be one of tflm, c$"):
        Interpreter(tiny_model, engine=engine)
    with pytest.raises(ConfigError, match="must be one of tflm, c"):
        run_op("IntGeLU", {"input": np.zeros((1, 4), np.int8)}, {"table": np.zeros(256, np.int8)}, engine=engine)


def test_threads(networks):
    """Two models in two threads, and one model in two: each answer is right."""
    net, images = networks["tiny"]
    models = [convert(net, images, **CHOICES[name]) for name in ("staged overwrite in strips", "streamed")]
    wants = [model.reference(images) for model in models]
    shared = Interpreter(models[0], engine="c")
    jobs = [(Interpreter(model, engine="c"), want) for model, want in zip(models, wants, strict=True)]
    jobs += [(shared, wants[0]), (shared, wants[0])]
    wrong = []

    def work(interpreter, want, barrier, order):
        barrier.wait()
        for _ in range(30):
            if not np.array_equal(interpreter(images[order]), want[order]):
                wrong.append(interpreter)

    barrier = threading.Barrier(len(jobs))
    orders = [np.arange(6), np.arange(6), np.arange(6), np.arange(5, -1, -1)]
    threads = [
        threading.Thread(target=work, args=(*job, barrier, order)) for job, order in zip(jobs, orders, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_source_that_fails(networks, monkeypatch):
    net, images = networks["tiny"]
    rows = Interpreter(convert(net, images, strips=True), engine="c")
    weights = Interpreter(convert(net, images, weights="staged"), engine="c")
    for given in (-1, 0, 3):
        with monkeypatch.context() as patch:
            source = kernel_library.IMAGE_ROWS(lambda user, first, count, rows, given=given: given)
            patch.setattr("mcuformer.engines.callbacks.rows_of", lambda image, source=source: source)
            patch.setattr("mcuformer.engines.callbacks.weights_from", lambda content, read, source=source: source)
            for interpreter in (rows, weights):
                with pytest.raises(ModelError, match="source of the image or of the weights failed"):
                    interpreter(images[:1])
    with monkeypatch.context() as patch:
        patch.setattr("mcuformer.engines.callbacks.rows_of", lambda image: None)
        with pytest.raises(ModelError, match="source of the image"):
            rows(images[:1])
    for interpreter in (rows, weights):
        np.testing.assert_array_equal(interpreter(images), interpreter.reference(images))


def test_run_op():
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (1, 7, 33)).astype(np.int8)
    gamma, beta = rng.integers(-3000, 3000, 33).astype(np.int16), rng.integers(-(1 << 20), 1 << 20, 33).astype(np.int32)
    constants, options = {"gamma": gamma, "beta": beta}, {"zero_point": 3, "epsilon": 1 << 40}
    got = run_op("IntLayerNorm", {"input": x}, constants, options, engine="c")
    np.testing.assert_array_equal(got, int_layer_norm.reference(int_layer_norm.Options(3, 1 << 40), x, gamma, beta))
    table = rng.integers(-128, 128, 256).astype(np.int8)
    got = run_op("IntGeLU", {"input": x}, {"table": table}, engine="c")
    np.testing.assert_array_equal(got, int_gelu.reference(int_gelu.Options(), x, table))
    residual = rng.integers(-128, 128, (1, 7, 6)).astype(np.int8)
    constants = {
        "weights": rng.integers(-127, 128, (6, 33)).astype(np.int8), "bias": np.full(6, 9, np.int32),
        "multiplier": np.full(6, 1 << 20, np.int32), "residual_scale": np.full(6, 700, np.int16),
    }  # fmt: skip
    arguments = ("InPlaceFC", {"input": x, "residual": residual}, constants, {"zero_point": 1})
    np.testing.assert_array_equal(run_op(*arguments, engine="c"), run_op(*arguments, engine="tflm"))


X = np.zeros((1, 4, 8), np.int8)
FC = {
    "weights": np.zeros((6, 8), np.int8), "bias": np.zeros(6, np.int32), "multiplier": np.zeros(6, np.int32),
}  # fmt: skip
SCALE = {"residual_scale": np.zeros(6, np.int16)}


@pytest.mark.parametrize(
    ("op", "inputs", "constants", "options", "message"),
    [
        ("IntGeLU", {"input": X}, {}, {}, "a needed tensor is missing"),
        ("IntGeLU", {"input": X}, {"table": np.zeros(255, np.int8)}, {}, "table has 255 bytes, needs 256"),
        ("IntGeLU", {"input": X}, {"table": np.zeros(128, np.int16)}, {}, "a table is int16, needs int8"),
        (
            "IntLayerNorm", {"input": X}, {"gamma": np.zeros(7, np.int16), "beta": np.zeros(8, np.int32)},
            {"zero_point": 0, "epsilon": 0}, "gamma has 14 bytes, needs 16",
        ),
        (
            "IntLayerNorm", {"input": X}, {"gamma": np.zeros(8, np.int16)}, {"zero_point": 0, "epsilon": 0},
            "a needed tensor is missing",
        ),
        (
            "IntLayerNorm", {"input": X}, {"gamma": np.zeros(8, np.int16), "beta": np.zeros(8, np.int32)},
            {"zero_point": 128, "epsilon": 0}, "a constant is out of its legal range",
        ),
        (
            "IntLayerNorm", {"input": X}, {"gamma": np.zeros(8, np.int16), "beta": np.zeros(8, np.int32)},
            {"zero_point": 1 << 32, "epsilon": 0}, "zero_point = 4294967296 does not fit 32 bits",
        ),
        ("TokenMean", {"input": X[0]}, {}, {"in_zero_point": 0, "zero_point": 0, "multiplier": 1}, "batch of 1"),
        ("TokenMean", {"input": X}, {}, {"in_zero_point": 0, "zero_point": 0, "multiplier": -1}, "legal range"),
        (
            "InPlaceFC", {"input": X, "residual": np.zeros((1, 3, 6), np.int8)}, FC | SCALE, {"zero_point": 0},
            r"residual has shape \(1, 3, 6\), needs \(1, 4, 6\)",
        ),
        (
            "InPlaceFC", {"input": X, "residual": np.zeros((1, 4, 6), np.int8)}, FC, {"zero_point": 0},
            "a needed tensor is missing",
        ),
        ("InPlaceFC", {"input": X}, FC | SCALE, {"zero_point": 0}, "has 4 constants .*, needs 3"),
        ("InPlaceFC", {"input": X}, FC | {"bias": np.zeros(12, np.int16)}, {"zero_point": 0}, "InPlaceFC"),
        ("InPlaceFC", {"input": X}, FC | {"multiplier": np.zeros(12, np.int16)}, {"zero_point": 0}, "is int16, needs"),
        ("InPlaceFC", {"input": X}, FC | {"weights": X[0, :, :6]}, {"zero_point": 0}, "weights has .* bytes, needs"),
        ("InPlaceFC", {"input": X}, FC, {"zero_point": 0, "packing": 1}, "weights has 48 bytes, needs 36"),
        ("InPlaceFC", {"input": X}, FC, {"zero_point": 0, "tile_bytes": 16, "block": 4}, "has 3 constants .*, needs 2"),
    ],
)  # fmt: skip
def test_run_op_refuses(op, inputs, constants, options, message):
    with pytest.raises(ModelError, match=message) as caught:
        run_op(op, inputs, constants, options, engine="c")
    assert "\n" not in str(caught.value)


DAMAGE = """
import dataclasses, sys
import numpy as np
from mcuformer import Interpreter, McuformerError
from mcuformer.converter import tflite_file
from mcuformer.converter.graph import Graph
from mcuformer.errors import ModelError

def parts(graph):
    return list(graph.tensors), list(graph.ops), list(graph.inputs), graph.output

def options(kind, **values):
    def change(tensors, ops, inputs, output):
        i = next(i for i, op in enumerate(ops) if op.kind == kind)
        ops[i] = dataclasses.replace(ops[i], options=dataclasses.replace(ops[i].options, **values))
        return output
    return change

def constant(name, **values):
    '''cut: leave out the last values; dtype: another; at, to: one value.'''
    def change(tensors, ops, inputs, output):
        i = next(i for i, tensor in enumerate(tensors) if tensor.name.endswith(name))
        data = tensors[i].data.copy()
        if "cut" in values:
            data = data[: len(data) - values["cut"]]
        if "dtype" in values:
            data = data.astype(values["dtype"])
        if "to" in values:
            data.reshape(-1)[values["at"]] = values["to"]
        tensors[i] = dataclasses.replace(tensors[i], data=data, shape=data.shape, dtype=data.dtype)
        return output
    return change

def shape(name, *size):
    def change(tensors, ops, inputs, output):
        i = next(i for i, tensor in enumerate(tensors) if tensor.name == name)
        tensors[i] = dataclasses.replace(tensors[i], shape=size)
        return output
    return change

def reads_what_comes_later(tensors, ops, inputs, output):
    ops[1] = dataclasses.replace(ops[1], inputs=(ops[2].output, *ops[1].inputs[1:]))
    return output

def made_twice(tensors, ops, inputs, output):
    ops.insert(2, ops[1])
    return output

def nothing_makes_the_output(tensors, ops, inputs, output):
    del ops[-1]
    return output

def output_over_the_image(tensors, ops, inputs, output):
    ops[0] = dataclasses.replace(ops[0], output=inputs[0])
    return output

big = (1 << 31) - 1
CASES = {
    "streamed": [
        constant("embed/bias", cut=1), constant("embed/weights", cut=1), constant("embed/position", dtype="int16"),
        constant("qkv_weights", cut=1), constant("qkv_bias", cut=4), constant("qkv_multiplier", cut=1),
        constant("qkv_bias", at=0, to=-(1 << 30) - 1), constant("head_params", cut=1),
        constant("head_params", at=1, to=0), constant("gamma", cut=1), constant("gelu_table", cut=1),
        constant("fc0_bias", cut=4), constant("residual_scale", cut=2),
        options("StreamedAttention", tokens_at_once=0), options("StreamedAttention", tokens_at_once=-4),
        options("StreamedAttention", kv_heads=0), options("StreamedAttention", kv_heads_at_once=3),
        options("StreamedAttention", head_dim=1000), options("StreamedAttention", packing=2),
        options("StreamedAttention", tile_bytes=64), options("StreamedMLP", gelu_layer=7),
        options("StreamedMLP", tokens_at_once=big), options("StreamedMLP", zero_points=(0,)),
        options("StreamedMLP", zero_points=(0,) * 5), options("StreamedMLP", packing=9),
        options("DecomposedPatchEmbed", patch_size=0), options("DecomposedPatchEmbed", patch_size=3),
        options("DecomposedPatchEmbed", patch_size=-4), options("DecomposedPatchEmbed", blocks_per_read=big),
        options("DecomposedPatchEmbed", patch_width=3), options("DecomposedPatchEmbed", patch_width=-4),
        options("DecomposedPatchEmbed", patch_width=17), options("DecomposedPatchEmbed", patch_width=1 << 40),
        options("DecomposedPatchEmbed", strip_rows=4), options("TokenMean", multiplier=-1),
        shape("image", 1, 16, 16, 2), shape("image", 1, 8, 16, 1), shape("image", 1, 16, 16),
        shape("image", 2, 16, 16, 1), shape("image", 1, 1 << 20, 1 << 20, 1),
        shape("embed", 1, 17, 24), shape("embed", 1, 16, 1 << 30),
        shape("embed", 1, 0, 24), shape("head", 1, 6), shape("head", 5),
        reads_what_comes_later, made_twice, nothing_makes_the_output, output_over_the_image,
    ],
    "strips": [
        options("DecomposedPatchEmbed", strip_rows=1), options("DecomposedPatchEmbed", strip_rows=-1),
        options("DecomposedPatchEmbed", strip_rows=big), options("DecomposedPatchEmbed", strip_rows=0),
        options("DecomposedPatchEmbed", strip_rows=2), options("DecomposedPatchEmbed", strip_rows=3),
        options("DecomposedPatchEmbed", strip_rows=1 << 40),
    ],
    "overwrite": [
        options("IntAttention", head_dim=1 << 20), options("IntAttention", kv_heads=3), options("InPlaceFC", packing=2),
        options("InPlaceFC", in_features=1 << 20), options("InPlaceFC", zero_point=1 << 40),
        options("IntLayerNorm", epsilon=-1), constant("qkv/weights", cut=1), constant("fc1/gelu_table", cut=200),
        constant("head/multiplier", cut=1), shape("layers.0.norm1", 1, 16, 2),
    ],
    "staged": [
        options("StreamedAttention", tile_bytes=4), options("StreamedAttention", tile_bytes=0),
        options("StreamedMLP", weights_offset=-16), options("StreamedMLP", weights_offset=1 << 20),
        options("InPlaceFC", tokens_per_read=0), options("InPlaceFC", tokens_per_read=big),
        options("InPlaceFC", in_features=25),
    ],
}
unlike = 0
for file, changes in CASES.items():
    path = f"{sys.argv[1]}/{file}.tflite"
    stored = tflite_file.read(open(path, "rb").read())
    graph = stored.graph
    for number, change in enumerate(changes):
        tensors, ops, inputs, output = parts(graph)
        output = change(tensors, ops, inputs, output)
        damaged = Graph(tensors, ops, inputs, output)
        content = tflite_file.write(damaged, [-1] * len(tensors), stored.info)  # with the right checksum
        weights = open(f"{sys.argv[1]}/staged.weights", "rb").read() if file == "staged" else None
        try:
            interpreter = Interpreter(content, engine="c", weights=weights)
            interpreter(np.zeros((2, 16, 16, 1), np.uint8))
            print(f"{file} {number}: ran")
        except ModelError as error:
            assert "\\n" not in str(error)
            print(f"{file} {number}: refused")
print("end")
"""


def test_a_damaged_model_is_refused_and_never_crashes(networks, tmp_path):
    """Damage that no checksum shows, in a process of its own: a crash would end it."""
    net, images = networks["tiny"]
    for name in ("streamed", "strips", "overwrite", "staged"):
        convert(net, images, **CHOICES[name]).save(tmp_path / f"{name}.tflite")
    done = subprocess.run([sys.executable, "-c", DAMAGE, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines.pop() == "end" and len(lines) > 60
    assert [line for line in lines if not line.endswith("refused")] == []


def offsets(structs) -> list[str]:
    """A line for every struct, and for every field."""
    lines = []
    for name, struct in structs.items():
        lines.append(f"{name} {ctypes.sizeof(struct)}")
        lines += [
            f"{name} {field} {getattr(struct, field).offset} {getattr(struct, field).size}" for field in struct.kinds
        ]
    return lines


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: apt-get install gcc")
def test_the_structs_are_what_the_compiler_makes_of_the_headers(tmp_path):
    structs = c_structs.structs()
    headers = sorted(sources.c_kernel_folder().glob("mcuf_*_s8.h"))
    declared = {
        name for path in headers for name in re.findall(r"^\} (mcuf_\w+_params);", path.read_text(), re.MULTILINE)
    }
    parts = {
        "mcuf_weight_source", "mcuf_staged_weights", "mcuf_relative_position", "mcuf_streamed_stem_conv",
        "mcuf_stem_block",
    }  # fmt: skip
    assert len(declared) >= 8 and set(structs) == declared | parts
    prints = []
    for name, struct in structs.items():
        prints.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field in struct.kinds:
            size = f"sizeof((({name}*)0)->{field})"
            prints.append(f'printf("{name} {field} %zu %zu\\n", offsetof({name}, {field}), {size});')
    includes = [f'#include "{path.name}"' for path in headers]
    program = ["#include <stddef.h>", "#include <stdio.h>", *includes, "int main(void) {", *prints, "return 0;", "}"]
    (tmp_path / "offsets.c").write_text("\n".join(program))
    command = ["cc", "-std=c99", f"-I{sources.c_kernel_folder()}", "offsets.c", "-o", "offsets"]
    subprocess.run(command, cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "offsets"], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == offsets(structs)


def test_pointers_know_their_type():
    kinds = c_structs.structs()["mcuf_in_place_fc_params"].kinds
    dtypes = {name: kind.dtype for name, kind in kinds.items() if isinstance(kind, c_structs.Pointer)}
    assert dtypes == {
        "weights": "int8", "bias": "int32", "multiplier": "int32", "gelu_table": "int8", "residual_scale": "int16",
    }  # fmt: skip


@pytest.mark.parametrize("field", ["float scale;", "int32_t* a, *b;", "mcuf_unknown thing;", "int32_t size[OTHER];"])
def test_a_field_that_is_not_understood(field, tmp_path):
    header = tmp_path / "mcuf_new_s8.h"
    header.write_text(f"typedef struct {{\n  int32_t tokens; /* 1 .. 2; more */\n  {field}\n}} mcuf_new_params;\n")
    with pytest.raises(
        ToolchainError, match="mcuf_new_params of the C kernels' headers has a field of an unknown kind"
    ):
        c_structs.read_structs([header])


@pytest.mark.parametrize("compiled", ["", "0123456789abcdef"])
def test_a_library_of_other_headers_is_an_error(tiny_model, compiled, monkeypatch):
    c_structs.structs.cache_clear()
    monkeypatch.setattr(kernel_library, "headers", lambda: compiled)
    with pytest.raises(ToolchainError, match=f"its headers are {compiled or 'unknown'}.*build it again"):
        Interpreter(tiny_model, engine="c")
    monkeypatch.undo()
    assert Interpreter(tiny_model, engine="c").engine == "c"


def test_a_constant_of_an_odd_address_is_moved():
    memory = c_structs.aligned(65)
    odd = memory[1:].reshape(8, 8)
    odd[...] = np.arange(64).reshape(8, 8)
    placed = c_structs.Memory.of(odd)
    assert placed % 16 == 0 and placed == placed.values.ctypes.data
    np.testing.assert_array_equal(placed.values, odd)
