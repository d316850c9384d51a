# SPDX-License-Identifier: Apache-2.0
"""What a command reports while it works: callbacks, so the work itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mcuformer.nas.train import TrainProgress


class Update(Protocol):
    """Moves a bar: how much is done, of how much, and a note."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def _say_nothing(line: str) -> None:
    pass


@contextmanager
def _no_bar(label: str) -> Iterator[Update]:
    yield lambda done, total, note="": None


@dataclass(frozen=True)
class Progress:
    """say(line): a step begins, or is done. bar(label): a context manager that yields a function which moves the bar.

    Silent without arguments. The command line's own is mcuformer.cli.common.CONSOLE; Progress(say=print) suits a
    notebook.
    """

    say: Callable[[str], object] = _say_nothing
    bar: Callable[[str], AbstractContextManager[Update]] = _no_bar

    @contextmanager
    def training(self, label: str) -> Iterator[Callable[[TrainProgress], None]]:
        """bar() for train(progress=...), moved after each step."""
        with self.bar(label) as update:

            def show(p: TrainProgress) -> None:
                note = f"epoch {p.epoch}/{p.epochs}  loss {p.loss:.3f}  {p.images_per_second:.0f} img/s"
                update((p.epoch - 1) * p.steps + p.step, p.epochs * p.steps, note)

            yield show

    @contextmanager
    def searching(self) -> Iterator[Callable[[int, int, float], None]]:
        """bar() for search(progress=...), moved after each evaluation."""
        with self.bar("searching") as update:

            def show(done: int, most: int, best: float) -> None:
                update(done, most, f"best {100 * best:.2f} %")

            yield show


SILENT = Progress()
