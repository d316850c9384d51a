# SPDX-License-Identifier: Apache-2.0
"""What all families read alike: matrices and LayerNorms by name."""

from __future__ import annotations

from mcuformer.converter.importers.parts import Matrix
from mcuformer.converter.importers.weights import Weights


def linear(weights: Weights, name: str, outputs: int | None, inputs: int | None) -> Matrix:
    """name.weight [outputs, inputs] and name.bias, which may be missing."""
    weight = weights.take(f"{name}.weight", outputs, inputs)
    return Matrix(weight, weights.maybe(f"{name}.bias", weight.shape[0]))


def convolution(weights: Weights, name: str) -> Matrix:
    """name.weight [outputs, channels, height, width] and name.bias, which may be missing."""
    weight = weights.take(f"{name}.weight", None, None, None, None)
    return Matrix(weight, weights.maybe(f"{name}.bias", weight.shape[0]))


def layer_norm(weights: Weights, name: str, d: int) -> Matrix:
    """name.weight and name.bias: without a bias it is an RMSNorm, as far as one can tell."""
    weight = weights.take(f"{name}.weight", d)
    if f"{name}.bias" not in weights:
        raise weights.error(f"tensor '{name}.bias' is missing: an RMSNorm, and the network has only LayerNorm")
    return Matrix(weight, weights.take(f"{name}.bias", d))


def check_heads(weights: Weights, name: str, qkv: Matrix, num_heads: int) -> int:
    """The width of q; ModelError if q, k and v of so many heads cannot have the matrix's rows."""
    if qkv.outputs % (3 * num_heads):
        raise weights.error(
            f"tensor '{name}': q, k and v have {qkv.outputs} rows, which num_heads = {num_heads} does not divide"
        )
    return qkv.outputs // 3
