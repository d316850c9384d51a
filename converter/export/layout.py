# SPDX-License-Identifier: Apache-2.0
"""The folders of an export that holds networks as plain C: the kernels once, each model beside them.

    mcuformer/core/     the C kernels; mcuformer/sound/ too, if a model takes sound
    models/NAME/        a model's C; its staged weights, if it has any
    example/NAME/       a program that runs it on standard input
    LICENSE

Every kind that is built from C adds its own build files and README to these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mcuformer.converter.export.c_model import CModel
from mcuformer.converter.export.folder import KERNELS, c_kernel_files, licence_file, sound_files

MODELS, EXAMPLES = "models", "example"


@dataclass(frozen=True)
class Layout:
    """models: at least one, no two of one name. All paths are relative to the export's folder."""

    models: tuple[CModel, ...]

    @cached_property
    def kernel_files(self) -> dict[str, str]:
        """Sources and headers of the kernels, by path."""
        return c_kernel_files(f"{KERNELS}/")

    @cached_property
    def sound_files(self) -> dict[str, str]:
        """Those of the front end of sound, none if no model takes sound."""
        sound = any(model.network.front_end is not None for model in self.models)
        return sound_files(f"{KERNELS}/") if sound else {}

    @property
    def kernel_sources(self) -> list[str]:
        """What to compile of the kernels: C99, and assembly that is empty on other processors."""
        return _compiled(self.kernel_files)

    @property
    def sound_sources(self) -> list[str]:
        """What to compile of the front end of sound, once in a program."""
        return _compiled(self.sound_files)

    @property
    def kernel_includes(self) -> list[str]:
        return [KERNELS, f"{KERNELS}/core"]

    def model_folder(self, model: CModel) -> str:
        """Where a model's files lie, and what is to be included for it, beside kernel_includes."""
        return f"{MODELS}/{model.name}"

    def model_sources(self, model: CModel) -> list[str]:
        """What to compile of a model."""
        return [f"{self.model_folder(model)}/{name}" for name in _compiled(model.sources)]

    def example_source(self, model: CModel) -> str:
        return f"{EXAMPLES}/{model.name}/main.c"

    @property
    def files(self) -> dict[str, str | bytes]:
        """All of them, by path: kernels, models, examples and the licence."""
        return {**self.library_files, **{self.example_source(model): model.example for model in self.models}}

    @property
    def library_files(self) -> dict[str, str | bytes]:
        """All of them but the examples."""
        files: dict[str, str | bytes] = {**self.kernel_files, **self.sound_files, **licence_file()}
        for model in self.models:
            folder = self.model_folder(model)
            files |= {f"{folder}/{name}": text for name, text in model.sources.items()}
            if model.weights:
                files[f"{folder}/{model.name}.weights"] = model.weights
        return files


def _compiled(names: Sequence[str] | dict[str, str]) -> list[str]:
    return [name for name in names if name.endswith((".c", ".S"))]
