# SPDX-License-Identifier: Apache-2.0
import ctypes

import core_calls
import numpy as np
import pytest
import random_values as rv

from mcuformer import kernel_library
from mcuformer.converter.ops import stem_block, stem_conv, streamed_stem
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS, pack

SHAPES = (  # height, width, channels of the image; convolutions
    (1, 1, 1, 1), (1, 9, 3, 1), (2, 2, 1, 1), (9, 1, 2, 2), (8, 8, 1, 3), (4, 4, 3, 2), (3, 5, 1, 2), (7, 6, 3, 3),
    (33, 17, 1, 3), (16, 31, 3, 4), (5, 40, 2, 2), (1, 1, 1, 8), (130, 3, 1, 6),
)  # fmt: skip
BLOCK_SHAPES = (
    *(shape for shape in SHAPES if shape[3] > 1),
    (9, 80, 1, 2),
    (6, 7, 1, 3),
    (12, 12, 2, 3),
    (11, 3, 1, 4),
    (10, 14, 1, 2),
)


def random_case(seed: int) -> dict:
    """Arguments of core_calls.streamed_stem but how it runs."""
    rng = np.random.default_rng(seed)
    if seed < len(SHAPES):
        return shaped_case(rng, *SHAPES[seed])
    count, channels = int(rng.integers(1, 5)), int(rng.choice([1, 2, 3, 8]))
    height, width = (int(rng.integers(1, 40)) for _ in range(2))
    return shaped_case(rng, height, width, channels, count)


