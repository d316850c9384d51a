# SPDX-License-Identifier: Apache-2.0
"""A model as a folder to copy into a project with TensorFlow Lite Micro (TFLM): kernels, model, build files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mcuformer.boards import Board
from mcuformer.converter.export import tflm_project
from mcuformer.converter.export.board_fit import budget_board, check_board, check_board_of_all
from mcuformer.converter.export.folder import KERNELS, kernel_files, licence_file, sound_files, write_folder
from mcuformer.converter.export.front_end import (
    check_takes,
    front_end_line,
    front_end_values,
    ram_bytes,
    table_bytes,
)
from mcuformer.converter.export.front_end import model_files as front_end_files
from mcuformer.converter.export.layout import MODELS
from mcuformer.converter.export.registry import Result, Source
from mcuformer.converter.export.tflm_model import TflmModel, model_files, tflm_model
from mcuformer.sound import LogMel


@dataclass(frozen=True)
class TflmExport:
    """models: at least one, no two of one name; front_ends: what makes the images of each, None if it takes images."""

    models: tuple[TflmModel, ...]
    front_ends: tuple[LogMel | None, ...]

    @cached_property
    def kernel_files(self) -> dict[str, str]:
        """Kernels and ops, by path."""
        return kernel_files(KERNELS)

    @cached_property
    def sound_files(self) -> dict[str, str]:
        """Those of the front end of sound, by path; none if no model takes sound."""
        sound = any(front_end is not None for front_end in self.front_ends)
        return sound_files(f"{KERNELS}/") if sound else {}

    def model_folder(self, model: TflmModel) -> str:
        return f"{MODELS}/{model.name}"

    def model_files(self, model: TflmModel) -> dict[str, str]:
        """Sources and headers of a model, by path."""
        front_end = self.front_ends[self.models.index(model)]
        files = model_files(model) | ({} if front_end is None else front_end_files(model.name, front_end))
        return {f"{self.model_folder(model)}/{name}": text for name, text in files.items()}

    @property
    def files(self) -> dict[str, str | bytes]:
        """All files of the export."""
        files: dict[str, str | bytes] = {
            **self.kernel_files,
            **self.sound_files,
            **licence_file(),
            **tflm_project.build_files(self),
        }
        for model in self.models:
            files |= self.model_files(model)
            if model.weights:
                files[f"{self.model_folder(model)}/{model.name}.weights"] = model.weights
        return files


def to_folder(
    sources: Sequence[Source], folder: Path, force: bool, board: Board | None, external_flash: bool
) -> Result:
    """The export of `mcuformer export --to tflm`."""
    made = tflm_export(sources, board, external_flash)
    write_folder(folder, made.files, force)
    limit = "" if board is None else f" of {board.name}'s {board.sram_budget:,}"
    lines, values = [], []
    for model, front_end in zip(made.models, made.front_ends, strict=True):
        ahead = "" if len(sources) == 1 else f"{model.name}: "
        lines.append(f"{ahead}arena {model.arena_bytes:,}{limit} bytes, model {len(model.content):,} bytes of flash")
        if model.weights:
            lines.append(f"{model.name}.weights, {len(model.weights):,} bytes, goes into external flash")
        values.append(
            {"name": model.name, "arena_bytes": model.arena_bytes, "model_bytes": len(model.content),
             "weights_bytes": len(model.weights)}
        )  # fmt: skip
        if front_end is not None:
            lines.append(front_end_line(front_end))
            values[-1] |= front_end_values(front_end)
    lines.append(f"wrote {folder}: README.md says how to build it into a project with TensorFlow Lite Micro")
    return Result(folder, tuple(lines), values[0] if len(values) == 1 else {"models": values})


def tflm_export(sources: Sequence[Source], board: Board | None = None, external_flash: bool = False) -> TflmExport:
    """PlanError if a model, or all together, exceed the board; ModelError if a front end does not make what its network
    takes. With external_flash the flash beside the board's chip is the limit."""
    models, arenas, flash = [], [], 0
    for source in sources:
        limits = budget_board(source.graph, board, external_flash)
        model = tflm_model(source.content, source.graph, source.class_names, source.name)
        check_takes(source.graph, source.front_end, source.name)
        more_ram, more_flash = (
            (0, 0) if source.front_end is None else (ram_bytes(source.front_end), table_bytes(source.front_end))
        )
        models.append(model)
        arenas.append(model.arena_bytes + more_ram)
        flash += len(model.content) + more_flash
        if limits is not None:
            check_board(source.graph, limits, arenas[-1], len(model.content) + more_flash)
    if board is not None:
        check_board_of_all(board.with_external_flash() if external_flash else board, arenas, flash)
    return TflmExport(tuple(models), tuple(source.front_end for source in sources))
