# SPDX-License-Identifier: Apache-2.0
"""The default network of `mcuformer train`, and the training recipes for Fashion-MNIST.

The network was chosen on 2,000 images held out of the 10,000 in the package, at equal processor time: patches of 8
pixels instead of the convolutions cost 3 % top-1, patches of 4 pixels 8 to 14 %; width 96 with two layers is as good
but larger.
"""

from __future__ import annotations

import dataclasses

import torch

from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.nas.search_space import SearchSpace
from mcuformer.nas.train_options import TrainOptions

NETWORK_CONFIG = SubnetConfig(
    image_size=32,
    in_channels=1,
    stem="conv",
    stem_channels=(32, 48),
    patch_size=8,
    embed_dim=64,
    depth=3,
    num_heads=2,
    mlp_ratio=2.0,
    num_classes=10,
)
NETWORK_OPTIONS = TrainOptions(epochs=28)
SUPERNET_OPTIONS = TrainOptions(epochs=20, learning_rate=4e-3)
EVOLUTION_OPTIONS = TrainOptions(epochs=2, learning_rate=2e-3, ema_decay=0.98)
DEMO_SUPERNET_OPTIONS = TrainOptions(epochs=24, learning_rate=4e-3)
DEMO_FINETUNE_OPTIONS = TrainOptions(epochs=8, learning_rate=1e-3)


MIRRORED = "flip"  # in the notes of a file: False if it was trained without mirrored images; else left out


def mirror_notes(trained: TrainOptions | dict) -> dict:
    """What a file notes, so that whoever trains it further mirrors no images either. trained: how it was, or the notes
    of what it was taken from."""
    flip = trained.flip if isinstance(trained, TrainOptions) else trained.get(MIRRORED) is not False
    return {} if flip else {MIRRORED: False}


def like_before(options: TrainOptions, notes: dict) -> TrainOptions:
    """The options for a network with these notes."""
    return for_images(options, not mirror_notes(notes))


def evolution_options(epochs: int) -> TrainOptions:
    """How to train a space whose visits last that many epochs."""
    return dataclasses.replace(EVOLUTION_OPTIONS, epochs=epochs, warmup_epochs=min(1.0, epochs))


def supernet_options(space: SearchSpace) -> TrainOptions:
    """How to train a space's supernet."""
    return for_images(for_device(SUPERNET_OPTIONS), space.flip)


def for_images(options: TrainOptions, flip: bool) -> TrainOptions:
    """The same options for images that may be mirrored, or not."""
    return dataclasses.replace(options, flip=options.flip and flip)


def for_device(options: TrainOptions) -> TrainOptions:
    """The same options for a GPU, if there is one: sandwich, mixed precision."""
    if not torch.cuda.is_available():
        return options
    return dataclasses.replace(options, sampling="sandwich", precision="bfloat16")
