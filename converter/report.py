# SPDX-License-Identifier: Apache-2.0
"""Where quantisation loses accuracy: the error of each activation, and what remains of it in the output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mcuformer.converter.calibrate import check_images, to_float
from mcuformer.converter.checked_network import checked
from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.graph import to_int8
from mcuformer.converter.model import Model
from mcuformer.gallery import cosines


@dataclass(frozen=True)
class TensorError:
    """Errors of one activation, as root mean square of the error over that of the tensor.

    added  what rounding and saturating this tensor alone costs: its float values quantised and back
    total  how far the int8 network is from the float network here: all errors so far
    clipped  share of float values outside the range of its integers
    cosine   of the int8 network's values with the float network's: 1 if they agree but for a factor
    """

    name: str
    added: float
    total: float
    clipped: float
    cosine: float


def error_report(model: Model, net: FloatViT, images: np.ndarray) -> list[TensorError]:
    """Runs the float network and the integer reference on images (uint8 NHWC; a few are enough); one row per tensor."""
    net = checked(net)
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
        most = 1 << (quantisation.bits - 1)
        clipped = float(np.mean((steps < -most - 0.5) | (steps > most - 0.5)))
        total = error(integers[tensor.name])
        got = quantisation.dequantise(integers[tensor.name]).reshape(1, -1)
        cosine = float(cosines(got, real.reshape(1, -1))[0, 0])
        rows.append(TensorError(tensor.name, error(quantisation.quantise(real)), total, clipped, cosine))
    return rows


@dataclass(frozen=True)
class Agreement:
    """How far the int8 network's outputs are those of the float network.

    images  that both ran on
    mean_cosine, least_cosine  of an image's logits (or embedding), float with int8
    top1    share of images for which both find the same class; None without a head
    """

    images: int
    mean_cosine: float
    least_cosine: float
    top1: float | None


def float_outputs(net: FloatViT, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """The float network's logits or embeddings, float32 [n, outputs], of uint8 images [n, H, W, C]."""
    net = checked(net).eval()
    images = check_images(images, net.config)
    with torch.inference_mode():
        parts = [net(to_float(images[i : i + batch_size])).numpy() for i in range(0, len(images), batch_size)]
    return np.concatenate(parts)


def agreement(real: np.ndarray, got: np.ndarray, has_head: bool) -> Agreement:
    """Of float outputs [n, outputs] with int8 ones, dequantised, n >= 1."""
    each = np.array([cosines(a[None], b[None])[0, 0] for a, b in zip(real, got, strict=True)])
    top1 = float(np.mean(real.argmax(axis=1) == got.argmax(axis=1))) if has_head else None
    return Agreement(len(each), float(each.mean()), float(each.min()), top1)
