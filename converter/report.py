# SPDX-License-Identifier: Apache-2.0
"""Where quantisation loses accuracy: the error of each activation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mcuformer.converter.calibrate import check_images, to_float
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.graph import to_int8
from mcuformer.converter.model import Model


@dataclass(frozen=True)
class TensorError:
    """Errors of one activation, as root mean square of the error over that of the tensor.

    added  what rounding and saturating this tensor alone costs: its float values quantised and back
    total  how far the int8 network is from the float network here: all errors so far
    clipped  share of float values outside the int8 range
    """

    name: str
    added: float
    total: float
    clipped: float


def error_report(model: Model, net: FloatViT, images: np.ndarray) -> list[TensorError]:
    """Runs the float network and the integer reference on images (uint8 NHWC; a few are enough); one row per tensor."""
    images = check_images(images, net.config)
    floats: dict[str, np.ndarray] = {}
    net.eval()
    with torch.inference_mode():
        net(to_float(images), lambda name, value: floats.__setitem__(name, value.double().numpy()))
    integers: dict[str, np.ndarray] = {}
    model.graph.run(to_int8(images), record=integers.__setitem__)
    rows = []
    for op in model.graph.ops:
        tensor = model.graph.tensors[op.output]
        real = floats[tensor.name]
        quantisation = tensor.quantised_by
        size = np.sqrt(np.mean(real**2)) or 1.0

        def error(q, real=real, quantisation=quantisation, size=size):
            return float(np.sqrt(np.mean((quantisation.dequantise(q).reshape(real.shape) - real) ** 2)) / size)

        steps = real / quantisation.scale + quantisation.zero_point
        clipped = float(np.mean((steps < -128.5) | (steps > 127.5)))
        total = error(integers[tensor.name])
        rows.append(TensorError(tensor.name, error(quantisation.quantise(real)), total, clipped))
    return rows
