# SPDX-License-Identifier: Apache-2.0
"""mcuformer export: a model as a folder of sources for firmware."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mcuformer.cli import JsonOption, _check_outputs, _write_json, app, out
from mcuformer.errors import ConfigError

KINDS = ("c",)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A .tflite made by `mcuformer convert`.")],
    to: Annotated[str, typer.Option(help="c: plain C99 without an interpreter.")],
    output: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    name: Annotated[str, typer.Option(help="What files, functions and macros begin with.")] = "model",
    image: Annotated[
        str, typer.Option(help="Where the image lies: arena (least RAM in all) or caller (smallest arena).")
    ] = "arena",
    weights: Annotated[
        Path | None, typer.Option(help="The file of staged weights; left out, the one beside the model.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files of an export that is there.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Export a model as sources for firmware."""
    from mcuformer.converter.export import c_model
    from mcuformer.converter.export.folder import check_folder
    from mcuformer.interpreter import Interpreter

    if to not in KINDS:
        raise ConfigError(f"--to {to}: must be one of {', '.join(KINDS)}")
    _check_outputs(json_file)
    check_folder(output, force)
    interpreter = Interpreter(model, weights=weights)  # here the kernels check what the exported C trusts
    exported = c_model.export(interpreter.graph, interpreter.class_names, output, name, image, force)
    place = "image in it" if exported.image_bytes else "image elsewhere"
    out.print(f"arena {exported.arena_bytes:,} bytes ({place}), constants {exported.constant_bytes:,} bytes")
    out.print(f"wrote {output}: {name}.h says how to call it; `make -C {output}` builds an example")
    _write_json(
        json_file,
        {
            "folder": str(output), "arena_bytes": exported.arena_bytes, "image_bytes": exported.image_bytes,
            "constant_bytes": exported.constant_bytes,
        },
    )  # fmt: skip
