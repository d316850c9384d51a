# SPDX-License-Identifier: Apache-2.0
"""A model as a folder to copy into a project with TensorFlow Lite Micro (TFLM): kernels, model, build files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mcuformer.boards import Board
from mcuformer.converter.export import tflm_project
from mcuformer.converter.export.board_fit import budget_board, check_board
from mcuformer.converter.export.folder import kernel_files, licence_file, sound_files, write_folder
from mcuformer.converter.export.front_end import (
    check_takes,
    front_end_line,
    front_end_values,
    ram_bytes,
    table_bytes,
)
from mcuformer.converter.export.front_end import model_files as front_end_files
from mcuformer.converter.export.registry import Result, Source
from mcuformer.converter.export.tflm_model import TflmModel, model_files, tflm_model
from mcuformer.converter.graph import Graph
from mcuformer.sound import LogMel

KERNELS = "mcuformer"  # the folder of the kernels in an export, so that firmware includes "mcuformer/op_resolver.h"


def to_folder(
    source: Source, folder: Path, force: bool, name: str, board: Board | None, external_flash: bool
) -> Result:
    """The export of `mcuformer export --to tflm`."""
    board = budget_board(source.graph, board, external_flash)
    model = export(source.content, source.graph, source.class_names, folder, name, board, force, source.front_end)
    limit = "" if board is None else f" of {board.name}'s {board.sram_budget:,}"
    lines = [f"arena {model.arena_bytes:,}{limit} bytes, model {len(model.content):,} bytes of flash"]
    if model.weights:
        lines.append(f"{name}.weights, {len(model.weights):,} bytes, goes into external flash")
    if source.front_end is not None:
        lines.append(front_end_line(source.front_end))
    lines.append(f"wrote {folder}: README.md says how to build it into a project with TensorFlow Lite Micro")
    values = {
        "arena_bytes": model.arena_bytes, "model_bytes": len(model.content), "weights_bytes": len(model.weights),
    }  # fmt: skip
    if source.front_end is not None:
        values |= front_end_values(source.front_end)
    return Result(folder, tuple(lines), values)


def export(
    content: bytes,
    graph: Graph,
    class_names: Sequence[str],
    folder: str | os.PathLike,
    name: str = "model",
    board: Board | None = None,
    force: bool = False,
    front_end: LogMel | None = None,
) -> TflmModel:
    """Writes the folder. ConfigError if it is not empty, without force; PlanError if the model exceeds the board;
    ModelError if the front end does not make what the network takes."""
    model = tflm_model(content, graph, class_names, name)
    check_takes(graph, front_end, name)
    kernels, sound, more_ram, more_flash = kernel_files(KERNELS), {}, 0, 0
    if front_end is not None:
        kernels |= sound_files(f"{KERNELS}/")
        sound = front_end_files(name, front_end, f"{KERNELS}/sound")
        more_ram, more_flash = ram_bytes(front_end), table_bytes(front_end)
    if board is not None:
        check_board(graph, board, model.arena_bytes + more_ram, len(content) + more_flash)
    compiled = [f"{name}.cc", *(path for path in {**sound, **kernels} if not path.endswith((".h", ".inc")))]
    files: dict[str, str | bytes] = {
        **kernels,
        **model_files(model),
        **sound,
        "sources.mk": tflm_project.sources_mk(compiled),
        "CMakeLists.txt": tflm_project.cmake(compiled),
        "README.md": tflm_project.readme(model, len(compiled), front_end),
        **licence_file(),
    }
    if model.weights:
        files[f"{name}.weights"] = model.weights
    write_folder(folder, files, force)
    return model
