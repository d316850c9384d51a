# SPDX-License-Identifier: Apache-2.0
"""mcuformer check-board at a pseudo-terminal, where the sketch SelfTest's output in QEMU comes, whole and damaged."""

import json
import os
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from arm_tests import needs_tools
from command_line import forked, mistake
from conftest import TINY, lively_subnet, structured_images
from qemu_sketch import compile_sketch, link_sketch

from mcuformer import convert, measured, self_test
from mcuformer.board_file import write_board
from mcuformer.boards import get_board
from mcuformer.cli.boards import boards
from mcuformer.cli.check_board import check_board
from mcuformer.converter import tflite_file
from mcuformer.converter.export import arduino
from mcuformer.converter.export.registry import Source
from mcuformer.errors import ConfigError, DataError, ModelError, ToolchainError
from mcuformer.simulator import arduino_build, firmware

tty = pytest.importorskip("tty", reason="a pseudo-terminal needs POSIX")
pytest.importorskip("serial", reason="pyserial is not installed")

BOARD = "Nano 33 BLE"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, another one of the same shape, and data."""
    folder = tmp_path_factory.mktemp("board")
    images = structured_images(TINY, 20, seed=4)
    labels = np.arange(20) % TINY.num_classes
    for name, test in (("data", images), ("other", images[::-1])):
        np.savez(folder / f"{name}.npz", x_train=images, y_train=labels, x_test=test, y_test=labels)
    for name, seed in (("model", 6), ("second", 7)):
        convert(lively_subnet(TINY, seed), images, class_names=list("abcde")).save(folder / f"{name}.tflite")
    return folder


@pytest.fixture(scope="module")
def program(files):
    """The sketch of an export, for QEMU: it prints one round."""
    if missing := firmware.missing_tools():
        pytest.skip(missing)
    content = (files / "model.tflite").read_bytes()
    graph, names = tflite_file.read(content).graph, list("abcde")
    samples = arduino.samples_of(graph, names, None, str(files / "data.npz"))
    library = arduino.write(arduino.library(Source(content, graph, names), samples), files / "library")
    board = get_board("nano33ble")
    machine = arduino_build.machine_of(board)
    objects = arduino_build.compile_library(library, machine, files / "objects")
    objects += compile_sketch(library, "SelfTest", machine, files)
    return link_sketch(objects, board, machine, files)


@pytest.fixture(scope="module")
def printed(program):
    """What the sketch prints, as bytes, with a port's ends of lines."""
    return firmware.run(program).text.replace("\n", "\r\n").encode()


class Terminal:
    """A pseudo-terminal at whose other end a board prints: `first`, and then `again` for ever."""

    def __init__(self, again: bytes, first: bytes = b""):
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.port, self._first, self._again = os.ttyname(self.slave), first, again
        self._open, self._thread = True, threading.Thread(target=self._print)

    def __enter__(self) -> str:
        self._thread.start()
        return self.port

    def __exit__(self, *_) -> None:
        self._open = False
        self._thread.join()
        os.close(self.master)
        os.close(self.slave)

    def _print(self) -> None:
        waiting = self._first + self._again
        while self._open:
            try:
                waiting = waiting[os.write(self.master, waiting) :] if waiting else self._again
            except BlockingIOError:
                pass
            time.sleep(0.002)


def checked(text: str) -> bytes:
    """A line with its checksum."""
    return f"{text} *{zlib.crc32(text.encode()):08x}\r\n".encode()


def changed(printed: bytes, number: int, change) -> bytes:
    """One line changed; change: text without its checksum -> bytes of the new line."""
    lines = printed.splitlines(keepends=True)
    lines[number] = change(lines[number].decode().rsplit(" *", 1)[0])
    return b"".join(lines)


