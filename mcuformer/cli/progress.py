# SPDX-License-Identifier: Apache-2.0
"""What a command tells while it works: callbacks, so that the work itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mcuformer.nas.train import TrainProgress


class Update(Protocol):
    """Moves a bar: so much is done, of so much, and a word on it."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def _say_nothing(line: str) -> None:
    pass


@contextmanager
def _no_bar(label: str) -> Iterator[Update]:
    yield lambda done, total, note="": None


@dataclass(frozen=True)
class Progress:
    """say(line): a step is done, or begins. bar(label): for the block, a bar that is moved by what it yields.

    Without arguments it is silent; the command line's own is mcuformer.cli.common.CONSOLE; Progress(say=print) suits
    a notebook.
    """

    say: Callable[[str], object] = _say_nothing
    bar: Callable[[str], AbstractContextManager[Update]] = _no_bar

    @contextmanager
    def training(self, label: str) -> Iterator[Callable[[TrainProgress], None]]:
        """bar(), moved by what train(progress=...) calls after every step."""
        with self.bar(label) as update:

            def show(p: TrainProgress) -> None:
                note = f"epoch {p.epoch}/{p.epochs}  loss {p.loss:.3f}  {p.images_per_second:.0f} img/s"
                update((p.epoch - 1) * p.steps + p.step, p.epochs * p.steps, note)

            yield show

    @contextmanager
    def searching(self) -> Iterator[Callable[[int, int, float], None]]:
        """bar(), moved by what search(progress=...) calls after every evaluation."""
        with self.bar("searching") as update:

            def show(done: int, most: int, best: float) -> None:
                update(done, most, f"best {100 * best:.2f} %")

            yield show


SILENT = Progress()
