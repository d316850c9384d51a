# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 and CIFAR-100 in their python version: pickles, read without running code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mcuformer.data.plain_pickle import PickledArray, load_plain
from mcuformer.data.source import Part, Source, one_line
from mcuformer.errors import DataError

CIFAR_FIX = "give the complete folder of CIFAR's python version, unchanged"


@dataclass(frozen=True)
class CifarLayout:
    """Where a CIFAR set keeps what: file names and the keys in them."""

    meta: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels_key: bytes
    names_key: bytes


CIFAR_LAYOUTS = (
    CifarLayout(
        meta="batches.meta",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test=("test_batch",),
        labels_key=b"labels",
        names_key=b"label_names",
    ),
    CifarLayout(
        meta="meta",
        train=("train",),
        test=("test",),
        labels_key=b"fine_labels",
        names_key=b"fine_label_names",
    ),
)


def read_cifar(folder: Path, layout: CifarLayout) -> Source:
    """All batches of a folder, 32x32 RGB."""
    meta = _read_pickle(folder / layout.meta)
    names = _entry(folder / layout.meta, meta, layout.names_key, list)
    try:
        class_names = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names)
    except UnicodeDecodeError as error:
        raise DataError(f"{folder / layout.meta}: the name of a class is not UTF-8; {CIFAR_FIX}") from error
    parts = {}
    for split, files in (("train", layout.train), ("test", layout.test)):
        batches = [_read_cifar_batch(folder / name, layout.labels_key) for name in files]
        parts[split] = Part(
            np.concatenate([batch.images for batch in batches]),
            np.concatenate([batch.labels for batch in batches]),
        )
    return Source(str(folder), parts, class_names)


def _read_cifar_batch(path: Path, labels_key: bytes) -> Part:
    batch = _read_pickle(path)
    data = _entry(path, batch, b"data", PickledArray).value
    if data is None or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        form = "nothing" if data is None else f"{data.dtype} {list(data.shape)}"
        raise DataError(f"{path}: its data is {form}, not uint8 [n, 3072]; {CIFAR_FIX}")
    labels = _entry(path, batch, labels_key, (list, PickledArray))
    if isinstance(labels, PickledArray):
        labels = [] if labels.value is None else labels.value.ravel().tolist()
    if not all(isinstance(label, int) and abs(label) < 2**31 for label in labels):
        raise DataError(f"{path}: its labels are not whole numbers; {CIFAR_FIX}")
    if len(labels) != len(data):
        raise DataError(f"{path}: has {len(data)} images and {len(labels)} labels; give one label per image")
    return Part(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.int64))


def _entry(path: Path, content: dict, key: bytes, kind: type | tuple[type, ...]) -> Any:
    value = content.get(key, content.get(key.decode()))
    if not isinstance(value, kind):
        raise DataError(f"{path}: has no usable entry {key.decode()!r}; {CIFAR_FIX}")
    return value


def _read_pickle(path: Path) -> dict:
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is a folder, a pipe or a device; {CIFAR_FIX}")
    try:
        with path.open("rb") as file:
            content = load_plain(file)
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; {CIFAR_FIX}") from error
    except Exception as error:  # a damaged pickle can raise almost anything
        raise DataError(f"{path}: is not a readable CIFAR pickle ({one_line(error)}); fetch it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not a dict; {CIFAR_FIX}")
    return content
