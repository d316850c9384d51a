# SPDX-License-Identifier: Apache-2.0
"""The record that supernets, subnets, checkpoints and results hold: what made them, so that it can be made again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import warnings

from mcuformer.errors import McuformerWarning
from mcuformer.nas.search_space import SearchSpace, space_yaml

PACKAGES = ("mcuformer", "torch", "numpy", "pillow")  # Pillow decodes and resizes: the pixels depend on it


def versions() -> dict[str, str]:
    """Of what the results depend on, by name."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        return "unknown"


def space_id(space: SearchSpace) -> str:
    """Tells one space from another: the first 12 digits of the SHA-256 of its YAML, as `sha256sum` prints for a file
    that mcuformer wrote."""
    return hashlib.sha256(space_yaml(space).encode()).hexdigest()[:12]


def record(seed: int, options: dict, data: dict, space: SearchSpace | None = None) -> dict:
    """Plain values. options: the command's; data: of Dataset.identity()."""
    made = {"versions": versions(), "seed": seed, "options": options, "data": data}
    return made if space is None else {**made, "space": space_id(space)}


def warn_of_versions(path: object, stated: object) -> None:
    """A McuformerWarning if the file was made with other versions. stated: of its record; None: not stated."""
    if not isinstance(stated, dict):
        return
    here = versions()
    if other := [f"{name} {stated.get(name)}, here {here[name]}" for name in here if stated.get(name) != here[name]]:
        warnings.warn(
            f"{path}: was made with {'; '.join(other)}: results may differ in the last bits",
            McuformerWarning,
            stacklevel=3,
        )
