# SPDX-License-Identifier: Apache-2.0
"""DecomposedPatchEmbed: the convolution that makes tokens, split into 4x4 receptive fields."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops.fixed_point import exact_matmul, multiplier_of, requantise, round_bias
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
    # Where the image comes in strips:
    strip_rows: int = 0  # brought at a time, patch_size or FIELD; 0: the image is a tensor
    image_height: int = 0
    image_width: int = 0
    channels: int = 0


def fold_position(position: np.ndarray, acc_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """position float [tokens, d] -> int8 [1, tokens, d] and int16 factor [d] with position ~ int8 * factor * acc_scale.

    The table's scale is free per channel, so it is an integer multiple of the accumulator's.
    """
    largest = np.abs(position).max(axis=0)
    factor = np.clip(np.ceil(largest / (127 * acc_scale)), 1, 32767)
    table = np.clip(np.rint(position / (factor * acc_scale)), -127, 127).astype(np.int8)
    return table[None], factor.astype(np.int16)


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
) -> tuple[Options, dict[str, np.ndarray], Quantisation]:  # fmt: skip
    """Options, constants, and the target widened where its scale is too fine.

    weight float [d, P, P, C], position float [tokens, d]. The image's real zero point may be a fraction (-0.5 for
    uint8 images in [-1, 1]); it only enters the bias.
    """
    d, size = weight.shape[:2]
    flat = weight.reshape(d, -1)
    largest = np.maximum(np.abs(flat).max(axis=1), np.finfo(np.float32).tiny)
    acc_scale = source_scale * largest / 127.0
    quantised = np.clip(np.rint(flat / (largest / 127.0)[:, None]), -127, 127).astype(np.int8)
    target = target.at_least(2.001 * acc_scale)
    folded = bias / acc_scale - source_zero * quantised.astype(np.float64).sum(axis=1)
    table, factor = fold_position(position, acc_scale)
    constants = {
        "weights": split_fields(quantised.reshape(weight.shape)),
        "bias": round_bias(folded),
        "multiplier": multiplier_of(acc_scale / target.scale),
        "position": table,
        "position_scale": factor,
    }
    return Options(size, target.zero_point), constants, target


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
    size, d = options.patch_size, weights.shape[1]
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
    d = tensors[1].shape[1]
    if options.strip_rows:
        return strip_scratch_bytes(options.image_width, options.channels, options.patch_size, d, options.strip_rows)
    _, _, width, channels = tensors[0].shape
    return kernel_library.decomposed_patch_embed_scratch_bytes(width, channels, options.patch_size, d)


def strip_scratch_bytes(image_width: int, channels: int, patch_size: int, embed_dim: int, strip_rows: int) -> int:
    return kernel_library.decomposed_patch_embed_strips_scratch_bytes(
        image_width, channels, patch_size, embed_dim, strip_rows
    )


def in_strips(options: Options, image_shape: tuple[int, ...], embed_dim: int) -> Options:
    """Options for an image in strips, of as many rows at a time as take the least scratch."""
    _, height, width, channels = image_shape
    size = options.patch_size
    rows = min(
        (size, FIELD) if size > FIELD else (size,),
        key=lambda rows: strip_scratch_bytes(width, channels, size, embed_dim, rows),
    )
    return replace(options, strip_rows=rows, image_height=height, image_width=width, channels=channels)


def output_shape(options: Options, shapes) -> tuple[int, ...]:
    (_, height, width, _), (_, d, _) = shapes[:2]
    return (1, (height // options.patch_size) * (width // options.patch_size), d)
