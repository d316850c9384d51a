# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from mcuformer.errors import McuformerError


def write_whole(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> Path:
    """Calls write(file) on a temporary file beside path, then renames it; an error leaves path as it was."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise McuformerError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise McuformerError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return path


def write_bytes(path: str | os.PathLike, content: bytes) -> Path:
    """Writes content to path, whole or not at all."""
    return write_whole(path, lambda file: file.write(content))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
