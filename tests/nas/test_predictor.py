# SPDX-License-Identifier: Apache-2.0
"""The predictor orders subnets it has not seen."""

import random

import numpy as np
import pytest
from spaces import BLOCKS, CONV, DENSE, PATCH, STEMS

from mcuformer.nas.predictor import Predictor


@pytest.mark.parametrize(
    "space", [PATCH, DENSE, CONV, STEMS, BLOCKS], ids=["patch", "dense", "conv", "stems", "blocks"]
)
def test_it_learns_a_sum_over_choices(space):
    rng = random.Random(0)

    def accuracy(config) -> float:
        layers = sum((i + 1) * layer.num_heads - layer.mlp_dim / 30 for i, layer in enumerate(config.layers))
        return 0.8 + 0.01 * layers + config.embed_dim / 1000

    seen, unseen = ([space.sample(rng) for _ in range(count)] for count in (150, 100))
    predictor = Predictor(space, seen, [accuracy(config) for config in seen])
    expected = np.array([accuracy(config) for config in unseen])
    assert np.corrcoef(predictor.predict(unseen), expected)[0, 1] > 0.95
    again = Predictor(space, seen, [accuracy(config) for config in seen])
    np.testing.assert_array_equal(again.predict(unseen), predictor.predict(unseen))


def test_of_equal_accuracies_it_expects_that_accuracy():
    configs = [PATCH.sample(random.Random(i)) for i in range(10)]
    np.testing.assert_allclose(Predictor(PATCH, configs, [0.7] * 10).predict(configs), 0.7)