def shaped_case(rng, height: int, width: int, channels: int, count: int) -> dict:
    convs, inputs = [], channels
    for _ in range(count):
        out = int(rng.choice([1, 2, 3, 7, 16, 33]))
        bias, multiplier = rv.requantisation(rng, out, 9 * inputs)
        convs.append((rv.zero_point(rng), rv.weights(rng, out, 3, 3, inputs), bias, multiplier))
        inputs = out
    tokens = -(-height // 2**count) * -(-width // 2**count)
    positions = rng.random() < 0.7
    prefix_tokens = int(rng.choice([0, 0, 1, 5, 60]))
    return {
        "image": rv.int8(rng, height, width, channels), "convs": convs, "pad_value": rv.zero_point(rng),
        "position": rv.int8(rng, 1, tokens, inputs) if positions else None,
        "position_scale": rng.integers(1, 32768, inputs).astype(np.int16) if positions else None,
        "prefix": rv.int8(rng, prefix_tokens, inputs) if prefix_tokens else None,
    }  # fmt: skip


def random_blocks(rng, convs: list, where: int) -> list:
    """Blocks behind convolutions, `where` their bits; the first one if no bit is set."""
    blocks: list = []
    for i, (_, _, bias, _) in enumerate(convs[:-1]):
        channels, hidden = len(bias), int(rng.choice([1, 2, 3, 4, 5, 17, 32, 33, 66]))
        if not (where >> i & 1 or (where == 0 and i == 0)):
            blocks.append(None)
            continue
        zero_points = stem_block.ZeroPoints(*(rv.zero_point(rng) for _ in range(3)))
        constants = stem_block.Constants(
            rv.weights(rng, hidden, channels), *rv.requantisation(rng, hidden, channels),
            rv.weights(rng, 9, hidden), *rv.requantisation(rng, hidden, 9),
            rv.weights(rng, channels, hidden), *rv.requantisation(rng, channels, hidden),
            rng.integers(0, 32768, channels).astype(np.int16),
        )  # fmt: skip
        blocks.append((zero_points, constants))
    return blocks


def block_case(seed: int) -> dict:
    """A random_case of two convolutions or more with blocks between some of them."""
    rng = np.random.default_rng([seed, 1])
    case = random_case(seed + 1000)
    while len(case["convs"]) < 2:
        seed += 10000
        case = random_case(seed)
    if seed < len(BLOCK_SHAPES):
        case |= shaped_case(rng, *BLOCK_SHAPES[seed])
    return case | {"blocks": random_blocks(rng, case["convs"], int(rng.integers(1 << (len(case["convs"]) - 1))))}


def reference(image, convs, pad_value, position, position_scale, prefix, packing=ROWS, blocks=()):
    zero_points = tuple((0, 0, 0) if block is None else tuple(block[0]) for block in blocks)
    options = streamed_stem.Options(
        4, pad_value, tuple(conv[0] for conv in convs), packing, block_zero_points=zero_points
    )
    constants = [
        value
        for _, weights, bias, multiplier in convs
        for value in (pack(weights.reshape(len(weights), -1), packing), bias, multiplier)
    ]
    constants += [None] * (streamed_stem.FIRST_BLOCK - streamed_stem.FIRST_CONV - len(constants))
    for block in blocks:
        if block is None:
            constants += [None] * len(stem_block.TYPES)
            continue
        packed = {name: pack(getattr(block[1], name), packing) for name in ("expand_weights", "project_weights")}
        constants += block[1]._replace(**packed)
    return streamed_stem.reference(options, image[None], position, position_scale, prefix, *constants)[0]


@pytest.mark.parametrize("seed", range(80))
@pytest.mark.parametrize("case_of", [random_case, block_case])
def test_core_equals_reference_in_every_way(case_of, seed):
    case = case_of(seed)
    want = reference(**case)
    for packing in (ROWS, PAIRS):
        np.testing.assert_array_equal(reference(**case, packing=packing), want)
        for alias, strips in ((None, False), ("input", False), (None, True)):
            for pixels_at_once in (1, 2, 3, 4):
                how = dict(packing=packing, alias=alias, strips=strips, pixels_at_once=pixels_at_once)
                np.testing.assert_array_equal(core_calls.streamed_stem(**case, **how), want, err_msg=str(how))


@pytest.mark.parametrize("seed", range(0, 80, 7))
def test_reference_is_stem_conv_after_stem_conv(seed):
    """By the C kernel of StemConv, which knows nothing of rows."""
    case = random_case(seed)
    x, pad = case["image"], case["pad_value"]
    for i, (zero_point, weights, bias, multiplier) in enumerate(case["convs"]):
        last = i + 1 == len(case["convs"])
        table = {name: case[name] for name in ("position", "position_scale", "prefix")} if last else {}
        act_min = -128 if last else zero_point
        made = core_calls.stem_conv(x, weights, bias, multiplier, zero_point, pad, act_min, **table)
        height, width, _ = x.shape
        x, pad = (made if last else made.reshape((height + 1) // 2, (width + 1) // 2, -1)), zero_point
    np.testing.assert_array_equal(x, reference(**case))


def test_scratch_is_three_rows_of_each_level_and_what_dead_rows_do_not_hold():
    """96x96x3 in strips: levels of 48x48x32, 24x24x48, 12x12x64."""
    rows = [96 * 3, 48 * 32, 24 * 48, 12 * 64]
    in_channels = (ctypes.c_int32 * 4)(3, 32, 48, 64)
    for pixels, block in ((4, 4 * 288 * 2 - 2 * rows[0]), (2, 2 * 288 * 2 - 2 * rows[0]), (1, 28 * 2)):
        scratch = kernel_library.scratch_bytes("streamed_stem", in_channels, None, 4, 96, 96, pixels, 1)
        assert scratch == 3 * sum(rows) + block
    whole = kernel_library.scratch_bytes("streamed_stem", in_channels, None, 4, 96, 96, 4, 0)
    assert whole == 3 * sum(rows) - 2 * rows[0] + 4 * 288 * 2
    alone = (ctypes.c_int32 * 1)(3)
    # One pair, so no row is kept; but it is copied from the image that the tokens of this very pair overwrite.
    assert kernel_library.scratch_bytes("streamed_stem", alone, None, 1, 2, 8, 4, 0) == 4 * 28 * 2 + 2 * 8 * 3


def test_scratch_of_a_block_is_three_rows_of_hidden_channels_and_one_that_waits():
    """32x32x1 with 24, 48 and 64 outputs, a block of 192 channels on 8x8x48."""
    rows = [32, 16 * 24, 8 * 48]
    in_channels, hidden = (ctypes.c_int32 * 3)(1, 24, 48), (ctypes.c_int32 * 2)(0, 192)
    for pixels in (1, 4):
        scratch = kernel_library.scratch_bytes("streamed_stem", in_channels, hidden, 3, 32, 32, pixels, 0)
        first = pixels * 10 * 2  # nothing lies below the first convolution's taps
        second = pixels * 216 * 2
        third = pixels * 432 * 2 - 2 * rows[1]  # beside a dead pair
        assert scratch == max(first, second, third) + 3 * sum(rows) + 3 * 8 * 192 + rows[2] - 2 * rows[0]
    none = (ctypes.c_int32 * 2)(0, 0)
    without = kernel_library.scratch_bytes("streamed_stem", in_channels, None, 3, 32, 32, 4, 0)
    assert kernel_library.scratch_bytes("streamed_stem", in_channels, none, 3, 32, 32, 4, 0) == without
    few = (ctypes.c_int32 * 2)(1, 24), (ctypes.c_int32 * 1)(96)
    for height, held in ((1, 1), (3, 2), (5, 3)):  # a level of one row, of two, of three
        with_block, plain = (
            kernel_library.scratch_bytes("streamed_stem", few[0], hidden, 2, height, 8, 1, 0)
            for hidden in (few[1], None)
        )
        assert with_block - plain == held * 4 * 96 + (4 * 24 if held == 3 else 0)


def test_counts_of_work_are_the_pixels():
    """By a count of what the kernel gathers."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        d = streamed_stem.Dims(
            int(rng.integers(1, 30)), int(rng.integers(1, 30)), 1, (3,), pixels_at_once=int(rng.integers(1, 5))
        )
        (conv,) = d.convs
        edge, at_once = 0, min(d.pixels_at_once, conv.columns)
        at_once = 2 if at_once == 3 else at_once
        for row in range(conv.rows):
            for x in range(0, conv.columns, at_once):
                count = min(at_once, conv.columns - x)
                inside = x > 0 and 2 * (x + count - 1) + 1 < d.width and row > 0 and 2 * row + 1 < d.height
                edge += 0 if inside else count
        work = next(one for one in streamed_stem.work(d) if one.kernel == "streamed_stem")
        counts = dict(zip(streamed_stem.KERNELS["streamed_stem"], work.counts, strict=True))
        assert (counts["edge"], counts["pixel"]) == (edge, conv.pixels - edge)


def params_of(keep, **change):
    """Of a stem of two convolutions for 8x8x1, with these fields."""
    zeros = np.zeros(1 << 15, np.int32)  # as many as any number of outputs that is refused later
    convs = [(0, np.zeros((4, 3, 3, inputs), np.int8), zeros, zeros) for inputs in (1, 4)]
    params = core_calls.streamed_stem_params(keep, (8, 8, 1), convs, 0)
    params.convs[0].out_channels = params.convs[1].out_channels = 4
    for name, value in change.items():
        target, _, field = name.rpartition("__")
        setattr(params.convs[int(target)] if target else params, field, value)
    return params


def params_with_block(keep, **change):
    """The same with a block of 5 hidden channels, with these fields of it."""
    params, zeros = params_of(keep), np.zeros(1 << 13, np.int32)
    weights = np.zeros(1 << 14, np.int8)
    keep += [weights, zeros]
    block = core_calls.StemBlock(hidden=5, zero_point=-3)
    for name in stem_block.TYPES:
        setattr(block, name, core_calls.pointer(weights if name.endswith("weights") else zeros))
    for name, value in change.items():
        setattr(params if name == "block_kernels" else block, name, value)
    keep.append(block)
    params.blocks = ctypes.addressof(block)
    if "block_kernels" not in change:
        params.block_kernels = kernel_library.address_of("mcuf_stem_blocks")
    return params


def number(value):
    """The address of an int32 of this value, 16 times."""
    NUMBERS.append(np.full(16, value, np.int32))
    return core_calls.pointer(NUMBERS[-1])


NUMBERS: list = []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, core_calls.OK),
        ({"block_kernels": None}, core_calls.NULL),
        ({"hidden": 0, "expand_weights": None, "zero_point": 999}, core_calls.OK),  # no block
        ({"hidden": -1}, core_calls.SIZE),
        ({"hidden": 1025}, core_calls.SIZE),
        ({"hidden": 1024}, core_calls.OK),
        *[({name: None}, core_calls.NULL) for name in stem_block.TYPES],
        ({"expand_zero_point": 128}, core_calls.VALUE),
        ({"depthwise_zero_point": -129}, core_calls.VALUE),
        ({"zero_point": 1 << 30}, core_calls.VALUE),
        ({"depthwise_weights": number(-128)}, core_calls.VALUE),
        *[({f"{layer}_bias": number((1 << 30) + 1)}, core_calls.VALUE) for layer in ("expand", "depthwise", "project")],
        *[({f"{layer}_multiplier": number(-1)}, core_calls.VALUE) for layer in ("expand", "depthwise", "project")],
    ],
)
def test_check_refuses_blocks(change, status):
    keep: list = []
    assert core_calls.check("mcuf_streamed_stem_s8", params_with_block(keep, **change)) == status


@pytest.mark.parametrize("name", ["expand_weights", "project_weights"])
def test_check_refuses_pairs_of_a_block_that_are_not_aligned(name):
    keep: list = []
    params = params_with_block(keep)
    params.packing = PAIRS
    for conv in params.convs[:2]:
        conv.weights = keep[-3].ctypes.data & ~3
    assert core_calls.check("mcuf_streamed_stem_s8", params) == core_calls.OK
    setattr(keep[-1], name, (keep[-3].ctypes.data & ~3) + 5)
    assert core_calls.check("mcuf_streamed_stem_s8", params) == core_calls.VALUE


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, core_calls.OK),
        ({"conv_count": 0}, core_calls.SIZE),
        ({"conv_count": 9}, core_calls.SIZE),
        ({"conv_count": -1}, core_calls.SIZE),
        ({"pixels_at_once": 0}, core_calls.SIZE),
        ({"pixels_at_once": 5}, core_calls.SIZE),
        ({"image_height": 0}, core_calls.SIZE),
        ({"image_width": 4097}, core_calls.SIZE),
        ({"image_height": 4096, "image_width": 4096}, core_calls.SIZE),  # too many tokens
        ({"channels": 0}, core_calls.SIZE),
        ({"channels": 1025}, core_calls.SIZE),
        ({"0__out_channels": 1025}, core_calls.SIZE),
        ({"1__out_channels": 0}, core_calls.SIZE),
        ({"1__out_channels": 16385}, core_calls.SIZE),
        ({"pad_value": 128}, core_calls.VALUE),
        ({"0__zero_point": -129}, core_calls.VALUE),
        ({"1__zero_point": 128}, core_calls.VALUE),
        ({"packing": 2}, core_calls.VALUE),
        ({"0__weights": None}, core_calls.NULL),
        ({"1__bias": None}, core_calls.NULL),
        ({"1__multiplier": None}, core_calls.NULL),
        ({"position": 8}, core_calls.NULL),  # without its scale
        ({"prefix_tokens": 1}, core_calls.NULL),
        ({"prefix_tokens": -1}, core_calls.SIZE),
        ({"prefix_tokens": 16381, "prefix": 8}, core_calls.SIZE),
        ({"prefix_tokens": 16380, "prefix": 8}, core_calls.OK),
    ],
)
def test_check_refuses(change, status):
    keep: list = []
    assert core_calls.check("mcuf_streamed_stem_s8", params_of(keep, **change)) == status


@pytest.mark.parametrize("fails_at", [0, 2, 6])
def test_a_source_that_fails_ends_the_run(fails_at):
    keep: list = []
    params = params_of(keep)
    output, scratch = core_calls.Buffer(16), core_calls.Buffer(1 << 12)
    run = kernel_library.load().mcuf_streamed_stem_strips_s8
    buffers = (None, ctypes.c_void_p(output.address), ctypes.c_void_p(scratch.address))
    asked: list[int] = []

    def rows(_user, first, count, _target):
        asked.append(first)
        return count - (first == fails_at)

    assert run(ctypes.byref(params), kernel_library.IMAGE_ROWS(rows), *buffers) == core_calls.SOURCE
    assert asked == list(range(0, fails_at + 1, 2))
    assert run(ctypes.byref(params), None, *buffers) == core_calls.SOURCE


def test_output_shape_and_dims():
    d = streamed_stem.Dims(9, 6, 3, (4, 5), position_bytes=1, prefix=2)
    assert [(conv.rows, conv.columns, conv.channels, conv.out_channels) for conv in d.convs] == [
        (5, 3, 3, 4), (3, 2, 4, 5),
    ]  # fmt: skip
    assert streamed_stem.macs(d) == 15 * 27 * 4 + 6 * 36 * 5 == sum(map(stem_conv.macs, d.convs))
    shapes = [(1, 9, 6, 3), (1, 6, 5), (5,), (2, 5), (4, 27), (4,), (4,), (5, 36), (5,), (5,)]
    options = streamed_stem.Options(4, 0, (1, 2))
    assert streamed_stem.dims(options, shapes) == d
    assert streamed_stem.output_shape(options, shapes) == (1, 8, 5)
    in_strips = streamed_stem.strip_options(options, d)
    assert streamed_stem.dims(in_strips, shapes) == streamed_stem.in_strips(d)
    with pytest.raises(ValueError, match="options of an image of"):
        streamed_stem.dims(in_strips, [(1, 9, 7, 3), *shapes[1:]])
