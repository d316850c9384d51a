# SPDX-License-Identifier: Apache-2.0
"""Every kernel on simulated microcontrollers against the reference: odd shapes, extremes, every packing.

Many cases go into one program. A sample runs always, all of them with `make test-arm`.
"""

import numpy as np
import pytest
from arm_tests import ALL, MICROBIT, every_machine, needs_tools, scalar_machines
from random_relative import random_relative, relative_constants

from mcuformer import sources
from mcuformer.converter.graph import Graph, to_int8
from mcuformer.converter.lower import IMAGE_SCALE
from mcuformer.converter.ops import decomposed_patch_embed as patch_embed
from mcuformer.converter.ops import (
    in_place_fc,
    int_attention,
    int_layer_norm,
    stem_conv,
    streamed_attention,
    streamed_mlp,
    streamed_stem,
    token_mean,
)
from mcuformer.converter.ops.packed_weights import PACKINGS, PAIRS, ROWS, pack
from mcuformer.converter.ops.relative_position import Relative
from mcuformer.converter.passes.staging import staged
from mcuformer.converter.passes.strips import in_strips
from mcuformer.converter.quantise import Quantisation
from mcuformer.cores import CORES, KB
from mcuformer.simulator import firmware, firmware_model
from mcuformer.simulator.firmware_ops import OpCase, run_ops

SEEDS = range(24) if ALL else range(2)
CASES = 40  # in a program


def values(rng, *shape, least=-128):
    """Uniform, only extremes, one value, or small: int8."""
    kind = rng.integers(5)
    if kind == 0:
        return rng.choice(np.array([least, 127], np.int8), shape)
    if kind == 1:
        return np.full(shape, rng.integers(least, 128), np.int8)
    low, high = (-3, 4) if kind == 2 else (least, 128)
    return rng.integers(low, high, shape).astype(np.int8)


def requantisation(rng, channels, terms):
    bias = rng.integers(-(1 << 14), 1 << 14, channels).astype(np.int32)
    scale = 2.0 ** rng.uniform(-12, -1.01, channels) / np.sqrt(terms)
    return bias, np.minimum(np.rint(scale * 2.0**32), 2**31 - 1).astype(np.int32)


def fully_connected(rng):
    tokens, packing = int(rng.choice([1, 2, 3, 4, 5, 7, 13, 37])), int(rng.choice([ROWS, PAIRS]))
    features = int(rng.choice([1, 2, 3, 7, 16, 33, 64, 100, 129, 511, 512, 513, 517, 1030, 2050]))
    return fully_connected_of(rng, tokens, features, int(rng.choice([1, 2, 3, 4, 7, 16, 17, 32])), packing)


def fully_connected_of(rng, tokens, features, out, packing):
    stride = features + int(rng.choice([0, 0, 5]))
    x, weights = values(rng, 1, tokens, stride), values(rng, out, features, least=-127)
    if rng.random() < 0.2:  # the largest sums there are
        x[:], weights[:] = -128, rng.choice([-127, 127])
    bias, multiplier = requantisation(rng, out, features)
    constants = {"weights": pack(weights, packing), "bias": bias, "multiplier": multiplier}
    activations = {"input": x}
    if rng.random() < 0.4:
        constants["gelu_table"] = values(rng, 256)
    if rng.random() < 0.4:
        activations["residual"] = values(rng, 1, tokens, out)
        constants["residual_scale"] = rng.integers(0, 32768, out).astype(np.int16)
    return OpCase.of("InPlaceFC", in_place_fc.Options(int(rng.integers(-128, 128)), packing), activations, constants)


PATCHES = ((1, 40), (40, 1), (2, 7), (7, 2), (3, 5), (8, 4), (1, 2), (2, 1), (17, 1), (1, 16), (2, 40))


def prefix(rng, d):
    """The constant of that name, or none."""
    return {"prefix": values(rng, int(rng.choice([1, 5, 40])), d)} if rng.random() < 0.5 else {}


