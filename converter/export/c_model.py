# SPDX-License-Identifier: Apache-2.0
"""A model as plain C99 without an interpreter: constant arrays, one static arena, one function.

By default (`image="arena"`) the image has a place in the arena, where tokens overwrite it: the least RAM in all if the
image must be in RAM anyway. An image elsewhere, such as in flash, is read in place. With `image="caller"` the arena has
no place for the image and is as small as the layers allow. Logits go straight to the caller; so does the embedding of a
network without a head, which has no class names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcuformer.boards import Board
from mcuformer.converter.export import c_project, c_sources, c_text
from mcuformer.converter.export.board_fit import budget_board, check_board
from mcuformer.converter.export.c_ops import Context, call_of
from mcuformer.converter.export.c_sources import Network
from mcuformer.converter.export.folder import c_kernel_files, check_name, licence_file, sound_files, write_folder
from mcuformer.converter.export.front_end import check_takes, front_end_line, front_end_values, table_bytes
from mcuformer.converter.export.front_end import model_files as front_end_files
from mcuformer.converter.export.front_end import ram_bytes as front_end_ram
from mcuformer.converter.export.registry import Result, Source
from mcuformer.converter.graph import Graph
from mcuformer.converter.memory.c_arena import plan_c_arena
from mcuformer.converter.passes.staging import is_staged, weights_content
from mcuformer.converter.passes.strips import takes_strips
from mcuformer.errors import ConfigError
from mcuformer.sound import LogMel

IMAGE_PLACES = ("arena", "caller")


@dataclass(frozen=True)
class CModel:
    """A model's C. sources: file name -> text, without the kernels. constant_bytes: of weights and tables, those of its
    front end too."""

    network: Network
    sources: dict[str, str]
    constant_bytes: int

    @property
    def arena_bytes(self) -> int:
        return self.network.arena_bytes

    @property
    def ram_bytes(self) -> int:
        """The arena, and one stream of the front end if there is one."""
        front_end = self.network.front_end
        return self.arena_bytes + (0 if front_end is None else front_end_ram(front_end))

    @property
    def image_bytes(self) -> int:
        """Size of the image's place in the arena; 0 if it has none."""
        image = self.network.graph.tensors[self.network.graph.inputs[0]]
        return 0 if self.network.image_offset is None else image.bytes

    @property
    def c_files(self) -> list[str]:
        return [name for name in self.sources if name.endswith(".c") and name != "main.c"]


def export(
    graph: Graph,
    class_names: Sequence[str],
    folder: str | os.PathLike,
    name: str = "model",
    image: str = "arena",
    force: bool = False,
    front_end: LogMel | None = None,
) -> CModel:
    """Writes a graph's C, the kernels, an example and its build files to a folder.

    ConfigError if the folder is not empty, without force.
    """
    generated = generate(graph, class_names, name, image, front_end)
    files: dict[str, str | bytes] = {**generated.sources, **c_kernel_files()}
    if front_end is not None:
        files.update(sound_files())
    kernels = (path for path in files if path.startswith(("core/", "sound/")) and not path.endswith(".h"))
    compiled = [*generated.c_files, *kernels]
    files["Makefile"] = c_project.makefile(name, compiled)
    files["CMakeLists.txt"] = c_project.cmake(name, compiled)
    files["README.md"] = c_project.readme(generated.network, generated.constant_bytes)
    files.update(licence_file())
    if is_staged(graph):
        files[f"{name}.weights"] = weights_content(graph)
    write_folder(folder, files, force)
    return generated


def to_folder(
    source: Source, folder: Path, force: bool, name: str, image: str, board: Board | None, external_flash: bool
) -> Result:
    """The export of `mcuformer export --to c`."""
    board = budget_board(source.graph, board, external_flash)
    if board is not None:
        model = generate(source.graph, source.class_names, name, image, source.front_end)
        check_board(source.graph, board, model.ram_bytes, model.constant_bytes)
    model = export(source.graph, source.class_names, folder, name, image, force, source.front_end)
    place = "image in it" if model.image_bytes else "image elsewhere"
    lines = [
        f"arena {model.arena_bytes:,} bytes ({place}), constants {model.constant_bytes:,} bytes",
        f"wrote {folder}: {name}.h says how to call it; `make -C {folder}` builds an example",
    ]
    values = {
        "arena_bytes": model.arena_bytes, "image_bytes": model.image_bytes, "constant_bytes": model.constant_bytes,
    }  # fmt: skip
    if source.front_end is not None:
        lines.insert(1, front_end_line(source.front_end))
        values |= front_end_values(source.front_end)
    return Result(folder, tuple(lines), values)


def generate(
    graph: Graph,
    class_names: Sequence[str],
    name: str = "model",
    image: str = "arena",
    front_end: LogMel | None = None,
    sound: str = "sound",
) -> CModel:
    """The C of a graph. name: the prefix of its files and functions; image: "arena" or "caller"; front_end: ModelError
    if it does not make what the network takes; sound: the path from the generated files to the front end's kernels."""
    check_name(name)
    if image not in IMAGE_PLACES:
        raise ConfigError(f"image = {image!r}: must be one of {', '.join(IMAGE_PLACES)}")
    strips = takes_strips(graph)
    planned = plan_c_arena(graph, keep_inputs=image == "arena")
    image_offset = planned.offsets.get(graph.inputs[0])
    constants: dict[str, np.ndarray] = {}

    def constant(tensor: str, values: np.ndarray) -> str:
        c_name = f"{name}_{c_text.identifier(tensor)}"
        if c_name in constants and not np.array_equal(constants[c_name], values):
            raise AssertionError(f"two constants are called {c_name}")
        constants[c_name] = values
        return c_name

    def address(tensor: int) -> str:
        if tensor == graph.output:
            return "logits" if class_names else "embedding"
        return "image" if tensor in graph.inputs else f"arena + {planned.offsets[tensor]}"

    structs, calls = [], []
    for i, op in enumerate(graph.ops):
        context = Context(graph, constant, address, f"arena + {planned.scratch.get(i, 0)}", "&weight_source")
        call, label = call_of(op, context), graph.tensors[op.output].name
        text = call.text
        if call.params is not None:
            type_name, fields = call.params
            struct_name = f"{c_text.identifier(label)}_params"
            structs.append(c_text.wrapped(f"static const {type_name} {struct_name} = {c_text.struct(fields)};"))
            text = text.replace("&params", f"&{struct_name}")
        line = c_text.wrapped(f"  if ((status = {text}) != MCUF_OK) return status;", "      ")
        calls.append(f"  /* {op.kind} {label} */\n{line}\n  MCUF_OP_DONE({i});")
    weights_bytes = len(weights_content(graph)) if is_staged(graph) else 0
    check_takes(graph, front_end, name)
    network = Network(name, graph, class_names, planned.bytes, image_offset, strips, weights_bytes, front_end)
    sources = {
        f"{name}.h": c_sources.header(network),
        f"{name}.c": c_sources.source(network, structs, calls),
        f"{name}_data.h": c_sources.data_header(name, constants),
        f"{name}_data.c": c_sources.data_source(name, constants),
        "main.c": c_project.example(network) if front_end is None else c_project.sound_example(network),
    }
    constant_bytes = sum(values.nbytes for values in constants.values())
    if front_end is not None:
        sources |= front_end_files(name, front_end, sound)
        constant_bytes += table_bytes(front_end)
    return CModel(network, sources, constant_bytes)
