# SPDX-License-Identifier: Apache-2.0
"""DecomposedPatchEmbed: the convolution that makes tokens, split into receptive fields of 16 pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops import c_call
from mcuformer.converter.ops.fixed_point import exact_matmul, requantise, requantise_wide
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS, least_tile, row_bytes_and_rows, tile_reads, unpack
from mcuformer.converter.ops.weights import lower_convolution, with_prefix
from mcuformer.converter.ops.work import BLOCK_SIZES, PACKING_NAMES, TOKEN_BLOCK, WIDE_WORK, Shapes, Work, token_blocks
from mcuformer.converter.quantise import Quantisation

NAME = "DecomposedPatchEmbed"
INPUTS = ("image", "weights", "bias", "multiplier", "position", "position_scale", "prefix")
OPTIONAL_LAST = ("prefix",)
WEIGHTS = ("weights",)
OVERWRITES = (0,)
WIDE = ("output",)
OP_DATA_BYTES = 16

FIELD_PIXELS = 16

_COUNTS = ("call", "block", "output", "field", "field_channel", "field_pair", "field_pair_channel", "fill")
KERNELS = {
    **{f"patch_embed_{packing}_{size}": _COUNTS for packing in PACKING_NAMES.values() for size in BLOCK_SIZES},
    "patch_embed_padding": ("row", "value"),
    "prefix": ("call", "byte"),
}


@dataclass(frozen=True)
class Options:
    patch_size: int  # its height
    zero_point: int  # of the output
    packing: int = ROWS  # of each field's weights
    patch_width: int = 0  # 0: a square
    padding: int = 0  # pixels on every side of the image, less than the patch's sides
    # If the image comes in strips:
    strip_rows: int = 0  # requested at a time, the patch's height or a field's; 0: the image is a tensor
    image_height: int = 0
    image_width: int = 0
    channels: int = 0
    # If weights are staged:
    tile_bytes: int = 0  # scratch for one tile; 0: weights are in the model
    weights_offset: int = -1  # bytes, in the weights file
    blocks_per_read: int = 0  # blocks of four tokens, for a read of the weights
    wide: int = 0  # 1: the output is int16, with zero point 0

    @property
    def patch(self) -> tuple[int, int]:
        """Its height and width, pixels."""
        return self.patch_size, self.patch_width or self.patch_size


def field_of(patch_height: int, patch_width: int) -> tuple[int, int]:
    """Height and width of a receptive field: 4x4 for a square patch, and wherever both sides are at least 3; else as
    long as the patch is thin, so that a patch of 1x40 is 3 fields and not 10."""
    height = 4
    if patch_height != patch_width:
        if patch_height <= 2:
            height = patch_height
        elif patch_width <= 2:
            height = FIELD_PIXELS // patch_width
    return height, FIELD_PIXELS // height


class Dims(NamedTuple):
    """An image of height x width pixels becomes tokens of embed_dim channels, after `prefix` tokens that are constants.
    strip_rows, tile_bytes, blocks_per_read, padding, wide: as in Options. position_bytes: per entry of the position
    table, 0 without one."""

    height: int
    width: int
    channels: int
    patch_height: int
    patch_width: int
    embed_dim: int
    packing: int = ROWS
    strip_rows: int = 0
    tile_bytes: int = 0
    blocks_per_read: int = 0
    position_bytes: int = 1
    prefix: int = 0
    padding: int = 0
    wide: int = 0

    @property
    def rows(self) -> int:
        """Rows of tokens."""
        return (self.height + 2 * self.padding) // self.patch_height

    @property
    def columns(self) -> int:
        """Tokens per row."""
        return (self.width + 2 * self.padding) // self.patch_width

    @property
    def tokens(self) -> int:
        """Those of patches."""
        return self.rows * self.columns

    @property
    def field(self) -> tuple[int, int]:
        """Height and width of a receptive field, pixels."""
        return field_of(self.patch_height, self.patch_width)

    @property
    def fields(self) -> int:
        """Receptive fields per patch."""
        height, width = self.field
        return -(-self.patch_height // height) * -(-self.patch_width // width)

    @property
    def field_inputs(self) -> int:
        return FIELD_PIXELS * self.channels


def dims(options: Options, shapes: Shapes) -> Dims:
    """The dimensions of an op with these options and input shapes."""
    _, height, width, channels = shapes[0]
    position, prefix = shapes[4], shapes[6]
    return Dims(
        height, width, channels, *options.patch, shapes[2][0], options.packing, options.strip_rows,
        options.tile_bytes, options.blocks_per_read, int(position is not None), 0 if prefix is None else prefix[0],
        options.padding, options.wide,
    )  # fmt: skip


def matrices(d: Dims) -> list[tuple[int, int]]:
    """(inputs, outputs) of the matrix of one field; there are d.fields of them."""
    return [(d.field_inputs, d.embed_dim)]


def staged(d: Dims) -> Dims:
    """The same with staged weights, in the least scratch."""
    tile = least_tile([row_bytes_and_rows(d.field_inputs, d.embed_dim, d.packing)])
    return d._replace(tile_bytes=tile, blocks_per_read=1)


def resized(options: Options, d: Dims, tokens: int, tile_bytes: int, weights_offset: int) -> Options:
    """Options with staged weights, read through a tile of tile_bytes once for `tokens` tokens, a multiple of four."""
    blocks = tokens // TOKEN_BLOCK
    return replace(options, tile_bytes=tile_bytes, weights_offset=weights_offset, blocks_per_read=blocks)


def token_choices(d: Dims) -> list[int]:
    """Tokens per read of staged weights worth trying, multiples of four: the fewest for each number of reads. Empty if
    weights are not staged."""
    if not d.tile_bytes:
        return []
    if 0 < d.strip_rows < d.patch_height:
        return [TOKEN_BLOCK]  # a whole row of tokens anyway
    blocks = -(-d.columns // TOKEN_BLOCK)
    return sorted({TOKEN_BLOCK * -(-blocks // n) for n in range(1, blocks + 1)})


def in_strips(d: Dims) -> Dims:
    """The same with an image in strips: as many rows at a time as need the least scratch."""
    field_height, _ = d.field
    choices = (d.patch_height, field_height) if d.patch_height > field_height else (d.patch_height,)
    return min((d._replace(strip_rows=rows) for rows in choices), key=scratch_bytes)


def strip_options(options: Options, d: Dims) -> Options:
    """Options for an image in strips, as d has it."""
    rows = in_strips(d).strip_rows
    return replace(options, strip_rows=rows, image_height=d.height, image_width=d.width, channels=d.channels)


def input_elements(d: Dims) -> int:
    return d.height * d.width * d.channels


def output_elements(d: Dims) -> int:
    return (d.prefix + d.tokens) * d.embed_dim


def weight_elements(d: Dims) -> int:
    return d.patch_height * d.patch_width * d.channels * d.embed_dim


def constants(d: Dims) -> int:
    """How many constants the model file holds."""
    return 2 + (not d.tile_bytes) + 2 * (d.position_bytes > 0) + (d.prefix > 0)


def constant_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of each constant in the model file."""
    weights = d.fields * math.prod(row_bytes_and_rows(d.field_inputs, d.embed_dim, d.packing))
    inside = (weights,) * (not d.tile_bytes)
    position = (d.position_bytes * d.tokens * d.embed_dim, 2 * d.embed_dim) * (d.position_bytes > 0)
    return (
        *inside,
        4 * d.embed_dim,
        4 * d.embed_dim,
        *position,
        *((d.prefix * d.embed_dim << d.wide,) * (d.prefix > 0)),
    )