def patch_of(rng, shape, packing):
    """A patch embedding whose output overwrites the image; shape: of a patch."""
    (tall, wide), channels, d = shape, int(rng.choice([1, 3, 40])), int(rng.choice([1, 6, 9]))
    rows, columns = int(rng.integers(1, 4)), int(rng.integers(1, 9))
    sides = (rows * tall + int(rng.integers(tall)), columns * wide + int(rng.integers(wide)))
    padding = int(rng.integers(min(tall, wide))) if rng.random() < 0.4 else 0
    rows, columns = (sides[0] + 2 * padding) // tall, (sides[1] + 2 * padding) // wide
    image = values(rng, 1, *sides, channels)
    fields = patch_embed.split_fields(values(rng, d, tall, wide, channels, least=-127))
    bias, multiplier = requantisation(rng, d, tall * wide * channels)
    constants = {"weights": pack(fields, packing), "bias": bias, "multiplier": multiplier, **prefix(rng, d)}
    if rng.random() < 0.7:
        constants["position"] = values(rng, 1, rows * columns, d)
        constants["position_scale"] = rng.integers(1, 32768, d).astype(np.int16)
    options = patch_embed.Options(tall, int(rng.integers(-128, 128)), packing, 0 if tall == wide else wide, padding)
    return OpCase.of("DecomposedPatchEmbed", options, {"image": image}, constants)


def embedding(rng):
    size = int(rng.choice([1, 2, 3, 4, 5, 7, 8, 16]))
    shape = PATCHES[rng.integers(len(PATCHES))] if rng.random() < 0.5 else (size, size)
    return patch_of(rng, shape, int(rng.choice([ROWS, PAIRS])))


