# SPDX-License-Identifier: Apache-2.0
"""mcuformer check-board: reads the sketch SelfTest from a board's port, compares every logit, and keeps the time."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mcuformer import measured
from mcuformer.board_file import with_time
from mcuformer.boards import Board, Measurement, get_board, is_board_file
from mcuformer.cli.common import CONSOLE, PATH, check_outputs, json_option, out, read_bytes, write_json
from mcuformer.cli.progress import SILENT, Progress
from mcuformer.errors import ConfigError, DataError, ModelError, ToolchainError
from mcuformer.files import write_bytes

if TYPE_CHECKING:
    import numpy as np

    from mcuformer.self_test import SelfTest

SILENCE_S = 30.0  # the next line must come within this; a line is printed after each image
POLL_S = 0.2  # how long one read of the port waits


@dataclass(frozen=True, eq=False)
class BoardCheck:
    """test: what the board printed; compared_with: "the host", or "the export" if no model was given; file: where the
    time is kept, None without a model; board_file: the board's YAML file, which keeps it too, None without one."""

    test: SelfTest
    compared_with: str
    file: Path | None = None
    board_file: Path | None = None

    def to_dict(self) -> dict:
        """What --json writes."""
        return {
            "board": self.test.board, "version": self.test.version, "images": len(self.test.outputs), "exact": True,
            "compared_with": self.compared_with, "ms": self.test.ms, "microseconds": list(self.test.microseconds),
            "outputs": self.test.outputs.tolist(), "file": None if self.file is None else str(self.file),
            "board_file": None if self.board_file is None else str(self.board_file),
        }  # fmt: skip


def check_board(
    port: str,
    *,
    model: str | os.PathLike | None = None,
    data: str = "fashion-mnist",
    baud: int = 115200,
    timeout: float = SILENCE_S,
    board: str | Board | None = None,
    file: str | os.PathLike | None = None,
    progress: Progress = SILENT,
) -> BoardCheck:
    """Reads the output of the sketch SelfTest and compares every output, bit for bit.

    port     a serial port, such as /dev/ttyACM0 or COM3
    model    the .tflite that was exported: its outputs are computed here; None: those that the export put into the
             sketch are compared with, on the board
    data     what the export was given as --data
    baud     bits a second; USB ports ignore it
    timeout  seconds to wait for the next line
    board    one of `mcuformer boards`: the time is kept under its name; default: the name that the sketch prints. A
             YAML file keeps it too, so that times of other models are estimated from it
    file     where the time is kept; default: beside the model

    DataError if no self-test comes, or a damaged one; ConfigError for another model or other data; ModelError if an
    output differs.
    """
    from mcuformer import self_test

    for option, value in (("--out", file), ("--board", getattr(board, "name", board))):
        if value is not None and model is None:
            raise ConfigError(f"{option} {value}: measured times are kept by model; give --model too")
    kept = None if model is None else _Kept(Path(model), file, board)
    expected = None if model is None else _expected(model, data)
    with _opened(port, baud) as opened, progress.bar("waiting for the self-test"):
        try:
            test = self_test.read(opened, timeout, port)
        except OSError as error:
            raise DataError(f"--port {port}: was lost while it was read ({error}); plug the board in again") from error
    if model is not None and expected is not None:
        _compare(test, *expected, model, data)
    elif not all(test.equal):
        raise ModelError(_differing(test, [i for i, equal in enumerate(test.equal) if not equal]))
    if kept is None:
        return BoardCheck(test, "the export")
    kept.add(test)
    return BoardCheck(test, "the host", kept.path, kept.board_path)


class _Kept:
    """The files that a time goes into, looked at before the board is: they may be no such files, or out of reach."""

    def __init__(self, model: Path, file: str | os.PathLike | None, board: str | Board | None):
        self.path = measured.path_of(model) if file is None else Path(file)
        self.board_path = Path(board) if isinstance(board, str) and is_board_file(board) else None
        check_outputs(self.path, self.board_path)
        self._board = get_board(board) if isinstance(board, str) else board
        self._model, self._content = model, read_bytes(model)
        self._times = measured.read(self.path, self._content)
        self._instructions = None
        if self.board_path is not None and self._board is not None:
            self._instructions = _instructions(self._content, model, self._board)
            with_time(self.board_path, self._measurement(1.0, 1, ""))

    def add(self, test: SelfTest) -> None:
        """Writes the files: this time beside those of other boards, and in the board's beside those of other models."""
        name = test.board if self._board is None else self._board.name
        times = {"ms": test.ms, "version": test.version, "images": len(test.outputs)}
        measured.write(self.path, self._content, {**self._times, name: times})
        if self.board_path is not None:
            text = with_time(self.board_path, self._measurement(test.ms, len(test.outputs), test.version))
            write_bytes(self.board_path, text.encode())

    def _measurement(self, ms: float, images: int, version: str) -> Measurement:
        name = self._model.name.encode(errors="replace").decode()
        today = datetime.date.today().isoformat()
        return Measurement(name, measured.identity(self._content), self._instructions, ms, images, version, today)


