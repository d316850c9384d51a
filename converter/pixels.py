# SPDX-License-Identifier: Apache-2.0
"""How a uint8 image enters the float network. converter/lower.py holds the same fact for the int8 one."""

from __future__ import annotations

import numpy as np
import torch


def to_float(images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 [n, height, width, channels] -> float32 [n, channels, height, width] in [-1, 1], on the images' device.

    An array and a tensor of grey images give equal values with unequal strides. Strides decide which convolution kernel
    torch picks, and so the last bits of the result: calibration passes arrays, training tensors.
    """
    if isinstance(images, np.ndarray):
        pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float()
    else:
        pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return pixels / 127.5 - 1.0
