# SPDX-License-Identifier: Apache-2.0
"""Several processes under torchrun, or one without it: the few differences."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the processes that torchrun started, for the `with` statement: NCCL if there are GPUs, else gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        dist.barrier()  # none leaves while another still waits for its answer
    finally:
        dist.destroy_process_group()


def device() -> torch.device:
    """This process's GPU, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def local_ranks() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if dist.is_initialized() else 1


def local_rank() -> int:
    """This process among those on its machine, which have neighbouring ranks."""
    return int(os.environ.get("LOCAL_RANK", "0")) if dist.is_initialized() else 0


def on_first(act: Callable[..., object], *arguments: Any) -> None:
    """Calls act(*arguments) in the first process only."""
    if rank() == 0:
        act(*arguments)


def from_first(value):
    """The first process's value, in all processes."""
    box = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value) -> list:
    """Each process's value, by rank."""
    found = [value]
    if dist.is_initialized():
        found = [None] * ranks()
        dist.all_gather_object(found, value)
    return found


def mean(value: torch.Tensor) -> torch.Tensor:
    """The mean over all processes."""
    if dist.is_initialized():
        dist.all_reduce(value)
        value /= ranks()
    return value