@needs_tools
def test_a_board_is_compared_with_the_host_and_its_time_is_kept(files, printed):
    given = ("check-board", "--model", files / "model.tflite", "--data", files / "data.npz")
    kept = files / "model.measured.json"
    content = (files / "model.tflite").read_bytes()
    measured.write(kept, content, {"another": {"ms": 1.0}})
    with Terminal(printed) as port:
        done = forked(*given, "--port", port, "--json", files / "result.json")
    result = json.loads((files / "result.json").read_text())
    assert f"{BOARD}, MCUFormer 0.1.0: 20 images, every one of 5 values equal to the host's" in done.stdout
    assert f"{result['ms']:.3f} ms an image (median; " in done.stdout and f"wrote {kept}" in done.stdout
    assert result["ms"] == np.median(result["microseconds"]) / 1000 > 0 and result["exact"]
    times = {"another": {"ms": 1.0}, BOARD: {"ms": result["ms"], "version": "0.1.0", "images": 20}}
    assert measured.read(kept, content) == times and measured.read(kept, content + b"!") == {}
    shown = forked("inspect", files / "model.tflite", "--json", files / "inspect.json").stdout
    assert f"measured on {BOARD}: {result['ms']:.3f} ms an image" in shown
    assert json.loads((files / "inspect.json").read_text())["measured_ms"] == {"another": 1.0, BOARD: result["ms"]}


@needs_tools
def test_a_board_that_runs_while_it_is_read(program):
    """QEMU's output, which is its standard error, goes into the terminal."""
    terminal = Terminal(b"")
    machine = program.machine
    quiet = ["-display", "none", "-monitor", "none", "-serial", "null", "-icount", "shift=6"]
    semihosting = ["-semihosting-config", "enable=on,target=native"]
    command = [machine.emulator, "-M", machine.name, *quiet, *semihosting, "-kernel", program.path]
    os.set_blocking(terminal.master, True)
    started = threading.Timer(0.5, subprocess.run, [command], {"stderr": terminal.master})
    started.start()
    try:
        assert all(check_board(terminal.port).test.equal)
    finally:
        started.join()
        os.close(terminal.master)
        os.close(terminal.slave)


@needs_tools
def test_without_the_model_the_board_says_whether_it_is_exact(files, printed):
    before = sorted(files.iterdir())
    with Terminal(printed, first=b"x\xff\0" + printed[40:]) as port:  # a reader comes at any time
        result = check_board(port)
    kept = files / "nano.json"
    with Terminal(printed) as port:
        check_board(port, model=files / "model.tflite", data=str(files / "data.npz"), board="nano33ble", file=kept)
    assert list(json.loads(kept.read_text())["measured"]) == ["nano33ble"]
    kept.unlink()
    assert result.compared_with == "the export" and result.file is None and len(result.test.outputs) == 20
    assert sorted(files.iterdir()) == before
    different = changed(printed, 3, lambda text: checked(text.replace("equal", "different")))
    with Terminal(different) as port, pytest.raises(ModelError, match=f"{BOARD}: the outputs of 1 of 20 .* image 3 "):
        check_board(port)


@needs_tools
def test_a_boards_file_keeps_the_time_too(files, printed, tmp_path):
    """And another model's time on that board is an estimate from then on."""
    board, kept = tmp_path / "nano.yaml", tmp_path / "times.json"
    write_board(board, get_board("nano33ble"))
    before, model = board.read_text(), files / "model.tflite"
    given = {"data": str(files / "data.npz"), "board": str(board), "file": kept}
    with Terminal(changed(printed, 7, other_value)) as port, pytest.raises(ModelError):
        check_board(port, model=model, **given)
    assert board.read_text() == before
    with Terminal(printed) as port:
        result = check_board(port, model=model, **given)
    assert board.read_text().startswith(before) and (result.file, result.board_file) == (kept, board)
    (time,) = get_board(str(board)).measured
    sha256 = measured.identity(model.read_bytes())
    assert (time.model, time.sha256, time.ms, time.images) == ("model.tflite", sha256, result.test.ms, 20)
    first, second = boards([model, files / "second.tflite"], str(board)).fits
    assert first.ms == time.ms and second.ms is None and first.instructions == time.instructions
    assert second.estimated_ms == pytest.approx(time.ms * second.instructions / time.instructions)


def other_value(text: str) -> bytes:
    """The last output of an image, one more or less; the board takes it for equal, and the line arrives whole."""
    front, last = text.rsplit(" ", 1)
    return checked(f"{front} {int(last) + (1 if int(last) < 127 else -1)}")


