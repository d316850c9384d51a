# SPDX-License-Identifier: Apache-2.0
"""How much an image of each class counts in the loss, where classes are of unequal sizes or of unequal worth."""

from __future__ import annotations

import numpy as np
import torch

from mcuformer.data import Dataset
from mcuformer.data.loading import Outline
from mcuformer.errors import ConfigError
from mcuformer.nas.train_options import BALANCED, TrainOptions


def class_weights(
    options: TrainOptions, data: Dataset | Outline, device: torch.device | str = "cpu"
) -> torch.Tensor | None:
    """float32 [classes] of TrainOptions.class_weights, with a mean of 1 over the images; None: all count alike.

    ConfigError if there are not as many as classes, or a class without images is to be balanced.
    """
    given, names = options.class_weights, data.class_names
    if given is None:
        return None
    counts = np.bincount(data.labels, minlength=len(names))
    if given == BALANCED:
        if not counts.all():
            raise ConfigError(
                f"class_weights = {BALANCED}: no image to train on is of class {names[int(counts.argmin())]}; add "
                "some, or give a number for each class"
            )
        weights = 1 / counts
    elif len(given) != len(names):
        raise ConfigError(
            f"class_weights has {len(given)} numbers for {len(names)} classes; give one for each, in the order "
            f"{', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
        )
    else:
        weights = np.array(given)
    return torch.from_numpy(weights * (counts.sum() / (weights * counts).sum())).float().to(device)
