# SPDX-License-Identifier: Apache-2.0
"""A board in a YAML file: `--board my_board.yaml`. docs/add_a_board.md shows one."""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
from pathlib import Path
from typing import Any

from mcuformer.boards import MB, Board, Measurement
from mcuformer.checks import is_number, is_whole, shown
from mcuformer.cores import KB, get_core
from mcuformer.errors import ConfigError
from mcuformer.files import read_text, write_bytes

TEXTS = ("name", "mcu", "core", "note", "source")
UNLIMITED = ("clock_mhz", "flash_bytes")  # may be null
UNITS = {"KB": KB, "MB": MB}
MOST = 1 << 40  # bytes, MHz or instructions
MOST_FACTOR = 1000  # of cycles
MEASURED = "measured"
_FIELDS = {field.name: field for field in dataclasses.fields(Board)}
REQUIRED = tuple(name for name, field in _FIELDS.items() if field.default is dataclasses.MISSING)
_SECTION = re.compile(r"^measured:.*\n(?:(?:[ \t].*|-(?:[ \t].*)?|\r?)\n)*", re.M)  # and the lines that belong to it


def read_board(path: str | os.PathLike) -> Board:
    """The board of a YAML file, whose keys are the fields of Board. Sizes are bytes, or text such as "320 KB".

    ConfigError, one line, names the file and the key: no such file, an unknown or missing key, a wrong type, an unknown
    core, a reserve outside the memory.
    """
    return _board(_text(path), path)


def write_board(path: str | os.PathLike, board: Board) -> Path:
    """Writes a board as a file to change. ConfigError if there is one of this name: it may hold measured times."""
    if os.path.lexists(path):
        raise ConfigError(f"{path}: is there already; give another name, or remove it")
    values = {name: getattr(board, name) for name, field in _FIELDS.items() if name != MEASURED}
    values = {name: value for name, value in values.items() if name in REQUIRED or value != _FIELDS[name].default}
    values = {name: _sized(value) if name.endswith("_bytes") else value for name, value in values.items()}
    head = f"# {board.name} of `mcuformer boards`: change what is otherwise on your board (docs/add_a_board.md).\n"
    return write_bytes(path, (head + _yaml({**values, "core": board.core.name})).encode())


def with_time(path: str | os.PathLike, time: Measurement) -> str:
    """The text of a board's file with one more measured time, in place of one of the same model; other lines, comments
    too, stay as they are. ConfigError if the file is no board's, or not written one key a line."""
    text = _text(path)
    board = _board(text, path)
    times = [*(one for one in board.measured if one.sha256 != time.sha256), time]
    section = _yaml({MEASURED: [dataclasses.asdict(one) for one in times]})
    text = text if text.endswith("\n") else text + "\n"
    found = _SECTION.search(text)
    new = text + section if found is None else text[: found.start()] + section + text[found.end() :]
    try:
        same = _board(new, path) == dataclasses.replace(board, measured=tuple(times))
    except ConfigError:
        same = False
    if not same:
        raise ConfigError(
            f"{path}: a measured time cannot be added to it as it is written; write each key on a line of its own"
        )
    return new


def _sized(value: int | None) -> str | int | None:
    return f"{value // KB} KB" if value and value % KB == 0 else value


def _yaml(values: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)


def _text(path: str | os.PathLike) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a board's YAML file or name") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not text in UTF-8 ({error}); give a board's YAML file or name") from error


def _board(text: str, path: str | os.PathLike) -> Board:
    """The board of a file's text."""
    import yaml

    try:
        found = yaml.safe_load(text)
    except Exception as error:  # of PyYAML: a date that is none, a tag without a value, lists too deep
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: holds no keys; a board has {', '.join(REQUIRED)}")
    if unknown := [key for key in found if key not in _FIELDS]:
        raise ConfigError(f"{path}: {shown(unknown[0])} is no key of a board; it has {', '.join(_FIELDS)}")
    if missing := [key for key in REQUIRED if key not in found]:
        raise ConfigError(f"{path}: {missing[0]} is missing; a board needs {', '.join(REQUIRED)}")
    try:
        return Board(**{key: _value(key, value) for key, value in found.items()})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _value(key: str, value: Any) -> Any:
    """A key's value, checked."""
    if key == MEASURED:
        if not isinstance(value, list):
            raise ConfigError(f"{key} = {shown(value)}: must be a list, as check-board writes it")
        return tuple(_measurement(f"{key}[{i}]", one) for i, one in enumerate(value))
    if key in TEXTS:
        if not isinstance(value, str) or not value.strip() or "\n" in value:
            raise ConfigError(f"{key} = {shown(value)}: must be one line of text")
        return get_core(value) if key == "core" else value
    if value is None and key in UNLIMITED:
        return None
    if key == "cycle_factor":
        if not is_number(value) or not 0 < value <= MOST_FACTOR:
            raise ConfigError(
                f"{key} = {shown(value)}: must be a number above 0, at most {MOST_FACTOR}; 1 is no change"
            )
        return float(value)
    if key.endswith("_bytes") and isinstance(value, str):
        number, unit = value[:-2].strip(), value[-2:].upper()
        if unit in UNITS and number.isascii() and number.isdigit() and len(number) < 12:
            return int(number) * UNITS[unit]
    least = 0 if key.startswith(("reserved_", "external_")) else 1
    if not is_whole(value, least, MOST):
        what = (
            'a whole number of bytes, or text such as "320 KB"' if key.endswith("_bytes") else "a whole number of MHz"
        )
        raise ConfigError(f"{key} = {shown(value)}: must be {what}, at least {least}")
    return value


def _measurement(name: str, value: Any) -> Measurement:
    """A measured time, checked. name: what it is called in an error."""
    fields = [field.name for field in dataclasses.fields(Measurement)]
    if not isinstance(value, dict) or sorted(map(str, value)) != sorted(fields):
        raise ConfigError(f"{name} = {shown(value)}: must have {', '.join(fields)}, as check-board writes it")
    value = {key: str(one) if isinstance(one, datetime.date) else one for key, one in value.items()}
    for key, one in value.items():
        legal = isinstance(one, str)
        if key == "ms":
            legal = is_number(one) and 0 < one < MOST
        elif key in ("instructions", "images"):
            legal = is_whole(one, 1, MOST) or (key == "instructions" and one is None)
        if not legal:
            raise ConfigError(f"{name}.{key} = {shown(one)}: cannot be; remove this entry, and measure again")
    return Measurement(**value)
