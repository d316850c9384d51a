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


EVALUATIONS = 10  # per line


@dataclass(frozen=True)
class Progress:
    """say(line): a step begins, or is done. bar(label): a context manager that yields a function which moves the bar.
    line(line): where there is no terminal, in place of a bar, each epoch and each EVALUATIONS evaluations.

    Silent without arguments. The command line's own is mcuformer.cli.common.CONSOLE; Progress(say=print) suits a
    notebook.
    """

    say: Callable[[str], object] = _say_nothing
    bar: Callable[[str], AbstractContextManager[Update]] = _no_bar
    line: Callable[[str], object] | None = None

    @contextmanager
    def training(self, label: str) -> Iterator[Callable[[TrainProgress], None]]:
        """bar() for train(progress=...), moved after each step."""
        if self.line is not None:
            yield _epoch_lines(label, self.line)
            return
        with self.bar(label) as update:

            def show(p: TrainProgress) -> None:
                note = f"epoch {p.epoch}/{p.epochs}  loss {p.loss:.3f}  {p.images_per_second:.0f} img/s"
                update((p.epoch - 1) * p.steps + p.step, p.epochs * p.steps, note)

            yield show

    @contextmanager
    def searching(self) -> Iterator[Callable[[int, int, float], None]]:
        """bar() for search(progress=...), moved after each evaluation."""
        if self.line is not None:
            yield _evaluation_lines(self.line)
            return
        with self.bar("searching") as update:

            def show(done: int, most: int, best: float) -> None:
                update(done, most, f"best {100 * best:.2f} %")

            yield show


def _epoch_lines(label: str, line: Callable[[str], object]) -> Callable[[TrainProgress], None]:
    """Calls line() after an epoch's last step, with the mean of its losses."""
    losses: list[float] = []

    def show(p: TrainProgress) -> None:
        losses.append(p.loss)
        if p.step == p.steps:
            mean = sum(losses) / len(losses)
            losses.clear()
            line(
                f"{label}: epoch {p.epoch}/{p.epochs}, loss {mean:.3f}, {p.images_per_second:.0f} img/s, "
                f"{p.seconds_left:.0f} s left"
            )

    return show


def _evaluation_lines(line: Callable[[str], object]) -> Callable[[int, int, float], None]:
    """Calls line() each EVALUATIONS evaluations; several processes make several at once."""
    told = 0

    def show(done: int, most: int, best: float) -> None:
        nonlocal told
        if done // EVALUATIONS > told or done == most:
            told = done // EVALUATIONS
            line(f"searching: {done} of at most {most} evaluated, best {100 * best:.2f} %")

    return show


SILENT = Progress()
