# SPDX-License-Identifier: Apache-2.0
"""Pickles of containers, numbers, text and plain arrays. Every other name is refused, so no code runs."""

from __future__ import annotations

import pickle
from typing import Any, BinaryIO

import numpy as np


class PickledArray:
    """Stands for numpy.ndarray in a pickle; takes plain numbers and nothing else."""

    value: np.ndarray | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, fortran_order, raw = state
        self.value = np.frombuffer(raw, dtype.numpy).reshape(shape, order="F" if fortran_order else "C")


class _PickledDtype:
    """Stands for numpy.dtype in a pickle."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        text = code.decode() if isinstance(code, bytes) else code
        if text not in {"u1", "i4", "i8"}:
            raise pickle.UnpicklingError(f"an array of type {text!r}")
        self.numpy = np.dtype("<" + text)

    def __setstate__(self, state: tuple) -> None:
        pass


def _pickled_bytes(text: str, encoding: str) -> bytes:
    """Stands for _codecs.encode, which Python 3 writes for bytes in old pickles."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"a text encoded as {encoding!r}")
    return text.encode("latin1")


class _PlainUnpickler(pickle.Unpickler):
    ALLOWED: dict[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): PickledArray,
        ("numpy", "ndarray"): PickledArray,
        ("numpy", "dtype"): _PickledDtype,
        ("_codecs", "encode"): _pickled_bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which image data does not need")
        return self.ALLOWED[module, name]


def load_plain(file: BinaryIO) -> object:
    """What the file holds; its arrays as PickledArray, Python 2 text as bytes. If damaged, raises almost anything."""
    return _PlainUnpickler(file, encoding="bytes").load()
