# SPDX-License-Identifier: Apache-2.0
"""Sizes in pixels: one number for both ways, or (height, width); in text 96 or 120x160, the height first."""

from __future__ import annotations

import re

from mcuformer.checks import is_whole

Size = int | tuple[int, int]
"""Pixels: both ways, or (height, width)."""


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def shortest(height: int, width: int) -> Size:
    """One number if both are equal."""
    return height if height == width else (height, width)


def is_size(value: object, most: int | None = None) -> bool:
    """Whether value is a whole number from 1, or two of them, each at most `most`."""
    pair = value if isinstance(value, list | tuple) else (value, value)
    return len(pair) == 2 and all(is_whole(side, 1, most) for side in pair)


def size_text(size: Size) -> str:
    """96, or 120x160 for 120 rows of 160 pixels; read_size() reads it."""
    height, width = sides(size)
    return str(height) if height == width else f"{height}x{width}"


def read_size(text: str) -> Size | None:
    """The size that a text such as 96 or 120x160 says; None if it says none."""
    match = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text, re.ASCII)
    return None if match is None else shortest(int(match[1]), int(match[2] or match[1]))
