# SPDX-License-Identifier: Apache-2.0
"""Networks to train and to search."""

from mcuformer.nas.subnet import build_subnet, load_subnet, save_subnet
from mcuformer.nas.train import TrainOptions, train

__all__ = ["TrainOptions", "build_subnet", "load_subnet", "save_subnet", "train"]