def convolution(rng):
    height, width = int(rng.choice([1, 2, 3, 5, 8])), int(rng.choice([1, 2, 3, 8, 13, 24, 25]))
    channels, out = int(rng.choice([1, 2, 3, 5, 7, 16, 32, 57])), int(rng.choice([1, 2, 3, 9, 16]))
    x, weights = values(rng, 1, height, width, channels), values(rng, out, 9 * channels, least=-127)
    packing, zero_point = int(rng.choice([ROWS, PAIRS])), int(rng.integers(-128, 128))
    bias, multiplier = requantisation(rng, out, 9 * channels)
    if packing == ROWS:
        weights = weights.reshape(out, 3, 3, channels)
    constants = {"weights": pack(weights, packing), "bias": bias, "multiplier": multiplier}
    if rng.random() < 0.5:
        constants["position"] = values(rng, 1, ((height + 1) // 2) * ((width + 1) // 2), out)
        constants["position_scale"] = rng.integers(1, 32768, out).astype(np.int16)
    constants |= prefix(rng, out)
    act_min = int(rng.choice([-128, -128, zero_point]))
    options = stem_conv.Options(zero_point, int(rng.integers(-128, 128)), act_min, packing)
    return OpCase.of("StemConv", options, {"input": x}, constants)


def stem(rng):
    """A stem whose tokens overwrite the image."""
    height, width = int(rng.choice([1, 2, 3, 8, 16, 17])), int(rng.choice([1, 2, 5, 6, 8, 16, 24, 30]))
    count = int(rng.integers(1, 4))
    return stem_of(rng, height, width, [int(rng.choice([1, 2, 7, 16, 57])) for _ in range(count)], [])


def stem_with_blocks(rng):
    """The same with blocks behind some convolutions; the first one has one or not, whatever the others have."""
    height, width = int(rng.choice([1, 2, 3, 8, 11])), int(rng.choice([1, 2, 5, 6, 8, 13, 24]))
    outputs = [int(rng.choice([1, 2, 7, 8, 16])) for _ in range(int(rng.integers(2, 4)))]
    hidden = [int(rng.choice([0, 1, 2, 4, 7, 16, 21, 34, 56])) for _ in outputs[1:]]
    return stem_of(rng, height, width, outputs, hidden)


def block(rng, name, channels, hidden, packing):
    """Constants of a block of a stem."""
    depthwise = layer(rng, f"{name}_depthwise", 9, hidden, ROWS)
    depthwise[f"{name}_depthwise_weights"] = values(rng, 9, hidden, least=-127)
    return {
        **layer(rng, f"{name}_expand", channels, hidden, packing), **depthwise,
        **layer(rng, f"{name}_project", hidden, channels, packing),
        f"{name}_residual_scale": rng.integers(0, 32768, channels).astype(np.int16),
    }  # fmt: skip


def stem_of(rng, height, width, all_outputs, hidden):
    """all_outputs: of each convolution; hidden: of the block behind each but the last, 0 without one, or []."""
    channels, count, packing = int(rng.choice([1, 3, 5])), len(all_outputs), int(rng.choice([ROWS, PAIRS]))
    constants, inputs = {}, channels
    for name, outputs in zip(streamed_stem.CONVS, all_outputs, strict=False):
        constants |= layer(rng, name, 9 * inputs, outputs, packing)
        inputs = outputs
    for name, outputs, each in zip(streamed_stem.BLOCKS, all_outputs, hidden, strict=False):
        constants |= block(rng, name, outputs, each, packing) if each else {}
    if rng.random() < 0.5:
        tokens = -(-height // 2**count) * -(-width // 2**count)
        constants["position"] = values(rng, 1, tokens, inputs)
        constants["position_scale"] = rng.integers(1, 32768, inputs).astype(np.int16)
    constants |= prefix(rng, inputs)
    zero_points = tuple(int(z) for z in rng.integers(-128, 128, count))
    of_blocks = tuple(tuple(map(int, rng.choice([-128, -128, 3, 127], 3))) for _ in hidden)
    options = streamed_stem.Options(
        int(rng.choice([1, 2, 4])), int(rng.integers(-128, 128)), zero_points, packing,
        block_zero_points=of_blocks if any(hidden) else (),
    )  # fmt: skip
    return OpCase.of("StreamedStem", options, {"image": values(rng, 1, height, width, channels)}, constants)


def attention(rng):
    tokens = int(rng.choice([1, 2, 3, 4, 5, 7, 16, 37, 49]))
    kv_heads, group = int(rng.choice([1, 2])), int(rng.choice([1, 3]))
    dim = int(rng.choice([1, 2, 3, 7, 10, 32, 33, 600 if tokens < 8 else 64]))
    heads, gain = kv_heads * group, 2.0 ** rng.uniform(-3, 3)
    step = 2.0 ** rng.uniform(-12, -2) * min(1, int_attention.largest_score_step(dim))
    head_params = np.stack([int_attention.lower_head(step, 1.0, gain, 1.0, dim, tokens) for _ in range(heads)])
    qkv = values(rng, 1, tokens, (heads + 2 * kv_heads) * dim)
    options = int_attention.Options(kv_heads, dim, int(rng.integers(-128, 128)))
    return OpCase.of("IntAttention", options, {"qkv": qkv}, {"head_params": head_params})


def relative_attention(rng):
    """Attention with biases or tables for relative positions."""
    relative, tokens = random_relative(rng)
    kv_heads, group = int(rng.choice([1, 2])), int(rng.choice([1, 3]))
    dim = int(rng.choice([1, 2, 3, 7, 10, 32, 33, 600 if tokens < 8 else 64]))
    heads, gain = kv_heads * group, 2.0 ** rng.uniform(-3, 3)
    step = 2.0 ** rng.uniform(-14, -4) * min(1, int_attention.largest_score_step(dim, relative=True))
    head = int_attention.lower_head(step, 1.0, gain, 1.0, dim, tokens, relative.tables)
    constants = {"head_params": np.stack([head] * heads), **relative_constants(rng, relative, tokens, heads, dim)}
    options = int_attention.Options(kv_heads, dim, int(rng.integers(-128, 128)), *relative.grid)
    qkv = values(rng, 1, tokens, (heads + 2 * kv_heads) * dim)
    return OpCase.of("IntAttention", options, {"qkv": qkv}, constants)


def layer_norm(rng):
    tokens, d = int(rng.choice([1, 2, 5])), int(rng.choice([1, 3, 4, 8, 64, 96, 97, 192, 256, 260, 900, 904]))
    factor = rng.integers(1, 128, d).astype(np.uint8) if rng.random() < 0.5 else None
    root = int(np.ceil(np.sqrt(d))) + 1
    largest = min(32767, (2**31 - 2**28) // (root << 10))
    constants = {
        "gamma": rng.integers(-largest, largest + 1, d).astype(np.int16),
        "beta": rng.integers(-(2**24), 2**24, d).astype(np.int32),
        "factor": factor,
    }
    options = int_layer_norm.Options(int(rng.choice([0, 0, 5, -128])), int(2.0 ** rng.uniform(0, 40)))
    return OpCase.of("IntLayerNorm", options, {"input": values(rng, 1, tokens, d)}, constants)


def token_mean_of_ranges(rng):
    tokens, d = int(rng.choice([1, 2, 5, 37, 300])), int(rng.choice([1, 3, 8, 33, 96]))
    ranges = []
    for _ in range(int(rng.integers(1, 3))):
        first = int(rng.integers(tokens))
        ranges.append((first, int(rng.integers(1, tokens - first + 1))))
    source = Quantisation(0.1, int(rng.choice([0, 5, -128])))
    targets = [Quantisation(10 ** rng.uniform(-3, 0), -7) for _ in ranges]
    options, _ = token_mean.lower(token_mean.Dims(tokens, d, tuple(ranges)), source, targets)
    return OpCase.of("TokenMean", options, {"input": values(rng, 1, tokens, d)}, {})


def layer(rng, name, inputs, outputs, packing):
    """Constants of a fully connected layer of a Streamed op."""
    bias, multiplier = requantisation(rng, outputs, inputs)
    weights = pack(values(rng, outputs, inputs, least=-127), packing)
    return {f"{name}_weights": weights, f"{name}_bias": bias, f"{name}_multiplier": multiplier}


def streamed_op(rng):
    """Either op, without LayerNorm half of the time, attention with relative positions half of the time."""
    tokens, d, packing = int(rng.choice([1, 3, 4, 7, 18])), int(rng.choice([4, 7, 24])), int(rng.choice([ROWS, PAIRS]))
    constants, norm = {"residual_scale": rng.integers(0, 32768, d).astype(np.int16)}, dict(norm_zero_point=0, epsilon=0)
    if rng.random() < 0.5:
        gamma, beta = rng.integers(500, 4000, d).astype(np.int16), rng.integers(-(2**24), 2**24, d).astype(np.int32)
        constants |= {"gamma": gamma, "beta": beta, "factor": rng.integers(1, 128, d).astype(np.uint8)}
        norm["epsilon"] = 1000
    common = dict(tokens_at_once=int(rng.choice([1, 4, 5])), packing=packing, **norm)
    stream = {"stream": values(rng, 1, tokens, d)}
    if rng.random() < 0.5:
        wide = int(rng.choice([1, 6, 33]))
        constants |= layer(rng, "fc0", d, wide, packing) | layer(rng, "fc1", wide, d, packing)
        constants["gelu_table"] = values(rng, 256)
        options = streamed_mlp.Options(gelu_layer=0, zero_points=(3, -7), **common)
        return OpCase.of("StreamedMLP", options, stream, constants)
    heads, kv_heads, dim = 4, 2, int(rng.choice([2, 6, 10]))
    ranks = [int(rng.integers(1, d + 1)) if rng.random() < 0.5 else 0 for _ in ("qkv", "proj")]
    for name, rank, inputs, outputs in (
        ("qkv", ranks[0], d, (heads + 2 * kv_heads) * dim), ("proj", ranks[1], heads * dim, d),
    ):  # fmt: skip
        constants |= layer(rng, name, rank or inputs, outputs, packing)
        constants |= layer(rng, f"{name}_rank", inputs, rank, packing) if rank else {}
    grid, tables = (0, 0), False
    if rng.random() < 0.5:
        relative, tokens = random_relative(rng)
        grid, tables, stream = relative.grid, relative.tables, {"stream": values(rng, 1, tokens, d)}
        constants |= relative_constants(rng, relative, tokens, heads, dim)
    constants["head_params"] = np.stack([int_attention.lower_head(0.01, 1.0, 1.0, 1.0, dim, tokens, tables)] * heads)
    options = streamed_attention.Options(
        kv_heads=kv_heads, kv_heads_at_once=int(rng.choice([1, 2])), head_dim=dim, zero_point=-3, qkv_zero_point=0,
        proj_zero_point=5, qkv_rank_zero_point=4 * (ranks[0] > 0), proj_rank_zero_point=-2 * (ranks[1] > 0),
        grid_rows=grid[0], grid_columns=grid[1], **common,
    )  # fmt: skip
    return OpCase.of("StreamedAttention", options, stream, constants)


KINDS = (
    fully_connected, embedding, attention, layer_norm, convolution, token_mean_of_ranges, streamed_op,
    relative_attention, stem, stem_with_blocks,
)  # fmt: skip


def small(case):
    """Whether its activations and scratch leave room for the stack in the 16 KB of a microbit."""
    graph = case.graph
    activations = sum(value.size for value in case.inputs) + graph.tensors[graph.output].bytes
    return activations + graph.scratch_bytes(graph.ops[0]) <= 3 * KB


@needs_tools
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_cases_on_a_cortex_m0_where_an_unaligned_access_faults(kind, shared, tmp_path):
    rng = np.random.default_rng(7)
    cases = [case for case in (kind(rng) for _ in range(100 if ALL else 25)) if small(case)]
    assert len(cases) >= 5
    for first in range(0, len(cases), CASES):
        part = cases[first : first + CASES]
        runs = run_ops(part, MICROBIT, tmp_path, shared(MICROBIT), stack_bytes=4 * KB)
        assert all(run.exact for run in runs), [
            case.graph.ops[0] for case, run in zip(part, runs, strict=True) if not run.exact
        ]


@needs_tools
@every_machine
def test_few_outputs_of_every_shape(machine, shared, tmp_path):
    """In one go or sixteen tokens at a time, beside blocks or instead of them, in place if they grow too."""
    rng = np.random.default_rng(1)
    cases = [
        fully_connected_of(rng, tokens, features, out, PACKINGS[machine.core.packing])
        for tokens in (1, 2, 3, 4, 6, 17, 70) for features in (1, 2, 7, 16, 129, 512, 1030) for out in (1, 2, 3, 4, 8)
        if tokens * features < 20000
    ]  # fmt: skip
    for first in range(0, len(cases), CASES):
        part = cases[first : first + CASES]
        runs = run_ops(part, machine, tmp_path, shared(machine))
        wrong = [case.graph.ops[0] for case, run in zip(part, runs, strict=True) if not run.exact]
        assert not wrong


@needs_tools
@every_machine
def test_patches_of_every_shape(machine, shared, tmp_path):
    rng = np.random.default_rng(0)
    cases = [patch_of(rng, shape, packing) for shape in PATCHES for packing in (ROWS, PAIRS)]
    runs = run_ops(cases, machine, tmp_path, shared(machine))
    wrong = [i for i, run in enumerate(runs) if not run.exact]
    assert not wrong, [cases[i].graph.ops[0] for i in wrong]


@needs_tools
@every_machine
@pytest.mark.parametrize("shape", [(1, 40), (7, 2), (9, 5)], ids=lambda shape: "x".join(map(str, shape)))
def test_strips_and_staged_weights(shape, machine, shared, tmp_path):
    """A rectangular image in strips, weights in tiles, a prefix; the mean of the tokens tells of each of them."""
    rng, (tall, wide), d, packing = np.random.default_rng(shape), shape, 9, PACKINGS[machine.core.packing]
    graph = Graph()
    image = graph.add_input("image", (1, 3 * tall + 1, 6 * wide + 1, 2), Quantisation(IMAGE_SCALE))
    fields = patch_embed.split_fields(values(rng, d, tall, wide, 2, least=-127))
    bias, multiplier = requantisation(rng, d, tall * wide * 2)
    constants = {
        "weights": pack(fields, packing), "bias": bias, "multiplier": multiplier,
        "prefix": rng.integers(-128, 128, (3, d)).astype(np.int8),
    }  # fmt: skip
    options = patch_embed.Options(tall, 3, packing, wide)
    tokens = graph.add_op("DecomposedPatchEmbed", "embed", options, {"image": image}, constants, Quantisation(1.0))
    mean = token_mean.Options(in_zero_point=3, zero_point=0, multiplier=1 << 22)
    graph.output = graph.add_op("TokenMean", "mean", mean, {"input": tokens}, {}, Quantisation(1.0))
    images = rng.integers(0, 256, (2, *graph.tensors[image].shape[1:])).astype(np.uint8)
    model = firmware_model.build(staged(in_strips(graph)), ["a"] * d, machine, tmp_path, objects=shared(machine))
    assert model.graph.ops[0].options.strip_rows in (tall, patch_embed.field_of(tall, wide)[0])
    np.testing.assert_array_equal(model.run(images).logits, graph.run(to_int8(images)))


@needs_tools
@every_machine
def test_stems_in_strips(machine, shared, tmp_path):
    """Images of an odd number of rows; the mean of the tokens tells of each of them."""
    packing = PACKINGS[machine.core.packing]
    for pixels, (height, width, channels) in ((4, (17, 30, 3)), (2, (9, 8, 1))):
        rng, graph, d = np.random.default_rng(pixels), Graph(), 9
        image = graph.add_input("image", (1, height, width, channels), Quantisation(IMAGE_SCALE))
        constants = layer(rng, "conv0", 9 * channels, 6, packing) | layer(rng, "conv1", 54, d, packing)
        constants["prefix"] = rng.integers(-128, 128, (3, d)).astype(np.int8)
        blocks = ((-128, -128, 7),) if pixels == 4 else ()
        constants |= block(rng, "block0", 6, 20, packing) if blocks else {}
        options = streamed_stem.Options(pixels, 0, (-100, 3), packing, block_zero_points=blocks)
        tokens = graph.add_op("StreamedStem", "embed", options, {"image": image}, constants, Quantisation(1.0))
        mean = token_mean.Options(in_zero_point=3, zero_point=0, multiplier=1 << 22)
        graph.output = graph.add_op("TokenMean", "mean", mean, {"input": tokens}, {}, Quantisation(1.0))
        images = rng.integers(0, 256, (2, height, width, channels)).astype(np.uint8)
        folder = tmp_path / str(pixels)
        model = firmware_model.build(in_strips(graph), ["a"] * d, machine, folder, objects=shared(machine))
        np.testing.assert_array_equal(model.run(images).logits, graph.run(to_int8(images)))


@needs_tools
@every_machine
def test_stems_with_blocks(machine, shared, tmp_path):
    rng = np.random.default_rng(2)
    cases = [stem_with_blocks(rng) for _ in range(CASES)]
    runs = run_ops(cases, machine, tmp_path, shared(machine))
    wrong = [i for i, run in enumerate(runs) if not run.exact]
    assert not wrong, [cases[i].graph.ops[0] for i in wrong]


@needs_tools
@every_machine
@pytest.mark.parametrize("seed", SEEDS)
def test_kernels_equal_the_reference(seed, machine, shared, tmp_path):
    rng = np.random.default_rng(seed)
    cases = [KINDS[i % len(KINDS)](rng) for i in range(CASES)]
    runs = run_ops(cases, machine, tmp_path, shared(machine))
    wrong = [i for i, run in enumerate(runs) if not run.exact]
    assert not wrong, [cases[i].graph.ops[0] for i in wrong]


@needs_tools
@scalar_machines
def test_kernels_that_multiply_one_value_at_a_time(machine, shared, tmp_path):
    """A sample, always; a Cortex-M0's is above."""
    rng = np.random.default_rng(5)
    cases = [KINDS[i % len(KINDS)](rng) for i in range(2 * len(KINDS))] + layers_of_every_rest(rng)
    runs = run_ops(cases, machine, tmp_path, shared(machine))
    wrong = [i for i, run in enumerate(runs) if not run.exact]
    assert not wrong, [cases[i].graph.ops[0] for i in wrong]


@needs_tools
def test_their_form_without_assembly(tmp_path):
    """That of an Xtensa, on a Cortex-M3."""
    rng, machine = np.random.default_rng(6), CORES["m3"].machine
    cases = [KINDS[i % len(KINDS)](rng) for i in range(2 * len(KINDS))] + layers_of_every_rest(rng)
    flags = [*firmware_model.MODEL_FLAGS, "-DMCUF_SCALAR_IN_C"]
    folder, kernels = sources.c_kernel_folder(), tmp_path / "kernels"
    objects = firmware.compile_objects(sources.c_kernel_sources(), machine.core, kernels, [folder], flags)
    runs = run_ops(cases, machine, tmp_path, objects + firmware.firmware_objects(machine, tmp_path / "firmware"))
    wrong = [i for i, run in enumerate(runs) if not run.exact]
    assert not wrong, [cases[i].graph.ops[0] for i in wrong]


def layers_of_every_rest(rng):
    """Rests of four outputs, of rounds of inputs and of tokens; the largest sums that a word of two tokens can have."""
    cases = []
    for i in range(24):
        tokens, features, out, packing = 1 + i % 7, 1 + i, 1 + i % 5, int(rng.choice([ROWS, PAIRS]))
        x = (
            rng.choice(np.array([-128, 127], np.int8), (1, tokens, features))
            if i % 2
            else values(rng, 1, tokens, features)
        )
        weights = rng.choice(np.array([-127, 127], np.int8), (out, features))
        bias, multiplier = requantisation(rng, out, features)
        constants = {"weights": pack(weights, packing), "bias": bias, "multiplier": multiplier}
        cases.append(OpCase.of("InPlaceFC", in_place_fc.Options(-3, packing), {"input": x}, constants))
    return cases


def limits_of_a_layer(rng, tokens, features, out, packing):
    """Sums whose outputs lie far beyond int8, the largest multipliers, zero points at both ends."""
    x, weights = values(rng, 1, tokens, features), values(rng, out, features, least=-127)
    constants = {
        "weights": pack(weights, packing),
        "bias": rng.choice(np.array([-(1 << 30), -(1 << 17), -1, 0, 1, 1 << 17, 1 << 30], np.int32), out),
        "multiplier": rng.choice(np.array([0, 1, 1 << 16, 1 << 30, (1 << 31) - 1], np.int32), out),
    }
    activations = {"input": x}
    if rng.random() < 0.5:
        constants["gelu_table"] = values(rng, 256)
    if rng.random() < 0.5:
        activations["residual"] = values(rng, 1, tokens, out)
        constants["residual_scale"] = rng.choice(np.array([0, 1, 32767], np.int16), out)
    options = in_place_fc.Options(int(rng.choice([-128, 127])), packing)
    return OpCase.of("InPlaceFC", options, activations, constants)


@needs_tools
@every_machine
def test_layers_at_their_limits(machine, shared, tmp_path):
    """Whole and rest blocks of tokens, few outputs and the most there are, rests of a vector of inputs."""
    rng = np.random.default_rng(1)
    shapes = [(tokens, features, out) for tokens in (1, 2, 3, 4, 6) for features, out in ((5, 6), (32, 1), (47, 2))]
    shapes += [(4, 1, 16384), (3, 1, 16383), (17, 200, 1), (18, 16, 2), (3, 31, 29)]
    cases = [limits_of_a_layer(rng, *shape, packing) for shape in shapes for packing in (ROWS, PAIRS)]
    runs = run_ops(cases, machine, tmp_path, shared(machine))
    wrong = [i for i, run in enumerate(runs) if not run.exact]
    assert not wrong, [(shapes[i // 2], cases[i].graph.ops[0]) for i in wrong]


def long_attention(tokens, dim, value=None):
    """One head; the first queries pick one key each, so that sums of numerators are the least there are. value: of all
    v, for the largest sums."""
    rng = np.random.default_rng(tokens)
    qkv = rng.integers(-128, 128, (1, tokens, 3 * dim)).astype(np.int8)
    qkv[:, 8:12, :dim] = qkv[:, -1, :dim] = 0  # a whole block of queries, and a rest, that like all keys alike
    if value is not None:
        qkv[..., 2 * dim :] = value
    step = 0.1 * int_attention.largest_score_step(dim)
    head_params = int_attention.lower_head(step, 1.0, 1.0, 1.0, dim, tokens)[None]
    return OpCase.of("IntAttention", int_attention.Options(1, dim, 3), {"qkv": qkv}, {"head_params": head_params})


@needs_tools
@every_machine
def test_relative_positions_of_many_tokens(machine, shared, tmp_path):
    """Around the lengths where numerators lose a bit, which are a quarter with tables, and rows that blocks cross."""
    rng, cases = np.random.default_rng(0), []
    for rows, columns, prefix, tables in ((3, 43, 1, True), (8, 32, 1, True), (17, 31, 0, True), (19, 27, 1, False)):
        tokens, dim = rows * columns + prefix, 5
        relative = Relative(rows, columns, tables)
        head = int_attention.lower_head(0.001, 1.0, 1.0, 1.0, dim, tokens, tables)[None]
        constants = {"head_params": head, **relative_constants(rng, relative, tokens, 1, dim)}
        options = int_attention.Options(1, dim, 3, rows, columns)
        cases.append(OpCase.of("IntAttention", options, {"qkv": values(rng, 1, tokens, 3 * dim)}, constants))
    runs = run_ops(cases, machine, tmp_path, shared(machine))
    assert [run.exact for run in runs] == [True] * len(cases)


@needs_tools
@every_machine
def test_attention_of_many_tokens(machine, shared, tmp_path):
    """Around the lengths where numerators lose a bit, with whole and rest blocks of queries."""
    lengths = (511, 512, 513, 577, 1024, 1025, 2047, 2048) if ALL else (513, 1025, 2047)
    cases = [
        long_attention(tokens, 3 if tokens % 2 else 2, (None, -128, 127)[i % 3]) for i, tokens in enumerate(lengths)
    ]
    runs = run_ops(cases, machine, tmp_path, shared(machine))
    assert [run.exact for run in runs] == [True] * len(cases)
