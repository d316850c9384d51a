# SPDX-License-Identifier: Apache-2.0
"""StreamedMLP and StreamedAttention on an int8 stream: C equals the reference. Processors with panels take up to 256
tokens together, whatever the op says."""

import numpy as np
import pytest
import random_values as rv
from op_cases import run
from random_relative import random_relative, relative_constants

from mcuformer.converter.ops import int_attention, streamed_attention, streamed_mlp
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS, pack
from mcuformer.simulator.firmware_ops import OpCase

TOKENS = (1, 3, 4, 5, 8, 13, 37)
MANY_TOKENS = (255, 256, 257, 300, 513)


def layer(rng, name, inputs, outputs, packing):
    bias, multiplier = rv.requantisation(rng, outputs, inputs)
    weights = pack(rv.weights(rng, outputs, inputs), packing)
    return {f"{name}_weights": weights, f"{name}_bias": bias, f"{name}_multiplier": multiplier}


def norm(rng, d):
    """(options, constants) of the LayerNorm, or of none."""
    if rng.random() < 0.2:
        return {"norm_zero_point": 0, "epsilon": 0}, {}
    constants = {
        "gamma": rng.integers(-9999, 9999, d).astype(np.int16), "beta": rng.integers(-(2**22), 2**22, d, np.int32)
    }  # fmt: skip
    if rng.random() < 0.5:
        constants["factor"] = rng.integers(1, 128, d).astype(np.uint8)
    return {"norm_zero_point": rv.zero_point(rng), "epsilon": int(2.0 ** rng.uniform(0, 40))}, constants


def common(rng, d):
    """(options, constants) that both ops have."""
    options, constants = norm(rng, d)
    options |= {"tokens_at_once": int(rng.choice([1, 3, 4, 6])), "packing": int(rng.choice([ROWS, PAIRS]))}
    return options, {**constants, "residual_scale": rng.integers(0, 32768, d).astype(np.int16)}


def mlp(rng, tokens):
    d = int(rng.choice([1, 7, 24, 65]))
    options, constants = common(rng, d)
    sizes = [d, *(int(rng.choice([1, 6, 33, 96])) for _ in range(int(rng.integers(0, 4)))), d]
    last = len(sizes) - 2
    for i in range(last + 1):
        constants |= layer(rng, f"fc{i}", *sizes[i : i + 2], options["packing"])
    gelu = int(rng.integers(-1, last)) if last else -1
    if gelu >= 0:
        constants["gelu_table"] = rv.int8(rng, 256)
    points = tuple(rv.zero_point(rng) for _ in range(last + 1))
    made = streamed_mlp.Options(gelu_layer=gelu, zero_points=points, **options)
    return OpCase.of("StreamedMLP", made, {"stream": rv.int8(rng, 1, tokens, d)}, constants)


def attention(rng, tokens, relative=None):
    d, dim = int(rng.choice([4, 7, 24, 65])), int(rng.choice([2, 6, 16, 18]))
    kv_heads = int(rng.choice([1, 2, 4]))
    heads, at_once = kv_heads * int(rng.integers(1, 3)), int(rng.choice([n for n in (1, 2, 4) if kv_heads % n == 0]))
    options, constants = common(rng, d)
    qkv_rank, proj_rank = (int(rng.integers(1, d + 1)) if rng.random() < 0.4 else 0 for _ in range(2))
    packing = options["packing"]
    constants |= layer(rng, "qkv", qkv_rank or d, (heads + 2 * kv_heads) * dim, packing)
    constants |= layer(rng, "proj", proj_rank or heads * dim, d, packing)
    constants |= layer(rng, "qkv_rank", d, qkv_rank, packing) if qkv_rank else {}
    constants |= layer(rng, "proj_rank", heads * dim, proj_rank, packing) if proj_rank else {}
    tables = relative is not None and relative.tables
    step = int_attention.largest_score_step(dim, relative is not None) * 10 ** rng.uniform(-4, -0.01)
    constants["head_params"] = np.stack([int_attention.lower_head(step, 1.0, 1.0, 1.0, dim, tokens, tables)] * heads)
    if relative is not None:
        constants |= relative_constants(rng, relative, tokens, heads, dim)
        options |= dict(zip(("grid_rows", "grid_columns"), relative.grid, strict=True))
    made = streamed_attention.Options(
        kv_heads=kv_heads, kv_heads_at_once=at_once, head_dim=dim, zero_point=rv.zero_point(rng),
        qkv_zero_point=0, proj_zero_point=rv.zero_point(rng), qkv_rank_zero_point=-3 * (qkv_rank > 0),
        proj_rank_zero_point=5 * (proj_rank > 0), **options,
    )  # fmt: skip
    return OpCase.of("StreamedAttention", made, {"stream": rv.int8(rng, 1, tokens, d)}, constants)


def check(case, engine="c"):
    np.testing.assert_array_equal(run(case, engine), case.reference(), err_msg=str(case.graph.ops[0].options))


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", [mlp, attention], ids=lambda kind: kind.__name__)
def test_c_equals_the_reference(kind, seed):
    rng = np.random.default_rng(seed)
    check(kind(rng, int(rng.choice(TOKENS))), "tflm" if seed % 4 == 0 else "c")


@pytest.mark.parametrize("tokens", MANY_TOKENS)
@pytest.mark.parametrize("kind", [mlp, attention], ids=lambda kind: kind.__name__)
def test_c_equals_the_reference_of_many_tokens(kind, tokens):
    for seed in range(3):
        check(kind(np.random.default_rng([tokens, seed]), tokens))


@pytest.mark.parametrize("seed", range(20))
def test_relative_positions_equal_the_reference(seed):
    rng = np.random.default_rng(seed)
    relative, tokens = random_relative(rng)
    check(attention(rng, tokens, relative))


@pytest.mark.parametrize("kind", [mlp, attention], ids=lambda kind: kind.__name__)
def test_bytes_that_no_packing_makes(kind):
    """Pairs of a damaged model: only the portable loop knows what they stand for."""
    rng = np.random.default_rng(5)
    case = next(case for case in iter(lambda: kind(rng, 37), None) if case.graph.ops[0].options.packing == PAIRS)
    name = "fc0_weights" if kind is mlp else "qkv_weights"
    index = case.graph.ops[0].inputs[case.graph.ops[0].module.INPUTS.index(name)]
    case.graph.tensors[index].data.reshape(-1).view(np.int8)[:2] = -1, 127
    check(case)
