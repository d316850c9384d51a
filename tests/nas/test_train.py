# SPDX-License-Identifier: Apache-2.0
"""Training: it learns, it can be interrupted, and it says what does not fit."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from spaces import digits

from mcuformer.boards import get_board
from mcuformer.converter.pixels import to_float
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.data import Dataset, load
from mcuformer.errors import ConfigError, DataError, ModelError
from mcuformer.nas import TrainOptions, build_subnet, train
from mcuformer.nas.evaluation import check_fit, evaluate
from mcuformer.nas.recipes import NETWORK_CONFIG
from mcuformer.nas.train import _optimiser

CONFIG = SubnetConfig(
    image_size=8,
    in_channels=1,
    patch_size=2,
    embed_dim=32,
    depth=2,
    num_heads=2,
    mlp_ratio=2.0,
    num_classes=10,
)
CONV = dataclasses.replace(CONFIG, stem="conv", patch_size=4, depth=1)
OPTIONS = TrainOptions(epochs=4, batch_size=64, learning_rate=2e-3, flip=False, threads=1)


def same_weights(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class Interrupted(Exception):
    pass


def interrupt_in_epoch(epoch: int):
    def progress(state):
        if state.epoch == epoch and state.step == 2:
            raise Interrupted

    return progress


@pytest.mark.parametrize("more", [{}, {"kv_heads": 1, "rank_ratio": 0.5}], ids=["dense", "low-rank"])
def test_a_tiny_network_learns_digits(more):
    net = build_subnet(dataclasses.replace(CONV, **more))
    options = dataclasses.replace(OPTIONS, epochs=8, learning_rate=1e-2)
    result = train(net, digits(0, 1400), options, validation=digits(1400, 1797, "test"))
    assert result.top1 > 0.85
    assert len(result.losses) == 8 and result.losses[-1] < result.losses[0]
    assert result.seconds > 0
    assert not net.training
    assert evaluate(net, digits(1400, 1797, "test"), batch_size=50) == result.top1


def test_the_average_of_the_weights_is_what_the_network_ends_with():
    plain, averaged = build_subnet(CONFIG), build_subnet(CONFIG)
    train(plain, digits(0, 300), OPTIONS)
    train(averaged, digits(0, 300), dataclasses.replace(OPTIONS, ema_decay=0.9))
    assert not same_weights(plain, averaged)
    for a, b in zip(plain.parameters(), averaged.parameters(), strict=True):
        assert torch.isfinite(b).all() and (a - b).abs().max() < 0.1


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    nets = [build_subnet(CONFIG) for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        train(net, digits(0, 200), dataclasses.replace(OPTIONS, epochs=2, seed=seed))
    assert same_weights(nets[0], nets[1])
    assert not same_weights(nets[0], nets[2])


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("config", [CONFIG, CONV], ids=["patch", "conv"])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, config, ema_decay):
    options = dataclasses.replace(OPTIONS, ema_decay=ema_decay)
    images, path = digits(0, 300), tmp_path / "training.pt"
    whole = build_subnet(config)
    expected = train(whole, images, options, validation=images)

    for epoch in (3, 4):
        with pytest.raises(Interrupted):
            train(build_subnet(config), images, options, checkpoint=path, progress=interrupt_in_epoch(epoch))
    resumed = build_subnet(config, seed=1)  # its weights come from the checkpoint
    result = train(resumed, images, options, validation=images, checkpoint=path)

    assert same_weights(whole, resumed)
    assert (result.losses, result.top1) == (expected.losses, expected.top1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["training.pt"]

    again = build_subnet(config)  # nothing is left to do
    assert train(again, images, options, checkpoint=path).losses == expected.losses
    assert same_weights(whole, again)


def test_positions_and_prefix_do_not_decay():
    net = build_subnet(dataclasses.replace(CONFIG, prefix_tokens=1, norm_pre=True))
    decayed, free = (group["params"] for group in _optimiser(net, OPTIONS).param_groups)
    names = {parameter: name for name, parameter in net.named_parameters()}
    assert all(names[p].endswith(".weight") and p.ndim > 1 for p in decayed)
    assert {"prefix", "position", "norm_pre.weight"} <= {names[p] for p in free}


def test_progress_counts_steps_and_epochs():
    states = []
    train(build_subnet(CONFIG), digits(0, 200), dataclasses.replace(OPTIONS, epochs=2), progress=states.append)
    assert [(s.epoch, s.step) for s in states] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert all((s.epochs, s.steps) == (2, 3) and s.images_per_second > 0 for s in states)
    assert states[0].seconds_left > 0 and states[-1].seconds_left == 0
    assert all(math.isfinite(s.loss) for s in states)


def test_fewer_images_than_a_batch_are_one_step():
    states = []
    train(build_subnet(CONFIG), digits(0, 5), dataclasses.replace(OPTIONS, epochs=1), progress=states.append)
    assert [s.steps for s in states] == [1]


def test_threads_are_put_back():
    before = torch.get_num_threads()
    options = dataclasses.replace(OPTIONS, threads=before + 1, epochs=1)
    train(build_subnet(CONFIG), digits(0, 64), options)
    assert torch.get_num_threads() == before


def test_input_is_the_whole_range():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 3, 1).expand(1, 1, 3, 2)
    for given in (images, images.numpy()):
        assert to_float(given).shape == (1, 2, 1, 3)
        np.testing.assert_allclose(to_float(given)[0, 1, 0], [-1, -0.6, 1], atol=1e-6)


def test_data_that_does_not_fit_the_network_is_named():
    images = digits(0, 20)
    cases = [
        (dataclasses.replace(CONFIG, image_size=10), "8x8 pixels, the network takes 10x10"),
        (dataclasses.replace(CONFIG, in_channels=3), "1 channel, the network takes 3"),
        (
            dataclasses.replace(CONFIG, num_classes=7),
            "10 classes, the network 7; build it with num_classes=10",
        ),
    ]
    for config, expected in cases:
        net = build_subnet(config)
        for call in (lambda net=net: train(net, images, OPTIONS), lambda net=net: evaluate(net, images)):
            with pytest.raises(DataError) as caught:
                call()
            assert expected in str(caught.value) and str(caught.value).startswith("digits (train): ")
            assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"digits \(test\)"):
        small = Dataset(images.images[:, :4, :4], images.labels, images.class_names, "digits", "test")
        train(build_subnet(CONFIG), images, OPTIONS, validation=small)


def test_unusable_arrays_are_named():
    images = digits(0, 20)
    for change, expected in [
        ({"images": images.images / 255}, "images are float64"),
        ({"images": images.images[:0], "labels": images.labels[:0]}, "at least one image"),
        ({"labels": images.labels + 1}, "labels run from 1 to 10, outside 0 to 9"),
    ]:
        with pytest.raises(DataError, match=expected):
            train(build_subnet(CONFIG), dataclasses.replace(images, **change), OPTIONS)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    options = dataclasses.replace(OPTIONS, learning_rate=1e30, warmup_epochs=0)
    path = tmp_path / "training.pt"
    with pytest.raises(
        ConfigError, match=r"loss became (nan|inf) in epoch 1, step \d+ of 4: use a learning_rate below"
    ):
        train(build_subnet(CONFIG), digits(0, 300), options, checkpoint=path)
    assert not path.exists()


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "training.pt"
    images = digits(0, 128)
    options = dataclasses.replace(OPTIONS, epochs=1)
    train(build_subnet(CONFIG), images, options, checkpoint=path)
    before = path.read_bytes()
    cases = [
        (CONFIG, dataclasses.replace(options, seed=5), images, "options seed = 0 instead of 5"),
        (CONFIG, dataclasses.replace(options, epochs=3), images, "options epochs = 1 instead of 3"),
        (dataclasses.replace(CONFIG, embed_dim=16), options, images, "config embed_dim = 32 instead of 16"),
        (CONFIG, options, digits(0, 129), "data images = "),
        (CONFIG, options, digits(1, 129), "data labels_crc32 = "),
        (CONFIG, options, dataclasses.replace(images, images=255 - images.images), "data pixels_sha256 = "),
    ]
    for config, other, data, expected in cases:
        with pytest.raises(ConfigError, match="belongs to another training") as caught:
            train(build_subnet(config), data, other, checkpoint=path)
        assert str(path) in str(caught.value) and expected in str(caught.value)
    assert path.read_bytes() == before
    train(build_subnet(CONFIG), images, dataclasses.replace(options, threads=2), checkpoint=path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", "cut", "foreign", "hollow"])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "training.pt"
    images, options = digits(0, 64), dataclasses.replace(OPTIONS, epochs=1)
    train(build_subnet(CONFIG), images, options, checkpoint=path)
    if content == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    elif content == "foreign":
        torch.save({"weights": 1}, path)
    elif content == "hollow":
        whole = torch.load(path, weights_only=True)
        torch.save({name: whole[name] for name in ("format", "config", "options", "data", "net")}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ModelError, match="training.pt: ") as caught:
        train(build_subnet(CONFIG), images, options, checkpoint=path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 2.5},
        {"batch_size": True},
        {"learning_rate": 0},
        {"learning_rate": math.nan},
        {"learning_rate": "0.1"},
        {"weight_decay": -1},
        {"label_smoothing": 1},
        {"warmup_epochs": 30},
        {"ema_decay": 1.0},
        {"seed": -1},
        {"threads": 0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_options_that_make_no_sense_are_named(wrong):
    with pytest.raises(ConfigError, match=f"^{next(iter(wrong))} = .*: must be a"):
        TrainOptions(**wrong)


def test_the_default_network_fits_its_images_and_its_board():
    net = build_subnet(NETWORK_CONFIG)
    check_fit(net, load("fashion-mnist", "test", limit=10))
    board = get_board("nano33ble")
    assert sum(p.numel() for p in net.parameters()) < board.flash_budget / 2  # one byte a weight
    widest = max(layer.qkv_dim for layer in NETWORK_CONFIG.layers)
    assert NETWORK_CONFIG.tokens * (NETWORK_CONFIG.embed_dim + widest) < board.sram_budget / 4
