# SPDX-License-Identifier: Apache-2.0
"""Objects that several tests link, compiled once for all processes of pytest-xdist."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def common_folder(tmp_path_factory) -> Path:
    """A folder of this run of pytest that its processes share."""
    own = tmp_path_factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = root / "once"
    folder.mkdir(exist_ok=True)
    return folder


def objects_once(tmp_path_factory, name: str, compile: Callable[[Path], list[Path]]) -> list[Path]:
    """What compile(folder) gave the first process that asked for this name; `folder` is its own."""
    folder = common_folder(tmp_path_factory) / name
    listed = folder / "objects.json"
    with FileLock(f"{folder}.lock"):
        if not listed.exists():
            folder.mkdir(exist_ok=True)
            listed.write_text(json.dumps([str(path) for path in compile(folder)]))
    return [Path(path) for path in json.loads(listed.read_text())]
