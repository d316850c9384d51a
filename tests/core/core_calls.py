# SPDX-License-Identifier: Apache-2.0
"""Calls the C kernels through ctypes: one function an op, numpy in, numpy out.

`alias` names what the output overwrites: None (a buffer of its own) or an input's name.
"""

from __future__ import annotations

import ctypes
import re

import numpy as np

from mcuformer import kernel_library, sources
from mcuformer.converter.ops import stem_block
from mcuformer.converter.ops.packed_weights import ROWS, pack

OK, NULL, SIZE, VALUE, OVERLAP, SOURCE = range(6)
GUARD = 64  # bytes after every buffer that must stay as they are


def struct(name: str, *fields: str) -> type[ctypes.Structure]:
    """A params struct of a C kernel. Fields: "name" is int32, "name:q" int64, "*name" a pointer."""
    types = []
    for field in fields:
        if field.startswith("*"):
            types.append((field[1:], ctypes.c_void_p))
        elif field.endswith(":q"):
            types.append((field[:-2], ctypes.c_int64))
        else:
            types.append((field, ctypes.c_int32))
    return type(name, (ctypes.Structure,), {"_fields_": types})


FcParams = struct(
    "FcParams", "tokens", "in_features", "in_stride", "out_features", "zero_point", "packing", "*weights", "*bias",
    "*multiplier", "*gelu_table", "*residual_scale", "*source", "tile_bytes", "weights_offset", "tokens_per_read",
)  # fmt: skip
LayerNormParams = struct(
    "LayerNormParams", "tokens", "features", "zero_point", "epsilon:q", "*gamma", "*beta", "*factor"
)
RELATIVE = ("rows", "columns", "*relative_params", "*relative_bias", "*relative_keys", "*relative_values",
            "*relative_kernels")  # fmt: skip
AttentionParams = struct(
    "AttentionParams", "tokens", "num_heads", "kv_heads", "head_dim", "in_stride", "out_stride", "zero_point",
    "*head_params", *RELATIVE,
)  # fmt: skip
TokenMeanParams = struct(
    "TokenMeanParams", "tokens", "features", "in_zero_point", "zero_point", "multiplier", "first_token", "token_count",
    "second_token", "second_count", "second_multiplier",
)  # fmt: skip
PatchEmbedParams = struct(
    "PatchEmbedParams", "image_height", "image_width", "channels", "patch_height", "patch_width", "embed_dim",
    "zero_point", "packing", "*weights", "*bias", "*multiplier", "*position", "*position_scale", "*source",
    "tile_bytes", "weights_offset", "blocks_per_read", "prefix_tokens", "*prefix", "padding",
    "*padded", "*wide", "*wide_prefix",
)  # fmt: skip
StemConvParams = struct(
    "StemConvParams", "height", "width", "in_channels", "out_channels", "pad_value", "zero_point", "act_min",
    "packing", "*weights", "*bias", "*multiplier", "*position", "*position_scale", "prefix_tokens", "*prefix",
)  # fmt: skip

StreamedStemConv = struct("StreamedStemConv", "out_channels", "zero_point", "*weights", "*bias", "*multiplier")
StemBlock = struct(
    "StemBlock", "hidden", "expand_zero_point", "depthwise_zero_point", "zero_point",
    *(f"*{name}" for name in stem_block.TYPES),
)  # fmt: skip


class StreamedStemParams(ctypes.Structure):
    """mcuf_streamed_stem_params."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("image_height", "image_width", "channels", "pad_value", "pixels_at_once",
                                              "packing", "conv_count")),
        ("convs", StreamedStemConv * 8), ("position", ctypes.c_void_p), ("position_scale", ctypes.c_void_p),
        ("prefix_tokens", ctypes.c_int32), ("prefix", ctypes.c_void_p), ("blocks", ctypes.c_void_p),
        ("block_kernels", ctypes.c_void_p),
    ]  # fmt: skip


def limit(header: str, name: str) -> int:
    """The value of a #define of a header of the core."""
    text = (sources.c_kernel_folder() / header).read_text()
    return int(re.search(rf"#define {name} (\d+)\b", text).group(1))


