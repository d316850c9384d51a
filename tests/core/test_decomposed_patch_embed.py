# SPDX-License-Identifier: Apache-2.0
import itertools

import core_calls
import numpy as np
import pytest
import random_values as rv

from mcuformer import kernel_library
from mcuformer.converter.ops import decomposed_patch_embed
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS, pack

SIDES = (1, 2, 3, 4, 5, 7, 8, 14, 16)
PATCHES = (
    (1, 40),
    (40, 1),
    (2, 7),
    (7, 2),
    (3, 5),
    (8, 4),
    (16, 16),
    (7, 7),
    (1, 2),
    (2, 1),
    (2, 40),
    (1, 16),
    (17, 1),
)
PREFIXES = (0, 1, 5)


def random_case(rng, patch, grid, prefix_tokens, d=None, padding=0):
    """Arguments of core_calls.decomposed_patch_embed, and the reference's result. The image is up to a patch larger
    than the grid of patches, which padding lets reach over its edges."""
    (height, width), (rows, columns), channels = patch, grid, int(rng.choice([1, 3]))
    d = int(rng.choice(rv.WIDTHS)) if d is None else d
    sides = (rows * height + int(rng.integers(height)), columns * width + int(rng.integers(width)))
    sides = tuple(max(side - 2 * padding, patch_side) for side, patch_side in zip(sides, patch, strict=True))
    rows, columns = ((side + 2 * padding) // patch_side for side, patch_side in zip(sides, patch, strict=True))
    image = rv.int8(rng, *sides, channels)
    weights = decomposed_patch_embed.split_fields(rv.weights(rng, d, height, width, channels))
    bias, multiplier = rv.requantisation(rng, d, height * width * channels)
    position = rv.int8(rng, 1, rows * columns, d) if rng.random() < 0.8 else None
    factor = None if position is None else rng.integers(1, 32768, d).astype(np.int16)
    prefix = rv.int8(rng, prefix_tokens, d) if prefix_tokens else None
    zero_point = rv.zero_point(rng)
    constants = (weights, bias, multiplier, position, factor, prefix)
    options = decomposed_patch_embed.Options(height, zero_point, ROWS, 0 if width == height else width, padding)
    want = decomposed_patch_embed.reference(options, image[None], *constants)[0]
    assert want.shape == (prefix_tokens + rows * columns, d)
    return (image, patch, zero_point, *constants), want


def check_every_way(rng, case, want, padding=0):
    """In place and not, in strips of every height, weights staged and not, every packing."""
    image, patch, _, weights, bias = case[:5]
    columns, rows_of_weights = (image.shape[1] + 2 * padding) // patch[1], len(bias) * len(weights)
    rows_in_tile = max(2, min(rows_of_weights, int(rng.integers(2, len(bias) + 3))))
    tiled = (
        weights.shape[-1] * rows_in_tile,
        int(rng.integers(1, -(-columns // 4) + 1)),
    )  # tile_bytes, blocks_per_read
    for staged, packing in itertools.product((None, tiled), (ROWS, PAIRS)):
        for alias in (None, "input"):
            got = core_calls.decomposed_patch_embed(*case, alias, staged, packing, padding)
            np.testing.assert_array_equal(got, want, err_msg=f"output over {alias}, {staged}, packing {packing}")

        for strip_rows in {patch[0], decomposed_patch_embed.field_of(*patch)[0]}:
            got = core_calls.decomposed_patch_embed_strips(*case, strip_rows, staged, packing, padding)
            np.testing.assert_array_equal(got, want, err_msg=f"strips of {strip_rows}, {staged}, packing {packing}")


@pytest.mark.parametrize("seed", range(120))
def test_core_equals_reference(seed):
    """Square patches of any size, not only multiples of 4; image rows smaller and larger than rows of tokens."""
    rng = np.random.default_rng(seed)
    patch = (int(rng.choice(SIDES)),) * 2
    grid = tuple(int(rng.integers(1, 10)) for _ in range(2))
    check_every_way(rng, *random_case(rng, patch, grid, int(rng.choice(PREFIXES))))


@pytest.mark.parametrize("prefix_tokens", PREFIXES)
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: "x".join(map(str, patch)))
def test_core_equals_reference_for_every_shape_of_patch(patch, prefix_tokens):
    """One token, one row, one column, and images that patches do not divide."""
    rng = np.random.default_rng([*patch, prefix_tokens])
    for grid in ((1, 1), (1, 6), (5, 1), (3, 7)):
        check_every_way(rng, *random_case(rng, patch, grid, prefix_tokens))


@pytest.mark.parametrize("seed", range(40))
def test_core_equals_reference_for_random_shapes_of_patches(seed):
    rng = np.random.default_rng([seed, 1])
    patch = tuple(int(rng.integers(1, 21)) for _ in range(2))
    grid = tuple(int(rng.integers(1, 7)) for _ in range(2))
    check_every_way(rng, *random_case(rng, patch, grid, int(rng.choice(PREFIXES))))


@pytest.mark.parametrize("seed", range(120))
def test_core_equals_reference_with_padding(seed):
    """Any padding below the patch's sides, rows of tokens smaller and larger than the image rows read by then."""
    rng = np.random.default_rng([seed, 2])
    patch = tuple(int(rng.integers(2, 21)) for _ in range(2))
    grid = tuple(int(rng.integers(1, 7)) for _ in range(2))
    padding = int(rng.integers(1, min(patch)))
    d = None if seed % 3 else max(1, patch[0] * patch[1] * 3 + int(rng.integers(-12, 12)))  # rows about as large
    case, want = random_case(rng, patch, grid, int(rng.choice(PREFIXES)), d, padding)
    check_every_way(rng, case, want, padding)


@pytest.mark.parametrize(("side", "patch", "padding", "tokens"), [(224, 28, 6, 64), (224, 32, 8, 49), (9, 5, 4, 9)])
def test_padding_is_that_of_torchs_convolution(side, patch, padding, tokens):
    import torch

    rng = np.random.default_rng(side + patch)
    weight, image = rv.weights(rng, 5, patch, patch, 3), rv.int8(rng, 1, side, side, 3)
    real = torch.nn.functional.conv2d(
        torch.from_numpy(image.transpose(0, 3, 1, 2).astype(np.float64)),
        torch.from_numpy(weight.transpose(0, 3, 1, 2).astype(np.float64)), stride=patch, padding=padding,
    ).flatten(2).transpose(1, 2).numpy()  # fmt: skip
    got = decomposed_patch_embed.reference(
        decomposed_patch_embed.Options(patch, 0, padding=padding), image,
        decomposed_patch_embed.split_fields(weight), np.zeros(5, np.int32), np.full(5, 1 << 17, np.int32),
    )  # fmt: skip
    assert got.shape[1] == tokens
    np.testing.assert_array_equal(got, np.clip(np.floor(real * 2.0**-15 + 0.5), -128, 127))


@pytest.mark.parametrize("prefix_tokens", [0, 1, 5, 9, 100, 2000])
@pytest.mark.parametrize(("patch", "d"), [((4, 4), 3), ((4, 4), 64), ((1, 40), 7), ((1, 40), 160), ((40, 1), 16)])
def test_a_prefix_of_any_length_in_place(patch, d, prefix_tokens):
    """Rows of tokens are smaller and larger than their image rows, and the prefix is larger than all that is read by
    then, or than the whole image."""
    rng = np.random.default_rng([*patch, d, prefix_tokens])
    case, want = random_case(rng, patch, (6, 4), prefix_tokens, d)
    image, (height, _) = case[0], patch
    grows = want.shape[1] * (image.shape[1] // patch[1]) > height * image.shape[1] * image.shape[2]
    assert grows == (d in (64, 160))
    check_every_way(rng, case, want)


@pytest.mark.parametrize("packing", [ROWS, PAIRS])
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: "x".join(map(str, patch)))
def test_reference_reads_every_packing(patch, packing):
    case, want = random_case(np.random.default_rng(patch), patch, (2, 3), 1)
    image, _, zero_point, weights, *constants = case
    options = decomposed_patch_embed.Options(patch[0], zero_point, packing, patch[1])
    got = decomposed_patch_embed.reference(options, image[None], pack(weights, packing), *constants)
    np.testing.assert_array_equal(got[0], want)


@pytest.mark.parametrize(
    ("patch", "field", "fields"),
    [
        ((1, 1), (4, 4), 1), ((2, 2), (4, 4), 1), ((7, 7), (4, 4), 4), ((16, 16), (4, 4), 16), ((3, 5), (4, 4), 2),
        ((8, 4), (4, 4), 2), ((1, 40), (1, 16), 3), ((40, 1), (16, 1), 3), ((2, 7), (2, 8), 1), ((40, 2), (8, 2), 5),
        ((1, 2), (1, 16), 1), ((2, 1), (2, 8), 1), ((3, 40), (4, 4), 10),
    ],
)  # fmt: skip
def test_fields_of_16_pixels_cover_the_patch(patch, field, fields):
    """The shapes that files have: a change of them makes files of today wrong."""
    assert decomposed_patch_embed.field_of(*patch) == field
    dims = decomposed_patch_embed.Dims(80, 80, 3, *patch, 8)
    assert (dims.field, dims.fields) == (field, fields)
    weight = np.random.default_rng(0).integers(1, 128, (8, *patch, 3)).astype(np.int8)
    split = decomposed_patch_embed.split_fields(weight)
    assert split.shape == (fields, 8, 48)
    np.testing.assert_array_equal(np.sort(split[split > 0]), np.sort(weight, axis=None))


@pytest.mark.parametrize(
    ("patch", "channels", "d"), [((16, 16), 3, 24), ((4, 4), 1, 64), ((5, 5), 2, 9), ((1, 40), 1, 8), ((40, 1), 2, 8),
                                 ((2, 7), 3, 5), ((3, 5), 1, 4)],
)  # fmt: skip
def test_reference_is_the_convolution(patch, channels, d):
    """Split into fields and put together again, it is torch's convolution with kernel = stride = patch."""
    import torch

    height, width = patch
    rng = np.random.default_rng(patch)
    weight, image = (
        rv.weights(rng, d, height, width, channels),
        rv.int8(rng, 1, 3 * height + 1, 3 * width + 1, channels),
    )
    real = torch.nn.functional.conv2d(
        torch.from_numpy(image.transpose(0, 3, 1, 2).astype(np.float64)),
        torch.from_numpy(weight.transpose(0, 3, 1, 2).astype(np.float64)), stride=patch,
    ).flatten(2).transpose(1, 2).numpy()  # fmt: skip
    multiplier = np.full(d, 1 << 20, np.int32)
    got = decomposed_patch_embed.reference(
        decomposed_patch_embed.Options(height, 0, patch_width=width), image,
        decomposed_patch_embed.split_fields(weight), np.zeros(d, np.int32), multiplier,
    )  # fmt: skip
    tokens = got.shape[1]
    np.testing.assert_array_equal(got, np.clip(np.floor(real[:, :tokens] * 2.0**-12 + 0.5), -128, 127))


def tiny_params(keep, **change):
    values = dict(
        image_height=8, image_width=8, channels=1, patch_height=4, patch_width=4, embed_dim=4, zero_point=0,
        weights=np.zeros((1, 4, 16), np.int8), bias=np.zeros(4, np.int32), multiplier=np.zeros(4, np.int32),
        position=None, position_scale=None, blocks_per_read=1,
        padded=kernel_library.address_of("mcuf_padded_patches"),
    )  # fmt: skip
    return core_calls.filled(core_calls.PatchEmbedParams, keep, **(values | change))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"patch_height": 0}, core_calls.SIZE),
        ({"patch_width": 0}, core_calls.SIZE),
        ({"patch_height": -1}, core_calls.SIZE),
        ({"patch_height": 9}, core_calls.SIZE),
        ({"patch_width": 9}, core_calls.SIZE),
        ({"patch_height": 257, "image_height": 512}, core_calls.SIZE),
        ({"patch_width": 257, "image_width": 512}, core_calls.SIZE),
        ({"patch_height": 256, "image_height": 256, "patch_width": 254, "image_width": 254}, core_calls.SIZE),  # 65,024
        ({"patch_height": 256, "image_height": 256, "patch_width": 253, "image_width": 254}, core_calls.OK),  # 64,768
        ({"image_height": 4097}, core_calls.SIZE),
        ({"channels": 65}, core_calls.SIZE),
        ({"embed_dim": 0}, core_calls.SIZE),
        ({"zero_point": 200}, core_calls.VALUE),
        ({"weights": None}, core_calls.NULL),
        ({"position": np.zeros((4, 4), np.int8)}, core_calls.NULL),
        ({"prefix_tokens": 2}, core_calls.NULL),
        ({"prefix_tokens": 2, "prefix": np.zeros((2, 4), np.int8)}, core_calls.OK),
        ({"prefix_tokens": -1, "prefix": np.zeros((2, 4), np.int8)}, core_calls.SIZE),
        ({"prefix_tokens": (1 << 31) - 1, "prefix": np.zeros((2, 4), np.int8)}, core_calls.SIZE),
        ({"padding": 3}, core_calls.OK),
        ({"padding": 3, "padded": None}, core_calls.NULL),
        ({"padding": 4}, core_calls.SIZE),
        ({"padding": -1}, core_calls.SIZE),
        ({"padding": (1 << 31) - 1}, core_calls.SIZE),
        ({"multiplier": np.full(4, -5, np.int32)}, core_calls.VALUE),
        ({"blocks_per_read": 0}, core_calls.SIZE),
        ({"blocks_per_read": 2}, core_calls.SIZE),
        ({"weights": None, "tile_bytes": 32}, core_calls.OK),
        ({"weights": None, "tile_bytes": 28}, core_calls.SIZE),
        ({"weights": None, "tile_bytes": 32, "weights_offset": -1}, core_calls.SIZE),
        ({"weights": None, "tile_bytes": 32, "weights_offset": (1 << 31) - 64}, core_calls.SIZE),
    ],
)
def test_check_refuses(change, status):
    keep: list = []
    assert core_calls.check("mcuf_decomposed_patch_embed_s8", tiny_params(keep, **change)) == status


