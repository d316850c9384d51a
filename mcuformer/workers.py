# SPDX-License-Identifier: Apache-2.0
"""Many images through one model, in several processes: the interpreter and numpy's reference keep to a core each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mcuformer import interpreter as host_interpreter
from mcuformer.checks import whole
from mcuformer.errors import ConfigError
from mcuformer.interpreter import Interpreter

if TYPE_CHECKING:
    from mcuformer.interpreter import Images

WORTHWHILE = 2.0  # seconds of work left; a process takes about half of one to start
FIRST = 8  # images that say how long one takes
BATCH_SECONDS = 0.15  # of work at a time in several processes
QUEUED = 3  # batches that each other process has or is about to have


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

    workers: processes at most, with this one. The others begin if the first images show that it is worth it, and import
    the main module again: a script that asks for more than one needs `if __name__ == "__main__":`. progress: called
    with (images done, images in all). A file that cannot be read raises DataError, as without workers.
    """
    whole("workers", workers, 1)
    begin = time.perf_counter()
    found: dict[int, _Batch] = {}  # by their first image
    done, processes = 0, 1

    def keep(start: int, batch: _Batch) -> None:
        nonlocal done
        found[start] = batch
        done += len(batch.logits)
        if progress is not None:
            progress(done, len(images))

    work_begin = time.process_time()  # which a busy machine does not lengthen
    keep(0, _run_batch(interpreter, images[: min(FIRST, host_interpreter.BATCH)], reference))
    while done < len(images):
        seconds = (time.process_time() - work_begin) / done
        if workers > 1 and seconds * (len(images) - done) > WORTHWHILE:
            size = max(1, min(host_interpreter.BATCH, int(BATCH_SECONDS / seconds)))
            starts = range(done, len(images), size)
            processes = min(workers, len(starts))
            for start, batch in _in_processes(interpreter, images, starts, processes, reference):
                keep(start, batch)
        else:
            keep(done, _run_batch(interpreter, images[done : done + host_interpreter.BATCH], reference))
    seconds = time.perf_counter() - begin
    medians = [batch.invoke_ms for batch in found.values() if batch.invoke_ms is not None]
    return Outputs(
        np.concatenate([found[start].logits for start in sorted(found)]),
        float(np.median(medians)) if medians else None, len(images) / seconds, processes,
    )  # fmt: skip


class _Batch(NamedTuple):
    logits: np.ndarray
    invoke_ms: float | None


def _run_batch(interpreter: Interpreter, images: np.ndarray, reference: bool) -> _Batch:
    if reference:
        return _Batch(interpreter.reference(images), None)
    return _Batch(interpreter(images), interpreter.invoke_ms)


def _in_processes(
    interpreter: Interpreter, images: Images, starts: range, processes: int, reference: bool
) -> Iterator[tuple[int, _Batch]]:
    """The batches that begin at these images, in any order. This process reads all images, and runs those for which the
    others, whose start it does not wait for, have no room."""
    others, context = processes - 1, multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(max(1, others), context, _begin, (interpreter, reference))
    running: dict[Future[_Batch], int] = {}
    try:
        for left, start in zip(range(len(starts), 0, -1), starts, strict=True):
            batch = images[start : start + starts.step]
            if len(running) < others * min(QUEUED, left):  # at the end no more than this process has left
                running[pool.submit(_of_worker, batch)] = start
            else:
                yield start, _run_batch(interpreter, batch, reference)
            for future in [future for future in running if future.done()]:
                yield running.pop(future), future.result()
        for future in as_completed(running):
            yield running[future], future.result()
    except BrokenProcessPool:
        raise ConfigError(
            f"workers = {processes}: one of these processes was killed, perhaps for want of memory; use fewer, or 1"
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
