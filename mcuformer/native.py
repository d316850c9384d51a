# SPDX-License-Identifier: Apache-2.0
"""What setup.py and the installed package both know about the C and C++ sources and the library made from them.

setup.py loads this file by its path, before the package exists: it imports only the standard library.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


class SourceListError(Exception):
    """The list of sources, or a file in it, is missing."""


def listed_sources(path: Path, variable: str) -> list[str]:
    """The files that `variable` lists in a makefile of plain lists, relative to its folder, in order.

    $(NAME) stands for a list above. SourceListError if the makefile, the list or one of the files is missing.
    """
    if not path.is_file():
        raise SourceListError(f"{path} is missing; it lists the C and C++ sources; get a complete copy of the project")
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8").replace("\\\n", " "))
    lists: dict[str, str] = {}
    for name, values in re.findall(r"^\s*(\w+)\s*:?=(.*)$", text, flags=re.MULTILINE):
        lists[name] = re.sub(r"\$\((\w+)\)", lambda match: lists.get(match[1], match[0]), values)
    files = lists.get(variable, "").split()
    if not files:
        raise SourceListError(f"{path} lists no files in {variable}; get a complete copy of the project")
    for name in files:
        if not (path.parent / name).is_file():
            raise SourceListError(f"{path} lists {name} in {variable}, but there is no such file")
    return files


def headers_digest(kernels: Path) -> str:
    """16 hex digits of the C headers of core and sound: what a library was compiled with, in a word."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in ("core", "sound") for path in (kernels / folder).glob("*.h")):
        digest.update(path.name.encode() + b"\n" + path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def is_windows(platform: str) -> bool:
    """platform: sys.platform, or a compiler's target, such as x86_64-w64-mingw32."""
    return re.search(r"win32|mingw|windows", platform) is not None


def is_macos(platform: str) -> bool:
    """platform: as for is_windows."""
    return re.search(r"darwin|macos", platform) is not None


def library_suffix(platform: str) -> str:
    """Suffix of shared libraries: .dll, .dylib or .so. platform: as for is_windows."""
    return ".dll" if is_windows(platform) else ".dylib" if is_macos(platform) else ".so"


def wheel_platform(target: str, own: str) -> str:
    """The platform tag of a wheel with a library for a compiler's target, such as linux_aarch64 or macosx_11_0_arm64.

    own: the tag that the building Python gives itself. It stays for a target that is not known here.
    """
    machine = target.split("-")[0]
    if is_windows(target):
        return {"x86_64": "win_amd64", "aarch64": "win_arm64", "i686": "win32"}.get(machine, own)
    if is_macos(target):
        # Python may be for two processors; the library is for one.
        return re.sub("universal2$|arm64$|x86_64$", machine.replace("aarch64", "arm64"), own)
    return f"linux_{machine}" if "linux" in target and machine in ("x86_64", "aarch64") else own
