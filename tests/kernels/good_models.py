# SPDX-License-Identifier: Apache-2.0
"""One small valid model per custom op, to be changed into bad ones by the tests."""

from __future__ import annotations

import numpy as np
from tiny_model import Activation, Model

SCALE = 1 << 24  # a requantisation multiplier: 2^-8


def _weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(-127, 128, shape).astype(np.int8)


def _int32(*shape: int, value: int = 0) -> np.ndarray:
    return np.full(shape, value, np.int32)


def decomposed_patch_embed() -> Model:
    return Model(
        "mcuformer.DecomposedPatchEmbed",
        {
            "image": Activation((1, 13, 10, 3)),
            "weights": _weights(4, 6, 48),
            "bias": _int32(6),
            "multiplier": _int32(6, value=SCALE),
            "position": _weights(1, 4, 6),
            "position_scale": np.full(6, 100, np.int16),
            "prefix": None,
        },
        Activation((1, 4, 6)),
        {"patch_size": 5, "zero_point": -3},
    )


def thin_patch_embed() -> Model:
    """Patches of 2x9 pixels in fields of 2x8, after three prefix tokens."""
    model = decomposed_patch_embed()
    model.inputs |= {"weights": _weights(2, 6, 48), "position": _weights(1, 6, 6), "prefix": _weights(3, 6)}
    model.output = Activation((1, 9, 6))
    model.options |= {"patch_size": 2, "patch_width": 9}
    return model


def stem_conv() -> Model:
    return Model(
        "mcuformer.StemConv",
        {
            "x": Activation((1, 7, 6, 3)),
            "weights": _weights(5, 3, 3, 3),
            "bias": _int32(5),
            "multiplier": _int32(5, value=SCALE),
            "position": None,
            "position_scale": None,
            "prefix": None,
        },
        Activation((1, 4, 3, 5)),
        {"zero_point": -128, "pad_value": -128, "act_min": -128},
    )


def int_layer_norm() -> Model:
    return Model(
        "mcuformer.IntLayerNorm",
        {
            "x": Activation((1, 4, 8)),
            "gamma": np.full(8, 64 * 40, np.int16),
            "beta": _int32(8, value=1 << 15),
            "factor": None,
        },
        Activation((1, 4, 8)),
        {"zero_point": 0, "epsilon": 1 << 40},
    )


def in_place_fc() -> Model:
    return Model(
        "mcuformer.InPlaceFC",
        {
            "x": Activation((1, 5, 12)),
            "weights": _weights(7, 8),
            "bias": _int32(7),
            "multiplier": _int32(7, value=SCALE),
            "gelu_table": np.arange(-128, 128).astype(np.int8),
            "residual": Activation((1, 5, 7)),
            "residual_scale": np.full(7, 100, np.int16),
        },
        Activation((1, 5, 7)),
        {"zero_point": 0},
    )


def staged_patch_embed() -> Model:
    model = decomposed_patch_embed()
    model.inputs["weights"] = None
    model.options |= {"tile_bytes": 96, "weights_offset": 0, "blocks": 1}
    return model


def staged_fc() -> Model:
    model = in_place_fc()
    model.inputs["weights"] = None
    model.options |= {"in_features": 8, "tile_bytes": 16, "weights_offset": 32, "block": 8}
    return model


def int_gelu() -> Model:
    return Model(
        "mcuformer.IntGeLU",
        {"x": Activation((2, 3, 5)), "table": np.arange(127, -129, -1).astype(np.int8)},
        Activation((2, 3, 5)),
    )


def int_attention() -> Model:
    return Model(
        "mcuformer.IntAttention",
        {"qkv": Activation((1, 6, 16)), "head_params": np.array([[SCALE, 1 << 30, 1, 0]] * 2, np.int32)},
        Activation((1, 6, 16)),
        {"kv_heads": 1, "head_dim": 4, "zero_point": 0},
    )


def biased_attention() -> Model:
    """Biases of a grid of 2x2 patches after two prefix tokens."""
    model = int_attention()
    model.inputs["relative_params"] = np.array([[4, 0], [1, 0]], np.int32)
    model.inputs["relative_bias"] = np.arange(24, dtype=np.int16).reshape(2, 12)
    model.options |= {"grid_rows": 2, "grid_columns": 2}
    return model


def table_attention() -> Model:
    """Tables of a grid of 2x3 patches."""
    model = int_attention()
    model.inputs["relative_params"] = np.array([[1 << 30, 0], [0, 1 << 29]], np.int32)
    model.inputs |= {"relative_bias": None, "relative_keys": _weights(8, 4), "relative_values": _weights(8, 4)}
    model.options |= {"grid_rows": 2, "grid_columns": 3}
    return model


def token_mean() -> Model:
    return Model(
        "mcuformer.TokenMean",
        {"x": Activation((1, 4, 3))},
        Activation((1, 3)),
        # equal scales: 2^32 / (tokens * 128)
        {"in_zero_point": 0, "zero_point": 0, "multiplier": (1 << 32) // (4 * 128)},
    )


ALL = {
    maker.__name__: maker
    for maker in (
        decomposed_patch_embed,
        thin_patch_embed,
        stem_conv,
        int_layer_norm,
        in_place_fc,
        staged_patch_embed,
        staged_fc,
        int_gelu,
        int_attention,
        biased_attention,
        table_attention,
        token_mean,
    )
}
