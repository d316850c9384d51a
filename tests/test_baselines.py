# SPDX-License-Identifier: Apache-2.0
"""benchmarks/baselines.py: Keras and the stock interpreter compute what PyTorch does; margins; kept weights."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import load_script
from torch import nn

from mcuformer.data import Dataset

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def baselines(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return load_script("benchmarks/baselines.py")


@pytest.fixture
def networks(baselines):
    """One of each kind: residuals, expansions, a kernel of 5, odd and even sizes under a stride of 2."""
    cnns = baselines.cnns
    blocks = (cnns.Block(8, 2, 3, 5), cnns.Block(8, 1, 3), cnns.Block(12, 2, 1), cnns.Block(12, 1, 1))
    return {
        "inverted": cnns.CnnConfig(27, 8, blocks),
        "separable": cnns.CnnConfig(28, 8, (cnns.Block(16, 2), cnns.Block(16)), in_channels=3, num_classes=7),
    }


def some_images(config, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *config.image_shape), dtype=np.uint8)


def used(baselines, config) -> nn.Module:
    """A network whose batch norms are not neutral."""
    net = baselines.Cnn(config, seed=1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    net(baselines.to_float(some_images(config, 32)))
    return net.eval()


@pytest.mark.parametrize("kind", ["inverted", "separable"])
def test_keras_gives_the_same_logits(baselines, networks, kind):
    pytest.importorskip("tensorflow")
    config = networks[kind]
    net, images = used(baselines, config), some_images(config, 4)
    twin = baselines.cnns.keras_twin(net)
    floats = baselines.stock_network.to_float(images)
    want = baselines.float_logits(net, images)
    assert want.std() > 0.05
    np.testing.assert_allclose([np.asarray(twin(x[None], training=False))[0] for x in floats], want, atol=1e-5)


@pytest.mark.parametrize("kind", ["inverted", "separable"])
def test_the_stock_interpreter_is_near_and_its_cost_is_measured(baselines, networks, kind):
    pytest.importorskip("tensorflow")
    net, images = used(baselines, networks[kind]), some_images(networks[kind], 16)
    found = baselines.by_stock_tools(net, images, images)
    want = baselines.float_logits(net, images)
    assert np.abs(found["logits"] - want).max() < 0.2 * want.std()
    assert images[0].size < found["arena"] < baselines.STOCK_ARENA
    assert found["model_bytes"] > sum(p.numel() for p in net.parameters() if p.ndim > 1)


@pytest.mark.parametrize("kind", ["inverted", "separable"])
def test_macs_are_those_of_the_modules(baselines, networks, kind):
    config, total = networks[kind], []

    def count(module, _inputs, output):
        total.append(output[0].numel() * module.weight[0].numel())

    net = baselines.Cnn(config).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    net(baselines.to_float(some_images(config, 1)))
    assert baselines.cnns.macs(config) == sum(total)


def test_margins_are_of_the_best_within_each_budget(baselines):
    def row(name, cnn, arena, right, model_bytes=100_000, int8=(0.5, 0.5)):
        sizes = {"arena": arena, "model_bytes": model_bytes}
        return {"network": name, "cnn": cnn, **sizes, "right": np.array(right), "int8": list(int8)}

    rows = [
        row("a", False, 16_000, [1.0, 1.0, 0.0, 0.5]),
        row("too large", False, 16_000, [1.0, 1.0, 1.0, 1.0], model_bytes=200_000),
        row("b", True, 10_000, [0.0, 1.0, 0.0, 0.5]),
        row("c", True, 32_000, [1.0, 1.0, 1.0, 1.0]),
    ]
    small, large = baselines.margins(rows)
    assert (small["ours"], small["cnn"], small["margin"], small["image_error"]) == ("a", "b", 0.25, 0.25)
    assert (large["ours"], large["cnn"], large["margin"]) == ("a", "c", -0.375)
    assert baselines.verdict(small) == "neither, within the errors"
    assert baselines.verdict(large) == "the CNN"
    assert [baselines.verdict(m) for m in baselines.margins(rows[:1])] == ["nothing to compare"] * 2


def test_a_margin_counts_if_it_is_above_the_errors_of_images_and_seeds_together(baselines):
    assert baselines.seed_error([0.5, 0.7], [0.4, 0.4]) == pytest.approx(0.1)  # 0.1414 of one over the root of 2
    assert baselines.seed_error([0.5], [0.4]) is None
    margin = {"margin": 0.05, "image_error": 0.03, "seed_error": None}
    assert baselines.verdict(margin) == "ours" and baselines.verdict(margin | {"margin": -0.05}) == "the CNN"
    assert baselines.verdict(margin | {"seed_error": 0.039}) == "ours"
    assert baselines.verdict(margin | {"seed_error": 0.041}) == "neither, within the errors"


def test_the_report_is_written_as_json_too(baselines, tmp_path, capsys):
    net = {"arena": 16_000, "board_arena": None, "model_bytes": 1, "macs": 1, "exact": True}
    runs = [net | {kind: np.array([True, seed > 0]) for kind in ("float", "int8")} for seed in range(2)]
    rows = [baselines.row(name, runs, cnn, None) for name, cnn in (("ours", False), ("theirs", True))]
    assert baselines.report(rows, tmp_path / "found.json") == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["holds"] for one in found["requirements"]] == [True, True]
    assert [margin["margin"] for margin in found["margins"]] == [0, 0] and "16 KB" in capsys.readouterr().out


def test_the_colour_set_is_the_same_every_time_and_its_test_images_are_on_other_backgrounds(baselines):
    shape = 28, 28, 3
    train, test = (baselines.images_of(split, shape) for split in ("train", "test"))
    grey = baselines.images_of("test", (28, 28, 1))
    assert (train.images.shape, test.images.shape) == ((10_000, *shape), (2_000, *shape))
    assert train.images.dtype == np.uint8 and np.array_equal(test.labels, grey.labels)
    again = baselines.colour_clothes("test")
    assert np.array_equal(again.images[:, 2:-2, 2:-2], test.images)
    seen = {pixel.tobytes() for pixel in train.images[:, :2, :2]}
    assert not seen & {pixel.tobytes() for pixel in test.images[:, :2, :2]}
    clothes = grey.images[..., 0] == grey.images.max()
    assert (test.images[clothes].max(axis=1) >= 0.3 * grey.images.max()).all()


def test_kept_weights_are_named_by_what_makes_them(baselines, networks):
    config = dataclasses.replace(networks["separable"], in_channels=1, num_classes=10)
    rng = np.random.default_rng(1)
    pixels, labels = rng.integers(0, 256, (600, 28, 28, 1), dtype=np.uint8), rng.integers(0, 10, 600)
    classes = tuple(map(str, range(10)))
    images = Dataset(images=pixels, labels=labels, class_names=classes, source="noise", split="train")
    other = dataclasses.replace(images, images=255 - pixels)
    baseline = baselines.Baseline(config, 1e-2)
    slower = dataclasses.replace(baseline, learning_rate=5e-3)
    cases = [(baseline, 0, images), (baseline, 1, images), (slower, 0, images), (baseline, 0, other)]
    names = [baselines.weights_name(*case) for case in cases]
    assert len(set(names)) == len(names)
    assert baselines.weights_name(*cases[0]) == names[0]


def test_training_goes_on_from_kept_weights(baselines, networks, monkeypatch, tmp_path):
    config = dataclasses.replace(networks["separable"], in_channels=1, num_classes=10)
    rng = np.random.default_rng(1)
    images = Dataset(
        images=rng.integers(0, 256, (400, 28, 28, 1), dtype=np.uint8), labels=rng.integers(0, 10, 400),
        class_names=tuple(map(str, range(10))), source="noise", split="train",
    )  # fmt: skip
    monkeypatch.setattr(baselines, "KEPT", tmp_path)
    monkeypatch.setattr(baselines, "images_of", lambda split, shape: images)
    first = baselines.trained(baselines.Baseline(config, 1e-2), 0)
    assert len(list(tmp_path.iterdir())) == 1
    trial = baselines.train

    def only_the_trial(net, part, options):
        assert len(part) == baselines.FEW, "trained anew"
        trial(net, part, options)

    monkeypatch.setattr(baselines, "train", only_the_trial)
    again = baselines.trained(baselines.Baseline(config, 1e-2), 0)
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["inverted", "separable"])
def test_the_counted_layers_are_those_of_the_network(baselines, networks, kind):
    """Each convolution of the torch network is a call with its sizes, in order."""
    config, convolutions = networks[kind], []

    def note(module, inputs, output):
        name = "depthwise" if module.groups > 1 else "convolve"
        sizes = module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0]
        convolutions.append((name, *sizes, output.shape[2]))

    net = baselines.Cnn(config).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    net(baselines.to_float(some_images(config, 1)))
    found, names = [], []
    for layer in baselines.cnn_instructions.layers(config):
        name, numbers = layer.call.rstrip(")").split("(")
        names.append(name)
        if name in ("depthwise", "convolve"):
            _side, inputs, outputs, kernel, stride, _pad, to = map(int, numbers.split(","))
            found.append((name, inputs, outputs, kernel, stride, to))
    assert found == convolutions
    assert names.count("add") == sum(block.residual for block in net.blocks) and names[-2:] == ["mean", "connect"]
    cnns = {name for name, b in baselines.BASELINES.items() if b.is_cnn}
    assert [set(baselines.COUNTED[channels]) for channels in baselines.CHANNELS.values()] == [cnns] * 2
