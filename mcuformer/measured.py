# SPDX-License-Identifier: Apache-2.0
"""Times that boards took for a model, in a file beside it: model.measured.json."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mcuformer.errors import DataError
from mcuformer.files import read_text, write_bytes

FORMAT = "mcuformer.measured/1"


def path_of(model: Path) -> Path:
    """Where the times of a model are, if nobody says otherwise."""
    return model.with_suffix(".measured.json")


def read(path: Path, model: bytes) -> dict[str, dict[str, Any]]:
    """What is known of a model, its .tflite given as bytes: board -> "ms", "images", "version". Empty without a file,
    and for one of other bytes: that model was made again. DataError for any other file."""
    if not path.exists():
        return {}
    try:
        stored = json.loads(read_text(path))
        if stored["format"] == FORMAT:
            times = {str(board): {**kept, "ms": float(kept["ms"])} for board, kept in stored["measured"].items()}
            return times if stored["model"] == identity(model) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise DataError(f"{path}: holds no measured times ({FORMAT}); give another file, or remove it")


def write(path: Path, model: bytes, measured: dict[str, dict[str, Any]]) -> None:
    """Writes what is known of a model, in place of what the file held."""
    values = {"format": FORMAT, "model": identity(model), "measured": measured}
    write_bytes(path, (json.dumps(values, indent=1) + "\n").encode())


def identity(model: bytes) -> str:
    """What tells a model's .tflite from others: its SHA-256."""
    return hashlib.sha256(model).hexdigest()
