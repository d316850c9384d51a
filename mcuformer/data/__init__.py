# SPDX-License-Identifier: Apache-2.0
"""Images and labels from the common formats.

    load("fashion-mnist")                       the subset in the package: 10,000 train, 2,000 test images
    load("fashion-mnist-full", split="train")   all 60,000 + 10,000, if they are on this machine
    load("path/to/folder", image_size=96)       idx files, ImageNet layout or CIFAR pickles: it looks
    load("path/to/sounds")                      WAV files by class, as images of log-mel features
    load("path/to/folder", channels=1)          its image files as grey
    load("path/to/file.npz")                    x_train, y_train, x_test, y_test, or images, labels

A source without splits of its own (class folders alone, an .npz of images and labels) is split the same way every
time: every fifth image of each class is "test", the others are "train". Split "all" is both together.
"""

from mcuformer.data.dataset import Dataset, hold_out
from mcuformer.data.fashion_mnist import FASHION_MNIST_ENV, FASHION_MNIST_FULL, FASHION_MNIST_SUBSET
from mcuformer.data.idx import read_idx
from mcuformer.data.image_files import FileImages
from mcuformer.data.loading import SPLITS, load, load_sized

__all__ = [
    "FASHION_MNIST_ENV",
    "FASHION_MNIST_FULL",
    "FASHION_MNIST_SUBSET",
    "SPLITS",
    "Dataset",
    "FileImages",
    "hold_out",
    "load",
    "load_sized",
    "read_idx",
]
