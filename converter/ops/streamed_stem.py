# SPDX-License-Identifier: Apache-2.0
"""StreamedStem: all convolutions of a stem, row by row: of each level three rows exist, and the tokens overwrite the
image, or the image comes in strips. The same bits as the StemConv ops one after another, and between them the inverted
residuals of stem_block.py, if there are any."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter.ops import (
    c_call,
    decomposed_patch_embed,
    in_place_fc,
    params_blob,
    stem_block,
    stem_conv,
    streamed,
)
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS
from mcuformer.converter.ops.work import TOKEN_BLOCK, Shapes, Work

NAME = "StreamedStem"
MAX_CONVS = 8  # patches of 256 pixels: MCUF_STREAMED_STEM_MAX_CONVS
STRIP_ROWS = 2  # that one row of the next level needs anew: MCUF_STREAMED_STEM_STRIP_ROWS
CONVS = tuple(f"conv{i}" for i in range(MAX_CONVS))
BLOCKS = tuple(f"block{i}" for i in range(MAX_CONVS - 1))  # behind each convolution but the last
CONSTANT_TYPES = {
    "position": "int8", "position_scale": "int16", "prefix": "int8", **streamed.layer_types(CONVS),
    **{f"{block}_{name}": dtype for block in BLOCKS for name, dtype in stem_block.TYPES.items()},
}  # fmt: skip
INPUTS = ("image", *CONSTANT_TYPES)  # convolutions and blocks it lacks are left out
FIRST_CONV = INPUTS.index("conv0_weights")
FIRST_BLOCK = INPUTS.index("block0_expand_weights")
MATRICES = (*CONVS, *(f"{block}_{name}" for block in BLOCKS for name in ("expand", "project")))
WEIGHTS = tuple(f"{matrix}_weights" for matrix in MATRICES)
OVERWRITES = (0,)
OP_DATA_BYTES = 4

_COUNTS = ("call", "row", "block", "pixel", "value", "odd", "edge", "edge_value", "raised", "kept")
KERNELS = {"streamed_stem": _COUNTS, **stem_block.KERNELS}
"""Of the convolutions, which are fully connected layers on their taps: rows and blocks; pixels gathered together and at
edges one by one, with their taps; values that the ReLU raises; bytes of rows that are kept for the next pair, or copied
for another reason."""


@dataclass(frozen=True)
class Options:
    pixels_at_once: int  # output pixels that are gathered together
    pad_value: int  # int8 value of the image outside it
    zero_points: tuple[int, ...]  # of what each convolution makes; all but the last raise it to theirs, which is a ReLU
    packing: int = ROWS  # of the weights; a row is all taps of an output
    # If the image comes in strips:
    strip_rows: int = 0  # requested at a time, STRIP_ROWS; 0: the image is a tensor
    image_height: int = 0
    image_width: int = 0
    channels: int = 0
    # Of the block behind each convolution but the last, as stem_block.ZeroPoints; zeros where there is none. Empty:
    # there are no blocks at all.
    block_zero_points: tuple[tuple[int, int, int], ...] = ()


def _to_scalars(o: Options) -> list[int]:
    """With blocks, their zero points begin behind those of all convolutions that are possible: so the number of
    scalars alone says how many convolutions there are, and whether blocks."""
    image = (o.strip_rows, o.image_height, o.image_width, o.channels)
    spare = [0] * (MAX_CONVS - len(o.zero_points)) if o.block_zero_points else []
    blocks = [zero_point for block in o.block_zero_points for zero_point in block]
    return [o.pixels_at_once, o.pad_value, o.packing, *image, *o.zero_points, *spare, *blocks]


def _from_scalars(scalars: list[int]) -> Options:
    pixels_at_once, pad_value, packing, strip_rows, height, width, channels, *zero_points = scalars
    flat = zero_points[MAX_CONVS:]
    blocks = tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
    convs = tuple(zero_points[: len(blocks) + 1] if blocks else zero_points)
    return Options(pixels_at_once, pad_value, convs, packing, strip_rows, height, width, channels, blocks)


LAYOUT = params_blob.Layout(
    scalars=("pixels_at_once", "pad_value", "packing", "strip_rows", "image_height", "image_width", "channels"),
    repeated="zero_point", dtypes=CONSTANT_TYPES, to_scalars=_to_scalars, from_scalars=_from_scalars,
)  # fmt: skip


class Dims(NamedTuple):
    """An image of height x width pixels of `channels` becomes tokens through convolutions of so many outputs each,
    after `prefix` tokens that are constants. pixels_at_once, strip_rows: as in Options. position_bytes: per entry of
    the position table, 0 without one. hidden: channels of the block behind each convolution but the last, 0 where there
    is none; empty without any."""

    height: int
    width: int
    channels: int
    outputs: tuple[int, ...]
    packing: int = ROWS
    pixels_at_once: int = TOKEN_BLOCK
    strip_rows: int = 0
    position_bytes: int = 1
    prefix: int = 0
    hidden: tuple[int, ...] = ()

    @property
    def blocks(self) -> list[tuple[int, stem_block.Dims]]:
        """The number of the convolution before each block, and the block's dimensions."""
        convs = self.convs
        return [
            (i, stem_block.Dims(convs[i].rows, convs[i].columns, convs[i].out_channels, hidden, self.packing))
            for i, hidden in enumerate(self.hidden) if hidden
        ]  # fmt: skip

    @property
    def convs(self) -> list[stem_conv.Dims]:
        """Each convolution by itself."""
        found, height, width, channels = [], self.height, self.width, self.channels
        for i, outputs in enumerate(self.outputs):
            last = i + 1 == len(self.outputs)
            conv = stem_conv.Dims(
                height, width, channels, outputs, self.packing, last and self.position_bytes > 0, self.position_bytes,
                self.prefix if last else 0,
            )  # fmt: skip
            found.append(conv)
            height, width, channels = conv.rows, conv.columns, outputs
        return found


