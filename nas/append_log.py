# SPDX-License-Identifier: Apache-2.0
"""AppendLog: one JSON line per result, so that an interrupted run need not repeat its work.

The search and the evolution depend only on their options and these results. After a kill they start again, take what
the log has, and reach the same end. A line cut short by the kill is dropped.

Each line ends with a checksum of itself and all lines before it, "check", so that no line can be changed, left out or
moved without notice. Lines of earlier versions have none; a McuformerWarning says how many are believed as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcuformer.errors import ConfigError, McuformerError, McuformerWarning, ModelError
from mcuformer.files import read_bytes, sync_folder
from mcuformer.nas import distributed
from mcuformer.nas.record import versions, warn_of_versions

CHECK = re.compile(rb'(\{.*), "check": "([0-9a-f]{16})"\}')
# Names of the first line that earlier versions did not write, or wrote and are no longer compared.
ADDED = {"images": "its images", "labels_crc32": "its labels", "pixels_sha256": "its pixels", "stratified": "its split"}
NO_LONGER = {"data"}  # the path: the images may have moved
VERSIONS = "versions"  # of what wrote the log: others give a warning
# What reading a damaged entry raises.
DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)


def first_line(path: str | os.PathLike) -> dict | None:
    """What a log states of the run that wrote it; None without one. Not verified: AppendLog does."""
    try:
        with open(path, "rb") as file:
            stated = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return None
    return stated if isinstance(stated, dict) else None


class AppendLog:
    """entries: what read() made of the log's content when it was opened. Under torchrun the first process reads and
    writes.

    path       the file; None: nothing is read or written
    form       name and version of the content, such as "mcuformer.search/1"
    identity   plain values a run must share with the one that wrote the log: ConfigError if one differs
    read       makes a value of an entry, or raises one of DAMAGE: ModelError, which names the line; None: the entry
    """

    def __init__(
        self,
        path: str | os.PathLike | None,
        form: str,
        identity: dict,
        read: Callable[[dict], Any] | None = None,
    ):
        self.path = None if path is None else Path(path)
        head = json.loads(json.dumps({"format": form, **identity, VERSIONS: versions()}))
        self._read, self._digest, self._size = read, hashlib.sha256(), 0
        found: list[Any] = []
        error = None
        if self.path is not None and distributed.rank() == 0:
            try:
                found = self._open(self.path, head)
            except McuformerError as raised:
                error = raised
        self.entries, error = distributed.from_first((found, error))
        if error is not None:
            raise error

    def append(self, entry: dict) -> None:
        """Writes one entry; it is on disk when this returns. ConfigError if it cannot be written, or if something else
        wrote to the log meanwhile."""
        if self.path is None or distributed.rank() != 0:
            return
        line = self._line(entry)
        try:
            with open(self.path, "ab", buffering=0) as file:
                if (size := os.fstat(file.fileno()).st_size) != self._size:
                    raise ConfigError(
                        f"{self.path}: has {size} bytes and not the {self._size} that this run left in it; another run "
                        "writes to it, or it was removed: give each run a log of its own"
                    )
                try:
                    left = memoryview(line)
                    while left:
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self.path, self._size)  # not half a line
                    raise
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be written ({error.strerror}); make room, then run the same again: it goes on "
                "from this log"
            ) from error
        self._take(line)

    def _line(self, entry: dict) -> bytes:
        body = json.dumps(entry).encode()
        return body[:-1] + b', "check": "' + self._check(body).encode() + b'"}\n'

    def _check(self, body: bytes) -> str:
        """The checksum of the next line, whose JSON without it is `body`."""
        digest = self._digest.copy()
        digest.update(body)
        return digest.hexdigest()[:16]

    def _take(self, line: bytes) -> None:
        self._digest.update(line)
        self._size += len(line)

    def _open(self, path: Path, head: dict) -> list[Any]:
        """The file's entries. The file changes only if it is a log of this run: then a line cut short is dropped."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = read_bytes(path) if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            entries = self._entries(content, whole, head)
            if len(whole) < len(content):
                os.truncate(path, len(whole))
            if not whole:
                path.touch()
                self.append(head)
                sync_folder(path.parent)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be used as a log ({error.strerror}); give another name") from error
        except ValueError as error:
            if isinstance(error, McuformerError):
                raise
            raise ConfigError(f"{path!r}: cannot be used as a log ({error}); give another name") from error
        return entries

    def _entries(self, content: bytes, whole: bytes, head: dict) -> list[Any]:
        """ModelError if the file is not an MCUFormer log or not as written, ConfigError if it is another run's."""
        foreign = ModelError(f"{self.path}: not an MCUFormer log; remove it or give another name")
        if not whole:
            if not self._line(head).startswith(content) and not json.dumps(head).encode().startswith(content):
                raise foreign
            return []
        first_line, *lines = whole[:-1].split(b"\n")
        try:
            first = json.loads(first_line)
        except (ValueError, RecursionError) as error:
            raise foreign from error
        if not isinstance(first, dict) or first.get("format") != head["format"]:
            raise ModelError(f"{self.path}: not a log of form {head['format']}; remove it or give another name")
        checked = self._verified(first_line, 1, must="check" in first)
        first.pop("check", None)
        self._check_run(first, head)
        entries, unchecked = [], 0
        for number, line in enumerate(lines, 2):
            checked = self._verified(line, number, must=checked)
            unchecked += not checked
            try:
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise TypeError(f"a {type(entry).__name__} and not a mapping")
                entry.pop("check", None)
                entries.append(entry if self._read is None else self._read(entry))
            except DAMAGE as error:
                why = f"no {error}" if isinstance(error, KeyError) else str(error)
                raise self._damaged(number, f"is no result ({why})") from error
        if unchecked:
            warnings.warn(
                f"{self.path}: {unchecked} lines of an earlier version, without checksum: they are believed as is",
                McuformerWarning,
                stacklevel=2,
            )
        return entries

    def _check_run(self, first: dict, head: dict) -> None:
        """Refuses the log of another run: one whose first line differs from `head`, what this run would write."""
        warn_of_versions(self.path, first.get(VERSIONS))
        if unknown := [ADDED[name] for name in ADDED if name in head and name not in first]:
            warnings.warn(
                f"{self.path}: of an earlier version, it does not state {', '.join(unknown)}: they are believed to be "
                "those of this run",
                McuformerWarning,
                stacklevel=2,
            )
        passed_over = {VERSIONS, *NO_LONGER, *(name for name in ADDED if name not in first)}
        stated, here = ({name: held[name] for name in held if name not in passed_over} for held in (first, head))
        if found := _difference(stated, here):
            name, theirs, ours = found
            raise ConfigError(
                f"{self.path}: belongs to another run, with {name} = {theirs} instead of {ours}; use the same value or "
                "another log"
            )

    def _verified(self, line: bytes, number: int, must: bool) -> bool:
        """Whether the next line has a checksum. ModelError if it is a wrong one, or missing and `must` be there."""
        found = CHECK.fullmatch(line)
        if found is None and must:
            raise self._damaged(number, "has no checksum, although lines before it have")
        if found is not None and self._check(found[1] + b"}") != found[2].decode():
            raise self._damaged(number, "is damaged or edited, or a line before it is (its checksum does not fit)")
        self._take(line + b"\n")
        return found is not None

    def _damaged(self, number: int, what: str) -> ModelError:
        return ModelError(
            f"{self.path}: line {number} {what}; remove this line and all after it, and the run repeats them"
        )


def _difference(stated: dict, here: dict, above: str = "") -> tuple[str, object, object] | None:
    """The first name at which two mappings differ, such as "options.seed", and both values."""
    for name in {**here, **stated}:
        one, other = stated.get(name), here.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            if found := _difference(one, other, f"{above}{name}."):
                return found
            continue
        return f"{above}{name}", one, other
    return None
