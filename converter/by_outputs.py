# SPDX-License-Identifier: Apache-2.0
"""Ranges of what a matrix reads, chosen by how exact they make its outputs.

For trained networks with outliers: the range with the smallest error of a tensor need not be the one with the smallest
error of what is computed from it. Prefix tokens are few and unlike the others, so errors count by groups: of tokens
drawn from all, and of prefix tokens.
"""

from __future__ import annotations

import numpy as np

from mcuformer.converter.calibrate import Samples
from mcuformer.converter.ops import int_gelu
from mcuformer.converter.quantise import SMALLEST_SCALE, Quantisation, affine

ROWS = 256  # tokens of a group, about
SMALLEST_STD = 1e-9
CHANNEL_SHARES = (0.25, 0.5, 0.75, 1.0)  # exponents: of a channel's own scale, the rest of one for all
CHANNEL_SHRINKS = (1.0, 0.85, 0.7)
LEAST_CHANNEL = 2.0**-20  # by the widest channel
HIDDEN_FLOORS = (1.0, 0.75)  # of the floor below which inputs of the activation function share one code
HIDDEN_SHRINKS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4)


def norm_quantisation(samples: Samples, method: str, weight: np.ndarray, finest: np.ndarray) -> Quantisation:
    """Of a LayerNorm's output that only weight, float [out, C], reads: scales between one for all channels and each
    channel's own, since wide channels cost the matrix precision of weights. finest: least scales, float [C]."""
    groups = _groups(samples)
    own = np.asarray(samples.each_channel(method).scale)
    widest = own.max()
    choices = [samples.affine(method)]
    for share in CHANNEL_SHARES:
        scale = np.maximum(own, widest * LEAST_CHANNEL) ** share * widest ** (1 - share)
        choices += [Quantisation(np.maximum(scale * shrink, finest)) for shrink in CHANNEL_SHRINKS]
    errors = []
    for choice in choices:
        step = np.maximum(np.abs(weight * choice.scale).max(axis=1, keepdims=True) / 127, SMALLEST_SCALE)
        rounded = np.rint(weight * choice.scale / step) * step / choice.scale
        got = [choice.dequantise(choice.quantise(rows)) for rows in groups]
        errors.append(output_error(groups, got, weight, rounded))
    return choices[int(np.argmin(errors))]


def hidden_quantisation(
    before: Samples, after: Samples, method: str, activation: str, weight: np.ndarray
) -> tuple[Quantisation, Quantisation]:
    """Of an MLP's hidden values before and after the activation function; weight, float [out, hidden], reads them."""
    floor = int_gelu.activation_of(activation).floor
    groups = _groups(before)
    wanted = [int_gelu.activation_of(activation).function(rows) for rows in groups]
    (bottom, top), (low, high) = before.range(method), after.range(method)
    choices, errors = [], []
    for floor_share in HIDDEN_FLOORS:
        for shrink in HIDDEN_SHRINKS:
            source, target = affine(max(bottom, floor_share * floor), shrink * top), affine(low, shrink * high)
            table = int_gelu.table(source, target, activation)
            got = [target.dequantise(table[source.quantise(rows).astype(np.int64) + 128]) for rows in groups]
            choices.append((source, target))
            errors.append(output_error(wanted, got, weight, weight))
    return choices[int(np.argmin(errors))]


def output_error(wanted: list[np.ndarray], got: list[np.ndarray], weight: np.ndarray, rounded: np.ndarray) -> float:
    """Mean square error of a matrix's outputs, each by its own variance; inputs float [n, in]; groups weigh alike."""
    outputs = [rows @ weight.T for rows in wanted]
    importance = 1 / np.maximum(np.concatenate(outputs).std(axis=0), SMALLEST_STD)
    errors = [((rows @ rounded.T - output) * importance) ** 2 for rows, output in zip(got, outputs, strict=True)]
    return float(np.mean([error.mean() for error in errors]))


def _groups(samples: Samples) -> list[np.ndarray]:
    groups = [rows[:: max(1, len(rows) // ROWS)] for rows in (samples.rows, samples.prefix) if len(rows)]
    return [rows.astype(np.float64) for rows in groups]