def test_prefix_and_patches_together_have_a_limit():
    most = core_calls.limit("mcuf_types.h", "MCUF_MAX_TOKENS")
    for prefix_tokens, status in ((most - 4, core_calls.OK), (most - 3, core_calls.SIZE)):
        keep: list = []
        prefix = np.zeros((prefix_tokens, 4), np.int8)
        params = tiny_params(keep, prefix_tokens=prefix_tokens, prefix=prefix)
        assert core_calls.check("mcuf_decomposed_patch_embed_s8", params) == status


@pytest.mark.parametrize(
    ("patch", "good"),
    [((4, 4), {4}), ((3, 3), {3, 4}), ((7, 7), {4, 7}), ((1, 8), {1}), ((8, 1), {8, 16}), ((2, 7), {2})],
)
def test_strips_of_other_heights_are_refused(patch, good):
    """By the check and by the kernel itself, which then writes nothing and asks for nothing."""
    library = kernel_library.load()
    rows = kernel_library.IMAGE_ROWS(lambda user, first, count, target: pytest.fail("asked for rows"))
    for strip_rows in (-(1 << 31), -4, -1, 0, *range(1, 20), 64, (1 << 31) - 1):
        keep: list = []
        params = tiny_params(keep, patch_height=patch[0], patch_width=patch[1])
        status = core_calls.check("mcuf_decomposed_patch_embed_strips_s8", params, strip_rows)
        assert status == (core_calls.OK if strip_rows in good else core_calls.SIZE)
        if strip_rows in good:
            continue
        output, scratch = core_calls.Buffer(0), core_calls.Buffer(0)
        status = library.mcuf_decomposed_patch_embed_strips_s8(
            core_calls.ctypes.byref(params), strip_rows, rows, None, core_calls.ctypes.c_void_p(output.address),
            core_calls.ctypes.c_void_p(scratch.address),
        )  # fmt: skip
        assert status == core_calls.SIZE
        output.check()
        scratch.check()


def test_strips_are_checked_like_whole_images():
    keep: list = []
    params = tiny_params(keep, blocks_per_read=2)
    assert core_calls.check("mcuf_decomposed_patch_embed_strips_s8", params, 4) == core_calls.SIZE
    params = tiny_params(keep, weights=None)
    assert core_calls.check("mcuf_decomposed_patch_embed_strips_s8", params, 4) == core_calls.NULL
