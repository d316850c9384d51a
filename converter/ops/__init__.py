# SPDX-License-Identifier: Apache-2.0
"""The custom ops: one module an op, holding its options, its integer reference and its lowering.

Every module has NAME, INPUTS (names of its inputs, in order), OVERWRITES (positions of the inputs that the output may
stand over), OP_DATA_BYTES (what its kernel keeps in the arena's tail), Options (dataclass of integers),
reference(options, *inputs), output_shape(options, input_shapes) and scratch_bytes(options, input_tensors).
"""

from mcuformer.converter.ops import (
    decomposed_patch_embed,
    in_place_fc,
    int_attention,
    int_gelu,
    int_layer_norm,
    stem_conv,
    streamed_attention,
    streamed_mlp,
    token_mean,
)

_MODULES = (
    decomposed_patch_embed, stem_conv, int_layer_norm, in_place_fc, int_gelu, int_attention, streamed_attention,
    streamed_mlp, token_mean,
)  # fmt: skip

OPS = {module.NAME: module for module in _MODULES}
"""Op name (as in the flatbuffer, without the prefix) -> module."""

PREFIX = "mcuformer."
