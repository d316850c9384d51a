# SPDX-License-Identifier: Apache-2.0
"""IntGeLU: int8 -> int8 through a table of 256 entries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mcuformer.converter.quantise import Quantisation

NAME = "IntGeLU"
INPUTS = ("input", "table")
OVERWRITES = (0,)
OP_DATA_BYTES = 0

_erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu_erf(x: np.ndarray) -> np.ndarray:
    """x * Phi(x), the exact form."""
    return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))


def gelu_sigmoid(x: np.ndarray) -> np.ndarray:
    """x * sigmoid(1.702 x), the form the paper computes in integers."""
    return x / (1.0 + np.exp(-1.702 * x))


FORMS = {"erf": gelu_erf, "sigmoid": gelu_sigmoid}


@dataclass(frozen=True)
class Options:
    """IntGeLU has none."""


def table(source: Quantisation, target: Quantisation, form: str = "erf") -> np.ndarray:
    """int8 [256]: the output for every int8 input q, at index q + 128."""
    return target.quantise(FORMS[form](source.dequantise(np.arange(-128, 128))))


def reference(options: Options, x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """x int8, any shape -> int8 of the same shape."""
    return table[x.astype(np.int64) + 128]


def scratch_bytes(options: Options, tensors) -> int:
    return 0


def output_shape(options: Options, shapes) -> tuple[int, ...]:
    return shapes[0]
