# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, after a power cut too: they are on the disk before they are renamed.

Files that are read are no pipes, to which nobody may ever write, and no devices, which may never end.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from mcuformer.checks import as_path
from mcuformer.errors import McuformerError

Made = TypeVar("Made")
NAMES = 100  # tried for a temporary file


def write_whole(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> Path:
    """Calls write(file) on a temporary file beside path, then renames it; an error leaves path as it was."""
    path = as_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, handle = beside(path, _create)
    except (OSError, ValueError) as error:
        raise cannot_be_written(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_be_written(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_bytes(path: str | os.PathLike, content: bytes | memoryview) -> Path:
    """Writes content to path, whole or not at all."""
    return write_whole(path, lambda file: file.write(content))


@contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a new, hidden folder to write into; at the end it takes the place of path, which may be a folder. An error
    leaves path as it was."""
    path = as_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, _ = beside(path, os.mkdir)
    except (OSError, ValueError) as error:
        raise cannot_be_written(path, error) from error
    try:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                sync(Path(folder, name))
            sync_folder(Path(folder))
        _take_place(temporary, path)
    except OSError as error:
        raise cannot_be_written(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place(new: Path, path: Path) -> None:
    """Renames new to path. What is there is moved away first, and back if that fails."""
    old = None
    if path.is_dir() and any(path.iterdir()):  # an empty one is replaced as it is
        old, _ = beside(path, lambda name: os.rename(path, name))
    try:
        os.replace(new, path)
    except OSError:
        if old is not None:
            os.rename(old, path)
        raise
    sync_folder(path.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def read_bytes(path: str | os.PathLike) -> bytes:
    """All of a file. OSError, also of a pipe or a device; ValueError if the path is no path."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # reading a folder says itself what it is
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", os.fspath(path))
    return Path(path).read_bytes()


def read_text(path: str | os.PathLike) -> str:
    """All of a file, which is UTF-8. OSError, also of a pipe or a device; ValueError of other text."""
    return read_bytes(path).decode()


def beside(path: Path, make: Callable[[Path], Made]) -> tuple[Path, Made]:
    """make(a new hidden name in path's folder), and the name. OSError.

    The system applies the umask. Asking for it would change it for all threads for a moment.
    """
    path = path.absolute()
    for _ in range(NAMES):
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        try:
            return temporary, make(temporary)
        except FileExistsError:
            continue
    raise FileExistsError(f"{NAMES} temporary files beside {path} are there already")


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def sync(path: Path) -> None:
    """Returns when a file's content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Returns when the names in a folder are on the disk, on systems that can tell."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # nor do some file systems sync them
    finally:
        os.close(handle)


def cannot_be_written(path: Path, error: Exception) -> McuformerError:
    """One line that says why."""
    return McuformerError(
        f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}); choose another place"
    )
