# SPDX-License-Identifier: Apache-2.0
"""What the commands share: consoles, options, progress bars, files in and out."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from mcuformer import files
from mcuformer.cli.progress import Progress, Update
from mcuformer.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import numpy as np

    from mcuformer.data import Dataset, FileImages
    from mcuformer.interpreter import Interpreter
    from mcuformer.sizes import Size
    from mcuformer.sound import LogMel

quiet = os.environ.get("RANK", "0") != "0"  # under torchrun only the first process speaks
terminal = sys.stdout is not None and sys.stdout.isatty()  # None: closed, as by >&-
out = Console(width=None if terminal else 160, soft_wrap=not terminal, quiet=quiet)
progress_out = Console(stderr=True, quiet=quiet)

PATH = click.Path(readable=False, path_type=Path)  # a file that cannot be read is the command's to name
json_option = click.option("--json", "json_file", type=PATH, help="Write the result to this file as JSON.")
data_option = click.option(
    "--data",
    default="fashion-mnist",
    help='"fashion-mnist" (shipped), "fashion-mnist-full", or a path: folder of images or WAV files by class, idx '
    "files, CIFAR pickles, .npz.",
)


def check_outputs(*paths: str | os.PathLike | None) -> None:
    """Refuses, before any work, outputs that could not be written later or that would overwrite each other."""
    given = [Path(path) for path in paths if path is not None]
    for path in given:
        if sum(path.resolve() == other.resolve() for other in given) > 1:
            raise ConfigError(f"{path}: named for two outputs; give each its own name")
        if path.is_dir():
            raise ConfigError(f"{path}: a folder; give the name of a file to write")
        parent = next(p for p in path.absolute().parents if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise ConfigError(f"{path}: cannot be written ({parent} is not a writable folder); choose another place")


def write_json(path: Path | None, result: dict) -> None:
    """Writes what --json asks for, and the command that asked; under torchrun the first process does."""
    if path is not None and not quiet:
        command = shlex.join(["mcuformer", *sys.argv[1:]])
        files.write_bytes(path, (json.dumps({**result, "command": command}, indent=1) + "\n").encode())


@contextmanager
def bar(label: str) -> Iterator[Update]:
    """Yields update(done, total, note="") that draws a progress bar on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Bars(*columns, console=progress_out, refresh_per_second=4) as bars:
        task = bars.add_task(label, total=None, note="")
        yield lambda done, total, note="": bars.update(task, completed=done, total=total, note=note)


def _line(text: str) -> None:
    progress_out.print(text, soft_wrap=True, highlight=False)


CONSOLE = Progress(say=out.print, bar=bar, line=None if progress_out.is_terminal else _line)


def load_data(
    spec: str,
    split: str,
    image_size: Size,
    limit: int | None = None,
    front_end: LogMel | dict | None = None,
    channels: int | None = None,
) -> Dataset:
    """Images at a network's size; image files are read as grey or RGB, as it has channels.
    front_end: of a network that takes sound, as it is or as its notes hold it."""
    from mcuformer.data import load_sized

    if isinstance(front_end, dict):
        from mcuformer.sound import LogMel

        front_end = LogMel.from_dict(front_end)
    return load_sized(spec, split, image_size, limit, front_end, channels)


def run_images(interpreter: Interpreter, images: np.ndarray | FileImages, progress: Progress = CONSOLE) -> np.ndarray:
    """Logits of all images, with a progress bar."""
    with progress.bar("running") as update:

        def now_and_then(done: int, total: int) -> None:
            if done % 16 == 0 or done == total:
                update(done, total)

        return interpreter(images, progress=now_and_then)


def read_bytes(path: Path) -> bytes:
    """A model file's bytes; ModelError if it cannot be read."""
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


def top1_of(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def sizes_line(arena: int, head: int, model: int) -> str:
    """Bytes of a model and of its arena."""
    return f"arena {arena:,} bytes (head {head:,}, tail {arena - head:,}), model {model:,} bytes"
