# SPDX-License-Identifier: Apache-2.0
"""SubnetConfig: what it computes, and what it refuses."""

import dataclasses
import json

import pytest

from mcuformer.converter.subnet_config import LayerConfig, SubnetConfig
from mcuformer.errors import ConfigError

# The three networks that the benchmarks use.
A = SubnetConfig(image_size=96, patch_size=16, embed_dim=96, depth=6, num_heads=3, mlp_ratio=4.0, num_classes=10)
B = SubnetConfig(image_size=224, patch_size=16, embed_dim=192, depth=12, num_heads=3, mlp_ratio=4.0, num_classes=1000)
C = SubnetConfig(image_size=224, patch_size=32, embed_dim=192, depth=12, num_heads=3, mlp_ratio=4.0, num_classes=1000)


def vit_macs(tokens: int, patch_inputs: int, d: int, depth: int, classes: int) -> int:
    """A plain ViT of MLP ratio 4 whose heads span d: 12 d^2 a token and layer, 2 n^2 d for the attention."""
    return tokens * patch_inputs * d + depth * (12 * tokens * d * d + 2 * tokens * tokens * d) + d * classes


@pytest.mark.parametrize(
    "config, grid, tokens, macs",
    [
        (A, 6, 36, vit_macs(36, 16 * 16 * 3, 96, 6, 10)),
        (B, 14, 196, vit_macs(196, 16 * 16 * 3, 192, 12, 1000)),
        (C, 7, 49, vit_macs(49, 32 * 32 * 3, 192, 12, 1000)),
    ],
    ids=["A", "B", "C"],
)
def test_the_networks_of_the_benchmarks(config, grid, tokens, macs):
    assert (config.grid_shape, config.tokens, config.macs) == ((grid, grid), tokens, macs)


def test_known_sizes():
    assert A.macs == 28_036_032
    assert B.macs == 1_246_563_840  # DeiT-Tiny has 1.25 G
    assert A.layers == (LayerConfig(num_heads=3, kv_heads=3, head_dim=32, mlp_dim=384, rank=None),) * 6


def test_what_patches_do_not_cover_is_cropped():
    assert SubnetConfig(image_size=103, patch_size=16).grid_shape == (6, 6)


def test_scalars_and_tuples_mean_the_same():
    scalars = SubnetConfig(depth=3, num_heads=4, head_dim=16, kv_heads=2, mlp_ratio=2.0, rank_ratio=0.5)
    tuples = SubnetConfig(
        depth=3,
        num_heads=(4,) * 3,
        head_dim=(16,) * 3,
        kv_heads=(2,) * 3,
        mlp_ratio=(2.0,) * 3,
        rank_ratio=(0.5,) * 3,
    )
    assert scalars.layers == tuples.layers
    assert scalars.layers[0] == LayerConfig(num_heads=4, kv_heads=2, head_dim=16, mlp_dim=192, rank=48)
    assert scalars.layers[0].qkv_dim == 4 * 16 + 2 * 2 * 16


def test_layers_may_differ():
    config = SubnetConfig(
        embed_dim=48, depth=2, num_heads=(4, 2), head_dim=8, mlp_ratio=(1.5, 3), rank_ratio=(None, 0.5)
    )
    assert config.layers == (LayerConfig(4, 4, 8, 72, None), LayerConfig(2, 2, 8, 144, 24))


def test_matrices_around_attention_have_a_rank_of_their_own():
    config = SubnetConfig(
        embed_dim=48, depth=3, num_heads=(4, 2, 1), head_dim=8, attention_rank_ratio=[0.25, 0.5, None]
    )
    assert [layer.attention_rank for layer in config.layers] == [12, 24, None]
    assert [layer.proj_rank for layer in config.layers] == [12, 16, None]  # at most the width of q
    narrow = SubnetConfig(embed_dim=48, depth=1, num_heads=1, head_dim=8, attention_rank_ratio=1.0)
    assert (narrow.layers[0].attention_rank, narrow.layers[0].proj_rank) == (24, 8)
    assert narrow.macs == dataclasses.replace(narrow, attention_rank_ratio=None).macs  # 1.0 is dense
    assert all(layer.rank is None for layer in config.layers)
    assert SubnetConfig.from_dict(json.loads(config.to_json())) == config
    assert "attention_rank_ratio" not in SubnetConfig(attention_rank_ratio=None).to_dict()


