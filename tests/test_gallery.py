# SPDX-License-Identifier: Apache-2.0
"""The nearest of more embeddings than are compared at a time."""

import numpy as np
import pytest

from mcuformer import gallery
from mcuformer.gallery import Gallery, cosines, neighbours


@pytest.mark.parametrize("count", [2, 6, 7, 8, 20])
def test_blocks_find_what_all_at_once_finds(count, monkeypatch):
    monkeypatch.setattr(gallery, "ROWS", 7)
    rng = np.random.default_rng(count)
    embeddings, stored = rng.normal(size=(count, 5)), rng.normal(size=(11, 5))
    embeddings[1] = 3 * embeddings[0]
    every = cosines(embeddings, embeddings)
    near = neighbours(embeddings, ["a"] * count)
    assert (near.indices != np.arange(count)).all() and list(near.indices[:2]) == [1, 0]
    every[np.arange(count), np.arange(count)] = -2
    np.testing.assert_array_equal(near.indices, every.argmax(axis=1))
    np.testing.assert_allclose(near.cosines, every.max(axis=1), atol=1e-6)
    near = neighbours(embeddings, ["a"] * count, Gallery(stored.astype(np.float32), tuple("abcdefghijk")))
    every = cosines(embeddings, stored.astype(np.float32))
    np.testing.assert_array_equal(near.indices, every.argmax(axis=1))
    np.testing.assert_allclose(near.cosines, every.max(axis=1), atol=1e-6)
