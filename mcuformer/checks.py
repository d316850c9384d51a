# SPDX-License-Identifier: Apache-2.0
"""Checks of single values from a user. To Python a bool is an int; here it is never a number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from mcuformer.errors import ConfigError, DataError, McuformerError

if TYPE_CHECKING:  # the command line is quick without numpy
    import numpy as np

MOST_SHOWN = 120  # characters of a value in a message


def is_whole(value: object, least: int | None = None, most: int | None = None) -> TypeGuard[int]:
    """Whether value is an int, from `least` to `most` if given."""
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return (least is None or value >= least) and (most is None or value <= most)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether value is an int or a float, NaN and infinity included."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(
    name: str,
    value: object,
    least: int | None = None,
    most: int | None = None,
    *,
    unit: str = "",
    error: type[McuformerError] = ConfigError,
) -> int:
    """Returns value if is_whole() holds; else raises `error`, one line with the name, the value and the legal range.

    unit: what is counted, such as "bytes".
    """
    if is_whole(value, least, most):
        return value
    raise error(f"{name} = {shown(value)}: must be a whole number{f' of {unit}' if unit else ''}{_range(least, most)}")


def finite(name: str, value: object) -> float:
    """Returns value as a float if it is a finite number; ConfigError if not."""
    if is_number(value) and math.isfinite(value):
        return float(value)
    raise ConfigError(f"{name} = {shown(value)}: must be a finite number")


def flag(name: str, value: object) -> bool:
    """Returns value as a bool if it is one, or 0 or 1; ConfigError if not."""
    import numpy as np

    if isinstance(value, bool | int | np.bool_) and value in (0, 1):
        return bool(value)
    raise ConfigError(f"{name} = {shown(value)}: must be True or False")


def as_path(value: object, what: str = "a file name") -> Path:
    """Returns value as a Path; ConfigError if it is none."""
    try:
        return Path(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigError(f"{what} = {shown(value)}: must be a str or a Path") from error


def one_of(name: str, value: object, known: Iterable[str]) -> str:
    """Returns value if it is one of the known words; ConfigError if not."""
    words = tuple(known)
    if isinstance(value, str) and value in words:
        return value
    raise ConfigError(f"{name} = {shown(value)}: must be one of {', '.join(words)}")


def shown(value: object) -> str:
    """repr() for a message: on one line, and not too long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def as_array(values: Any, what: str) -> np.ndarray:
    """numpy's array of what the user gave as `what`; DataError if there is none, as of rows of unequal lengths."""
    import numpy as np

    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # the last two: of tensors on a GPU
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{what}: no array ({reason}); give a numpy array, uint8 [n, height, width, channels]"
        ) from error


def _range(least: int | None, most: int | None) -> str:
    if most is None:
        return "" if least is None else f" from {least}"
    return f", at most {_plain(most)}" if least is None else f" from {least} to {_plain(most)}"


def _plain(n: int) -> str:
    """2^63 - 1 rather than its 19 digits."""
    return f"2^{n.bit_length()} - 1" if n >= 2**31 - 1 and n & (n + 1) == 0 else str(n)
