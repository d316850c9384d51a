# SPDX-License-Identifier: Apache-2.0
"""A board in a YAML file: `--board my_board.yaml`. docs/add_a_board.md shows one."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from mcuformer.boards import MB, Board
from mcuformer.checks import is_whole, shown
from mcuformer.cores import KB, get_core
from mcuformer.errors import ConfigError
from mcuformer.files import read_text

TEXTS = ("name", "mcu", "core", "note", "source")
UNLIMITED = ("clock_mhz", "flash_bytes")  # may be null
UNITS = {"KB": KB, "MB": MB}
MOST = 1 << 40  # bytes, or MHz
_FIELDS = {field.name: field for field in dataclasses.fields(Board)}
REQUIRED = tuple(name for name, field in _FIELDS.items() if field.default is dataclasses.MISSING)


def read_board(path: str | os.PathLike) -> Board:
    """The board of a YAML file, whose keys are the fields of Board. Sizes are bytes, or text such as "320 KB".

    ConfigError, one line, names the file and the key: no such file, an unknown or missing key, a wrong type, an unknown
    core, a reserve outside the memory.
    """
    values = _values(Path(path))
    try:
        return Board(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _values(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(read_text(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a board's YAML file or name") from error
    except Exception as error:  # of PyYAML: a date that is none, a tag without a value, lists too deep
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: holds no keys; a board has {', '.join(REQUIRED)}")
    if unknown := [key for key in found if key not in _FIELDS]:
        raise ConfigError(f"{path}: {shown(unknown[0])} is no key of a board; it has {', '.join(_FIELDS)}")
    if missing := [key for key in REQUIRED if key not in found]:
        raise ConfigError(f"{path}: {missing[0]} is missing; a board needs {', '.join(REQUIRED)}")
    try:
        return {key: _value(key, value) for key, value in found.items()}
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _value(key: str, value: Any) -> Any:
    """A key's value, checked."""
    if key in TEXTS:
        if not isinstance(value, str) or not value.strip() or "\n" in value:
            raise ConfigError(f"{key} = {shown(value)}: must be one line of text")
        return get_core(value) if key == "core" else value
    if value is None and key in UNLIMITED:
        return None
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
