# SPDX-License-Identifier: Apache-2.0
"""DecomposedPatchEmbed: the convolution that makes tokens, split into 4x4 receptive fields."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops.fixed_point import exact_matmul, requantise
from mcuformer.converter.ops.packed_weights import ROWS, unpack
from mcuformer.converter.ops.weights import lower_convolution
from mcuformer.converter.quantise import Quantisation

NAME = "DecomposedPatchEmbed"
INPUTS = ("image", "weights", "bias", "multiplier", "position", "position_scale")
OVERWRITES = (0,)
OP_DATA_BYTES = 16

FIELD = 4  # pixels, both ways


@dataclass(frozen=True)
class Options:
    patch_size: int
    zero_point: int  # of the output
    packing: int = ROWS  # of the weights of each field
    # Where the image comes in strips:
    strip_rows: int = 0  # brought at a time, patch_size or FIELD; 0: the image is a tensor
    image_height: int = 0
    image_width: int = 0
    channels: int = 0
    # Where weights are staged:
    tile_bytes: int = 0  # scratch for a tile of them; 0: they are in the model
    weights_offset: int = -1  # in the weights file, bytes
    blocks: int = 0  # of four tokens that they come once for


def split_fields(weight: np.ndarray) -> np.ndarray:
    """[d, P, P, C] -> [fields, d, 16 * C], row by row of fields, zeros past the patch's edge."""
    d, size, _, channels = weight.shape
    side = -(-size // FIELD)
    padded = np.zeros((d, side * FIELD, side * FIELD, channels), weight.dtype)
    padded[:, :size, :size] = weight
    fields = padded.reshape(d, side, FIELD, side, FIELD, channels).transpose(1, 3, 0, 2, 4, 5)
    return np.ascontiguousarray(fields.reshape(side * side, d, FIELD * FIELD * channels))


def lower(
    weight: np.ndarray, bias: np.ndarray, position: np.ndarray, source_scale: float, source_zero: float,
    target: Quantisation,
) -> tuple[Options, dict[str, np.ndarray | None], Quantisation]:  # fmt: skip
    """Options, constants, and the target widened where its scale is too fine.

    weight float [d, P, P, C], position float [tokens, d].
    """
    constants, target = lower_convolution(weight, bias, position, source_scale, source_zero, target)
    constants["weights"] = split_fields(constants["weights"])
    return Options(weight.shape[1], target.zero_point), constants, target


def reference(
    options: Options,
    image: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    position: np.ndarray | None = None,
    position_scale: np.ndarray | None = None,
) -> np.ndarray:
    """image int8 [batch, H, W, C] -> int8 [batch, tokens, d]."""
    batch, height, width, channels = image.shape
    size, d = options.patch_size, len(bias)
    weights = unpack(weights, d, options.packing)
    rows, columns, side = height // size, width // size, -(-size // FIELD)
    patches = image[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size, channels)
    patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, size, size, channels)
    whole = weights.reshape(side, side, d, FIELD, FIELD, channels).transpose(2, 0, 3, 1, 4, 5)
    whole = whole.reshape(d, side * FIELD, side * FIELD, channels)[:, :size, :size].reshape(d, -1)
    acc = exact_matmul(patches.reshape(batch, rows * columns, -1), whole.T) + bias
    if position is not None:
        acc = acc + position.astype(np.int64) * position_scale
    return requantise(acc, multiplier, options.zero_point)


def scratch_bytes(options: Options, tensors) -> int:
    d = tensors[2].shape[0]
    _, _, width, channels = tensors[0].shape
    sizes = (max(options.blocks, 1), options.tile_bytes)
    if options.strip_rows:
        return strip_scratch_bytes(width, channels, options.patch_size, d, options.strip_rows, *sizes)
    return kernel_library.decomposed_patch_embed_scratch_bytes(width, channels, options.patch_size, d, *sizes)


strip_scratch_bytes = kernel_library.decomposed_patch_embed_strips_scratch_bytes


def in_strips(options: Options, image_shape: tuple[int, ...], embed_dim: int) -> Options:
    """Options for an image in strips, of as many rows at a time as take the least scratch."""
    _, height, width, channels = image_shape
    size = options.patch_size
    rows = min(
        (size, FIELD) if size > FIELD else (size,),
        key=lambda rows: strip_scratch_bytes(
            width, channels, size, embed_dim, rows, max(options.blocks, 1), options.tile_bytes
        ),
    )
    return replace(options, strip_rows=rows, image_height=height, image_width=width, channels=channels)


def output_shape(options: Options, shapes) -> tuple[int, ...]:
    (_, height, width, _), _, (d,) = shapes[:3]
    return (1, (height // options.patch_size) * (width // options.patch_size), d)
