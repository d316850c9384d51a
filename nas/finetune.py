# SPDX-License-Identifier: Apache-2.0
"""Fine-tunes a chosen subnet alone: it no longer shares its weights."""

from __future__ import annotations

from contextlib import nullcontext

from mcuformer.converter.float_vit import FloatViT
from mcuformer.data import Dataset
from mcuformer.nas import recipes
from mcuformer.nas.evaluation import calibration_images, check_fit
from mcuformer.nas.qat import fake_quantised
from mcuformer.nas.train import TrainResult, train
from mcuformer.nas.train_options import TrainOptions

FINETUNE_OPTIONS = TrainOptions(epochs=5, learning_rate=5e-4, warmup_epochs=0.5)


def finetune_options(net: FloatViT) -> TrainOptions:
    """FINETUNE_OPTIONS; images are not mirrored if they were not when the network was trained."""
    return recipes.like_before(FINETUNE_OPTIONS, net.notes)


def finetune(
    net: FloatViT, dataset: Dataset, options: TrainOptions = FINETUNE_OPTIONS, *, quantised: bool = False, **more
) -> TrainResult:
    """Trains `net` further, in place. quantised: with weights and activations rounded to int8 (nas/qat.py).

    more: other arguments of train(). If quantised, the top-1 on `validation` is the rounded network's.
    """
    check_fit(net, dataset)
    with fake_quantised(net, calibration_images(dataset)) if quantised else nullcontext():
        return train(net, dataset, options, **more)
