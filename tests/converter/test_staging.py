# SPDX-License-Identifier: Apache-2.0
"""Staged weights: files, scratch limits, what is read. tests/e2e/test_exactness.py runs 200 networks with them."""

import numpy as np
import pytest
from conftest import TINY, lively_subnet, structured_images

from mcuformer import Interpreter, SubnetConfig, convert, kernel_library
from mcuformer.converter.passes.staging import traffic, weights_path
from mcuformer.errors import ConfigError, ModelError, PlanError

WIDE = SubnetConfig(image_size=32, in_channels=3, patch_size=4, embed_dim=36, depth=2, num_heads=3, num_classes=7)


@pytest.fixture(scope="module")
def wide():
    images = structured_images(WIDE, 8)
    net = lively_subnet(WIDE, 1)
    return net, images, convert(net, images)


def read_bytes(model) -> int:
    return sum(traffic(model.graph, op)[0] for op in model.graph.ops)


def most_scratch(model) -> int:
    return max(buffer.size for buffer in model.plan.problem.scratch)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, wide):
    net, images, _ = wide
    path = tmp_path_factory.mktemp("staged") / "model.tflite"
    model = convert(net, images, weights="staged")
    model.save(path)
    return path, model


def test_the_model_keeps_no_weights(saved, wide):
    path, model = saved
    matrices = 36 * 48 + 2 * (36 * 108 + 36 * 36 + 2 * 36 * 144) + 36 * 7
    assert weights_path(path).stat().st_size == len(model.weights_content) >= matrices
    assert wide[2].model_bytes - path.stat().st_size > 0.95 * matrices
    assert model.plan.arena_bytes < wide[2].plan.arena_bytes + 1024


def test_a_larger_scratch_reads_less(wide):
    net, images, xip = wide
    want = xip.reference(images)
    found = []
    for scratch in (5040, 6000, 10_000, 20_000, 100_000):
        model = convert(net, images, weights="staged", scratch=scratch)
        assert most_scratch(model) <= scratch
        interpreter = Interpreter(model)
        np.testing.assert_array_equal(interpreter(images), want)
        assert interpreter.weights_read[0] == read_bytes(model)
        found.append(read_bytes(model))
    assert found == sorted(found, reverse=True) and len(set(found)) >= 4
    # In the largest nothing is read twice but the patch embedding, once for every row of tokens.
    assert found[-1] < len(model.weights_content) + 8 * 36 * 48


def test_a_board_gives_its_memory(wide):
    net, images, _ = wide
    least, filled = (convert(net, images, weights="staged", board=board) for board in (None, "nano33ble"))
    assert read_bytes(filled) < read_bytes(least) / 4
    assert filled.arena_bytes("nano33ble") > least.arena_bytes("nano33ble")


@pytest.mark.parametrize("weights", ["xip", "staged"])
@pytest.mark.parametrize("schedule", ["streamed", "overwrite"])
def test_a_limit_that_nothing_fits_names_the_smallest(wide, weights, schedule):
    net, images, xip = wide
    with pytest.raises(PlanError, match=r"scratch = 100 bytes: \S+ \(\w+\) needs at least \d+") as error:
        convert(net, images, weights=weights, schedule=schedule, scratch=100)
    smallest = int(str(error.value).split("at least ")[1].split(";")[0])
    with pytest.raises(PlanError, match=f"at least {smallest};"):
        convert(net, images, weights=weights, schedule=schedule, scratch=smallest - 1)
    model = convert(net, images, weights=weights, schedule=schedule, scratch=smallest)
    assert most_scratch(model) == smallest
    np.testing.assert_array_equal(Interpreter(model)(images[:2]), xip.reference(images[:2]))


