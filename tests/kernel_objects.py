# SPDX-License-Identifier: Apache-2.0
"""Arduino libraries of different networks hold the same kernels: tests compile each of them once.

A kernel is what lies in src/mcuformer, but not in its folder `model`. It is compiled again if its compiler, its flags
or anything else in there differ."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from mcuformer.cores import Core

KERNELS = ("src", "mcuformer")


class KernelObjects:
    """compile: firmware.compile_objects, which it stands in for; folder: where processes keep objects."""

    def __init__(self, compile, folder: Path):
        self._compile, self._folder = compile, folder

    def __call__(self, sources: Iterable, core: Core, folder, include=(), flags=()) -> list[Path]:
        files, folder = [Path(source) for source in sources], Path(folder)
        digest = functools.cache(_digest)
        kept = [self._kept(_key(file, core, include, flags, digest)) for file in files]
        new = [i for i, object in enumerate(kept) if object is None or not object.exists()]
        made = dict(zip(new, self._compile([files[i] for i in new], core, folder / "new", include, flags), strict=True))
        results = []
        for i, (file, object) in enumerate(zip(files, kept, strict=True)):
            target = folder / f"{i}_{file.name}.o"
            if i not in made:
                shutil.copyfile(object, target)
            else:
                made[i].rename(target)
                if object is not None:
                    whole = object.with_name(f"{object.name}.{os.getpid()}")  # another process may compile the same
                    shutil.copyfile(target, whole)
                    whole.rename(object)
            results.append(target)
        return results

    def _kept(self, key: tuple | None) -> Path | None:
        """Where the object of a key is, once it was compiled."""
        return None if key is None else self._folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.o"


def _digest(library: Path) -> bytes:
    """Of all kernels and their headers."""
    content = hashlib.sha256()
    for path in sorted(library.rglob("*")):
        if path.is_file() and library / "model" not in path.parents:
            content.update(str(path.relative_to(library)).encode() + path.read_bytes())
    return content.digest()


def _key(file: Path, core: Core, include, flags, digest) -> tuple | None:
    """What an object depends on; None if the file is no kernel of a library."""
    library = next((parent for parent in file.parents if parent.parts[-2:] == KERNELS), None)
    if library is None or library / "model" in file.parents:
        return None
    others = tuple(str(path) for path in include if Path(path) not in library.parents)
    return digest(library), file.relative_to(library), core.toolchain, tuple(core.flags), others, tuple(flags)
