# SPDX-License-Identifier: Apache-2.0
"""The custom ops: one module per op, which holds all that is known about it.

What it is
    NAME, INPUTS (names of its inputs, in order), OPTIONAL_LAST (names of the last of them which a file leaves out where
    an op lacks them; if any), OVERWRITES (positions of inputs that the output may overwrite),
    OP_DATA_BYTES (bytes its kernel keeps in the arena's tail), Options (dataclass), reference(options, *inputs),
    output_shape(options, input_shapes)
What it costs, from dimensions alone
    Dims (named tuple), dims(options, input_shapes), then functions of Dims: input_elements, output_elements,
    weight_elements, constants (how many the file holds), constant_bytes (of each), scratch_bytes, macs, work (kernel
    calls; KERNELS names what is counted for each)
If the residual stream passes through it
    WIDE (names of the activations that are on the stream, "output" for the output: int16 if Options.wide is 1)
How C calls it
    call(op, context): see c_call.py
If it has weights that may be packed or staged
    WEIGHTS (names of those inputs), Options.packing, matrices(dims), rows_shape(dims) if plain rows are not
    [outputs, inputs]; staged(dims), resized(), token_choices(dims), traffic(dims)
If its constants are one tensor in the file
    LAYOUT (see params_blob.py), section_bytes(dims)
"""

from types import ModuleType
from typing import Any

from mcuformer.converter.ops import (
    decomposed_patch_embed,
    in_place_fc,
    int_attention,
    int_gelu,
    int_layer_norm,
    stem_conv,
    streamed_attention,
    streamed_mlp,
    streamed_stem,
    token_mean,
)

_MODULES: tuple[ModuleType, ...] = (
    decomposed_patch_embed, stem_conv, int_layer_norm, in_place_fc, int_gelu, int_attention, streamed_attention,
    streamed_mlp, streamed_stem, token_mean,
)  # fmt: skip

OPS: dict[str, ModuleType] = {module.NAME: module for module in _MODULES}
"""Op name (as in the flatbuffer, without the prefix) -> module."""

PREFIX = "mcuformer."


def wide_activations(module: ModuleType, options: Any) -> tuple[str, ...]:
    """The names of the activations that are int16: of an op on a wide residual stream."""
    return module.WIDE if getattr(options, "wide", 0) else ()


def can_be_staged(kind: str) -> bool:
    """Whether an op's weights may be in a file of their own."""
    return hasattr(OPS[kind], "staged")
