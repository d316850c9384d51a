# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import numpy as np
import pytest
from conftest import TINY, lively_subnet, structured_images

from mcuformer import Interpreter, McuformerError, QuantisationOptions, SubnetConfig, convert, kernel_library, run_op
from mcuformer.converter import tflite_file
from mcuformer.converter.graph import to_int8
from mcuformer.converter.ops import int_layer_norm
from mcuformer.errors import ConfigError, DataError, ModelError, PlanError


def test_path_bytes_and_model_give_the_same(tiny_model, tiny_images, tmp_path):
    path = tmp_path / "model.tflite"
    tiny_model.save(path)
    want = tiny_model.reference(tiny_images)
    for source in (tiny_model, tiny_model.content, path, str(path)):
        interpreter = Interpreter(source)
        np.testing.assert_array_equal(interpreter(tiny_images), want)
    assert interpreter.invoke_ms > 0
    assert interpreter.arena_used_bytes == tiny_model.plan.arena_bytes
    np.testing.assert_array_equal(interpreter.reference(tiny_images), want)
    np.testing.assert_array_equal(interpreter(tiny_images[0]), want[:1])


@pytest.mark.parametrize("schedule", ["overwrite", "streamed"])
def test_strips(tiny_net, tiny_images, schedule):
    """Converted with strips, or handed over in strips: the same logits, no image in the arena."""
    whole = convert(tiny_net, tiny_images[:16], schedule=schedule)
    strips = convert(tiny_net, tiny_images[:16], schedule=schedule, strips=True)
    want = whole.reference(tiny_images)
    np.testing.assert_array_equal(strips.reference(tiny_images), want)
    for interpreter in (Interpreter(strips), Interpreter(strips, strips=True), Interpreter(whole, strips=True)):
        np.testing.assert_array_equal(interpreter(tiny_images), want)
        assert interpreter.arena_used_bytes == strips.plan.arena_bytes
    names = [tensor.name for tensor in strips.graph.tensors if not tensor.is_constant]
    outputs = Interpreter(strips).layer_outputs(tiny_images[0])
    assert set(outputs) == set(names) - {"image"}
    np.testing.assert_array_equal(outputs["head"], want[0])


def test_a_convolution_stem_takes_strips():
    config = SubnetConfig(image_size=17, in_channels=1, patch_size=4, embed_dim=16, depth=1, num_heads=2, stem="conv")
    images = structured_images(config, 4)
    whole, strips = (convert(lively_subnet(config, 0), images, strips=strips) for strips in (False, True))
    want = whole.reference(images)
    np.testing.assert_array_equal(Interpreter(strips)(images), want)
    np.testing.assert_array_equal(Interpreter(whole, strips=True)(images), want)


@pytest.mark.parametrize("given", [-1, 0, 3])
def test_a_source_that_fails_or_gives_too_few_rows(tiny_net, tiny_images, given, monkeypatch):
    interpreter = Interpreter(convert(tiny_net, tiny_images, schedule="streamed", strips=True))
    source = kernel_library.IMAGE_ROWS(lambda user, first, count, rows: given)
    monkeypatch.setattr("mcuformer.engines.callbacks.rows_of", lambda image: source)
    with pytest.raises(ModelError, match="source of the image"):
        interpreter(tiny_images[:1])
    monkeypatch.undo()
    assert interpreter(tiny_images[:1]).shape == (1, 5)


def test_no_source_at_all(tiny_net, tiny_images, monkeypatch):
    interpreter = Interpreter(convert(tiny_net, tiny_images, schedule="streamed", strips=True))
    monkeypatch.setattr("mcuformer.engines.callbacks.rows_of", lambda image: None)
    with pytest.raises(ModelError, match="no source of image rows"):
        interpreter(tiny_images[:1])


def test_progress_counts_every_image(tiny_model, tiny_images):
    seen = []
    Interpreter(tiny_model)(tiny_images[:3], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("stem", ["patch", "conv"])
@pytest.mark.parametrize("fuse_gelu", [True, False])
def test_layer_outputs_are_the_references(stem, fuse_gelu):
    config = SubnetConfig(
        image_size=16, in_channels=1, patch_size=4, embed_dim=22, depth=2, num_heads=2, kv_heads=1, num_classes=5,
        stem=stem,
    )  # fmt: skip
    images = structured_images(config, 8)
    options = QuantisationOptions(fuse_gelu=fuse_gelu)
    model = convert(lively_subnet(config, 5), images, schedule="overwrite", quantisation=options)
    outputs = Interpreter(model).layer_outputs(images[0])
    integers = {}
    model.graph.run(to_int8(images[:1]), record=integers.__setitem__)
    assert list(outputs) == list(integers)
    for tensor in model.graph.tensors:
        if tensor.name in outputs:
            q = tensor.quantisation
            want = (integers[tensor.name][0].astype(np.float64) - q.zero_point) * q.scale
            np.testing.assert_array_equal(outputs[tensor.name], want.astype(np.float32), err_msg=tensor.name)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 16, 16, 1), np.float32), "dtype float32"),
        (np.zeros((1, 16, 15, 1), np.uint8), r"shape \(1, 16, 15, 1\).*\[n, 16, 16, 1\]"),
        (np.zeros((16, 16, 3), np.uint8), "shape"),
    ],
)
def test_wrong_images(tiny_model, images, message):
    with pytest.raises(DataError, match=message):
        Interpreter(tiny_model)(images)