def dims(options: Options, shapes: Shapes) -> Dims:
    """The dimensions of an op with these options and input shapes. ValueError if options know another image."""
    _, height, width, channels = shapes[0]
    if options.strip_rows not in (0, STRIP_ROWS):
        raise ValueError(f"option strip_rows = {options.strip_rows}: must be 0 or {STRIP_ROWS}")
    known = (options.image_height, options.image_width, options.channels)
    if known != ((height, width, channels) if options.strip_rows else (0, 0, 0)):
        raise ValueError(f"options of an image of {known}, which is {(height, width, channels)}")
    outputs = tuple(shapes[FIRST_CONV + 3 * i + 1][0] for i in range(len(options.zero_points)))
    position, prefix = shapes[1], shapes[3]
    return Dims(
        height, width, channels, outputs, options.packing, options.pixels_at_once, options.strip_rows,
        int(position is not None), 0 if prefix is None else prefix[0], _hidden(options, shapes),
    )  # fmt: skip


def _hidden(options: Options, shapes: Shapes) -> tuple[int, ...]:
    """As in Dims. ValueError for blocks that options do not know of."""
    biases = shapes[INPUTS.index("block0_expand_bias") :: len(stem_block.TYPES)]
    hidden = tuple(0 if bias is None else bias[0] for bias in biases)
    known, inner = len(options.block_zero_points), len(options.zero_points) - 1
    if known not in (0, inner):
        raise ValueError(f"zero points of {known} blocks behind {inner} convolutions")
    if any(hidden[known:]):
        raise ValueError(f"blocks of {hidden} hidden channels, and zero points of {known}")
    return hidden[:known] if any(hidden) else ()


def matrices(d: Dims) -> list[tuple[int, int]]:
    """(inputs, outputs) of each convolution on its taps, then of each block's expansion and projection."""
    found = [matrix for conv in d.convs for matrix in stem_conv.matrices(conv)]
    return [*found, *(matrix for _, block in d.blocks for matrix in stem_block.matrices(block))]


def token_choices(d: Dims) -> list[int]:
    """Pixels at once worth trying: a block, or one by one, which takes fewer instructions on a Cortex-M4 than two at
    once (benchmarks/streamed_stem.py)."""
    return sorted({1, min(TOKEN_BLOCK, d.convs[0].columns)})


def resized(options: Options, d: Dims, tokens: int, tile_bytes: int, weights_offset: int) -> Options:
    """Options with so many pixels at once."""
    return replace(options, pixels_at_once=tokens)


