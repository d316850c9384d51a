# SPDX-License-Identifier: Apache-2.0
"""Many images through one model, in several processes: the interpreter and numpy's reference keep to a core each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mcuformer import interpreter as host_interpreter
from mcuformer.checks import whole
from mcuformer.errors import ConfigError
from mcuformer.interpreter import Interpreter

if TYPE_CHECKING:
    from mcuformer.interpreter import Images

WORTHWHILE = 4.0  # seconds of work left; a process takes about one to start
AHEAD = 2  # batches that are read before a process is free for them


class Outputs(NamedTuple):
    """logits: float32 [n, classes], or embeddings; invoke_ms: the median of an image, in several processes of their
    batches' medians, None of the reference; images_per_second: of all processes, reading included; processes: how many
    there were at most."""

    logits: np.ndarray
    invoke_ms: float | None
    images_per_second: float
    processes: int


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    interpreter: Interpreter,
    images: Images,
    workers: int = 1,
    reference: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Outputs:
    """What interpreter(images) gives, or with `reference` interpreter.reference(images), equal bit for bit.

    workers: processes at most. They begin if the first images show that it is worth it, and import the main module
    again: a script that asks for more than one needs `if __name__ == "__main__":`. progress: called with (images done,
    images in all). A file that cannot be read raises DataError, as without workers.
    """
    whole("workers", workers, 1)
    begin = time.perf_counter()
    batches = [
        (start, min(start + host_interpreter.BATCH, len(images)))
        for start in range(0, len(images), host_interpreter.BATCH)
    ]
    done, found, processes = 0, [], 1

    def keep(batch: _Batch) -> None:
        nonlocal done
        found.append(batch)
        done += len(batch.logits)
        if progress is not None:
            progress(done, len(images))

    for at, (start, stop) in enumerate(batches):
        spent, left = time.perf_counter() - begin, len(batches) - at
        if at and workers > 1 and spent / at * left > WORTHWHILE:
            processes = min(workers, left)
            for batch in _in_processes(interpreter, images, batches[at:], processes, reference):
                keep(batch)
            break
        keep(_run_batch(interpreter, images[start:stop], reference))
    seconds = time.perf_counter() - begin
    medians = [batch.invoke_ms for batch in found if batch.invoke_ms is not None]
    return Outputs(
        np.concatenate([batch.logits for batch in found]), float(np.median(medians)) if medians else None,
        len(images) / seconds, processes,
    )  # fmt: skip


class _Batch(NamedTuple):
    logits: np.ndarray
    invoke_ms: float | None


def _run_batch(interpreter: Interpreter, images: np.ndarray, reference: bool) -> _Batch:
    if reference:
        return _Batch(interpreter.reference(images), None)
    return _Batch(interpreter(images), interpreter.invoke_ms)


def _in_processes(
    interpreter: Interpreter, images: Images, batches: list[tuple[int, int]], workers: int, reference: bool
) -> Iterator[_Batch]:
    """The batches (first image, end) in order. This process reads the images, AHEAD batches before they are run."""
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _begin, (interpreter, reference)
    )  # fmt: skip
    waiting: deque[Future[_Batch]] = deque()
    try:
        for start, stop in batches:
            waiting.append(pool.submit(_of_worker, images[start:stop]))
            if len(waiting) > workers + AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise ConfigError(
            f"workers = {workers}: one of these processes was killed, perhaps for want of memory; use fewer, or 1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_held: tuple[Interpreter, bool]  # in a worker


def _begin(interpreter: Interpreter, reference: bool) -> None:
    global _held
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the process that waits for this one
    _held = interpreter, reference


def _of_worker(images: np.ndarray) -> _Batch:
    interpreter, reference = _held
    return _run_batch(interpreter, images, reference)
