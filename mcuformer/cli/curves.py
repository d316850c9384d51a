# SPDX-License-Identifier: Apache-2.0
"""Training curves: a CSV file with a line an epoch, and TensorBoard.

Both go on with a training that goes on from its checkpoint: what they have of epochs that are trained again is dropped.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mcuformer.cli.common import PATH
from mcuformer.errors import ConfigError, ToolchainError
from mcuformer.files import cannot_be_written, read_bytes, write_bytes

if TYPE_CHECKING:
    from mcuformer.nas.train import TrainProgress

COLUMNS = ("epoch", "loss", "learning_rate", "images_per_second", "seconds")
HEADER = (",".join(COLUMNS) + "\n").encode()
curve_option = click.option("--log", type=PATH, help="Training curves: a CSV file that gets a line an epoch.")
tensorboard_option = click.option("--tensorboard", type=PATH, help="Training curves for TensorBoard, in this folder.")


class Curves:
    """curves.following(show) yields a callback for train(progress=...), which calls show too.

    log: the CSV file; tensorboard: a folder; checkpoint: of the training. ConfigError if the log is of another one,
    ToolchainError without TensorBoard.
    """

    def __init__(
        self,
        log: str | os.PathLike | None = None,
        tensorboard: str | os.PathLike | None = None,
        checkpoint: str | os.PathLike | None = None,
    ):
        first = os.environ.get("RANK", "0") == "0"  # under torchrun
        self.log = Path(log) if log is not None and first else None
        self.folder = Path(tensorboard) if tensorboard is not None and first else None
        self._board: Any = None
        self._losses: list[float] = []  # of this epoch's steps
        self._started = False
        if self.log is not None:
            goes_on = checkpoint is not None and Path(checkpoint).exists()
            rows = _rows(self.log)
            # Killed between the line of the first epoch and its checkpoint, a training starts anew.
            if len(rows) > (1 if checkpoint is not None else 0) and not goes_on:
                raise ConfigError(
                    f"{self.log}: has {len(rows)} epochs of another training, none of which is continued; remove it, "
                    "give another name, or the --checkpoint of that training"
                )
        if self.folder is not None:
            _summary_writer(self.folder)

    @contextmanager
    def following(self, show: Callable[[TrainProgress], object]) -> Iterator[Callable[[TrainProgress], None]]:
        def follow(p: TrainProgress) -> None:
            show(p)
            self._note(p)

        try:
            yield follow
        finally:
            if self._board is not None:
                self._board.close()

    def _note(self, p: TrainProgress) -> None:
        if self.log is None and self.folder is None:
            return
        if not self._started:
            self._start(p.epoch)
        self._losses.append(p.loss)
        if p.step < p.steps:
            return
        loss = sum(self._losses) / len(self._losses)
        self._losses.clear()
        if self.log is not None:
            _append(self.log, f"{p.epoch},{loss!r},{p.learning_rate!r},{p.images_per_second:.1f},{p.seconds:.1f}\n")
        if self._board is not None:
            values = {"loss": loss, "learning_rate": p.learning_rate, "images_per_second": p.images_per_second}
            for name, value in values.items():
                self._board.add_scalar(f"training/{name}", value, p.epoch)
            self._board.flush()

    def _start(self, epoch: int) -> None:
        """Drops what is there of this epoch and later ones."""
        self._started = True
        if self.log is not None:
            kept = [row for number, row in _rows(self.log) if number < epoch]
            write_bytes(self.log, HEADER + b"".join(kept))
        if self.folder is not None:
            self._board = _summary_writer(self.folder)(str(self.folder), purge_step=epoch)


def _rows(path: Path) -> list[tuple[int, bytes]]:
    """Epoch and line of all whole lines of a log. ConfigError if it is no log."""
    if not path.exists():
        return []
    try:
        content = read_bytes(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give another name") from error
    if not content.startswith(HEADER):
        raise ConfigError(f"{path}: not a log of training curves; give another name, or remove it")
    rows = []
    for number, line in enumerate(content[len(HEADER) : content.rfind(b"\n") + 1].splitlines(keepends=True), 2):
        epoch, *values = line.split(b",")
        try:
            rows.append((int(epoch), line))
            list(map(float, values))
        except ValueError as error:
            raise ConfigError(f"{path}: line {number} is no epoch's; remove it and all after it") from error
    return rows


def _append(path: Path, line: str) -> None:
    """Adds a line; it is on the disk when this returns."""
    try:
        with open(path, "ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_be_written(path, error) from error


def _summary_writer(folder: Path) -> Any:
    try:
        return importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise ToolchainError(
            f"--tensorboard {folder}: the package tensorboard is not installed; pip install tensorboard, or write "
            "curves with --log FILE.csv"
        ) from error