def test_a_limit_leaves_fewer_tokens_at_once(wide):
    """With weights in place: as many tokens at once as fit, at most four."""
    net, images, xip = wide
    free = most_scratch(xip)
    assert convert(net, images, scratch=free).plan == xip.plan
    small = convert(net, images, scratch=free - 1)
    assert most_scratch(small) < free
    np.testing.assert_array_equal(Interpreter(small)(images[:2]), xip.reference(images[:2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "flash"}, "weights = 'flash': must be one of xip, staged"),
        ({"scratch": -1}, "scratch = -1"),
        ({"scratch": 1e4}, "scratch = 10000.0"),
        ({"scratch": True}, "scratch = True"),
    ],
)
def test_choices_that_make_no_sense(wide, change, message):
    with pytest.raises(ConfigError, match=message):
        convert(wide[0], wide[1], **change)


def test_the_weights_file_is_found_or_given(saved, wide, tmp_path):
    path, model = saved
    want = model.reference(wide[1][:2])
    content = path.read_bytes()
    for interpreter in (
        Interpreter(path),
        Interpreter(model),
        Interpreter(content, weights=weights_path(path)),
        Interpreter(content, weights=model.weights_content),
        Interpreter(path, strips=True),
    ):
        np.testing.assert_array_equal(interpreter(wide[1][:2]), want)
        np.testing.assert_array_equal(interpreter.reference(wide[1][:2]), want)
    outputs = Interpreter(path).layer_outputs(wide[1][0])
    np.testing.assert_array_equal(outputs["head"], want[0])


def test_missing_and_foreign_weights(saved, wide, tmp_path):
    path, model = saved
    alone = tmp_path / "alone.tflite"
    alone.write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match="takes its weights from .*alone.weights, which cannot be read"):
        Interpreter(alone)
    with pytest.raises(ModelError, match="give the weights file"):
        Interpreter(path.read_bytes())
    damaged = bytearray(model.weights_content)
    damaged[100] ^= 1
    for content in (bytes(damaged), model.weights_content[:-16], b""):
        with pytest.raises(ModelError, match="not the weights of this model, or damaged"):
            Interpreter(path, weights=content)
    with pytest.raises(ConfigError, match="takes no weights file"):
        Interpreter(wide[2], weights=model.weights_content)
    with pytest.raises(ConfigError, match="cannot have their suffix"):
        model.save(tmp_path / "model.weights")
    assert not (tmp_path / "model.weights").exists()


@pytest.mark.parametrize("given", [-1, 0, 3])
def test_a_source_that_fails_or_brings_too_little(saved, wide, given, monkeypatch):
    interpreter = Interpreter(saved[0])
    source = kernel_library.WEIGHTS(lambda user, offset, count, target: given)
    monkeypatch.setattr("mcuformer.engines.callbacks.weights_from", lambda content, read: source)
    with pytest.raises(ModelError, match="weights"):
        interpreter(wide[1][:1])
    monkeypatch.undo()
    np.testing.assert_array_equal(interpreter(wide[1][:1]), saved[1].reference(wide[1][:1]))


def test_a_convolution_stem_keeps_its_weights():
    config = SubnetConfig(image_size=16, in_channels=1, patch_size=4, embed_dim=16, depth=1, num_heads=2, stem="conv")
    images = structured_images(config, 4)
    model = convert(lively_subnet(config, 0), images, weights="staged")
    assert {tensor.name for tensor in model.graph.tensors if tensor.external} == {
        "layers.0.proj/qkv_weights", "layers.0.proj/proj_weights", "layers.0.fc2/fc0_weights",
        "layers.0.fc2/fc1_weights", "head/weights",
    }  # fmt: skip
    np.testing.assert_array_equal(Interpreter(model)(images), model.reference(images))


def test_one_token_and_one_output():
    config = SubnetConfig(image_size=4, in_channels=1, patch_size=4, embed_dim=5, depth=1, num_heads=1, num_classes=1)
    images = structured_images(config, 4)
    for schedule in ("streamed", "overwrite"):
        model = convert(lively_subnet(config, 0), images, weights="staged", schedule=schedule)
        np.testing.assert_array_equal(Interpreter(model)(images), model.reference(images))


def test_it_is_the_same_network(tiny_net, tiny_images):
    xip = convert(tiny_net, tiny_images)
    staged = convert(tiny_net, tiny_images, weights="staged")
    assert TINY == staged.config
    np.testing.assert_array_equal(staged.reference(tiny_images), xip.reference(tiny_images))
