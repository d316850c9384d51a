# SPDX-License-Identifier: Apache-2.0
"""Held-out images of a set too large for memory: decoded once, into one file that the processes of a machine share."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from mcuformer.data import Dataset, FileImages
from mcuformer.errors import McuformerError
from mcuformer.nas import distributed

MEMORY_SHARE, DISK_SHARE = 4, 2  # pixels need at most 1/4 of the memory and half of what the disk has left
CHUNK = 256  # images decoded at a time


def read_once(dataset: Dataset) -> Dataset:
    """The data set with pixels that are not decoded again: an array in a temporary file that has no name any more, one
    on each machine, of which each process there decodes its share. All processes must call it.

    As it is if it holds an array already, or if the pixels need more than a quarter of a machine's memory or half of
    the free space for temporary files (TMPDIR): then every visit decodes them. DataError if an image cannot be read.
    """
    images = dataset.images
    if not isinstance(images, FileImages):
        return dataset
    leads = distributed.local_rank() == 0
    path = _file_of(math.prod(images.shape)) if leads else None
    try:
        found = distributed.from_all((leads, path))
        if (True, None) in found:
            return dataset
        _, shared = found[distributed.rank() - distributed.local_rank()]
        pixels = np.memmap(shared, np.uint8, "r+", shape=images.shape)
        errors = distributed.from_all(_decode_share(images, pixels))  # which waits for all shares
    finally:
        if path is not None:
            path.unlink()
    for error in filter(None, errors):
        raise error
    return dataclasses.replace(dataset, images=pixels)


def _file_of(size: int) -> Path | None:
    """A new file of `size` bytes, with room for them; None if there is too little."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if size > memory // MEMORY_SHARE or size > shutil.disk_usage(tempfile.gettempdir()).free // DISK_SHARE:
            return None
        handle, name = tempfile.mkstemp(prefix="mcuformer-")
    except (OSError, ValueError, AttributeError):  # not every system tells its memory
        return None
    try:
        os.posix_fallocate(handle, 0, size)  # a write to a full disk through a map would end the process
    except (OSError, AttributeError):
        os.unlink(name)
        return None
    finally:
        os.close(handle)
    return Path(name)


def _decode_share(images: FileImages, pixels: np.ndarray) -> McuformerError | None:
    """Fills this process's share of the pixels; what went wrong."""
    share, here = distributed.local_rank(), distributed.local_ranks()
    try:
        for start in range(share * CHUNK, len(images), here * CHUNK):
            pixels[start : start + CHUNK] = images[start : start + CHUNK]
    except McuformerError as error:
        return error
    return None
