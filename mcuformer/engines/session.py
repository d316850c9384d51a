# SPDX-License-Identifier: Apache-2.0
"""What the engines have in common: the model they are given, and the session they make of it."""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mcuformer.checks import is_whole
from mcuformer.converter.graph import Graph
from mcuformer.errors import ConfigError, PlanError

MOST_ARENA_BYTES = 1 << 31  # a mistake rather than a wish


@dataclass(frozen=True)
class Loaded:
    """A model that was read. content: the .tflite file; graph, info: what it holds; weights: the weights file, where
    weights are staged; name: for messages."""

    name: str
    content: bytes
    graph: Graph
    info: dict[str, Any]
    weights: bytes | None = None


class RunLock:
    """A lock for `with`: one thread at a time. A child that fork() makes begins with a free one, whatever its parent's
    threads were doing."""

    _all: weakref.WeakSet[RunLock] = weakref.WeakSet()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_) -> None:
        self._lock.release()

    @classmethod
    def _free_all(cls) -> None:
        for lock in cls._all:
            lock._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=RunLock._free_all)


class Session(Protocol):
    """A model ready to run, one image at a time, from any thread. seconds: of the last run; weights_read: bytes and
    reads of staged weights in it."""

    seconds: float
    weights_read: tuple[int, int]

    def invoke(self, *inputs: np.ndarray) -> np.ndarray:
        """int8 inputs with batch dimension 1 -> the int8 output. ModelError if a kernel refuses."""

    def tensor(self, index: int) -> np.ndarray:
        """The value of an activation after the run; of any, if the session keeps all."""

    def allocations(self) -> dict[str, int]:
        """Bytes of the arena: "total", "head" and "tail"."""


class Engine(Protocol):
    """A module of this package."""

    def open_session(self, loaded: Loaded, arena_bytes: int | None) -> Session:
        """arena_bytes: None for as many as needed. PlanError if there are too few, ModelError for a model that the
        kernels refuse."""

    def open_keeping_all(self, loaded: Loaded) -> Session:
        """A session in which no tensor overwrites another, whatever arena that takes."""


def check_arena(arena_bytes: int | None, needed: int, name: str) -> int:
    """Bytes for the arena: as given, or `needed`. ConfigError for no size at all, PlanError for one too small."""
    if arena_bytes is None:
        return needed
    if not is_whole(arena_bytes, most=MOST_ARENA_BYTES):
        raise ConfigError(f"arena_bytes = {arena_bytes!r}: must be a whole number, at most {MOST_ARENA_BYTES}")
    if arena_bytes < needed:
        raise PlanError(f"arena_bytes = {arena_bytes} is too small: {name} needs {needed} bytes")
    return arena_bytes
