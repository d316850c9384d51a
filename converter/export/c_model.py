# SPDX-License-Identifier: Apache-2.0
"""A model as plain C99 without an interpreter: constant arrays, a function that runs it in an arena of the caller's,
and beside it a static arena.

By default (`image="arena"`) the image has a place in the arena, where tokens overwrite it: the least RAM in all if the
image must be in RAM anyway. An image elsewhere, such as in flash, is read in place. With `image="caller"` the arena has
no place for the image and is as small as the layers allow. Logits go straight to the caller; so does the embedding of a
network without a head, which has no class names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mcuformer.converter.export import c_project, c_sources, c_text
from mcuformer.converter.export.c_ops import Context, call_of
from mcuformer.converter.export.c_sources import Network
from mcuformer.converter.export.folder import check_name
from mcuformer.converter.export.front_end import check_takes, table_bytes
from mcuformer.converter.export.front_end import model_files as front_end_files
from mcuformer.converter.export.front_end import ram_bytes as front_end_ram
from mcuformer.converter.graph import Graph
from mcuformer.converter.memory.c_arena import plan_c_arena
from mcuformer.converter.passes.staging import is_staged, weights_content
from mcuformer.converter.passes.strips import takes_strips
from mcuformer.cores import Core
from mcuformer.errors import ConfigError
from mcuformer.sound import LogMel

IMAGE_PLACES = ("arena", "caller")


@dataclass(frozen=True)
class CModel:
    """A model's C. sources: file name -> text, without the kernels; example: the text of a program; constant_bytes: of
    weights and tables, those of its front end too; weights: the staged ones, for external flash, empty without."""

    network: Network
    sources: dict[str, str]
    example: str
    constant_bytes: int
    weights: bytes = b""

    @property
    def name(self) -> str:
        return self.network.name

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
        return [name for name in self.sources if name.endswith(".c")]


def generate(
    graph: Graph,
    class_names: Sequence[str],
    name: str = "model",
    image: str = "arena",
    front_end: LogMel | None = None,
    core: Core | None = None,
) -> CModel:
    """The C of a graph. name: the prefix of its files and functions; image: "arena" or "caller"; front_end: ModelError
    if it does not make what the network takes; core: that it will run on, None: any."""
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
            return "run->output"
        if tensor in graph.inputs:
            return "run->image"
        place = f"arena + {planned.offsets[tensor]}"
        return f"(int16_t*)(void*)({place})" if graph.tensors[tensor].dtype == np.int16 else place

    structs, calls = [], []
    staging = is_staged(graph)
    for i, op in enumerate(graph.ops):
        context = Context(
            graph,
            constant,
            address,
            f"arena + {planned.scratch.get(i, 0)}",
            "&run->weights",
            "run->rows_fn",
            "run->user",
        )
        call, label = call_of(op, context), graph.tensors[op.output].name
        text, own = call.text, ""
        if call.params is not None:
            type_name, fields = call.params
            struct_name = f"{c_text.identifier(label)}_params"
            struct = f"const {type_name} {struct_name} = {c_text.struct(fields)};"
            if staging:  # it points to the run's source
                own = c_text.wrapped(f"      {struct}", "          ") + "\n"
            else:
                structs.append(c_text.wrapped(f"static {struct}"))
            text = text.replace("&params", f"&{struct_name}")
        line = c_text.wrapped(f"      return {text};", "          ")
        calls.append(f"{own}      /* {op.kind} {label} */\n{line}")
    weights = weights_content(graph) if staging else b""
    check_takes(graph, front_end, name)
    network = Network(name, graph, class_names, planned.bytes, image_offset, strips, len(weights), front_end, core)
    sources = {
        f"{name}.h": c_sources.header(network),
        f"{name}.c": c_sources.source(network, structs, calls),
        f"{name}_arena.c": c_sources.arena_source(network),
        f"{name}_data.h": c_sources.data_header(name, constants),
        f"{name}_data.c": c_sources.data_source(name, constants),
    }
    example = c_project.example(network) if front_end is None else c_project.sound_example(network)
    constant_bytes = sum(values.nbytes for values in constants.values())
    if front_end is not None:
        sources |= front_end_files(name, front_end)
        constant_bytes += table_bytes(front_end)
    return CModel(network, sources, example, constant_bytes, weights)
