# SPDX-License-Identifier: Apache-2.0
"""What runs a model on this machine. Both engines call the same kernels and give the same logits, bit for bit.

    tflm   the official interpreter of the tflite-micro wheel, with the kernels as its custom ops: x86-64 Linux
    c      the kernels alone, called through ctypes as the C export calls them: everywhere

An engine is a module of this package with open_session(loaded, arena_bytes) and open_keeping_all(loaded), which both
return a Session.
"""

from __future__ import annotations

import importlib

from mcuformer.checks import one_of
from mcuformer.engines.session import Engine

ENGINES = {"tflm": "in the tflite-micro interpreter", "c": "by the kernels alone"}
"""Name -> where a model runs, in words."""


def choose(engine: str | None) -> str:
    """The name of the engine to use. None: the interpreter if this machine has it, else the kernels alone."""
    if engine is None:
        from mcuformer.engines import tflm

        return "tflm" if tflm.is_here() else "c"
    return one_of("engine", engine, ENGINES)


def get_engine(engine: str) -> Engine:
    """The module of an engine that choose() has named."""
    return importlib.import_module(f"mcuformer.engines.{engine}")  # type: ignore[return-value]
