# SPDX-License-Identifier: Apache-2.0
"""A teacher: read from every kind of file, its answers are learned, and one that does not fit is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from spaces import CONV, digits
from torch import nn

from mcuformer.cli import app
from mcuformer.converter.pixels import to_float
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ConfigError, ModelError
from mcuformer.nas import (
    SuperNet,
    Teacher,
    TrainOptions,
    build_subnet,
    evaluate,
    load_subnet,
    load_teacher,
    save_subnet,
    save_supernet,
    train,
)
from mcuformer.nas.train import StepLoss

CONFIG = SubnetConfig(
    image_size=8, in_channels=1, patch_size=2, embed_dim=16, depth=1, num_heads=1, mlp_ratio=2.0, num_classes=10
)
OPTIONS = TrainOptions(epochs=3, batch_size=50, learning_rate=5e-3, flip=False, threads=1)


def foreign(channels: int = 1, classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, classes),
    ).eval()  # fmt: skip


def exported(net: nn.Module, path, shape=(2, 1, 8, 8), any_number=True):
    dynamic = ({0: torch.export.Dim("n", min=1)},) if any_number else None
    torch.export.save(torch.export.export(net, (torch.zeros(shape),), dynamic_shapes=dynamic), path)
    return path


def images(count: int = 5) -> torch.Tensor:
    return to_float(digits(0, count).images)


def test_a_program_of_torch_export_is_a_teacher(tmp_path):
    net = foreign()
    teacher = load_teacher(exported(net, tmp_path / "teacher.pt2"))
    torch.testing.assert_close(teacher(images()), net(images()).detach())
    assert not teacher(images()).requires_grad


def test_images_are_made_as_the_teacher_takes_them(tmp_path):
    """Larger ones in colour: resized, and grey as red, green and blue."""
    net = foreign(channels=3)
    teacher = load_teacher(exported(net, tmp_path / "teacher.pt2", (2, 3, 24, 20)))
    assert teacher.takes == (3, 24, 20)
    large = nn.functional.interpolate(images(), (24, 20), mode="bilinear", antialias=True)
    torch.testing.assert_close(teacher(images()), net(large.expand(-1, 3, -1, -1)).detach())


def test_subnets_and_supernets_are_teachers(tmp_path):
    net = build_subnet(CONFIG).eval()
    save_subnet(net, tmp_path / "subnet.pt")
    torch.testing.assert_close(load_teacher(tmp_path / "subnet.pt")(images()), net(images()).detach())
    supernet = SuperNet(CONV)
    supernet.calibrate(images(64))
    save_supernet(supernet, tmp_path / "supernet.pt")
    want = supernet.eval()(images(), CONV.largest()).detach()
    torch.testing.assert_close(load_teacher(tmp_path / "supernet.pt")(images()), want)


@pytest.mark.parametrize("kind", ["nothing", "text", "a state dict", "another program", "half a program"])
def test_what_is_no_teacher_is_refused_by_name(tmp_path, kind):
    path = tmp_path / ("teacher.pt2" if "program" in kind else "teacher.pt")
    if kind == "text":
        path.write_text("a network")
    elif kind == "a state dict":
        torch.save(foreign().state_dict(), path)
    elif kind == "another program":

        class Two(nn.Module):
            def forward(self, a, b):
                return a + b

        torch.export.save(torch.export.export(Two(), (torch.zeros(2), torch.zeros(2))), path)
    elif kind == "half a program":
        whole = exported(foreign(), tmp_path / "whole.pt2").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"teacher\.pt.*torch\.export") as error:
        load_teacher(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (foreign(classes=9), r"\[3, 9\].*\[3, 10\]"),
        (foreign(channels=2), "fails on 3 images of 8x8x1.*RuntimeError.*NCHW"),
        (lambda x: x, r"\[3, 1, 8, 8\]"),
        ("teacher.pt", "teacher = 'teacher.pt'.*load_teacher"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_before_training(teacher, words):
    steps = []
    with pytest.raises(ConfigError, match=words):
        train(build_subnet(CONFIG), digits(0, 100), OPTIONS, teacher=teacher, progress=steps.append)
    assert not steps


def test_one_exported_for_one_image_is_refused_with_the_fix(tmp_path):
    teacher = load_teacher(exported(foreign(), tmp_path / "teacher.pt2", (1, 1, 8, 8), any_number=False))
    with pytest.raises(ConfigError, match=r"teacher\.pt2.*dynamic_shapes"):
        train(build_subnet(CONFIG), digits(0, 100), OPTIONS, teacher=teacher)


def test_its_answers_are_learned_and_not_the_labels():
    """With all of the loss from a teacher that calls a 3 an 8, the network does too."""
    data = digits(0, 600)
    swapped = np.where(data.labels == 3, 8, data.labels)
    wrong = dataclasses.replace(data, labels=swapped)
    teacher = build_subnet(dataclasses.replace(CONFIG, embed_dim=32, depth=2))
    train(teacher, wrong, dataclasses.replace(OPTIONS, epochs=12))
    options = dataclasses.replace(OPTIONS, epochs=12, teacher_weight=1.0)
    net = build_subnet(CONFIG)
    train(net, data, options, teacher=teacher)
    assert evaluate(net, wrong) > evaluate(net, data) + 0.05


def test_the_loss_is_the_weighed_sum_of_labels_and_answers():
    net, teacher = build_subnet(CONFIG).eval(), Teacher(foreign())
    labels, share = torch.arange(5), torch.ones(5)

    def loss(**options):
        made = TrainOptions(label_smoothing=0.0, **options)
        return StepLoss(net, made, teacher)(images(), labels, labels, share, (None,)).item()

    logits, answers = net(images()), teacher(images())
    of_labels = nn.functional.cross_entropy(logits, labels).item()
    wanted = (answers / 4).softmax(dim=1)
    of_answers = 16 * (wanted * (wanted.log() - (logits / 4).log_softmax(dim=1))).sum(dim=1).mean().item()
    assert loss(teacher_weight=0.3, teacher_temperature=4.0) == pytest.approx(0.7 * of_labels + 0.3 * of_answers)


@pytest.mark.parametrize("sampling", ["alternate", "sandwich"])
def test_a_supernet_learns_from_it_too(sampling):
    supernet, data = SuperNet(CONV), digits(0, 200)
    options = dataclasses.replace(OPTIONS, epochs=1, sampling=sampling)
    plain = SuperNet(CONV)
    train(plain, data, options)
    size = CONV.image_shape
    train(supernet, data, options, teacher=Teacher(foreign(), (size[2], size[0], size[1])))
    same = [torch.equal(a, b) for a, b in zip(plain.parameters(), supernet.parameters(), strict=True)]
    assert not all(same)


def test_a_checkpoint_belongs_to_its_teacher(tmp_path):
    data, path = digits(0, 200), tmp_path / "training.pt"
    more = dataclasses.replace(OPTIONS, schedule="constant")
    whole = build_subnet(CONFIG)
    train(whole, data, more, teacher=foreign())
    train(build_subnet(CONFIG), data, dataclasses.replace(more, epochs=2), teacher=foreign(), checkpoint=path)
    resumed = build_subnet(CONFIG)
    train(resumed, data, more, teacher=foreign(), checkpoint=path)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    for other in (None, lambda x: -foreign()(x)):
        with pytest.raises(ConfigError, match="another training.*teacher"):
            train(build_subnet(CONFIG), data, more, teacher=other, checkpoint=path)


def test_the_commands_take_it_and_name_a_missing_one_before_they_read_data(tmp_path):
    data = digits(0, 300)
    np.savez(tmp_path / "data.npz", x_train=data.images, y_train=data.labels, x_test=data.images, y_test=data.labels)
    path = exported(foreign(), tmp_path / "teacher.pt2")
    output, finer, config = tmp_path / "subnet.pt", tmp_path / "finer.pt", tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG.to_dict()))

    def run(*arguments):
        app([*map(str, arguments)], standalone_mode=False)

    train_one = ("train", "--config", config, "--epochs", 1, "-o", output, "--option", "flip=false")
    save_subnet(build_subnet(CONFIG), finer)
    for command in (train_one, ("finetune", finer)):
        with pytest.raises(ModelError, match=r"none\.pt2: no such file"):
            run(*command, "--data", tmp_path / "none.npz", "--teacher", tmp_path / "none.pt2")
    run(*train_one, "--data", tmp_path / "data.npz")
    alone = load_subnet(output)
    run(*train_one, "--data", tmp_path / "data.npz", "--teacher", path, "--option", "teacher_weight=1")
    taught = load_subnet(output)
    assert not torch.equal(alone(images()), taught(images()))
    run("finetune", output, "--data", tmp_path / "data.npz", "--epochs", 1, "--teacher", path, "-o", finer)
    assert not torch.equal(load_subnet(finer)(images()), taught(images()))
