# SPDX-License-Identifier: Apache-2.0
"""Random ops on a wide residual stream, with the extremes of int16 and of their constants: on the host and on simulated
microcontrollers."""

import numpy as np

from mcuformer.converter.ops import (
    decomposed_patch_embed,
    int_attention,
    int_layer_norm,
    streamed_attention,
    streamed_mlp,
    token_mean,
)
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS, pack
from mcuformer.converter.quantise import wide
from mcuformer.simulator.firmware_ops import OpCase

EXTREMES = np.array([-32768, -32767, -1, 0, 1, 32767], np.int16)


def values(rng, *shape):
    """int8."""
    if rng.random() < 0.2:
        return rng.choice(np.array([-127, 127], np.int8), shape)
    return rng.integers(-127, 128, shape).astype(np.int8)


def stream_values(rng, *shape):
    """int16: extremes, small, or some large channels."""
    kind = rng.integers(4)
    if kind == 0:
        return rng.choice(EXTREMES, shape)
    if kind == 1:
        return np.full(shape, rng.integers(-32768, 32768), np.int16)
    x = rng.integers(-200, 200, shape)
    if kind == 2:
        x[..., :: max(1, shape[-1] // 3)] *= 160
    return x.astype(np.int16)


def onto_stream(rng, channels):
    """Bias and multiplier; half of the time of any size."""
    if rng.random() < 0.5:
        bias = rng.choice(np.array([-(1 << 30), -1, 0, 1 << 17, 1 << 30], np.int32), channels)
        return bias, rng.choice(np.array([0, 1, 1 << 16, 1 << 24, (1 << 31) - 1], np.int32), channels)
    return rng.integers(-9999, 9999, channels).astype(np.int32), rng.integers(0, 1 << 24, channels).astype(np.int32)


def layer(rng, name, inputs, outputs, packing, last=False):
    """Constants of a fully connected layer of a Streamed op; last: it adds to the stream."""
    bias, multiplier = onto_stream(rng, outputs)
    if not last:
        bias, multiplier = bias % 9999, np.minimum(multiplier, 1 << 26)
    weights = pack(values(rng, outputs, inputs), packing)
    return {f"{name}_weights": weights, f"{name}_bias": bias, f"{name}_multiplier": multiplier}


def norm_constants(rng, d):
    largest = min(32767, (2**31 - 2**28) // (int(np.ceil(np.sqrt(d))) + 1 << 10))
    return {
        "gamma": rng.integers(-largest, largest + 1, d).astype(np.int16),
        "beta": rng.integers(-(2**24), 2**24, d).astype(np.int32),
    }


def layer_norm(rng):
    tokens, d = int(rng.choice([1, 2, 5])), int(rng.choice([1, 3, 4, 8, 64, 97, 260, 904]))
    options = int_layer_norm.Options(0, int(2.0 ** rng.uniform(0, 40)), wide=1)
    return OpCase.of("IntLayerNorm", options, {"input": stream_values(rng, 1, tokens, d)}, norm_constants(rng, d))


def mean(rng):
    tokens, d = int(rng.choice([1, 2, 5, 37])), int(rng.choice([1, 3, 8, 33]))
    first = [int(rng.integers(tokens)) for _ in range(int(rng.integers(1, 3)))]
    ranges = tuple((at, int(rng.integers(1, tokens - at + 1))) for at in first)
    source = wide(1.0)
    options, _ = token_mean.lower(token_mean.Dims(tokens, d, ranges), source, [source] * len(ranges))
    return OpCase.of("TokenMean", options, {"input": stream_values(rng, 1, tokens, d)}, {})


def embedding(rng):
    """Over its image, which is larger or smaller than the tokens."""
    (tall, across), channels = ((3, 5), (1, 16), (8, 8), (2, 2))[rng.integers(4)], int(rng.choice([1, 3]))
    d, packing = int(rng.choice([1, 6, 9, 40])), int(rng.choice([ROWS, PAIRS]))
    rows, columns = int(rng.integers(1, 4)), int(rng.integers(1, 7))
    padding = int(rng.integers(min(tall, across))) if rng.random() < 0.4 else 0
    image = values(rng, 1, rows * tall, columns * across, channels)
    rows, columns = (rows * tall + 2 * padding) // tall, (columns * across + 2 * padding) // across
    fields = decomposed_patch_embed.split_fields(values(rng, d, tall, across, channels))
    bias, multiplier = onto_stream(rng, d)
    constants = {"weights": pack(fields, packing), "bias": bias, "multiplier": multiplier}
    if rng.random() < 0.7:
        constants["position"] = values(rng, 1, rows * columns, d)
        constants["position_scale"] = rng.integers(1, 32768, d).astype(np.int16)
    if rng.random() < 0.5:
        constants["prefix"] = stream_values(rng, int(rng.choice([1, 5])), d)
    options = decomposed_patch_embed.Options(
        tall, 0, packing, 0 if tall == across else across, padding, wide=1
    )  # fmt: skip
    return OpCase.of("DecomposedPatchEmbed", options, {"image": image}, constants)


def half_layer(rng):
    tokens, d, packing = int(rng.choice([1, 3, 4, 7, 18])), int(rng.choice([4, 7, 24])), int(rng.choice([ROWS, PAIRS]))
    scale = rng.choice(np.array([-32768, 0, 1 << 14, 32767], np.int16), d)
    constants = {**norm_constants(rng, d), "residual_scale": scale if rng.random() < 0.5 else np.full_like(scale, 9999)}
    common = dict(tokens_at_once=int(rng.choice([1, 4, 5])), packing=packing, norm_zero_point=0, epsilon=99, wide=1)
    stream = {"stream": stream_values(rng, 1, tokens, d)}
    if rng.random() < 0.5:
        inner = [int(rng.choice([1, 6, 33])) for _ in range(int(rng.integers(0, 4)))]
        sizes = [d, *inner, d]
        for i in range(len(sizes) - 1):
            constants |= layer(rng, f"fc{i}", *sizes[i : i + 2], packing, last=i == len(inner))
        gelu = {"gelu_table": values(rng, 256)} if inner else {}
        points = tuple([3] * len(inner) + [0])
        options = streamed_mlp.Options(gelu_layer=0 if inner else -1, zero_points=points, **common)
        return OpCase.of("StreamedMLP", options, stream, {**constants, **gelu})
    heads, kv_heads, dim = 4, 2, int(rng.choice([2, 6, 10]))
    rank = int(rng.integers(1, d + 1)) if rng.random() < 0.5 else 0
    constants |= layer(rng, "qkv", d, (heads + 2 * kv_heads) * dim, packing)
    constants |= layer(rng, "proj", rank or heads * dim, d, packing, last=True)
    constants |= layer(rng, "proj_rank", heads * dim, rank, packing) if rank else {}
    constants["head_params"] = np.stack([int_attention.lower_head(0.01, 1.0, 1.0, 1.0, dim, tokens)] * heads)
    options = streamed_attention.Options(
        kv_heads=kv_heads, kv_heads_at_once=int(rng.choice([1, 2])), head_dim=dim, zero_point=-3, qkv_zero_point=0,
        proj_zero_point=0, proj_rank_zero_point=-2 * (rank > 0), **common,
    )  # fmt: skip
    return OpCase.of("StreamedAttention", options, stream, constants)


KINDS = (layer_norm, mean, embedding, half_layer, half_layer)
