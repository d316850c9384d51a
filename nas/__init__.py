# SPDX-License-Identifier: Apache-2.0
"""Networks to train and to search."""

from mcuformer.nas.evaluation import evaluate
from mcuformer.nas.search_space import SearchSpace, load_space
from mcuformer.nas.subnet import build_subnet, load_subnet, save_subnet
from mcuformer.nas.supernet import SuperNet, load_supernet, save_supernet
from mcuformer.nas.teacher import Teacher, load_teacher
from mcuformer.nas.train import train
from mcuformer.nas.train_options import TrainOptions

__all__ = [
    "SearchSpace",
    "SuperNet",
    "Teacher",
    "TrainOptions",
    "build_subnet",
    "evaluate",
    "load_space",
    "load_subnet",
    "load_supernet",
    "load_teacher",
    "save_subnet",
    "save_supernet",
    "train",
]
