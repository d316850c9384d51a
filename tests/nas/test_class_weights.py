# SPDX-License-Identifier: Apache-2.0
"""Class weights: what they are, what they do to a training, and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from spaces import SMALL, digits
from test_train import CONFIG, OPTIONS

from mcuformer.errors import ConfigError
from mcuformer.nas import SuperNet, TrainOptions, build_subnet, train
from mcuformer.nas.class_weights import class_weights
from mcuformer.nas.train import StepLoss

IMAGES = digits(0, 400)
FEW = np.flatnonzero((IMAGES.labels < 5) | (np.arange(400) % 20 == 0))  # classes 5 to 9 are rare
RARE = dataclasses.replace(IMAGES, images=IMAGES.images[FEW], labels=IMAGES.labels[FEW])


def test_balanced_weights_make_each_class_count_alike():
    weights = class_weights(TrainOptions(class_weights="balanced"), RARE).numpy()
    counts = np.bincount(RARE.labels)
    assert counts.max() > 10 * counts.min()
    np.testing.assert_allclose(weights * counts, len(RARE) / 10, rtol=1e-6)
    given = class_weights(TrainOptions(class_weights=[2] * 9 + [4]), RARE).numpy()
    assert given[9] == 2 * given[0] and float((given * counts).sum()) == pytest.approx(len(RARE))
    assert class_weights(TrainOptions(), RARE) is None


def test_an_image_counts_with_the_weight_of_its_class():
    """Of a step's loss, mixed images and those that learn from the largest subnet too."""
    net, weights = SuperNet(SMALL).eval(), torch.tensor([1.0] * 5 + [3.0] * 5)
    subnets = (SMALL.largest(), SMALL.smallest())
    images = torch.randn(8, 1, 8, 8)
    labels, others = torch.arange(8), torch.arange(8).flip(0) + 2
    share = torch.linspace(0, 1, 8)

    def loss(i, weights):
        part = slice(i, i + 1)
        step = StepLoss(net, OPTIONS, weights=weights)
        return step(images[part], labels[part], others[part], share[part], subnets).item()

    def ends(i, at):
        part = slice(i, i + 1)
        return StepLoss(net, OPTIONS)(images[part], labels[part], others[part], torch.full((1,), at), subnets).item()

    whole = StepLoss(net, OPTIONS, weights=weights)(images, labels, others, share, subnets).item()
    assert whole == pytest.approx(np.mean([loss(i, weights) for i in range(8)]), rel=1e-5)
    for i in (0, 7):  # not mixed: one label each
        label = labels[i] if share[i] == 1 else others[i]
        assert loss(i, weights) == pytest.approx(float(weights[label]) * ends(i, float(share[i])), rel=1e-5)


def test_rare_classes_are_found_more_often_with_balanced_weights():
    test = digits(400, 1200)
    rare = test.labels >= 5
    test = dataclasses.replace(test, images=test.images[rare], labels=test.labels[rare])
    options = dataclasses.replace(OPTIONS, epochs=12, learning_rate=1e-2)
    plain, balanced = (
        train(build_subnet(CONFIG), RARE, dataclasses.replace(options, class_weights=weights), validation=test).top1
        for weights in (None, "balanced")
    )
    assert balanced > plain + 0.02


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("balance", "class_weights = 'balance': must be balanced, or a number above 0 for each class"),
        ([1, 0], "must be balanced, or a number above 0 for each class"),
        ([1, float("nan")], "must be balanced, or a number above 0 for each class"),
    ],
)
def test_weights_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        TrainOptions(class_weights=given)


def test_weights_that_do_not_fit_the_data_are_refused():
    with pytest.raises(
        ConfigError, match="class_weights has 2 numbers for 10 classes; give one for each, in the order 0"
    ):
        class_weights(TrainOptions(class_weights=(1, 2)), RARE)
    none = RARE.labels != 7
    holed = dataclasses.replace(RARE, images=RARE.images[none], labels=RARE.labels[none])
    with pytest.raises(ConfigError, match="class_weights = balanced: no image to train on is of class 7; add some"):
        class_weights(TrainOptions(class_weights="balanced"), holed)
