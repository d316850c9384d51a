# SPDX-License-Identifier: Apache-2.0
"""AppendLog: one JSON line per result, so that an interrupted run need not repeat its work.

The search and the evolution depend only on their options and these results. After a kill they start again, take what
the log has, and reach the same end. A line cut short by the kill is dropped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from mcuformer.errors import ConfigError, McuformerError, ModelError
from mcuformer.nas import distributed


class AppendLog:
    """entries: the log's content when it was opened. Under torchrun the first process reads and writes.

    path       the file; None: nothing is read or written
    form       name and version of the content, such as "mcuformer.search/1"
    identity   plain values a run must share with the one that wrote the log: ConfigError if one differs
    """

    def __init__(self, path: str | os.PathLike | None, form: str, identity: dict):
        self.path = None if path is None else Path(path)
        head = json.loads(json.dumps({"format": form, **identity}))
        found: list[dict] = []
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
        """Writes one entry; it is on disk when this returns."""
        if self.path is not None and distributed.rank() == 0:
            with open(self.path, "ab") as file:
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def _open(self, path: Path, head: dict) -> list[dict]:
        """The file's entries. The file changes only if it is a log of this run: then a line cut short is dropped."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            entries = self._entries(content, whole, head)
            if len(whole) < len(content):
                os.truncate(path, len(whole))
            if not whole:
                self.append(head)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be used as a log ({error.strerror}); give another name") from error
        return entries

    def _entries(self, content: bytes, whole: bytes, head: dict) -> list[dict]:
        """ModelError if the file is not an MCUFormer log, ConfigError if it is another run's."""
        foreign = ModelError(f"{self.path}: not an MCUFormer log; remove it or give another name")
        if not whole:
            if not json.dumps(head).encode().startswith(content):
                raise foreign
            return []
        try:
            first, *entries = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise foreign from error
        if not isinstance(first, dict) or first.get("format") != head["format"]:
            raise ModelError(f"{self.path}: not a log of form {head['format']}; remove it or give another name")
        for name in {**head, **first}:
            if head.get(name) != first.get(name):
                raise ConfigError(
                    f"{self.path}: belongs to another run, with {name} = {first.get(name)} instead of "
                    f"{head.get(name)}; use the same value or another log"
                )
        return entries