def test_macs_count_what_is_run():
    fewer_heads = SubnetConfig(num_heads=4, head_dim=24, kv_heads=2)
    assert SubnetConfig(num_heads=4).macs - fewer_heads.macs == 6 * 36 * 96 * 2 * 2 * 24
    low_rank = SubnetConfig(rank_ratio=0.25)  # rank 24, 96 -> 24 -> 384 and back
    assert A.macs - low_rank.macs == 6 * 36 * 2 * (96 * 384 - 24 * (96 + 384))
    assert SubnetConfig(rank_ratio=0.9).macs == A.macs  # above break-even: dense
    around = SubnetConfig(attention_rank_ratio=0.25)  # 96 -> 24 -> 288, 96 -> 24 -> 96
    assert A.macs - around.macs == 6 * 36 * (4 * 96 * 96 - 24 * (96 + 288 + 96 + 96))
    only_qkv = SubnetConfig(attention_rank_ratio=0.6)  # 58: pays for 96 -> 288, not for 96 -> 96
    assert A.macs - only_qkv.macs == 6 * 36 * (96 * 288 - 58 * (96 + 288))
    assert SubnetConfig(attention_rank_ratio=0.8).macs == A.macs


def test_conv_stem():
    config = SubnetConfig(image_size=32, in_channels=1, patch_size=8, embed_dim=64, depth=2, num_heads=2, stem="conv")
    assert config.conv_channels == (16, 32, 64)
    assert (config.grid_shape, config.tokens) == ((4, 4), 16)
    plain = SubnetConfig(image_size=32, in_channels=1, patch_size=8, embed_dim=64, depth=2, num_heads=2)
    stem = 9 * (16 * 16 * 1 * 16 + 8 * 8 * 16 * 32 + 4 * 4 * 32 * 64)
    assert config.macs - plain.macs == stem - 16 * 64 * 64
    given = SubnetConfig(image_size=32, patch_size=8, embed_dim=64, num_heads=2, stem="conv", stem_channels=(24, 40))
    assert given.conv_channels == (24, 40, 64)
    assert SubnetConfig(image_size=33, patch_size=8, stem="conv").grid_shape == (5, 5)  # padded, 33 -> 17 -> 9 -> 5


def test_blocks_behind_stem_convolutions():
    plain = SubnetConfig(image_size=32, patch_size=8, embed_dim=64, num_heads=2, stem="conv", stem_channels=(24, 40))
    config = dataclasses.replace(plain, stem_blocks=[0, 4])
    assert (config.conv_channels, config.block_hidden) == ((24, 40, 64), (0, 160))
    assert SubnetConfig.from_dict(json.loads(config.to_json())) == config
    assert len({config, plain, SubnetConfig.from_dict(config.to_dict())}) == 2
    assert dataclasses.replace(plain, stem_blocks=(0, 0)) == plain and plain.block_hidden == ()
    assert "stem_blocks" not in plain.to_dict() and config.to_dict()["stem_blocks"] == [0, 4]
    one = SubnetConfig(image_size=16, patch_size=2, embed_dim=8, num_heads=1, stem="conv", stem_blocks=())
    assert one.stem_blocks is None  # one convolution alone has none before it
    follow = SubnetConfig(image_size=32, patch_size=8, embed_dim=64, num_heads=2, stem="conv", stem_blocks=(8, 1))
    assert follow.block_hidden == (8 * 16, 32)


