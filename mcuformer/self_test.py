# SPDX-License-Identifier: Apache-2.0
"""The sketch SelfTest: the images it runs, what it prints, and reading that from a port.

The sketch prints 22 lines, again and again, each with the CRC-32 of what stands before " *" at its end:

    MCUFormer 0.1.0 self-test on Nano 33 BLE: 20 images 8d06a0cf, 10 outputs 4f5344cd *7b1c04ee
    image 1 of 20: equal, 41250 us: -12 33 4 -7 20 1 0 -3 5 9 *0e9f4a11
    ...
    20 of 20 equal to the host's, 41.250 ms an image *55d1c2b0

The two numbers after "images" and "outputs" identify the images and the outputs that the host computed for them.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mcuformer.errors import ConfigError, DataError

IMAGES = 20
ROUNDS = 3  # a test with a damaged line is read again in the next round
LONGEST_LINE = 65536  # bytes; 8,192 outputs take 40,960

FIRST = re.compile(r"MCUFormer (\S+) self-test on (.+): (\d+) images ([0-9a-f]{8}), (\d+) outputs ([0-9a-f]{8})")
IMAGE = re.compile(r"image (\d+) of (\d+): (?:(equal|different), (\d+) us:((?: -?\d+)*)|error (-?\d+))")
LAST = re.compile(r"(\d+) of (\d+) equal to the host's, (\d+\.\d{3}) ms an image")


class Port(Protocol):
    """What is read from: a serial.Serial with a short timeout."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none if none came in time."""


@dataclass(frozen=True, eq=False)
class SelfTest:
    """What a board printed. images_id, outputs_id: of what it was to run and to get; outputs: int8 [20, n];
    microseconds: of each image; equal: whether the board found its outputs equal to those that the host computed."""

    board: str
    version: str
    images_id: str
    outputs_id: str
    outputs: np.ndarray
    microseconds: tuple[int, ...]
    equal: tuple[bool, ...]

    @property
    def ms(self) -> float:
        """The median of an image, in milliseconds."""
        return float(np.median(self.microseconds)) / 1000


def images_of(samples: np.ndarray) -> np.ndarray:
    """int8 [n, H, W, C] -> int8 [20, H, W, C], as the sketch makes them of its n test images, so that they take no
    more flash: mirrored, upside down, with all bits of a mask flipped (the first one makes a negative)."""
    made = []
    for k in range(IMAGES):
        image, variant = samples[k % len(samples)], k // len(samples)
        image = image[:, ::-1] if variant & 1 else image
        image = image[::-1] if variant & 2 else image
        mask = (0xFF if variant & 4 else 0) ^ ((variant >> 3) * 37 & 0x7F)
        made.append(np.ascontiguousarray(image).view(np.uint8) ^ np.uint8(mask))
    return np.stack(made).view(np.int8)


def identity(values: np.ndarray) -> str:
    """Eight hexadecimal digits that identify an array of int8."""
    return f"{zlib.crc32(np.ascontiguousarray(values).tobytes()):08x}"


def unchecked(line: str) -> str | None:
    """A line without its checksum; None if that is missing or wrong."""
    text, _, crc = line.rpartition(" *")
    return text if crc == f"{zlib.crc32(text.encode()):08x}" else None


def read(port: Port, silence_s: float, name: str = "port") -> SelfTest:
    """Reads a whole self-test. silence_s: how long to wait for the next line; name: for errors.

    DataError if nothing comes, what comes is something else, or lines stay damaged; ConfigError if the board says that
    its kernels failed."""
    lines = _Lines(port, silence_s, name)
    damaged = ""
    for _ in range(ROUNDS):
        first = _first(lines)
        read, damaged = _images(lines, first)
        if not damaged:
            break
    else:
        raise DataError(
            f"{name}: {damaged} arrived damaged, in {ROUNDS} rounds; check the cable, and close what else reads the "
            "port"
        )
    version, board, _, images_id, _, outputs_id = first.groups()
    return SelfTest(
        board, version, images_id, outputs_id, np.array([values for values, _, _ in read], np.int8),
        tuple(duration for _, duration, _ in read), tuple(equal for _, _, equal in read),
    )  # fmt: skip


def _first(lines: _Lines) -> re.Match:
    """The next first line; what stands before it is the end of an earlier round, or the board's start."""
    for line in lines:
        text = unchecked(line)
        if text is not None and (match := FIRST.fullmatch(text)):
            return match
    raise lines.nothing()


def _images(lines: _Lines, first: re.Match) -> tuple[list[tuple[list[int], int, bool]], str]:
    """Outputs, microseconds and "equal" of every image, and the line that was damaged, empty if none was."""
    count, outputs = int(first[3]), int(first[5])
    read: list[tuple[list[int], int, bool]] = []
    for number in range(1, count + 1):
        what = f"the line of image {number} of {count}"
        match = IMAGE.fullmatch(unchecked(lines.next(what)) or "")
        if match is None or int(match[1]) != number:
            return read, what
        if match[6] is not None:
            raise ConfigError(f"{lines.name}: image {number}: the kernels on {first[2]} end in error {match[6]}")
        values = [int(word) for word in match[5].split()]
        if len(values) != outputs or not all(-128 <= value <= 127 for value in values):
            return read, what
        read.append((values, int(match[4]), match[3] == "equal"))
    last = LAST.fullmatch(unchecked(lines.next("the last line")) or "")
    return read, "" if last is not None else "the last line"


class _Lines:
    """The lines that a port delivers, until none came for a while or what comes has no end."""

    def __init__(self, port: Port, silence_s: float, name: str):
        self.name = name
        self._port, self._silence_s, self._bytes, self._came = port, silence_s, b"", 0
        self._deadline = time.monotonic() + silence_s

    def __iter__(self) -> Iterator[str]:
        """Lines until, since the last one with a right checksum, the silence is over."""
        while (line := self._line()) is not None:
            yield line

    def next(self, what: str) -> str:
        """The next line. DataError, which names what was expected, if there is none."""
        line = self._line()
        if line is None:
            raise DataError(
                f"{self.name}: the self-test stopped: {what} did not come within {self._silence_s:g} s; "
                "give a longer --timeout if the network is slow"
            )
        return line

    def nothing(self) -> DataError:
        """Why there was no first line."""
        if self._came == 0:
            return DataError(
                f"{self.name}: nothing came within {self._silence_s:g} s; upload the sketch SelfTest, and close the "
                "serial monitor"
            )
        return DataError(
            f"{self.name}: {self._came} bytes came that are no self-test; upload the sketch SelfTest, and give its "
            "--baud"
        )

    def _line(self) -> str | None:
        while b"\n" not in self._bytes:
            if time.monotonic() > self._deadline:
                return None
            received = self._port.read(4096)
            self._came += len(received)
            self._bytes = (self._bytes + received)[-LONGEST_LINE:]
        line, _, self._bytes = self._bytes.partition(b"\n")
        text = line.rstrip(b"\r").decode(errors="replace")
        if unchecked(text) is not None:
            self._deadline = time.monotonic() + self._silence_s
        return text