def pointer(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


def filled(kind: type[ctypes.Structure], keep: list, **values) -> ctypes.Structure:
    """A struct of this kind; arrays are made contiguous and kept alive in `keep`."""
    params = kind()
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(value)
            keep.append(value)
            value = pointer(value)
        setattr(params, name, value)
    return params


class Buffer:
    """int8 memory of at least `size` bytes followed by guard bytes."""

    def __init__(self, size: int, content: np.ndarray | None = None):
        self.size = size
        self.memory = np.full(size + GUARD, 0x5A, np.int8)
        if content is not None:
            self.memory[: content.size] = content.reshape(-1)

    @property
    def address(self) -> int:
        return self.memory.ctypes.data

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.memory[: int(np.prod(shape))].reshape(shape).copy()

    def check(self):
        assert (self.memory[self.size :] == 0x5A).all(), "wrote past the end of a buffer"


def call(function: str, params, *buffers: Buffer | None, scratch_bytes: int | None = None) -> int:
    """Checks params with the op's _check (where it has one), runs it, checks all guards; returns the status."""
    library = kernel_library.load()
    scratch = None if scratch_bytes is None else Buffer(scratch_bytes)
    addresses = [ctypes.c_void_p(b.address if b else None) for b in buffers]
    if scratch is not None:
        addresses.append(ctypes.c_void_p(scratch.address))
    status = getattr(library, function)(ctypes.byref(params), *addresses)
    for buffer in (*buffers, scratch):
        if buffer is not None:
            buffer.check()
    return status


def check(function: str, params, *more: int) -> int:
    return getattr(kernel_library.load(), function + "_check")(ctypes.byref(params), *more)


def place(inputs: dict[str, np.ndarray], out_bytes: int, alias: str | None) -> tuple[dict[str, Buffer], Buffer]:
    """Buffers of the inputs and of the output, which is the aliased input's, made large enough for both."""
    buffers = {
        name: Buffer(max(value.size, out_bytes if name == alias else 0), value) for name, value in inputs.items()
    }
    return buffers, buffers[alias] if alias else Buffer(out_bytes)


class WeightSource(ctypes.Structure):
    """mcuf_weight_source: staged weights from memory, behind a few bytes that belong to nobody."""

    _fields_ = [("read", kernel_library.WEIGHTS), ("user", ctypes.c_void_p)]
    OFFSET = 48

    def __init__(self, weights: np.ndarray, fails_after: int = 1 << 30):
        content = np.concatenate([np.full(self.OFFSET, 77, np.int8), weights.reshape(-1)])
        self.bytes, self.reads = 0, 0

        def read(_user, offset, count, target):
            piece = content[offset : offset + count]
            assert len(piece) == count and offset >= self.OFFSET, "read outside the weights"
            ctypes.memmove(target, piece.ctypes.data, count)
            self.bytes, self.reads = self.bytes + count, self.reads + 1
            return count if self.reads <= fails_after else count - 1

        super().__init__(kernel_library.WEIGHTS(read), None)

    def fields(self, tile_bytes: int) -> dict:
        """Of a params struct whose weights are staged."""
        return {"weights": None, "source": ctypes.addressof(self), "tile_bytes": tile_bytes,
                "weights_offset": self.OFFSET}  # fmt: skip


def in_place_fc(x, weights, bias, multiplier, zero_point, gelu_table=None, residual=None, residual_scale=None,
                alias=None, staged=None, packing=ROWS):  # fmt: skip
    """weights int8 [out, in], packed here. staged: (tile_bytes, tokens_per_read); the weights then come through a
    callback, and what it read is checked."""
    tokens, stride = x.shape
    out, features = weights.shape
    weights = pack(weights, packing)
    keep: list = []
    params = filled(
        FcParams, keep, tokens=tokens, in_features=features, in_stride=stride, out_features=out, zero_point=zero_point,
        packing=packing, weights=weights, bias=bias, multiplier=multiplier, gelu_table=gelu_table,
        residual_scale=residual_scale,
    )  # fmt: skip
    tile, tokens_per_read = staged or (0, 0)
    source = WeightSource(weights)
    if staged:
        for name, value in (source.fields(tile) | {"tokens_per_read": tokens_per_read}).items():
            setattr(params, name, value)
    assert check("mcuf_in_place_fc_s8", params, residual is not None) == OK
    inputs = {"input": x} if residual is None else {"input": x, "residual": residual}
    buffers, output = place(inputs, tokens * out, alias)
    scratch = kernel_library.scratch_bytes("in_place_fc", features, tile, tokens_per_read)
    status = call("mcuf_in_place_fc_s8", params, buffers["input"], buffers.get("residual"), output,
                  scratch_bytes=scratch)  # fmt: skip
    assert status == OK
    assert source.bytes == (-(-tokens // tokens_per_read) * weights.size if staged else 0)
    return output.values((tokens, out))


def int_gelu(table, x, alias=None):
    buffers, output = place({"input": x}, x.size, alias)
    library = kernel_library.load()
    status = library.mcuf_int_gelu_s8(
        ctypes.c_void_p(pointer(table)), ctypes.c_void_p(buffers["input"].address), ctypes.c_void_p(output.address),
        x.size,
    )  # fmt: skip
    output.check()
    assert status == OK
    return output.values(x.shape)


def int_layer_norm(x, gamma, beta, factor, zero_point, epsilon, alias=None):
    keep: list = []
    params = filled(
        LayerNormParams, keep, tokens=len(x), features=x.shape[1], zero_point=zero_point, epsilon=epsilon, gamma=gamma,
        beta=beta, factor=factor,
    )  # fmt: skip
    assert check("mcuf_int_layer_norm_s8", params) == OK
    buffers, output = place({"input": x}, x.size, alias)
    assert call("mcuf_int_layer_norm_s8", params, buffers["input"], output) == OK
    return output.values(x.shape)


def int_attention(qkv, head_params, kv_heads, head_dim, zero_point, dense=False, alias=None, grid=(0, 0), **relative):
    """relative: the constants of relative positions in this grid, relative_params and the others."""
    tokens, stride = qkv.shape
    heads = len(head_params)
    out_stride = heads * head_dim if dense else stride
    if relative:
        relative["relative_kernels"] = kernel_library.address_of("mcuf_relative")
    keep: list = []
    params = filled(
        AttentionParams, keep, tokens=tokens, num_heads=heads, kv_heads=kv_heads, head_dim=head_dim, in_stride=stride,
        out_stride=out_stride, zero_point=zero_point, head_params=head_params, rows=grid[0],
        columns=grid[1], **relative,
    )  # fmt: skip
    assert check("mcuf_int_attention_s8", params) == OK
    buffers, output = place({"input": qkv}, tokens * out_stride, alias)
    scratch = kernel_library.scratch_bytes("int_attention", tokens, head_dim, len(relative.get("relative_keys", ())))
    assert call("mcuf_int_attention_s8", params, buffers["input"], output, scratch_bytes=scratch) == OK
    return output.values((tokens, out_stride))[:, : heads * head_dim]


def token_mean(x, options, alias=None):
    """options: token_mean.Options."""
    params = filled(TokenMeanParams, [], tokens=len(x), features=x.shape[1], **vars(options))
    assert check("mcuf_token_mean_s8", params) == OK
    width = x.shape[1] * (2 if options.second_count else 1)
    buffers, output = place({"input": x}, width, alias)
    assert call("mcuf_token_mean_s8", params, buffers["input"], output) == OK
    return output.values((width,))


def _patch_embed_params(keep, image, patch, zero_point, weights, bias, multiplier, position, position_scale, prefix,
                        staged, packing, padding):  # fmt: skip
    """Checked params, and the number of tokens with those of the prefix. patch: (height, width); staged: (tile_bytes,
    blocks_per_read) or None; weights are packed here."""
    height, width, channels = image.shape
    weights = pack(weights, packing)
    prefix_tokens = 0 if prefix is None else len(prefix)
    params = filled(
        PatchEmbedParams, keep, image_height=height, image_width=width, channels=channels, patch_height=patch[0],
        patch_width=patch[1], embed_dim=len(bias), zero_point=zero_point, packing=packing, weights=weights, bias=bias,
        multiplier=multiplier, position=position, position_scale=position_scale, blocks_per_read=1,
        prefix_tokens=prefix_tokens, prefix=prefix, padding=padding,
        padded=kernel_library.address_of("mcuf_padded_patches") if padding else None,
    )  # fmt: skip
    if staged:
        keep.append(WeightSource(weights))
        for name, value in (keep[-1].fields(staged[0]) | {"blocks_per_read": staged[1]}).items():
            setattr(params, name, value)
    assert check("mcuf_decomposed_patch_embed_s8", params) == OK
    tokens = (height + 2 * padding) // patch[0] * ((width + 2 * padding) // patch[1])
    return params, prefix_tokens + tokens


def decomposed_patch_embed(image, patch, zero_point, weights, bias, multiplier, position, position_scale, prefix=None,
                           alias=None, staged=None, packing=ROWS, padding=0):  # fmt: skip
    keep: list = []
    constants = (weights, bias, multiplier, position, position_scale, prefix)
    params, tokens = _patch_embed_params(keep, image, patch, zero_point, *constants, staged, packing, padding)
    _, width, channels = image.shape
    tile, blocks_per_read = staged or (0, 1)
    buffers, output = place({"input": image}, tokens * len(bias), alias)
    scratch = kernel_library.scratch_bytes(
        "decomposed_patch_embed", width, channels, patch[1], len(bias), blocks_per_read, tile, padding
    )  # fmt: skip
    assert call("mcuf_decomposed_patch_embed_s8", params, buffers["input"], output, scratch_bytes=scratch) == OK
    return output.values((tokens, len(bias)))


def stem_conv(x, weights, bias, multiplier, zero_point, pad_value, act_min, position=None, position_scale=None,
              prefix=None, packing=ROWS):  # fmt: skip
    """weights int8 [out, 3, 3, in], packed here."""
    height, width, channels = x.shape
    keep: list = []
    prefix_tokens = 0 if prefix is None else len(prefix)
    params = filled(
        StemConvParams, keep, height=height, width=width, in_channels=channels, out_channels=len(weights),
        pad_value=pad_value, zero_point=zero_point, act_min=act_min, packing=packing,
        weights=pack(weights.reshape(len(weights), -1), packing), bias=bias, multiplier=multiplier, position=position,
        position_scale=position_scale, prefix_tokens=prefix_tokens, prefix=prefix,
    )  # fmt: skip
    assert check("mcuf_stem_conv_s8", params) == OK
    tokens = prefix_tokens + ((height + 1) // 2) * ((width + 1) // 2)
    buffers, output = place({"input": x}, tokens * len(weights), None)
    scratch = kernel_library.scratch_bytes("stem_conv", channels)
    assert call("mcuf_stem_conv_s8", params, buffers["input"], output, scratch_bytes=scratch) == OK
    return output.values((tokens, len(weights)))


def decomposed_patch_embed_strips(image, patch, zero_point, weights, bias, multiplier, position, position_scale, prefix,
                                  strip_rows, staged=None, packing=ROWS, padding=0):  # fmt: skip
    """The same with the image through a callback; also checks that every row comes once, in order, and at most
    strip_rows at a time."""
    keep: list = []
    constants = (weights, bias, multiplier, position, position_scale, prefix)
    params, tokens = _patch_embed_params(keep, image, patch, zero_point, *constants, staged, packing, padding)
    assert check("mcuf_decomposed_patch_embed_strips_s8", params, strip_rows) == OK
    tile, blocks_per_read = staged or (0, 1)
    height, width, channels = image.shape
    d = len(bias)
    asked: list[int] = []

    def rows(_user, first, count, target):
        assert count <= strip_rows
        strip = np.ascontiguousarray(image[first : first + count])
        asked.extend(range(first, first + count))
        ctypes.memmove(target, strip.ctypes.data, strip.nbytes)
        return count

    output = Buffer(tokens * d)
    scratch = Buffer(
        kernel_library.scratch_bytes(
            "decomposed_patch_embed_strips", width, channels, *patch, d, blocks_per_read, tile, strip_rows, padding
        )
    )
    status = kernel_library.load().mcuf_decomposed_patch_embed_strips_s8(
        ctypes.byref(params), strip_rows, kernel_library.IMAGE_ROWS(rows), None, ctypes.c_void_p(output.address),
        ctypes.c_void_p(scratch.address),
    )  # fmt: skip
    output.check()
    scratch.check()
    assert status == OK
    read = (height + 2 * padding) // patch[0] * patch[0] - padding
    assert asked == list(range(min(height, read)))
    return output.values((tokens, d))


def streamed_stem_params(keep, image_shape, convs, pad_value, position=None, position_scale=None, prefix=None,
                         pixels_at_once=4, packing=ROWS, blocks=()):  # fmt: skip
    """convs: (zero_point, weights int8 [out, 3, 3, in], bias, multiplier) of each; blocks: (zero points, constants) of
    each convolution but the last, None without one, empty without any. Weights are packed here."""
    height, width, channels = image_shape
    params = filled(
        StreamedStemParams, keep, image_height=height, image_width=width, channels=channels, pad_value=pad_value,
        pixels_at_once=pixels_at_once, packing=packing, conv_count=len(convs), position=position,
        position_scale=position_scale, prefix_tokens=0 if prefix is None else len(prefix), prefix=prefix,
    )  # fmt: skip
    for i, (zero_point, weights, bias, multiplier) in enumerate(convs):
        packed = pack(weights.reshape(len(weights), -1), packing)
        params.convs[i] = filled(
            StreamedStemConv, keep, out_channels=len(bias), zero_point=zero_point, weights=packed, bias=bias,
            multiplier=multiplier,
        )  # fmt: skip
    if blocks:
        array = (StemBlock * len(blocks))(*(stem_block_of(keep, block, packing) for block in blocks))
        keep.append(array)
        params.blocks, params.block_kernels = ctypes.addressof(array), kernel_library.address_of("mcuf_stem_blocks")
    return params


def stem_block_of(keep, block, packing):
    """A mcuf_stem_block. block: (stem_block.ZeroPoints, stem_block.Constants in rows), or None."""
    if block is None:
        return StemBlock()
    (expanded, depthwise, output), constants = block
    packed = {
        name: pack(getattr(constants, name), packing) for name in ("expand_weights", "project_weights")
    }  # fmt: skip
    return filled(
        StemBlock, keep, hidden=len(constants.expand_bias), expand_zero_point=expanded, depthwise_zero_point=depthwise,
        zero_point=output, **constants._replace(**packed)._asdict(),
    )  # fmt: skip


def streamed_stem(image, convs, pad_value, alias=None, strips=False, **more):
    """strips: also checks that every row comes once, in order, two at a time. more: as of streamed_stem_params."""
    keep: list = []
    params = streamed_stem_params(keep, image.shape, convs, pad_value, **more)
    assert check("mcuf_streamed_stem_s8", params) == OK
    height, width, _ = image.shape
    tokens = params.prefix_tokens + -(-height // 2 ** len(convs)) * -(-width // 2 ** len(convs))
    d = len(convs[-1][2])
    in_channels = (ctypes.c_int32 * len(convs))(image.shape[2], *(len(conv[2]) for conv in convs[:-1]))
    hidden = None
    if more.get("blocks"):
        counts = [0 if block is None else len(block[1].expand_bias) for block in more["blocks"]]
        hidden = (ctypes.c_int32 * len(counts))(*counts)
    sizes = (in_channels, hidden, len(convs), height, width, params.pixels_at_once, int(strips))
    scratch = kernel_library.scratch_bytes("streamed_stem", *sizes)
    of_params = kernel_library.load().mcuf_streamed_stem_s8_scratch_bytes_of(ctypes.byref(params), int(strips))
    assert scratch == of_params
    if not strips:
        buffers, output = place({"input": image}, tokens * d, alias)
        assert call("mcuf_streamed_stem_s8", params, buffers["input"], output, scratch_bytes=scratch) == OK
        return output.values((tokens, d))
    asked: list[tuple[int, int]] = []

    def rows(_user, first, count, target):
        strip = np.ascontiguousarray(image[first : first + count])
        asked.append((first, count))
        ctypes.memmove(target, strip.ctypes.data, strip.nbytes)
        return count

    output, memory = Buffer(tokens * d), Buffer(scratch)
    status = kernel_library.load().mcuf_streamed_stem_strips_s8(
        ctypes.byref(params), kernel_library.IMAGE_ROWS(rows), None, ctypes.c_void_p(output.address),
        ctypes.c_void_p(memory.address),
    )  # fmt: skip
    output.check()
    memory.check()
    assert status == OK
    assert asked == [(first, min(2, height - first)) for first in range(0, height, 2)]
    return output.values((tokens, d))