def _instructions(content: bytes, model: Path, board: Board) -> int | None:
    """Predicted, for an image."""
    from mcuformer.converter.estimate.on_board import instructions_on
    from mcuformer.converter.tflite_file import read

    return instructions_on(read(content, str(model)).graph, board.core)


def _opened(port: str, baud: int) -> Any:
    """The port, open: a serial.Serial. ToolchainError without pyserial, ConfigError if it cannot be opened."""
    try:
        import serial
    except ImportError as error:
        raise ToolchainError(
            "check-board reads the port with pyserial, which is not installed; run: pip install 'mcuformer[board]'"
        ) from error
    try:
        return serial.Serial(port, baud, timeout=POLL_S)
    except (OSError, ValueError) as error:  # SerialException is an OSError
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if isinstance(number, int) else str(error)
        raise ConfigError(
            f"--port {port}: cannot be opened ({reason}); `python -m serial.tools.list_ports` lists the ports"
        ) from error


def _expected(model: str | os.PathLike, data: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and outputs, int8, of the sketch that an export of the model has."""
    import numpy as np

    from mcuformer import self_test
    from mcuformer.converter.export.arduino import samples_of
    from mcuformer.converter.graph import to_int8
    from mcuformer.interpreter import Interpreter
    from mcuformer.sound import LogMel

    interpreter = Interpreter(model)
    notes = interpreter.info.get("front_end")
    front_end = None if notes is None else LogMel.from_dict(notes)
    samples = samples_of(interpreter.graph, interpreter.class_names, front_end, data)
    images = self_test.images_of(to_int8(samples.images))
    return images, interpreter.int8_outputs(images.view(np.uint8) ^ np.uint8(128))


def _compare(test: SelfTest, images: np.ndarray, outputs: np.ndarray, model: str | os.PathLike, data: str) -> None:
    """ConfigError for a sketch of other images or another model, ModelError if the board's outputs differ."""
    from mcuformer import self_test

    if test.images_id != self_test.identity(images):
        raise ConfigError(
            f"--data {data}: {test.board} ran other images (the sketch's are {test.images_id}, these "
            f"{self_test.identity(images)}); give the --model and --data of the export"
        )
    if test.outputs_id != self_test.identity(outputs):
        raise ConfigError(
            f"--model {model}: {test.board} ran another model (the sketch expects {test.outputs_id}, this gives "
            f"{self_test.identity(outputs)}); give the model of the export, or export and upload this one"
        )
    if wrong := [i for i in range(len(outputs)) if (test.outputs[i] != outputs[i]).any()]:
        first = int((test.outputs[wrong[0]] != outputs[wrong[0]]).argmax())
        values = f"value {first} is {test.outputs[wrong[0]][first]}, the host's {outputs[wrong[0]][first]}"
        raise ModelError(_differing(test, wrong, values))


def _differing(test: SelfTest, wrong: list[int], values: str = "") -> str:
    found = f", image {wrong[0] + 1} first" + (f": {values}" if values else "")
    return (
        f"{test.board}: the outputs of {len(wrong)} of {len(test.outputs)} images differ from the host's{found}; "
        "please report this with the model"
    )


def show(checked: BoardCheck) -> None:
    test = checked.test
    out.print(
        f"{test.board}, MCUFormer {test.version}: {len(test.outputs)} images, every one of "
        f"{test.outputs.shape[1]} values equal to {checked.compared_with}'s"
    )
    least, most = min(test.microseconds) / 1000, max(test.microseconds) / 1000
    out.print(f"{test.ms:.3f} ms an image (median; {least:.3f} to {most:.3f})")
    for file in filter(None, (checked.file, checked.board_file)):
        out.print(f"wrote {file}")


@click.command("check-board")
@click.option("--port", required=True, help="The board's serial port: /dev/ttyACM0, COM3.")
@click.option("--model", type=PATH, help="The exported .tflite: compare with its logits, computed here.")
@click.option("--data", default="fashion-mnist", help="What the export was given as --data.")
@click.option("--baud", type=click.IntRange(min=1), default=115200, help="Bits a second, as in the sketch.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=SILENCE_S, help="Seconds to wait for the next line.")
@click.option(
    "--board",
    help="Keep the time under this name of `mcuformer boards`, default: the sketch's; in a YAML file too, for "
    "estimates of other models.",
)
@click.option("--out", "-o", "file", type=PATH, help="Keep the time here; default: beside the model.")
@json_option
def command(
    port: str, model: Path | None, data: str, baud: int, timeout: float, board: str | None, file: Path | None,
    json_file: Path | None,
) -> None:  # fmt: skip
    """Compare a board that runs the sketch SelfTest with the host, bit for bit, and measure its time."""
    check_outputs(json_file, file)
    checked = check_board(
        port, model=model, data=data, baud=baud, timeout=timeout, board=board, file=file, progress=CONSOLE
    )
    show(checked)
    write_json(json_file, checked.to_dict())