def scratch_bytes(d: Dims) -> int:
    sizes = (d.patch_width, d.embed_dim, d.blocks_per_read or 1, d.tile_bytes)
    if d.strip_rows:
        scratch_of = kernel_library.scratch_getter("decomposed_patch_embed_strips")
        return scratch_of(d.width, d.channels, d.patch_height, *sizes, d.strip_rows, d.padding)
    return kernel_library.scratch_getter("decomposed_patch_embed")(d.width, d.channels, *sizes, d.padding, 1 + d.wide)


def macs(d: Dims) -> int:
    return d.tokens * weight_elements(d)


def traffic(d: Dims) -> tuple[int, int]:
    """Bytes and number of reads of staged weights in one run."""
    if not d.tile_bytes:
        return 0, 0
    row, rows = row_bytes_and_rows(d.field_inputs, d.embed_dim, d.packing)
    blocks = -(-d.columns // TOKEN_BLOCK)
    per_read = blocks if 0 < d.strip_rows < d.patch_height else d.blocks_per_read
    times = d.rows * -(-blocks // per_read) * d.fields
    return times * row * rows, times * tile_reads(row, rows, d.tile_bytes)


def _fills(d: Dims) -> int:
    """Runs of a patch's pixels, or of zeros past its edge, that are gathered into its fields."""
    (height, width), fills = d.field, 0
    for y in range(0, d.patch_height, height):
        rows = min(height, d.patch_height - y)
        for x in range(0, d.patch_width, width):
            fills += rows * (1 + (x + width > d.patch_width)) + (rows < height)
    return fills


def prefix_work(prefix: int, embed_dim: int, moved: int = 0) -> list[Work]:
    """The work of writing `prefix` constant tokens before the others, of which `moved` are moved first."""
    return [Work("prefix", (1, (prefix + moved) * embed_dim))] if prefix else []


def _tokens_across(d: Dims) -> int:
    """Tokens in blocks of four that begin in one row of tokens and end in another."""
    firsts = range(0, d.rows * d.columns - TOKEN_BLOCK + 1, TOKEN_BLOCK)
    return TOKEN_BLOCK * sum(first % d.columns + TOKEN_BLOCK > d.columns for first in firsts)


def work(d: Dims) -> list[Work]:
    if d.wide:
        return [WIDE_WORK]
    pairs, fills = (d.embed_dim + 1) // 2, _fills(d)
    grows = d.columns * d.embed_dim > d.patch_height * d.width * d.channels
    found = prefix_work(d.prefix, d.embed_dim, 0 if d.strip_rows or grows else d.tokens)
    across = d.packing == PAIRS and d.columns % TOKEN_BLOCK and not (d.padding or d.tile_bytes or d.strip_rows)
    if d.padding or across:  # fields are gathered token by token
        height, width = d.field
        rows = (_tokens_across(d) if across else d.tokens) * d.fields * height
        found.append(Work("patch_embed_padding", (rows, rows * width * d.channels)))
    row_tokens, rows = (d.rows * d.columns, 1) if across else (d.columns, d.rows)
    for i, (size, count) in enumerate(token_blocks(row_tokens)):
        blocks = rows * count
        counts = (
            int(i == 0), blocks, blocks * size * d.embed_dim, blocks * d.fields, blocks * d.fields * d.channels,
            blocks * d.fields * pairs, blocks * d.fields * pairs * d.channels, blocks * fills,
        )  # fmt: skip
        found.append(Work(f"patch_embed_{PACKING_NAMES[d.packing]}_{size}", counts))
    return found


def call(op, c: c_call.Context) -> c_call.Call:
    image, weights, bias, multiplier, position, position_scale, prefix = op.inputs
    options, output = op.options, c.address(op.output)
    patch_height, patch_width = options.patch
    _, height, width, channels = c.shape(image)
    fields = {
        "image_height": height, "image_width": width, "channels": channels, "patch_height": patch_height,
        "patch_width": patch_width, "embed_dim": c.shape(op.output)[-1], "zero_point": options.zero_point,
        "packing": options.packing,
        "weights": c.tensor(weights), "bias": c.tensor(bias), "multiplier": c.tensor(multiplier),
        "position": c.tensor(position), "position_scale": c.tensor(position_scale),
        "blocks_per_read": options.blocks_per_read or 1, **c.staged(options.tile_bytes, options.weights_offset),
        **c_call.prefix(c, prefix, "wide_prefix" if options.wide else "prefix"),
    }  # fmt: skip
    if options.wide:
        fields |= {"wide": c.symbol("mcuf_wide")}
    if options.padding:
        fields |= {"padding": options.padding, "padded": c.symbol("mcuf_padded_patches")}
    if not options.strip_rows:
        return c_call.call("decomposed_patch_embed", fields, c.address(image), output, c.scratch)
    args = (c_call.PARAMS, options.strip_rows, c.rows_fn, c.user, output, c.scratch)
    params = ("mcuf_decomposed_patch_embed_params", fields)
    return c_call.Call("mcuf_decomposed_patch_embed_strips_s8", params, args)


def split_fields(weight: np.ndarray) -> np.ndarray:
    """[d, patch height, patch width, C] -> [fields, d, 16 * C], fields row by row, zeros past the patch's edge."""
    d, patch_height, patch_width, channels = weight.shape
    height, width = field_of(patch_height, patch_width)
    rows, columns = -(-patch_height // height), -(-patch_width // width)
    padded = np.zeros((d, rows * height, columns * width, channels), weight.dtype)
    padded[:, :patch_height, :patch_width] = weight
    fields = padded.reshape(d, rows, height, columns, width, channels).transpose(1, 3, 0, 2, 4, 5)
    return np.ascontiguousarray(fields.reshape(rows * columns, d, FIELD_PIXELS * channels))


def joined(fields: np.ndarray, patch_height: int, patch_width: int) -> np.ndarray:
    """Undoes split_fields(): [d, patch height, patch width, C]."""
    _, d, inputs = fields.shape
    height, width = field_of(patch_height, patch_width)
    rows, columns = -(-patch_height // height), -(-patch_width // width)
    whole = fields.reshape(rows, columns, d, height, width, inputs // FIELD_PIXELS).transpose(2, 0, 3, 1, 4, 5)
    return whole.reshape(d, rows * height, columns * width, -1)[:, :patch_height, :patch_width]


def lower(
    weight: np.ndarray, bias: np.ndarray, position: np.ndarray, source_scale: float, source_zero: float,
    target: Quantisation, prefix: np.ndarray | None = None, padding: int = 0,
    image_shape: tuple[int, int] | None = None, rows: np.ndarray | None = None,
) -> tuple[Options, dict[str, np.ndarray | None], Quantisation]:  # fmt: skip
    """Options, constants, and the target, widened if its scale is too fine.

    weight float [d, patch height, patch width, C], position float [tokens, d], prefix float [prefix tokens, d].
    image_shape: (height, width), needed with padding, whose pixels are 0 in float and in the kernel: the position table
    takes up what the kernel's are worth. rows: some patches(), that the rounding of weights is made for; None: each to
    the nearest.
    """
    if padding:
        if image_shape is None:
            raise ValueError("padding without image_shape")
        position = position + source_scale * source_zero * outside(weight.sum(axis=3), image_shape, padding)
    constants, target = lower_convolution(weight, bias, position, source_scale, source_zero, target, prefix, rows)
    constants["weights"] = split_fields(constants["weights"])
    _, height, width, _ = weight.shape
    options = Options(
        height, target.zero_point, patch_width=0 if width == height else width, padding=padding,
        wide=int(target.is_wide),
    )  # fmt: skip
    return options, constants, target


def rows_read(options: Options, height: int) -> int:
    """How many of an image's rows are read, from the first on."""
    rows = (height + 2 * options.padding) // options.patch_size
    return min(height, rows * options.patch_size - options.padding)


def patches(image: np.ndarray, patch: tuple[int, int], padding: int) -> np.ndarray:
    """What each token is computed of: [batch, H, W, C] -> [batch, tokens, patch height * patch width * C], with zeros
    around the image."""
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    image = np.pad(image, around) if padding else image
    batch, height, width, channels = image.shape
    rows, columns = height // patch[0], width // patch[1]
    cut = image[:, : rows * patch[0], : columns * patch[1]]
    cut = cut.reshape(batch, rows, patch[0], columns, patch[1], channels).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(batch, rows * columns, -1)


def outside(weight: np.ndarray, image_shape: tuple[int, int], padding: int) -> np.ndarray:
    """[tokens, d]: for every patch the sum of its weights [d, patch height, patch width] on pixels that lie outside
    the image."""
    inside = patches(np.ones((1, *image_shape, 1)), weight.shape[1:], padding)[0]
    return (1 - inside) @ weight.reshape(len(weight), -1).T


def reference(
    options: Options,
    image: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    position: np.ndarray | None = None,
    position_scale: np.ndarray | None = None,
    prefix: np.ndarray | None = None,
) -> np.ndarray:
    """image int8 [batch, H, W, C] -> int8, or int16 with options.wide, [batch, prefix tokens + tokens, d]."""
    d = len(bias)
    whole = joined(unpack(weights, d, options.packing), *options.patch).reshape(d, -1)
    acc = exact_matmul(patches(image, options.patch, options.padding), whole.T) + bias
    if position is not None and position_scale is not None:
        acc = acc + position.astype(np.int64) * position_scale
    tokens = requantise_wide(acc, multiplier) if options.wide else requantise(acc, multiplier, options.zero_point)
    return with_prefix(prefix, tokens)


def output_shape(options: Options, shapes: Shapes) -> tuple[int, ...]:
    (_, height, width, _), _, (d,) = shapes[:3]
    (patch_height, patch_width), both = options.patch, 2 * options.padding
    prefix = 0 if shapes[6] is None else shapes[6][0]
    return (1, prefix + ((height + both) // patch_height) * ((width + both) // patch_width), d)
