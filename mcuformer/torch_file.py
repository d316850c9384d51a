# SPDX-License-Identifier: Apache-2.0
"""What torch.save wrote: whether a file is whole, which torch.load does not look at."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO


def is_archive(file: BinaryIO | Path) -> bool:
    """Whether it is a zip archive, as torch writes since 1.6; damaged ones count."""
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # such as one that says that it goes on in another file
        return True


def damage(file: BinaryIO | Path, *, packed: bool = False) -> str | None:
    """What is wrong with an archive, in words; None if every checksum in it is right.

    packed: its parts may be compressed, as torch does not do itself.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = [entry.filename for entry in archive.infolist()]
            if len(set(names)) < len(names):
                return "two parts have the same name"
            if not packed and any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                return "a part is compressed"
            wrong = archive.testzip()
    # A damaged length, name or method raises many kinds.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, RuntimeError, zlib.error) as error:
        return str(error) or type(error).__name__
    return None if wrong is None else f"{wrong!r} has a wrong checksum"
