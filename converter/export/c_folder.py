# SPDX-License-Identifier: Apache-2.0
"""The export of `mcuformer export --to c`: a folder with the kernels, the models' C, examples and build files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcuformer.boards import Board
from mcuformer.converter.export import c_project
from mcuformer.converter.export.board_fit import budget_board, check_board, check_board_of_all
from mcuformer.converter.export.c_model import CModel, generate
from mcuformer.converter.export.folder import write_folder
from mcuformer.converter.export.front_end import front_end_line, front_end_values
from mcuformer.converter.export.layout import Layout
from mcuformer.converter.export.registry import Result, Source


def to_folder(
    sources: Sequence[Source], folder: Path, force: bool, image: str, board: Board | None, external_flash: bool
) -> Result:
    layout = c_layout(sources, image, board, external_flash)
    write_folder(folder, {**layout.files, **c_project.build_files(layout)}, force)
    headers = ", ".join(f"{layout.model_folder(model)}/{model.name}.h" for model in layout.models)
    says = "says" if len(layout.models) == 1 else "say"
    wrote = f"wrote {folder}: {headers} {says} how to call it; `make -C {folder}` builds an example"
    return Result(folder, (*lines(layout), wrote), values(layout))


def c_layout(
    sources: Sequence[Source], image: str = "arena", board: Board | None = None, external_flash: bool = False
) -> Layout:
    """The models as plain C, with the kernels. ConfigError for names that do not go together; PlanError if a model, or
    all of them together, exceed the board; with external_flash, the flash beside its chip."""
    models = []
    for source in sources:
        limits = budget_board(source.graph, board, external_flash)
        model = generate(source.graph, source.class_names, source.name, image, source.front_end, source.core)
        if limits is not None:
            check_board(source.graph, limits, model.ram_bytes, model.constant_bytes)
        models.append(model)
    if board is not None:
        limits = board.with_external_flash() if external_flash else board
        check_board_of_all(
            limits,
            [model.ram_bytes for model in models],
            sum(model.constant_bytes for model in models),
            "export without --board and run them in one arena (NAME_invoke_in), ",
        )
    return Layout(tuple(models))


def lines(layout: Layout) -> list[str]:
    """What a command says of the models."""
    found = []
    for model in layout.models:
        place = "image in it" if model.image_bytes else "image elsewhere"
        name = "" if len(layout.models) == 1 else f"{model.name}: "
        found.append(f"{name}arena {model.arena_bytes:,} bytes ({place}), constants {model.constant_bytes:,} bytes")
        if model.network.front_end is not None:
            found.append(front_end_line(model.network.front_end))
    return found


def values(layout: Layout) -> dict[str, Any]:
    """The same for JSON: of one model, or of each in a list."""
    found = [_values(model) for model in layout.models]
    return found[0] if len(found) == 1 else {"models": found}


def _values(model: CModel) -> dict[str, Any]:
    front_end = model.network.front_end
    return {
        "name": model.name, "arena_bytes": model.arena_bytes, "image_bytes": model.image_bytes,
        "constant_bytes": model.constant_bytes, **({} if front_end is None else front_end_values(front_end)),
    }  # fmt: skip
