# SPDX-License-Identifier: Apache-2.0
"""What all exports share: a folder that appears whole or not at all, and the sources copied into it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from mcuformer import sources
from mcuformer.converter.export import markdown
from mcuformer.errors import ConfigError
from mcuformer.files import read_bytes, read_text, whole_folder, write_bytes

KERNELS = "mcuformer"  # the folder of the kernels in an export
LIST = ".mcuformer_export.json"  # what it consists of
FORMAT = "mcuformer.export/1"


def check_folder(folder: Path, force: bool) -> None:
    """ConfigError if the export cannot go there: it is a file, or a non-empty folder without force."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise ConfigError(
            f"{folder}: not empty; give another folder, or --force to replace the files of an export there"
        )


def write_folder(folder: str | os.PathLike, files: Mapping[str, str | bytes], force: bool = False) -> Path:
    """Writes files by their path in the folder, and a list of them. A new folder appears whole or not at all; with
    force, files of the same name are replaced one by one, those that only an earlier export wrote are removed, unless
    they were changed since, and others stay."""
    folder = Path(folder)
    check_folder(folder, force)
    contents = {name: text.encode() if isinstance(text, str) else text for name, text in _filled(files).items()}
    listed = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents[LIST] = (json.dumps({"format": FORMAT, "files": listed}, indent=1) + "\n").encode()
    if folder.is_dir() and any(folder.iterdir()):
        earlier = listed_files(folder)
        for name, content in contents.items():
            if name != LIST:
                write_bytes(folder / name, content)
        for name in earlier.keys() - listed.keys():
            _remove(folder, name, earlier[name])
        write_bytes(folder / LIST, contents[LIST])
        return folder
    with whole_folder(folder) as new:
        for name, content in contents.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)
    return folder


def _filled(files: Mapping[str, str | bytes]) -> dict[str, str | bytes]:
    """The files, Markdown among them without lines that are too long."""
    return {
        name: markdown.wrapped(text) if isinstance(text, str) and name.endswith(".md") else text
        for name, text in files.items()
    }


def listed_files(folder: Path) -> dict[str, str]:
    """What the last export into a folder wrote: path -> SHA-256; none if it left no list, or a damaged one."""
    try:
        stored = json.loads(read_text(folder / LIST))
        if stored["format"] != FORMAT:
            return {}
        files = {str(name): str(sha256) for name, sha256 in stored["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    inside = {name: PurePosixPath(name) for name in files}
    return {name: files[name] for name, path in inside.items() if not path.is_absolute() and ".." not in path.parts}


def _remove(folder: Path, name: str, sha256: str) -> None:
    """Removes a file that is as it was written, and its folders if nothing else is in them."""
    path = folder / name
    try:
        if path.is_symlink() or hashlib.sha256(read_bytes(path)).hexdigest() != sha256:
            return
        path.unlink()
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent).rmdir()
    except (OSError, ValueError):  # it is gone already, or a folder holds something else
        return


def licence_file() -> dict[str, str]:
    """LICENSE, for the top of an export, which holds our sources."""
    return {"LICENSE": (sources.kernels_folder() / "LICENSE").read_text(encoding="utf-8")}


def c_kernel_files(prefix: str = "") -> dict[str, str]:
    """Sources and headers of the C kernels, by their path in an export: prefix core/..."""
    root = sources.kernels_folder()
    paths = [*sources.c_kernel_sources(), *sorted(sources.c_kernel_folder().glob("*.h"))]
    return {f"{prefix}{path.relative_to(root).as_posix()}": path.read_text(encoding="utf-8") for path in paths}


def sound_files(prefix: str = "") -> dict[str, str]:
    """The C of the front end of sound, by its path in an export: prefix sound/..., beside prefix core/..."""
    root = sources.kernels_folder()
    paths = [*(root / name for name in sources.listed("MCUF_SOUND_SRCS")), *sorted(root.glob("sound/*.h"))]
    return {f"{prefix}{path.relative_to(root).as_posix()}": path.read_text(encoding="utf-8") for path in paths}


def kernel_files(prefix: str) -> dict[str, str]:
    """c_kernel_files() and the ops around them for TFLM, by path in an export: prefix/core/..., prefix/kernels/..."""
    root = sources.kernels_folder()
    headers = [*root.glob("*.h"), *root.glob("kernels/*.h")]
    paths = [*(root / name for name in sources.listed("MCUF_TFLM_SRCS")), *sorted(headers)]
    glue = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    return {f"{prefix}/{name}": text for name, text in {**c_kernel_files(), **glue}.items()}


# What a name may not be: folders of an export, targets of build systems, and headers of the C library, which a folder
# of that name would hide.
TAKEN = frozenset(
    "main example core kernels sound mcuformer assert complex ctype errno fenv float inttypes iso646 limits locale "
    "math setjmp signal stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads "
    "time uchar wchar wctype".split()
)
# What follows a name in files and include guards: another model may not be called so.
SUFFIXES = ("data", "arena", "front_end", "tflite", "confidence", "gallery", "self_test")
MOST_LETTERS = 41


def check_name(name: str) -> None:
    """ConfigError if a name cannot be the prefix of C names and file names."""
    legal = re.fullmatch(rf"(?!mcuf)[a-z][a-z0-9_]{{0,{MOST_LETTERS - 1}}}", name.lower())
    if not legal or not name.isascii() or name.lower() in TAKEN:
        raise ConfigError(
            f"name {name!r}: must be at most {MOST_LETTERS} letters, digits and _, a letter first; not main, example, "
            "core, mcuf... or a header of the C library; --name gives another"
        )


def check_names(names: Sequence[str]) -> None:
    """ConfigError if one of the models' names is none, two are the same in C, whose macros are in capitals, or one is
    what a file of another is called."""
    for name in names:
        check_name(name)
    upper = [name.upper() for name in names]
    if twice := next((name for i, name in enumerate(names) if name.upper() in upper[:i]), None):
        raise ConfigError(f"name {twice!r}: two models of one name; give each its own with --name")
    files = {f"{name.upper()}_{suffix.upper()}": name for name in names for suffix in SUFFIXES}
    if clash := next((name for name in names if name.upper() in files), None):
        raise ConfigError(f"name {clash!r}: a file of {files[clash.upper()]!r} is called so; give another with --name")