def test_arena_too_small(tiny_model, tiny_images):
    need = tiny_model.plan.needed_bytes
    for size in (0, 100, 456, need - 1):
        with pytest.raises(PlanError, match=f"needs {need} bytes"):
            Interpreter(tiny_model, arena_bytes=size)
    np.testing.assert_array_equal(Interpreter(tiny_model, need)(tiny_images), tiny_model.reference(tiny_images))


@pytest.mark.parametrize("size", [1e5, float("nan"), "100000", True, 1 << 40])
def test_arena_of_no_size(tiny_model, size):
    with pytest.raises(ConfigError, match="arena_bytes = "):
        Interpreter(tiny_model, arena_bytes=size)


def test_not_a_model(tmp_path):
    with pytest.raises(ConfigError, match="not int"):
        Interpreter(3)
    with pytest.raises(ModelError, match="cannot be read"):
        Interpreter(tmp_path / "missing.tflite")
    with pytest.raises(ModelError, match="not a .tflite"):
        Interpreter(b"PK\x03\x04" + bytes(100))


def test_300_bit_flips_raise_and_never_crash(tiny_model, tiny_images, tmp_path):
    """Each in the same fresh process: a crash would end it."""
    path = tmp_path / "model.tflite"
    tiny_model.save(path)
    script = f"""
import numpy as np
from mcuformer import Interpreter, McuformerError
content = open({str(path)!r}, "rb").read()
rng = np.random.default_rng(0)
refused = 0
for i in range(300):
    damaged = bytearray(content)
    at = int(rng.integers(len(content)))
    damaged[at] ^= 1 << int(rng.integers(8))
    try:
        Interpreter(bytes(damaged))
    except McuformerError:
        refused += 1
for cut in (0, 1, 7, 8, 100, len(content) // 2, len(content) - 1):
    try:
        Interpreter(content[:cut])
    except McuformerError:
        refused += 1
print(refused)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "307"


def test_run_op_equals_reference():
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (1, 7, 33)).astype(np.int8)
    gamma, beta = rng.integers(-3000, 3000, 33).astype(np.int16), rng.integers(-(1 << 20), 1 << 20, 33).astype(np.int32)
    options = {"zero_point": np.int64(3), "epsilon": 10}
    got = run_op("IntLayerNorm", {"input": x}, {"gamma": gamma, "beta": beta}, options)
    want = int_layer_norm.reference(int_layer_norm.Options(3, 10), x, gamma, beta)
    np.testing.assert_array_equal(got, want)


def test_run_op_with_residual():
    rng = np.random.default_rng(1)
    x, residual = (rng.integers(-128, 128, (1, 5, n)).astype(np.int8) for n in (9, 6))
    constants = {
        "weights": rng.integers(-127, 128, (6, 9)).astype(np.int8),
        "bias": rng.integers(-999, 999, 6).astype(np.int32),
        "multiplier": np.full(6, 1 << 22, np.int32),
        "residual_scale": np.full(6, 700, np.int16),
    }
    got = run_op("InPlaceFC", {"input": x, "residual": residual}, constants, {"zero_point": 1})
    acc = x.astype(int) @ constants["weights"].T.astype(int) + constants["bias"] + 700 * residual.astype(int)
    np.testing.assert_array_equal(got, np.clip(1 + ((acc * (1 << 22) + (1 << 31)) >> 32), -128, 127))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("NoSuchOp", {}), ConfigError, "must be one of"),
        (("IntGeLU", {"x": np.zeros((1, 4), np.int8)}), ConfigError, "has no input 'x'"),
        (("IntGeLU", {"input": np.zeros((1, 4), np.float32)}), DataError, "activations are int8"),
        (("IntLayerNorm", {"input": np.zeros((1, 4, 8), np.int8)}, {}, {"zero": 1}), ConfigError, "options of"),
        (("IntGeLU", {"input": np.zeros((1, 4), np.int8)}), ModelError, "table"),
        (("IntGeLU", {}, {"table": np.zeros(256, np.int8)}), ConfigError, "missing"),
        (
            (
                "TokenMean",
                {"input": np.zeros((1, 4, 8), np.int8)},
                {},
                dict(in_zero_point=0.5, zero_point=0, multiplier=1),
            ),
            ConfigError,
            "options of",
        ),
        (
            (
                "TokenMean",
                {"input": np.zeros((1, 4, 8), np.int8)},
                {},
                dict(in_zero_point=0, zero_point=0, multiplier=2**70),
            ),
            ConfigError,
            "64 bits",
        ),
        (
            (
                "IntLayerNorm",
                {"input": np.zeros((1, 4, 8), np.int8)},
                {"gamma": np.zeros(7, np.int16), "beta": np.zeros(8, np.int32)},
                {"zero_point": 0, "epsilon": 0},
            ),
            ModelError,
            "gamma",
        ),
    ],
)
def test_run_op_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        run_op(*arguments)


def test_a_foreign_tflite_is_refused_by_name(tiny_model):
    """A valid flatbuffer without our metadata."""
    content = tflite_file.write(tiny_model.graph, tiny_model.offsets, tiny_model.info)
    foreign = content.replace(tflite_file.CHECKSUM_MAGIC, b"SomebodyElse'sXX")
    with pytest.raises(ModelError, match="not made by mcuformer"):
        Interpreter(foreign)


def test_every_error_is_one_line(tiny_model):
    for broken in (b"", tiny_model.content[:-5], b"abcdTFL3" + bytes(64)):
        with pytest.raises(McuformerError) as caught:
            Interpreter(broken)
        assert "\n" not in str(caught.value)


def test_the_config_travels_with_the_file(tiny_model):
    info = Interpreter(tiny_model).info
    assert SubnetConfig.from_dict(info["config"]) == TINY
    assert info["class_names"] == ["0", "1", "2", "3", "4"]
