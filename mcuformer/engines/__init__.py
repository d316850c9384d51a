# SPDX-License-Identifier: Apache-2.0
"""What runs a model on this machine. Both engines call the same kernels and give the same logits, bit for bit.

    tflm   the official interpreter of the tflite-micro wheel, with the kernels as its custom ops: x86-64 Linux
    c      the kernels alone, called through ctypes as the C export calls them: everywhere

An engine is a module of this package with open_session(loaded, arena_bytes) and open_keeping_all(loaded), which both
return a Session.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mcuformer.converter.graph import Graph
from mcuformer.errors import ConfigError, PlanError

ENGINES = {"tflm": "in the tflite-micro interpreter", "c": "by the kernels alone"}
"""Name -> where a model runs, in words."""
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


class Session(Protocol):
    """A model ready to run, one image at a time. seconds: of the last run; weights_read: bytes and reads of staged
    weights in it."""

    seconds: float
    weights_read: tuple[int, int]

    def invoke(self, *inputs: np.ndarray) -> np.ndarray:
        """int8 inputs with batch dimension 1 -> the int8 output. ModelError where a kernel refuses."""

    def tensor(self, index: int) -> np.ndarray:
        """The value of an activation after the run; of any, where the session keeps all."""

    def allocations(self) -> dict[str, int]:
        """Bytes of the arena: "total", "head" and "tail"."""


class Engine(Protocol):
    """A module of this package."""

    def open_session(self, loaded: Loaded, arena_bytes: int | None) -> Session:
        """arena_bytes: None for as many as needed. PlanError where there are too few, ModelError for a model that the
        kernels refuse."""

    def open_keeping_all(self, loaded: Loaded) -> Session:
        """A session in which no tensor overwrites another, whatever arena that takes."""


def choose(engine: str | None) -> str:
    """The engine called so; of None the interpreter where this machine has it, else the kernels alone."""
    if engine is None:
        from mcuformer.engines import tflm

        return "tflm" if tflm.is_here() else "c"
    if engine not in ENGINES:
        raise ConfigError(f"engine = {engine!r}: must be one of {', '.join(ENGINES)}")
    return engine


def get_engine(engine: str) -> Engine:
    """The module of an engine that choose() has named."""
    return importlib.import_module(f"mcuformer.engines.{engine}")  # type: ignore[return-value]


def check_arena(arena_bytes: int | None, needed: int, name: str) -> int:
    """Bytes for the arena: as given, or `needed`. ConfigError for no size at all, PlanError for one too small."""
    if arena_bytes is None:
        return needed
    if isinstance(arena_bytes, bool) or not isinstance(arena_bytes, int) or arena_bytes > MOST_ARENA_BYTES:
        raise ConfigError(f"arena_bytes = {arena_bytes!r}: must be a whole number, at most {MOST_ARENA_BYTES}")
    if arena_bytes < needed:
        raise PlanError(f"arena_bytes = {arena_bytes} is too small: {name} needs {needed} bytes")
    return arena_bytes
