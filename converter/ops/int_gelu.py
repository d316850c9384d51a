# SPDX-License-Identifier: Apache-2.0
"""IntGeLU: int8 -> int8 through a table of 256 entries, for GELU or any other activation function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mcuformer.converter.ops import c_call
from mcuformer.converter.ops.work import Shapes, Work
from mcuformer.converter.quantise import Quantisation

NAME = "IntGeLU"
INPUTS = ("input", "table")
OVERWRITES = (0,)
OP_DATA_BYTES = 0

ENTRIES = 256
KERNELS = {"gelu": ("call", "element")}

_erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu_erf(x: np.ndarray) -> np.ndarray:
    """x * Phi(x), the exact form."""
    return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """GELU by tanh, as in GPT-2 and SigLIP: at most 4.8e-4 from the exact form."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def gelu_sigmoid(x: np.ndarray) -> np.ndarray:
    """x * sigmoid(1.702 x), the form the paper computes in integers: CLIP's quick GELU."""
    return _times_sigmoid(x, 1.702)


def silu(x: np.ndarray) -> np.ndarray:
    """x * sigmoid(x)."""
    return _times_sigmoid(x, 1.0)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


def hardswish(x: np.ndarray) -> np.ndarray:
    """x * min(max(x + 3, 0), 6) / 6."""
    return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0


def _times_sigmoid(x: np.ndarray, slope: float) -> np.ndarray:
    with np.errstate(over="ignore"):  # exp of much is infinite, the quotient 0
        return x / (1.0 + np.exp(-slope * x))


class Activation(NamedTuple):
    """An activation function of the MLP. floor: inputs below it may share one code, since what they give, and so what
    is lost, is at most 2.3e-4."""

    function: Callable[[np.ndarray], np.ndarray]
    floor: float


ACTIVATIONS = {
    "gelu": Activation(gelu_erf, -4.0),
    "gelu-tanh": Activation(gelu_tanh, -4.0),
    "quick-gelu": Activation(gelu_sigmoid, -6.0),
    "silu": Activation(silu, -11.0),
    "relu": Activation(relu, 0.0),
    "hardswish": Activation(hardswish, -3.0),
}
"""By the names of SubnetConfig.activation."""

FORMS = {"erf": "gelu", "sigmoid": "quick-gelu"}
"""How GELU may be computed (QuantisationOptions.gelu) -> the activation that does."""


@dataclass(frozen=True)
class Options:
    """IntGeLU has none."""


class Dims(NamedTuple):
    elements: int


def dims(options: Options, shapes: Shapes) -> Dims:
    """The dimensions of an op with these options and input shapes."""
    return Dims(math.prod(shapes[0]))


def input_elements(d: Dims) -> int:
    return d.elements


def output_elements(d: Dims) -> int:
    return d.elements


def weight_elements(d: Dims) -> int:
    return 0


def constants(d: Dims) -> int:
    """How many constants the model file holds."""
    return 1


def constant_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of each constant in the model file."""
    return (ENTRIES,)


def scratch_bytes(d: Dims) -> int:
    return 0


def macs(d: Dims) -> int:
    return 0


def work(d: Dims) -> list[Work]:
    return [Work("gelu", (1, d.elements))]


def call(op, c: c_call.Context) -> c_call.Call:
    source, table = op.inputs
    args = (c.tensor(table), c.address(source), c.address(op.output), math.prod(c.shape(source)))
    return c_call.Call("mcuf_int_gelu_s8", None, args)


def activation_of(name: str) -> Activation:
    """By its name in ACTIVATIONS or FORMS."""
    return ACTIVATIONS[FORMS.get(name, name)]


def table(source: Quantisation, target: Quantisation, activation: str = "gelu") -> np.ndarray:
    """int8 [256]: the output for each int8 input q, at index q + 128. activation: of ACTIVATIONS or FORMS."""
    function = activation_of(activation).function
    return target.quantise(function(source.dequantise(np.arange(-128, 128))))


def reference(options: Options, x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """x int8, any shape -> int8 of the same shape."""
    return table[x.astype(np.int64) + 128]


def output_shape(options: Options, shapes: Shapes) -> tuple[int, ...]:
    return shapes[0]
