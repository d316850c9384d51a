# SPDX-License-Identifier: Apache-2.0
"""mcuformer export: a model as a folder of sources for firmware."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mcuformer.cli.common import JsonOption, app, check_outputs, load_data, out, read_bytes, write_json
from mcuformer.errors import ConfigError

KINDS = ("c", "tflm", "arduino")
TEST_IMAGES = 5  # in the sketches of an Arduino library


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A .tflite made by `mcuformer convert`.")],
    to: Annotated[
        str,
        typer.Option(help="c: plain C99 without an interpreter; tflm: for TensorFlow Lite Micro; arduino: a library."),
    ],
    output: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    name: Annotated[str, typer.Option(help="What files, functions and macros begin with.")] = "model",
    image: Annotated[
        str, typer.Option(help="With c, where the image lies: arena (least RAM in all) or caller (smallest arena).")
    ] = "arena",
    board: Annotated[
        str | None, typer.Option(help="With tflm and arduino: refuse what does not fit (arduino: nano33ble).")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The file of staged weights; left out, the one beside the model.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="With arduino: where the sketches' test images come from (see `mcuformer run --data`).")
    ] = "fashion-mnist",
    make_zip: Annotated[
        bool, typer.Option("--zip", help="With arduino: also write OUT.zip, which the Arduino IDE installs.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the files of an export that is there.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Export a model as sources for firmware."""
    from mcuformer.boards import get_board
    from mcuformer.converter.export.folder import check_folder
    from mcuformer.interpreter import Interpreter

    if to not in KINDS:
        raise ConfigError(f"--to {to}: must be one of {', '.join(KINDS)}")
    if to == "arduino" and name != "model":
        raise ConfigError(f"--name {name}: the sketches call the network model; leave --name out with --to arduino")
    if make_zip and to != "arduino":
        raise ConfigError(f"--zip: an Arduino library's; leave it out with --to {to}")
    if board is None and to == "arduino":
        board = "nano33ble"
    target = None if board is None else get_board(board)
    check_outputs(json_file)
    check_folder(output, force)
    archive = output.parent / f"{output.absolute().name}.zip" if make_zip else None
    if archive is not None and archive.exists() and not force:
        raise ConfigError(f"{archive}: is there already; give another folder, or --force to replace it")
    content = read_bytes(model)
    interpreter = Interpreter(model, weights=weights)  # here the kernels check what the exported C trusts
    if to == "c":
        result = _export_c(interpreter, output, name, image, force)
    elif to == "arduino":
        result = _export_arduino(content, interpreter, output, archive, data, target, force)
    else:
        result = _export_tflm(content, interpreter, output, name, target, force)
    write_json(json_file, {"folder": str(output), **result})


def _export_c(interpreter, output: Path, name: str, image: str, force: bool) -> dict:
    from mcuformer.converter.export import c_model

    exported = c_model.export(interpreter.graph, interpreter.class_names, output, name, image, force)
    place = "image in it" if exported.image_bytes else "image elsewhere"
    out.print(f"arena {exported.arena_bytes:,} bytes ({place}), constants {exported.constant_bytes:,} bytes")
    out.print(f"wrote {output}: {name}.h says how to call it; `make -C {output}` builds an example")
    return {
        "arena_bytes": exported.arena_bytes, "image_bytes": exported.image_bytes,
        "constant_bytes": exported.constant_bytes,
    }  # fmt: skip


def _export_tflm(content: bytes, interpreter, output: Path, name: str, board, force: bool) -> dict:
    from mcuformer.converter.export import tflm

    exported = tflm.export(content, interpreter.graph, interpreter.class_names, output, name, board, force)
    limit = "" if board is None else f" of the {board.sram_budget:,} that {board.name} has for it"
    out.print(f"arena {exported.arena_bytes:,} bytes{limit}, model {len(content):,} bytes of flash")
    if exported.weights:
        out.print(f"{name}.weights, {len(exported.weights):,} bytes, is for a flash of its own")
    out.print(f"wrote {output}: README.md says how to build it into a project with TensorFlow Lite Micro")
    return {
        "arena_bytes": exported.arena_bytes, "model_bytes": len(content), "weights_bytes": len(exported.weights),
    }  # fmt: skip


def _export_arduino(content: bytes, interpreter, output: Path, archive: Path | None, data: str, board, force) -> dict:
    from mcuformer.converter.export import arduino
    from mcuformer.simulator import firmware

    dataset = load_data(data, "test", interpreter.image_size)
    samples = _samples(dataset, interpreter.class_names, data)
    library = arduino.library(content, interpreter.graph, interpreter.class_names, samples, board)
    built = _built_size(library, board)  # before anything is written: it may not fit
    arduino.write(library, output, force)
    if archive is not None:
        arduino.write_zip(library, archive)
    if built is None:
        why = firmware.missing_tools() or f"Arduino has no Mbed core for {board.core.name}"
        out.print(f"not built: {why}")
        out.print(
            f"arena {library.plain.arena_bytes:,} bytes of RAM, constants {library.plain.constant_bytes:,} of flash"
        )
    else:
        out.print(
            f"built for {board.name}: flash {built.flash_bytes:,} of the {board.flash_budget:,} bytes and "
            f"RAM {built.static_bytes:,} of the {board.sram_budget:,} that it has beside the Arduino core"
        )
    out.print(
        f"TFLMClassify takes an arena of {library.tflm.arena_bytes_not_static:,} bytes and {len(content):,} of model"
    )
    out.print(
        f"wrote {output}" + ("" if archive is None else f" and {archive}, for the Arduino IDE's Add .ZIP Library")
    )
    return {
        "zip": None if archive is None else str(archive), "board": board.name,
        "arena_bytes": library.plain.arena_bytes, "constant_bytes": library.plain.constant_bytes,
        "tflm_arena_bytes": library.tflm.arena_bytes_not_static, "model_bytes": len(content),
        "flash_bytes": None if built is None else built.flash_bytes,
        "ram_bytes": None if built is None else built.static_bytes,
    }  # fmt: skip


def _samples(dataset, class_names: list[str], data: str):
    """The first image of each of the first classes."""
    from mcuformer.converter.export.arduino import Samples

    if len(dataset.class_names) != len(class_names):
        raise ConfigError(
            f"--data {data}: has {len(dataset.class_names)} classes, the model {len(class_names)}: "
            "give the data it was trained for"
        )
    first = {int(label): i for i, label in reversed(list(enumerate(dataset.labels)))}
    chosen = [first[label] for label in sorted(first)[:TEST_IMAGES]]
    return Samples(dataset.images[chosen], [class_names[dataset.labels[i]] for i in chosen])


def _built_size(library, board):
    """The library's network as the Mbed core builds it; None where that cannot be done here."""
    import tempfile

    from mcuformer.converter.export import arduino
    from mcuformer.simulator import arduino_build, firmware

    if firmware.missing_tools() is not None:
        return None
    with tempfile.TemporaryDirectory(prefix="mcuformer-") as folder:
        path = arduino.write(library, Path(folder) / "library")
        return arduino_build.measure(path, board, Path(folder) / "objects")
