# SPDX-License-Identifier: Apache-2.0
"""Which classes a network takes for which, and the images it is most wrong about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Confusion:
    """counts: int64 [classes, classes], how many images of the row's class were taken for the column's; class_names: a
    name each."""

    counts: np.ndarray
    class_names: tuple[str, ...]

    @property
    def images(self) -> np.ndarray:
        """int64 [classes]: images of each class."""
        return self.counts.sum(axis=1)

    @property
    def shares(self) -> np.ndarray:
        """float64 [classes, classes]: of the row's images, from 0 to 1; 0 where a class has no images."""
        return self.counts / np.maximum(self.images, 1)[:, None]

    def rows(self) -> list[ClassRow]:
        """One for each class, in their order."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        rows = []
        for i, name in enumerate(self.class_names):
            images, correct, taken = int(self.images[i]), int(self.counts[i, i]), int(self.counts[:, i].sum())
            other = int(wrong[i].argmax()) if wrong[i].any() else None
            rows.append(
                ClassRow(
                    name, images, correct / images if images else None, correct / taken if taken else None,
                    None if other is None else self.class_names[other], 0 if other is None else int(wrong[i, other]),
                )
            )  # fmt: skip
        return rows


@dataclass(frozen=True)
class ClassRow:
    """A class. accuracy: the share of its images that were found, None without images; precision: the share of images
    taken for it that are of it, None if none was taken for it; mistaken_for: the class that most others went to."""

    name: str
    images: int
    accuracy: float | None
    precision: float | None
    mistaken_for: str | None
    mistaken: int


@dataclass(frozen=True)
class Mistake:
    """An image, by its number in the run. probabilities: from 0 to 1, of the class it was taken for and of its own."""

    image: int
    name: str
    taken_for: str
    probability: float
    own_probability: float


def confusion_of(logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> Confusion:
    """logits: float [n, classes]; labels: int [n]."""
    counts = np.zeros((len(class_names), len(class_names)), np.int64)
    np.add.at(counts, (labels, logits.argmax(axis=1)), 1)
    return Confusion(counts, class_names)


def worst(logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], count: int) -> list[Mistake]:
    """Up to `count` wrong answers, the surest first. Probabilities are the softmax of the logits."""
    shares = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    guessed = logits.argmax(axis=1)
    order = [int(i) for i in np.argsort(-shares.max(axis=1), kind="stable") if guessed[i] != labels[i]]
    return [
        Mistake(i, class_names[own], class_names[given], float(shares[i, given]), float(shares[i, own]))
        for i in order[:count]
        for given, own in [(int(guessed[i]), int(labels[i]))]
    ]
