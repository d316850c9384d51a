# SPDX-License-Identifier: Apache-2.0
"""Source: everything that one place holds, before a split is picked; and what all formats share."""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcuformer.errors import DataError

MAX_CLASSES = 2**16
MAX_BYTES = 8 * 2**30  # of the images of a set in memory
LITTER = {"__macosx", "@eadir", "desktop.ini", "thumbs.db"}


@dataclass(frozen=True)
class Part:
    """Images as uint8 NHWC in memory or as paths of image files, and their labels, int64 [n]."""

    images: np.ndarray | list[Path]
    labels: np.ndarray

    def take(self, chosen: np.ndarray) -> Part:
        if isinstance(self.images, np.ndarray):
            return Part(self.images[chosen], self.labels[chosen])
        return Part([self.images[i] for i in chosen], self.labels[chosen])


@dataclass(frozen=True)
class Source:
    """Everything a source holds: parts "train", "test" and "val", some of them, or "all" if it has no splits."""

    name: str
    parts: dict[str, Part]
    class_names: tuple[str, ...]


def check(source: Source) -> None:
    """Refuses a source whose images and labels cannot belong together."""
    for name, part in source.parts.items():
        where = f"{source.name}: " if name == "all" else f"{source.name}: split {name!r} "
        if len(part.images) != len(part.labels):
            raise DataError(
                f"{where}has {len(part.images)} images and {len(part.labels)} labels; give one label per image"
            )
        if isinstance(part.images, np.ndarray) and 0 in part.images.shape[1:]:
            raise DataError(f"{where}has images of {shape_text(part.images)}; give images of at least one pixel")
        wrong = np.flatnonzero((part.labels < 0) | (part.labels >= len(source.class_names)))
        if len(wrong):
            raise DataError(
                f"{where}has label {part.labels[wrong[0]]} at image {wrong[0]}, outside 0 to "
                f"{len(source.class_names) - 1}; number the classes from 0, the same in every split"
            )


def select(source: Source, split: str) -> Part:
    """The requested split, never empty: "train", "test", "val" ("test", if there is none) or "all"."""
    parts = source.parts
    split = "test" if split == "val" and "val" not in parts else split
    if "all" in parts:
        part = parts["all"]
        if split != "all":
            is_test = _every_fifth(part.labels)
            part = part.take(np.flatnonzero(is_test if split == "test" else ~is_test))
    elif split == "all" and len(parts) > 1:
        in_order = (parts[name] for name in ("train", "test", "val") if name in parts)
        part = functools.reduce(functools.partial(_concatenate, source.name), in_order)
    elif split in parts:
        part = parts[split]
    else:
        raise DataError(f"{source.name}: has no split {split!r}; it holds {' and '.join(parts)}: ask for that")
    if len(part.labels) == 0:
        raise DataError(f"{source.name}: split {split!r} holds no images; ask for another split or give more")
    return part


def _every_fifth(labels: np.ndarray) -> np.ndarray:
    """True for the images 4, 9, 14 ... of each class: the test images of a source without splits."""
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return is_test


def _concatenate(name: str, train: Part, test: Part) -> Part:
    """Both parts in one; train may be of several already."""
    labels = np.concatenate([train.labels, test.labels])
    if not isinstance(train.images, np.ndarray) or not isinstance(test.images, np.ndarray):
        return Part([*train.images, *test.images], labels)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{name}: training images are {shape_text(train.images)}, test images {shape_text(test.images)}; "
            f"ask for one split at a time"
        )
    return Part(np.concatenate([train.images, test.images]), labels)


def numbered_classes(name: str, parts: dict[str, Part]) -> tuple[str, ...]:
    """The names 0, 1 ... up to the largest training label, or the largest of the only split."""
    labels = (parts.get("train") or next(iter(parts.values()))).labels
    highest = int(labels.max(initial=0))
    if highest >= MAX_CLASSES:
        raise DataError(f"{name}: has label {highest}, with at most {MAX_CLASSES} classes; number them from 0")
    present = np.unique(labels)
    is_whole_set = "train" in parts or "all" in parts
    if is_whole_set and len(labels) and present[0] >= 0 and len(present) <= highest:
        _refuse_gaps(name, present)
    return tuple(str(i) for i in range(highest + 1))


def _refuse_gaps(name: str, present: np.ndarray) -> None:
    first, last = int(present[0]), int(present[-1])
    if len(present) == last - first + 1:
        raise DataError(f"{name}: its labels run from {first} to {last}; number the classes from 0: subtract {first}")
    missing = np.setdiff1d(np.arange(last), present)
    shown = ", ".join(map(str, missing[:8])) + (" ..." if len(missing) > 8 else "")
    raise DataError(
        f"{name}: its labels go up to {last}, but no image to train on has label {shown}; number the classes from 0 "
        "without gaps"
    )


def shape_text(images: np.ndarray) -> str:
    """Height, width and channels, such as 28x28x1."""
    return "x".join(str(n) for n in images.shape[1:])


def one_line(error: Exception) -> str:
    """The error's text on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def listing(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files and what systems leave behind."""
    try:
        return sorted(entry for entry in folder.iterdir() if is_visible(entry.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({one_line(error)}); check its permissions") from error


def is_visible(name: str) -> bool:
    """Whether a file or folder is the user's: not hidden, and not left there by a system."""
    return not name.startswith(".") and name.lower() not in LITTER


def shown(text: object) -> str:
    """A name for people, also one that is not UTF-8: its other bytes as \\xNN."""
    return os.fsencode(str(text)).decode(errors="backslashreplace")


@functools.cache  # a command reads a data set more than once
def say_once(line: str) -> None:
    """One line on standard error, as shown(). Under torchrun the first process speaks."""
    if sys.stderr is not None and os.environ.get("RANK", "0") == "0":
        print(shown(line), file=sys.stderr)
