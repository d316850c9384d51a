# SPDX-License-Identifier: Apache-2.0
"""Odd arguments: each works, or is one line that says what to give instead."""

import numpy as np
import pytest
import torch

from mcuformer import Interpreter, McuformerError, SubnetConfig, convert, run_op
from mcuformer.errors import DataError
from mcuformer.nas import TrainOptions, build_subnet, load_subnet, load_supernet, save_subnet, train


class Odd:
    """Has no truth and no array."""

    def __bool__(self):
        raise TypeError("no truth")

    def __array__(self, *_, **__):
        raise RuntimeError("no\narray")

    def __repr__(self):
        return "Odd(\n)"


ODD = [
    None, 0, -1, 2, 3.5, float("nan"), True, "x", "", "a\0b", "a\nb", "x" * 5000, b"", b"x", [],
    [1], [[1], [2, 3]], {}, (),
    {"a": 1}, np.zeros(3), np.zeros((1, 16, 16, 1)), np.array(["a"]), np.array(None), torch.zeros(2), object(), Odd(),
    Odd, torch.zeros(1, 16, 16, 1, device="meta"), 10**400, 1j, SubnetConfig(), slice(3),
]  # fmt: skip


def works_or_is_named(act, value):
    try:
        act(value)
    except McuformerError as error:
        assert "\n" not in str(error) and len(str(error)) < 6000
    except Exception as error:
        raise AssertionError(f"{str(value)[:60]!r}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("engine", ["tflm", "c"])
@pytest.mark.parametrize("name", ["arena_bytes", "strips", "weights", "engine"])
def test_interpreter_arguments(tiny_model, name, engine):
    for value in ODD:
        works_or_is_named(lambda v: Interpreter(tiny_model, **{"engine": engine, name: v}), value)


def test_interpreter_of_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in ODD:
        works_or_is_named(Interpreter, value)


def test_weights_files_of_anything(tiny_net, tiny_images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = convert(tiny_net, tiny_images, weights="staged")
    for value in ODD:
        works_or_is_named(lambda v: Interpreter(model.content, weights=v), value)


@pytest.mark.parametrize("engine", ["tflm", "c"])
def test_images_of_anything(tiny_model, engine):
    interpreter = Interpreter(tiny_model, engine=engine)
    for value in ODD:
        for act in (interpreter, interpreter.int8_outputs, interpreter.reference, interpreter.layer_outputs):
            works_or_is_named(act, value)
        works_or_is_named(tiny_model.reference, value)


def test_images_of_other_layouts_are_read_or_named(tiny_model, tiny_images):
    interpreter, want = Interpreter(tiny_model), tiny_model.reference(tiny_images)
    rows = tiny_images[:, ::-1]
    for images in (
        np.asfortranarray(tiny_images), list(tiny_images), torch.from_numpy(tiny_images), rows[:, ::-1],
        tiny_images.astype(">u1"), np.ma.array(tiny_images),
    ):  # fmt: skip
        assert np.array_equal(interpreter(images), want)
    assert interpreter(tiny_images[:0]).shape == (0, 5)
    other = tiny_images.transpose(0, 3, 1, 2)
    for images in (tiny_images.astype(np.int8), tiny_images / 255, tiny_images.astype(bool), other):
        with pytest.raises(DataError):
            interpreter(images)


def test_ops_of_anything():
    x, table = np.zeros((1, 4, 8), np.int8), np.zeros(256, np.int8)
    assert run_op("IntGeLU", {"input": x}, {"table": table}).shape == x.shape
    for value in ODD:
        works_or_is_named(lambda v: run_op(v, {"input": x}, {"table": table}), value)
        works_or_is_named(lambda v: run_op("IntGeLU", v, {"table": table}), value)
        works_or_is_named(lambda v: run_op("IntGeLU", {"input": v}, {"table": table}), value)
        works_or_is_named(lambda v: run_op("IntGeLU", {"input": x}, v), value)
        works_or_is_named(lambda v: run_op("IntGeLU", {"input": x}, {"table": v}), value)
        works_or_is_named(lambda v: run_op("IntGeLU", {"input": x}, {"table": table}, v), value)
        works_or_is_named(lambda v: run_op("IntGeLU", {"input": x}, {"table": table}, engine=v), value)
        works_or_is_named(lambda v: run_op("IntLayerNorm", {"input": x}, options={"zero_point": v}), value)


def test_networks_from_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = build_subnet(SubnetConfig(image_size=16, patch_size=8, depth=1))
    for value in ODD:
        works_or_is_named(build_subnet, value)
        works_or_is_named(lambda v: build_subnet(net.config, seed=v), value)
        works_or_is_named(load_subnet, value)
        works_or_is_named(load_supernet, value)
        works_or_is_named(lambda v: save_subnet(v, tmp_path / "a.pt"), value)
        works_or_is_named(lambda v: save_subnet(net, v), value)
        works_or_is_named(lambda v: save_subnet(net, tmp_path / "a.pt", v), value)
        works_or_is_named(lambda v: save_subnet(net, tmp_path / "a.pt", {"note": v}), value)


def test_models_are_saved_anywhere_or_not(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in ODD:
        works_or_is_named(tiny_model.save, value)
        works_or_is_named(tiny_model.arena_bytes, value)


def test_training_of_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in ODD:
        works_or_is_named(lambda v: train(v, v, TrainOptions(epochs=1)), value)
