# SPDX-License-Identifier: Apache-2.0
"""Weights rounded for the inputs they will meet, instead of each to its nearest integer."""

from __future__ import annotations

import numpy as np

DAMPING = 0.1  # of the mean square of an input, added to each: keeps inputs that are seldom there in bounds
BLOCK = 128  # columns whose errors go to the rest in one product


def compensated(steps: np.ndarray, inputs: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """int8 [out, in] in [-127, 127]: steps float [out, in], rounded so that steps @ inputs changes little.

    Column by column, strongest inputs first; the error of a rounded column is taken back by those still to come, as far
    as their inputs go along with its own (GPTQ, arXiv 2210.17323). inputs: float [samples, in];
    weights: of the samples, float [samples]; None: all alike.
    """
    weights = np.ones(len(inputs)) if weights is None else weights
    gram = (inputs.T * (weights / weights.sum())) @ inputs
    gram[np.diag_indices_from(gram)] += max(DAMPING * float(np.diag(gram).mean()), 1e-9)
    order = np.argsort(-np.diag(gram), kind="stable")
    inverse = np.linalg.inv(gram[order][:, order])
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    left, rounded = steps[:, order].copy(), np.empty(steps.shape)
    for start in range(0, steps.shape[1], BLOCK):
        stop = min(start + BLOCK, steps.shape[1])
        errors = np.empty((len(steps), stop - start))
        for i in range(start, stop):
            rounded[:, i] = np.clip(np.rint(left[:, i]), -127, 127)
            errors[:, i - start] = (left[:, i] - rounded[:, i]) / upper[i, i]
            left[:, i:stop] -= np.outer(errors[:, i - start], upper[i, i:stop])
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    result = np.empty(steps.shape, np.int8)
    result[:, order] = rounded
    return result
