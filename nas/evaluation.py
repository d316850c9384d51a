# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a float network or a supernet's subnet on images; and whether network and images fit each other."""

from __future__ import annotations

import os

import numpy as np
import torch

from mcuformer.checks import shown
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.pixels import to_float
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.data import Dataset
from mcuformer.errors import ConfigError, DataError
from mcuformer.nas.search_space import SearchSpace
from mcuformer.nas.supernet import SuperNet

CALIBRATION_IMAGES = 512  # of a supernet's batch norm


def evaluate(
    net: FloatViT | SuperNet,
    dataset: Dataset,
    batch_size: int = 256,
    config: SubnetConfig | None = None,
    precision: str = "float32",
) -> float:
    """Top-1 of `net` on all images of `dataset`, from 0 to 1. Raises DataError if they do not fit.

    config: the subnet of a supernet; default: the largest. precision: as TrainOptions has it.
    """
    check_fit(net, dataset)
    arguments: tuple[SubnetConfig, ...] = ()
    if isinstance(net, SuperNet):
        arguments = (net.space.largest() if config is None else config,)
    was_training, where = net.training, next(net.parameters()).device
    net.eval()
    correct = 0
    with torch.inference_mode(), mixed(precision, where):
        for start in range(0, len(dataset), batch_size):
            images = to_float(torch.from_numpy(np.array(dataset.images[start : start + batch_size])))
            labels = torch.from_numpy(np.array(dataset.labels[start : start + batch_size]))
            logits = net(images.to(where), *arguments)
            correct += int((logits.argmax(dim=1).cpu() == labels).sum())
    net.train(was_training)
    return correct / len(dataset)


def mixed(precision: str, device: torch.device) -> torch.autocast:
    """For the `with` statement: networks compute in bfloat16 where they may, if that is the precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def calibration_images(dataset: Dataset, count: int = CALIBRATION_IMAGES) -> torch.Tensor:
    """Float NCHW images for a supernet's batch norm: a few hundred, spread over the data set."""
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(np.int64)
    return to_float(torch.from_numpy(np.array(dataset.images[chosen])))


def check_has_head(config: SubnetConfig | SearchSpace, name: str | os.PathLike | None = None) -> None:
    """Raises ConfigError if a network has no classes to train or to measure. name: of its file."""
    if not config.num_classes:
        raise ConfigError(
            f"{'' if name is None else f'{name}: '}num_classes = 0: a network without a head gives embeddings and no "
            "classes to train for or to measure; build it with num_classes = the classes of the data, or import it "
            "with --new-head"
        )


def check_fit(net: FloatViT | SuperNet, dataset: Dataset) -> None:
    """Raises DataError if images or classes of `dataset` are not those `net` was built for, ConfigError if it has no
    head."""
    if not isinstance(dataset, Dataset):
        raise DataError(f"{shown(dataset)} is no data set: give what mcuformer.data.load returns")
    check_images(net.space if isinstance(net, SuperNet) else net.config, dataset)


def check_images(config: SubnetConfig | SearchSpace, dataset: Dataset) -> None:
    """check_fit() of a network that is still to be built."""
    check_has_head(config)
    where = f"{dataset.source} ({dataset.split})"
    if dataset.images.ndim != 4 or dataset.images.dtype != "uint8" or not len(dataset):
        raise DataError(
            f"{where}: images are {dataset.images.dtype} {list(dataset.images.shape)}; "
            f"give uint8 [n, height, width, channels], at least one image"
        )
    _, height, width, channels = dataset.images.shape
    rows, columns, _ = config.image_shape
    if (height, width) != (rows, columns):
        raise DataError(
            f"{where}: images are {height}x{width} pixels, the network takes {rows}x{columns}; load them with "
            f"image_size={config.image_size}, or build the network for their size"
        )
    if channels != config.in_channels:
        raise DataError(
            f"{where}: images have {channels} channel{'s' if channels > 1 else ''}, the network takes "
            f"{config.in_channels}; build it with in_channels={channels}, or give other images"
        )
    if len(dataset.class_names) != config.num_classes:
        raise DataError(
            f"{where}: has {len(dataset.class_names)} classes, the network {config.num_classes}; "
            f"build it with num_classes={len(dataset.class_names)}, or give other images"
        )
    if len(dataset.class_names) < 2:
        raise DataError(f"{where}: has one class only, {dataset.class_names[0]}; give images of two classes or more")
    if dataset.labels.min() < 0 or dataset.labels.max() >= config.num_classes:
        raise DataError(
            f"{where}: labels run from {dataset.labels.min()} to {dataset.labels.max()}, outside 0 to "
            f"{config.num_classes - 1}; number the classes from 0"
        )
