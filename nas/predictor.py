# SPDX-License-Identifier: Apache-2.0
"""Predicts a subnet's accuracy from those already evaluated: ridge regression on its choices."""

from __future__ import annotations

from typing import Any

import numpy as np

from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.nas.search_space import SearchSpace, is_fixed

RIDGE = 2.0


class Predictor:
    """predict(configs): accuracy as a sum over choices, each layer's choices separately.

    Deterministic; useful when evaluations are expensive: the search draws more subnets than it evaluates.
    """

    def __init__(self, space: SearchSpace, configs: list[SubnetConfig], accuracies: list[float]):
        self.space = space
        self.kv_heads = tuple(sorted({kv for _, kv, *_ in space.layer_choices}))
        x, y = self._features(configs), np.array(accuracies)
        self.mean = y.mean()
        self.weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (y - self.mean))

    def predict(self, configs: list[SubnetConfig]) -> np.ndarray:
        """Accuracies, float [n]."""
        return self._features(configs) @ self.weights + self.mean

    def _features(self, configs: list[SubnetConfig]) -> np.ndarray:
        """One column for each value of each choice."""
        space = self.space
        rows = []
        for config in configs:
            chosen = zip(space.genes(config), space.choices.items(), strict=True)
            genes: list[tuple[Any, tuple]] = [
                (gene, choices) for gene, (name, choices) in chosen if not is_fixed(name, choices)
            ]
            for layer in range(max(space.depth)):
                for name in ("num_heads", "kv_heads", "mlp_ratio", "rank_ratio", "attention_rank_ratio"):
                    values = getattr(config, name)
                    choices = self.kv_heads if name == "kv_heads" else getattr(space, name)
                    if choices is not None:
                        genes.append((values[layer] if layer < config.depth else None, choices))
            rows.append([float(value == choice) for value, choices in genes for choice in choices])
        return np.array(rows)