@needs_tools
@pytest.mark.parametrize(
    ("change", "model", "data", "error", "line"),
    [
        (lambda p: changed(p, 7, other_value), "model", "data", ModelError,
         r"1 of 20 images differ from the host's, image 7 first: value 4 is -?\d+, the host's -?\d+; please report"),
        (lambda p: p, "second", "data", ConfigError, "ran another model .* give the model of the export"),
        (lambda p: p, "model", "other", ConfigError, "ran other images .* --model and --data of the export"),
        (lambda p: changed(p, 5, lambda text: checked("image 5 of 20: error 2")), "model", "data", ConfigError,
         f"image 5: the kernels on {BOARD} end in error 2"),
        (lambda p: changed(p, 5, lambda text: checked(text).replace(b"e", b"\xe5", 1)), "model", "data", DataError,
         "the line of image 5 of 20 arrived damaged, in 3 rounds; check the cable"),
        (lambda p: changed(p, 5, lambda text: b""), "model", "data", DataError, "image 5 of 20 arrived damaged"),
        (lambda p: changed(p, 21, lambda text: checked("9 of 20")), "model", "data", DataError, "the last line arr"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(change, model, data, error, line, files, printed, tmp_path):
    kept = tmp_path / "times.json"
    with Terminal(change(printed)) as port, pytest.raises(error, match=line) as raised:
        check_board(port, model=files / f"{model}.tflite", data=str(files / f"{data}.npz"), file=kept, timeout=5)
    assert "\n" not in str(raised.value) and not kept.exists()


@needs_tools
def test_a_line_that_is_damaged_once_is_read_in_the_next_round(printed):
    damaged = changed(printed, 5, lambda text: checked(text).replace(b"1", b"2", 1))
    with Terminal(printed, first=damaged * 2) as port:
        assert len(check_board(port).test.outputs) == 20


@pytest.mark.parametrize(
    ("again", "line"),
    [
        (b"", "nothing came within 0.3 s; upload the sketch SelfTest"),
        (b"\xff\0\xfe" * 50, r"\d+ bytes came that are no self-test"),
        (b"T-shirt/top: Bag, 88 %, 12 us\r\n", r"\d+ bytes came that are no self-test"),
    ],
)
def test_a_port_without_the_sketch(again, line):
    with Terminal(again) as port, pytest.raises(DataError, match=line):
        check_board(port, timeout=0.3)


def test_a_board_that_is_unplugged():
    terminal = Terminal(b"")
    threading.Timer(0.5, os.close, [terminal.master]).start()
    with pytest.raises(DataError, match="was lost while it was read .*; plug the board in again"):
        check_board(terminal.port)
    os.close(terminal.slave)


class Stops:
    """A port at which some bytes came, and then nothing."""

    def __init__(self, content: bytes):
        self.content = content

    def read(self, size: int) -> bytes:
        came, self.content = self.content[:size], self.content[size:]
        return came


@needs_tools
def test_a_board_that_stops(printed):
    lines = printed.splitlines(keepends=True)
    with pytest.raises(
        DataError, match=r"the line of image 8 of 20 did not come within 0.1 s; give a longer --timeout"
    ):
        self_test.read(Stops(b"".join(lines[:8]) + lines[8][:20]), 0.1)


def test_ports_and_files_that_are_not_there(files, monkeypatch):
    assert "cannot be opened (No such file" in mistake("check-board", "--port", files / "tty")
    of = ("--model", files / "model.tflite")
    assert "board 'uno' is unknown" in mistake("check-board", "--port", "p", "--board", "uno", *of)
    assert "--out x: measured times are kept by model" in mistake("check-board", "--port", "p", "--out", "x")
    line = "--board pico: measured times are kept by model; give --model too"
    assert line in mistake("check-board", "--port", "p", "--board", "pico")
    for content in (
        "[]", "{", '{"format": "mcuformer.measured/2", "model": "", "measured": {}}',
        '{"format": "mcuformer.measured/1", "model": "", "measured": {"a": {}}}',
    ):  # fmt: skip
        (files / "broken.json").write_text(content)
        with pytest.raises(DataError, match=r"broken.json: holds no measured times .*; give another file"):
            check_board("p", model=files / "model.tflite", file=files / "broken.json")
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(
        ToolchainError, match=r"pyserial, which is not installed; run: pip install 'mcuformer\[board\]'"
    ):
        check_board("p")
