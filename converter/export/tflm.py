# SPDX-License-Identifier: Apache-2.0
"""A model as a folder to copy into a project with TensorFlow Lite Micro (TFLM): kernels, model, build files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mcuformer.boards import Board
from mcuformer.converter.export import tflm_project
from mcuformer.converter.export.board_fit import check_board
from mcuformer.converter.export.folder import kernel_files, licence_file, write_folder
from mcuformer.converter.export.registry import Result, Source
from mcuformer.converter.export.tflm_model import TflmModel, model_files, tflm_model
from mcuformer.converter.graph import Graph

KERNELS = "mcuformer"  # the folder of the kernels in an export, so that firmware includes "mcuformer/op_resolver.h"


def to_folder(source: Source, folder: Path, force: bool, name: str, board: Board | None) -> Result:
    """The export of `mcuformer export --to tflm`."""
    model = export(source.content, source.graph, source.class_names, folder, name, board, force)
    limit = "" if board is None else f" of {board.name}'s {board.sram_budget:,}"
    lines = [f"arena {model.arena_bytes:,}{limit} bytes, model {len(model.content):,} bytes of flash"]
    if model.weights:
        lines.append(f"{name}.weights, {len(model.weights):,} bytes, goes into external flash")
    lines.append(f"wrote {folder}: README.md says how to build it into a project with TensorFlow Lite Micro")
    values = {
        "arena_bytes": model.arena_bytes, "model_bytes": len(model.content), "weights_bytes": len(model.weights),
    }  # fmt: skip
    return Result(folder, tuple(lines), values)


def export(
    content: bytes,
    graph: Graph,
    class_names: Sequence[str],
    folder: str | os.PathLike,
    name: str = "model",
    board: Board | None = None,
    force: bool = False,
) -> TflmModel:
    """Writes the folder. ConfigError if it is not empty, without force; PlanError if the model exceeds the board."""
    model = tflm_model(content, graph, class_names, name)
    if board is not None:
        check_board(graph, board, model.arena_bytes, len(content))
    kernels = kernel_files(KERNELS)
    compiled = [f"{name}.cc", *(path for path in kernels if not path.endswith((".h", ".inc")))]
    files: dict[str, str | bytes] = {
        **kernels,
        **model_files(model),
        "sources.mk": tflm_project.sources_mk(compiled),
        "CMakeLists.txt": tflm_project.cmake(compiled),
        "README.md": tflm_project.readme(model, len(compiled)),
        **licence_file(),
    }
    if model.weights:
        files[f"{name}.weights"] = model.weights
    write_folder(folder, files, force)
    return model