def in_strips(d: Dims) -> Dims:
    """The same with an image in strips."""
    return d._replace(strip_rows=STRIP_ROWS)


def strip_options(options: Options, d: Dims) -> Options:
    """Options for an image in strips, as d has it."""
    return replace(options, strip_rows=STRIP_ROWS, image_height=d.height, image_width=d.width, channels=d.channels)


def rows_read(options: Options, height: int) -> int:
    """How many of an image's rows are read: all."""
    return height


def input_elements(d: Dims) -> int:
    return d.height * d.width * d.channels


def output_elements(d: Dims) -> int:
    return stem_conv.output_elements(d.convs[-1])


def weight_elements(d: Dims) -> int:
    blocks = sum(stem_block.weight_elements(block) for _, block in d.blocks)
    return sum(map(stem_conv.weight_elements, d.convs)) + blocks


constants = streamed.constants


def section_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of every section of the params."""
    zero_points = MAX_CONVS + len(stem_block.ZeroPoints._fields) * len(d.hidden) if d.hidden else len(d.outputs)
    scalars, last = 4 * (len(LAYOUT.scalars) + zero_points), d.convs[-1]
    position, scale = (d.position_bytes * last.pixels * last.out_channels, 2 * last.out_channels * last.position)
    sizes = [scalars, position, scale, d.prefix * last.out_channels]
    for conv in d.convs:
        sizes += streamed.layer_bytes(*stem_conv.matrices(conv)[0], d.packing, staged=False)
    for i, block in d.blocks:
        sizes += [0] * (FIRST_BLOCK + len(stem_block.TYPES) * i - len(sizes))  # of convolutions and blocks it lacks
        sizes += stem_block.constant_bytes(block)
    return tuple(sizes)


def constant_bytes(d: Dims) -> tuple[int, ...]:
    """Bytes of every constant in the model file: there is one, the params."""
    return (params_blob.packed_bytes(section_bytes(d)),)


def scratch_bytes(d: Dims) -> int:
    count = len(d.outputs)
    in_channels = (ctypes.c_int32 * count)(d.channels, *d.outputs[:-1])
    scratch_of = kernel_library.scratch_getter("streamed_stem")
    return scratch_of(in_channels, count, d.height, d.width, d.pixels_at_once, int(d.strip_rows > 0))


def macs(d: Dims) -> int:
    return sum(map(stem_conv.macs, d.convs)) + sum(stem_block.macs(block) for _, block in d.blocks)


def _edge_pixels(conv: stem_conv.Dims, at_once: int) -> int:
    """Output pixels in blocks that reach over an edge of their input."""
    columns, rows = conv.columns, conv.rows
    whole = min(rows, 1 + conv.height % 2)  # rows of such blocks alone
    blocks = [(x, min(x + at_once, columns)) for x in range(0, columns, at_once)]
    edges = sum(end - x for x, end in blocks if x == 0 or 2 * end > conv.width)
    return whole * columns + (rows - whole) * edges


def _gathered(conv: stem_conv.Dims, at_once: int, last: bool) -> tuple[int, ...]:
    """The counts of one convolution."""
    taps, edge = stem_conv.TAPS * conv.channels, _edge_pixels(conv, at_once)
    together = conv.pixels - edge
    raised = 0 if last else conv.pixels * conv.out_channels
    kept = (conv.rows - 1) * conv.width * conv.channels
    blocks = conv.rows * -(-conv.columns // at_once)
    odd = conv.pixels * (conv.channels % 2)
    return 0, conv.rows, blocks, together, together * taps, odd, edge, edge * taps, raised, kept


def work(d: Dims) -> list[Work]:
    found, counts = [], [1, *[0] * (len(_COUNTS) - 1)]
    for i, conv in enumerate(d.convs):
        last = i + 1 == len(d.outputs)
        at_once = stem_block.at_once(d.pixels_at_once, conv.columns)
        for count, turns in streamed.token_counts(conv.columns, at_once):
            fully_connected = conv.fully_connected._replace(tokens=count)
            for one in in_place_fc.work(fully_connected, turns * conv.rows):
                blocks = 0 if d.packing == PAIRS else one.counts[1]  # of pairs, they are among the stem's own counts
                found.append(Work(one.kernel, (0, blocks, *one.counts[2:])))  # no calls
        counts = [a + b for a, b in zip(counts, _gathered(conv, at_once, last), strict=True)]
    for _, block in d.blocks:
        found += stem_block.work(block, d.pixels_at_once)
    row_of_tokens = d.convs[-1].columns * d.outputs[-1]
    grows = row_of_tokens > (d.width * d.channels) << len(d.outputs)
    prefix = decomposed_patch_embed.prefix_work(
        d.prefix, d.outputs[-1], 0 if d.strip_rows or grows else d.convs[-1].pixels
    )
    if not d.strip_rows:  # an image that moves up, rows of it that one convolution alone reads from a copy
        counts[-1] += input_elements(d) * (grows + (len(d.outputs) == 1))
    return [*found, Work("streamed_stem", tuple(counts)), *prefix]


def call(op, c: c_call.Context) -> c_call.Call:
    image, position, position_scale, prefix, *convs = op.inputs
    options = op.options
    _, height, width, channels = c.shape(image)
    fields = {
        "image_height": height, "image_width": width, "channels": channels, "pad_value": options.pad_value,
        "pixels_at_once": options.pixels_at_once, "packing": options.packing, "conv_count": len(options.zero_points),
        "convs": [
            {
                "out_channels": c.shape(bias)[0], "zero_point": zero_point, "weights": c.tensor(weights),
                "bias": c.tensor(bias), "multiplier": c.tensor(multiplier),
            }
            for zero_point, weights, bias, multiplier in zip(
                options.zero_points, convs[::3], convs[1::3], convs[2::3], strict=False
            )
        ],
        "position": c.tensor(position), "position_scale": c.tensor(position_scale), **c_call.prefix(c, prefix),
    }  # fmt: skip
    output = c.address(op.output)
    if not options.strip_rows:
        return c_call.call("streamed_stem", fields, c.address(image), output, c.scratch)
    args = (c_call.PARAMS, c.rows_fn, c.user, output, c.scratch)
    return c_call.Call("mcuf_streamed_stem_strips_s8", ("mcuf_streamed_stem_params", fields), args)


def reference(
    options: Options,
    image: np.ndarray,
    position: np.ndarray | None,
    position_scale: np.ndarray | None,
    prefix: np.ndarray | None,
    *layers: np.ndarray | None,
) -> np.ndarray:
    """image int8 [batch, H, W, C] -> int8 [batch, prefix tokens + tokens, d]. layers: weights as packed, bias and
    multiplier of each convolution; then constants of each block, as stem_block.Constants."""
    x, pad, last = image, options.pad_value, len(options.zero_points) - 1
    for i, zero_point in enumerate(options.zero_points):
        weights, bias, multiplier = layers[3 * i : 3 * i + 3]
        assert weights is not None and bias is not None and multiplier is not None
        each = stem_conv.Options(zero_point, pad, -128 if i == last else zero_point, options.packing)
        made = stem_conv.reference(
            each, x, weights, bias, multiplier, *((position, position_scale, prefix) if i == last else ())
        )
        batch, height, width, _ = x.shape
        x = made if i == last else made.reshape(batch, (height + 1) // 2, (width + 1) // 2, len(bias))
        pad = zero_point
        block = block_of(layers, i)
        if block is not None:
            zero_points = stem_block.ZeroPoints(*options.block_zero_points[i])
            x, pad = stem_block.reference(zero_points, options.packing, x, block), zero_points.output
    return x


def block_of(layers: Sequence[Any], i: int) -> stem_block.Constants | None:
    """The constants of the block behind convolution i, or None. layers: inputs from the first convolution on."""
    first = FIRST_BLOCK - FIRST_CONV + len(stem_block.TYPES) * i
    constants = layers[first : first + len(stem_block.TYPES)]
    return None if not constants or constants[0] is None else stem_block.Constants(*constants)


def output_shape(options: Options, shapes: Shapes) -> tuple[int, ...]:
    d = dims(options, shapes)
    last = d.convs[-1]
    return (1, d.prefix + last.pixels, last.out_channels)
