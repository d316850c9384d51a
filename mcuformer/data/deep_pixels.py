# SPDX-License-Identifier: Apache-2.0
"""Grey pictures of more than 8 bits: which of their values is white.

A file may say so: 12-bit TIFF is 0 to 4,095, PGM has its maxval, JPEG 2000 its depth. Others do not: cameras of 10, 12
or 14 bits write their values into 16-bit PNG and TIFF, and 32-bit and float TIFF may hold anything. Of these, all of a
set have one range, so that brightness stays comparable: the smallest of LEVELS that holds the values of its pictures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mcuformer.errors import DataError

MODES = {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}
LEVELS = tuple(2**bits - 1 for bits in (8, 10, 12, 14, *range(15, 65)))  # and 1, for floats
SAMPLE = 1000  # so many pictures of a set at least, or all, are looked at for its range
BITS, WHITE_IS_ZERO, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
SCALED_BY_PILLOW = {"PPM", "JPEG2000"}  # integers of these: to 16 bits


@dataclass(frozen=True)
class Range:
    """The values of black and white."""

    black: float
    white: float

    def __str__(self) -> str:
        return f"{self.black:,.0f} to {self.white:,.0f}"


def values_of(image: Image.Image, path: Path) -> np.ndarray:
    """The pixels of an image in one of MODES, [height, width] of uint16, int32, uint32 or float32."""
    values = np.asarray(image)
    if values.dtype == np.int32 and image.format == "TIFF" and _tag(image, SAMPLE_FORMAT, 1) == 1:
        values = values.view(np.uint32)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{path}: holds pixels that are no numbers (inf or nan); replace or remove it")
    return values


def stated_range(image: Image.Image) -> Range | None:
    """What the file itself says."""
    if image.mode != "F" and image.format in SCALED_BY_PILLOW:
        return Range(0, 65535)
    if image.format == "TIFF" and image.mode != "F" and 8 < (bits := _tag(image, BITS, 0)) < 16:
        return Range(0, 2**bits - 1)
    return None


def is_inverted(image: Image.Image) -> bool:
    """Whether the least value is white; Pillow turns round the 8-bit ones only."""
    return image.format == "TIFF" and _tag(image, WHITE_IS_ZERO, 1) == 0


def to_grey(values: np.ndarray, limits: Range, path: Path) -> np.ndarray:
    """uint8, [height, width]. DataError if a value is outside."""
    least, greatest = float(values.min()), float(values.max())
    if least < limits.black or greatest > limits.white:
        raise DataError(
            f"{path}: holds the value {greatest if greatest > limits.white else least:,g}, outside the {limits} of the "
            "other pictures; save all with 8 bits, or remove it"
        )
    scaled = (values.astype(np.float64) - limits.black) * (255 / (limits.white - limits.black))
    return np.rint(scaled).astype(np.uint8)


class SetRange:
    """The range of the pictures of a set that do not state theirs, by the kind of number; found when first needed.

    paths: all pictures of the set, whatever of it is read; look: opens one and gives its values, None if it is of
    another kind or cannot be read; say: called with one line when a range was found.
    """

    def __init__(self, paths: list[Path], look: Callable[[Path], np.ndarray | None], say: Callable[[str], None]):
        self._paths, self._look, self._say = paths, look, say
        self._found: dict[str, Range] = {}
        self._lock = threading.Lock()

    def of(self, values: np.ndarray, path: Path) -> Range:
        """For the picture of these values, which belongs to the set."""
        kind = _kind(values)
        with self._lock:
            if kind not in self._found:
                self._found[kind] = self._find(values, path, kind)
            return self._found[kind]

    def _find(self, values: np.ndarray, path: Path, kind: str) -> Range:
        extremes = {path: _extremes(values)}
        for other in self._paths[:: max(1, len(self._paths) // SAMPLE)]:
            looked = self._look(other)  # one picture in memory at a time
            if looked is not None and _kind(looked) == kind:
                extremes[other] = _extremes(looked)
        least, greatest = min(low for low, _ in extremes.values()), max(high for _, high in extremes.values())
        levels = (1, *LEVELS) if kind == "float" else LEVELS
        white = next((level for level in levels if level >= max(greatest, -least)), max(greatest, -least))
        found = Range(-white if least < 0 else 0, white)
        first = next((other for other in self._paths if other in extremes), path)
        self._say(
            f"{kind} pictures such as {first.name} do not state their range: their values, {least:,g} to "
            f"{greatest:,g}, are read as {found}"
        )
        return found


def _kind(values: np.ndarray) -> str:
    """The kind of number, in words."""
    return "float" if values.dtype.kind == "f" else f"{8 * values.itemsize}-bit"


def _extremes(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _tag(image: Image.Image, tag: int, default: int) -> int:
    value = image.tag_v2.get(tag, default)  # type: ignore[attr-defined]  # only of TIFF
    return int(value[0] if isinstance(value, tuple) else value)
