# SPDX-License-Identifier: Apache-2.0
"""Stored embeddings, and the nearest of them: what a network without a head is for."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcuformer.errors import DataError
from mcuformer.files import write_bytes

KEYS = ("embeddings", "names")
ROWS = 512  # of cosines, made at a time


@dataclass(frozen=True, eq=False)
class Gallery:
    """embeddings: float32 [n, length], n >= 1; names: one each, such as a class's."""

    embeddings: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def length(self) -> int:
        """Values of one embedding."""
        return self.embeddings.shape[1]

    def save(self, path: str | os.PathLike) -> Path:
        """Writes an .npz with "embeddings" and "names", which read_gallery() reads."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, embeddings=self.embeddings.astype(np.float32), names=np.array(self.names, np.str_))
        return write_bytes(path, buffer.getvalue())


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Of each of n images the nearest stored embedding. names: the images'; nearest: the neighbours' names; indices:
    int64 [n], where they are stored; cosines: float32 [n]."""

    names: tuple[str, ...]
    nearest: tuple[str, ...]
    indices: np.ndarray
    cosines: np.ndarray

    @property
    def same(self) -> float:
        """The share of images whose neighbour has their name, from 0 to 1."""
        return float(np.mean([name == other for name, other in zip(self.names, self.nearest, strict=True)]))


def read_gallery(path: str | os.PathLike, length: int | None = None) -> Gallery:
    """A file of `mcuformer run --save-embeddings`, or any .npz with "embeddings" and "names". DataError for any other
    file, or embeddings that do not have `length` values."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if missing := [key for key in KEYS if key not in stored]:
                raise DataError(f"{path}: has no {missing[0]!r}; write it with `mcuformer run --save-embeddings`")
            embeddings, names = (np.asarray(stored[key]) for key in KEYS)
    except DataError:
        raise
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: cannot be read as a gallery ({' '.join(str(error).split())}); write it with `mcuformer run "
            "--save-embeddings`"
        ) from error
    if embeddings.ndim != 2 or 0 in embeddings.shape or embeddings.dtype.kind not in "fiu":
        raise DataError(f"{path}: embeddings are {embeddings.dtype} {list(embeddings.shape)}; give float32 [n, length]")
    if names.shape != embeddings.shape[:1]:
        raise DataError(f"{path}: has {len(embeddings)} embeddings and names {list(names.shape)}; give one name each")
    if not np.isfinite(embeddings).all():
        raise DataError(f"{path}: embeddings hold NaN or infinity; write them again")
    if length is not None and embeddings.shape[1] != length:
        raise DataError(
            f"{path}: its embeddings have {embeddings.shape[1]} values, the model's {length}; write it with this model"
        )
    return Gallery(embeddings.astype(np.float32), tuple(map(str, names)))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float [n, length], [m, length] -> float64 [n, m]; 0 where one of both is all zeros."""
    return _unit(a) @ _unit(b).T


def neighbours(embeddings: np.ndarray, names: Sequence[str], gallery: Gallery | None = None) -> Neighbours:
    """The nearest, by cosine, of the gallery, or without one of the other embeddings (then at least two)."""
    stored = Gallery(embeddings, tuple(names)) if gallery is None else gallery
    indices, best = np.empty(len(embeddings), np.int64), np.empty(len(embeddings), np.float32)
    directions = _unit(stored.embeddings)
    for start in range(0, len(embeddings), ROWS):  # all cosines of a large set are more than memory holds
        rows = slice(start, start + ROWS)
        near = _unit(embeddings[rows]) @ directions.T
        if gallery is None:
            np.fill_diagonal(near[:, start:], -np.inf)
        indices[rows] = near.argmax(axis=1)
        best[rows] = near.max(axis=1)
    return Neighbours(tuple(names), tuple(stored.names[i] for i in indices), indices, best)


def _unit(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    sizes = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(sizes > 0, sizes, 1)