def test_json_round_trip():
    config = SubnetConfig(
        depth=2,
        num_heads=(2, 3),
        head_dim=16,
        rank_ratio=[0.5, None],
        patch_size=8,
        stem="conv",
        stem_channels=[8, 16],
    )
    assert SubnetConfig.from_dict(json.loads(config.to_json())) == config
    assert SubnetConfig.from_dict(config.to_dict()) == config
    assert len({config, SubnetConfig.from_dict(config.to_dict())}) == 1


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"num_heads": 5}, "embed_dim = 96 is not divisible by num_heads = 5 in layer 0"),
        ({"num_heads": (3, 3, 5, 3, 3, 3)}, "num_heads = 5 in layer 2"),
        ({"patch_size": 128}, "patch_size = 128 is larger than image_size = 96"),
        ({"num_heads": (3, 3)}, "num_heads has 2 values for depth = 6"),
        ({"mlp_ratio": (4.0,) * 7}, "mlp_ratio has 7 values for depth = 6"),
        ({"image_size": 736}, "makes 2116 tokens, more than 2048"),
        ({"patch_size": 2, "stem": "conv"}, "makes 2304 tokens, more than 2048"),
        ({"image_size": 0}, "image_size = 0: must be an integer from 1"),
        ({"image_size": 96.0}, "image_size = 96.0: must be an integer"),
        ({"embed_dim": "96"}, "embed_dim = '96': must be an integer"),
        ({"embed_dim": True}, "embed_dim = True: must be an integer"),
        ({"embed_dim": 5000}, "embed_dim = 5000: must be an integer from 1 to 4096"),
        ({"in_channels": -1}, "in_channels = -1"),
        ({"depth": 0}, "depth = 0"),
        ({"num_classes": 20000}, "num_classes = 20000"),
        ({"num_heads": 0}, "num_heads = 0 in layer 0: must be a positive integer"),
        ({"num_heads": 3.0}, "num_heads = 3.0 in layer 0: must be a positive integer"),
        ({"head_dim": 0}, "head_dim = 0 in layer 0"),
        ({"head_dim": 2000}, "head_dim = 2000 with 3 heads and 3 key/value heads in layer 0: too wide"),
        ({"kv_heads": 2}, "kv_heads = 2 does not divide num_heads = 3 in layer 0"),
        ({"mlp_ratio": 0}, "mlp_ratio = 0 in layer 0"),
        ({"mlp_ratio": "4"}, "mlp_ratio = '4' in layer 0"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio = nan in layer 0"),
        ({"mlp_ratio": 0.001}, "gives a hidden width of 0 in layer 0"),
        ({"rank_ratio": 1.5}, "rank_ratio = 1.5 in layer 0"),
        ({"rank_ratio": (None, 0.5, 0, None, None, None)}, "rank_ratio = 0 in layer 2"),
        ({"attention_rank_ratio": 1.5}, "attention_rank_ratio = 1.5 in layer 0: must be a number in (0, 1], or None"),
        ({"attention_rank_ratio": (0.5, 0.5)}, "attention_rank_ratio has 2 values for depth = 6"),
        ({"stem": "linear"}, 'stem = \'linear\': must be "patch" or "conv"'),
        ({"stem": "conv", "patch_size": 12}, "patch_size = 12 with stem = 'conv': must be a power of two"),
        (
            {"stem": "conv", "patch_size": 1},
            "patch_size = 1 with stem = 'conv': must be a power of two, at least 2",
        ),
        ({"stem_channels": (8, 16, 32)}, "stem_channels is given but stem = 'patch'"),
        ({"stem": "conv", "stem_channels": (8, 16)}, "patch_size = 16 needs 3 integers"),
        ({"stem": "conv", "stem_channels": (8, 16, 0)}, "needs 3 integers from 1 to 1024"),
        ({"stem_blocks": (0, 0, 0)}, "stem_blocks is given but stem = 'patch': leave it out"),
        ({"stem": "conv", "stem_blocks": (4, 4)}, "stem_blocks = (4, 4): patch_size = 16 needs 3 integers from 0 to 8"),
        ({"stem": "conv", "stem_blocks": (0, 9, 0)}, "stem_blocks = (0, 9, 0): patch_size = 16 needs 3 integers"),
        ({"stem": "conv", "stem_blocks": (0, True, 0)}, "stem_blocks = (0, True, 0): patch_size = 16 needs 3"),
        ({"stem": "conv", "stem_blocks": 4}, "stem_blocks = 4: patch_size = 16 needs 3 integers"),
        (
            {"stem": "conv", "stem_channels": (8, 200, 8), "stem_blocks": (8, 6, 0)},
            "stem_blocks: 6 behind a convolution of 200 channels makes 1200, more than 1024",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_nonsense_is_refused_in_one_line(fields, expected):
    with pytest.raises(ConfigError) as caught:
        SubnetConfig(**fields)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values, expected",
    [
        (
            {"embed_dim": 96, "embedding": 3},
            "unknown config field 'embedding': known are activation, attention_rank_ratio",
        ),
        (None, "must be a mapping of field to value, not NoneType"),
        ([96], "must be a mapping of field to value, not list"),
        ({"depth": 0}, "depth = 0"),
    ],
)
def test_a_foreign_dictionary_is_refused(values, expected):
    with pytest.raises(ConfigError) as caught:
        SubnetConfig.from_dict(values)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "fields, tokens, parts, outputs",
    [
        ({"pool": "mean-all", "prefix_tokens": 5}, 9, ((0, 9),), 10),
        ({"pool": "mean", "prefix_tokens": 5}, 9, ((5, 4),), 10),
        ({"pool": "token", "prefix_tokens": 1, "num_classes": 0}, 5, ((0, 1),), 12),
        ({"pool": "token+mean", "prefix_tokens": 3, "num_classes": 0}, 7, ((0, 1), (3, 4)), 24),
        ({"pool": "token+token", "prefix_tokens": 2}, 6, ((0, 1), (1, 1)), 10),
    ],
)
def test_the_head_reads_parts_of_the_tokens(fields, tokens, parts, outputs):
    config = SubnetConfig(image_size=16, patch_size=8, embed_dim=12, depth=1, **fields)
    assert (config.tokens, config.pool_parts, config.outputs) == (tokens, parts, outputs)
    assert SubnetConfig.from_dict(config.to_dict()) == config


def test_images_and_patches_may_be_rectangles():
    config = SubnetConfig(image_size=(98, 40), patch_size=[1, 40], in_channels=1)
    assert (config.image_shape, config.patch_shape, config.grid_shape) == ((98, 40, 1), (1, 40), (98, 1))
    assert SubnetConfig.from_dict(config.to_dict()) == config
    assert SubnetConfig(image_size=(96, 96), patch_size=[16, 16]) == SubnetConfig()
    assert SubnetConfig(image_size=(33, 70), patch_size=8, stem="conv").grid_shape == (5, 9)


def test_a_network_of_the_first_version_is_written_as_it_was():
    assert list(SubnetConfig().to_dict()) == [
        "image_size", "in_channels", "patch_size", "embed_dim", "depth", "num_heads", "head_dim", "kv_heads",
        "mlp_ratio", "rank_ratio", "num_classes", "stem", "stem_channels",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"image_size": (96, 96, 3)}, "image_size = (96, 96, 3): must be an integer from 1 to 4096, or (height"),
        ({"patch_size": (0, 4)}, "patch_size = (0, 4): must be an integer"),
        ({"image_size": (8, 96), "patch_size": 16}, "is larger than image_size = 8x96"),
        ({"patch_size": (4, 8), "stem": "conv"}, "must be a power of two"),
        ({"pool": "max"}, "pool = 'max': must be one of mean, mean-all, token, token+mean, token+token"),
        ({"pool": "token"}, 'pool = "token" reads 1 prefix tokens and prefix_tokens = 0'),
        ({"pool": "token+token", "prefix_tokens": 1}, "give prefix_tokens = 2 or more"),
        ({"final_norm": "middle"}, "final_norm = 'middle': must be one of before, after, none"),
        ({"norm": "both"}, "norm = 'both': must be one of pre, post"),
        ({"norm_pre": 1}, "norm_pre = 1: must be true or false"),
        ({"patch_padding": 16}, "patch_padding = 16 with patch_size = 16 and stem = 'patch': must be pixels from 0"),
        ({"patch_padding": -1}, "patch_padding = -1"),
        ({"patch_padding": 1.0}, "patch_padding = 1.0"),
        ({"patch_padding": 1, "stem": "conv"}, "and stem = 'conv': must be pixels from 0 to 0"),
        ({"norm_epsilon": 0.0}, "norm_epsilon = 0.0: must be a number in (0, 1.0]"),
        ({"activation": "tanh"}, "activation = 'tanh': must be one of gelu, gelu-tanh, quick-gelu, silu"),
        ({"num_classes": -1}, "num_classes = -1: must be an integer from 0"),
        ({"prefix_tokens": 5000}, "prefix_tokens = 5000: must be an integer from 0"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(fields, message):
    with pytest.raises(ConfigError) as caught:
        SubnetConfig(**fields)
    assert message in str(caught.value)
