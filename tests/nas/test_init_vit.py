# SPDX-License-Identifier: Apache-2.0
"""A supernet that starts from a trained network: its largest subnet is that network, or the nearest to it."""

import dataclasses
import random

import pytest
import torch
from spaces import AROUND, BIAS, BLOCKS, CONV, DENSE, KEYWORD, PADDED, PATCH, POST, TABLES, random_space

from mcuformer.converter.float_vit import FloatViT
from mcuformer.converter.subnet_config import SubnetConfig
from mcuformer.errors import ConfigError
from mcuformer.nas import SearchSpace, SuperNet, build_subnet
from mcuformer.nas.init_vit import init_from_vit


def trained(config: SubnetConfig, seed: int = 0) -> FloatViT:
    """A network none of whose weights is at its start value."""
    net, generator = build_subnet(config, seed).eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if value.ndim < 2 or ".relative." in name:
                value.add_(0.2 * torch.randn(value.shape, generator=generator))
        for name, value in net.named_buffers():
            if "running" in name:
                value.uniform_(0.1, 0.3, generator=generator)
    return net


def images(config: SubnetConfig, count: int = 4) -> torch.Tensor:
    height, width, channels = config.image_shape
    return torch.rand((count, channels, height, width), generator=torch.Generator().manual_seed(9)) * 2 - 1


def started(space: SearchSpace, net: FloatViT, keep_head: bool = True) -> SuperNet:
    supernet = SuperNet(space, seed=5).eval()
    init_from_vit(supernet, net, keep_head=keep_head)
    return supernet


def assert_same_logits(supernet: SuperNet, config: SubnetConfig, net: FloatViT, tolerance: float = 1e-5) -> None:
    x = images(config)
    with torch.inference_mode():
        torch.testing.assert_close(supernet(x, config), net(x), rtol=tolerance, atol=tolerance)


def test_in_a_space_of_both_stems_the_convolutions_are_the_networks():
    space = dataclasses.replace(CONV, stem=("patch", "conv"), rank_ratio=None)
    net = trained(space.largest())
    supernet = started(space, net)
    assert_same_logits(supernet, space.largest(), net)
    assert torch.equal(supernet.patch.weight, SuperNet(space, seed=5).patch.weight)  # it starts anew
    with pytest.raises(ConfigError, match="has stem = 'patch', the space 'conv'"):
        started(space, trained(dataclasses.replace(space.largest(), stem="patch")))


def test_blocks_of_the_stem_are_the_networks_or_start_anew():
    space = dataclasses.replace(BLOCKS, rank_ratio=None, patch_size=(8,))
    net = trained(space.largest())  # of channels 6, 8 with blocks of 18 and 8
    wider = trained(dataclasses.replace(net.config, stem_channels=(7, 9), stem_blocks=(4, 2)))
    supernet = started(space, wider)
    for name, hidden in (("0", 18), ("1", 18)):
        assert torch.equal(
            supernet.whole.stem.blocks[name].depthwise.weight, wider.stem.blocks[name].depthwise.weight[:hidden]
        )
    with pytest.raises(ConfigError, match="has stem_channels\\[1\\] = 8, the space up to 9"):
        started(space, net)
    one = dataclasses.replace(space, stem_channels=(6, 8))
    with pytest.raises(
        ConfigError, match="has hidden channels of the block behind stem convolution 1 = 8, the space up to 16"
    ):
        started(one, net)
    same = dataclasses.replace(one, stem_blocks=((0, 0), (3, 1)))
    assert_same_logits(started(same, net), same.largest(), net)
    plain = trained(dataclasses.replace(net.config, stem_blocks=None))
    supernet = started(same, plain)
    assert_same_logits(supernet, dataclasses.replace(same.largest(), stem_blocks=None), plain)
    anew = SuperNet(same, seed=5).whole.stem.blocks["0"].expand.weight
    assert torch.equal(supernet.whole.stem.blocks["0"].expand.weight, anew)
    with pytest.raises(ConfigError, match="has a block behind stem convolution 0, the space none; give a space with"):
        started(dataclasses.replace(one, stem_blocks=(0, 1)), net)


def test_the_largest_subnet_has_the_logits_of_a_network_of_its_dimensions():
    """Without factors, or with those of full rank; of any options, stem, and numbers of heads."""
    rng, stems, around = random.Random(1), set(), set()
    for seed in range(40):
        space = random_space(rng)
        if space.rank_ratio is not None and rng.random() < 0.5:
            space = dataclasses.replace(space, rank_ratio=None)
        largest = space.largest()
        net = trained(dataclasses.replace(largest, rank_ratio=None, attention_rank_ratio=None), seed)
        dense = space.rank_ratio is None and space.attention_rank_ratio is None
        assert_same_logits(started(space, net), largest, net, 1e-5 if dense else 1e-4)
        stems.add((space.stem, space.rank_ratio is None))
        around.add(space.attention_rank_ratio)
    assert len(stems) == 4 and len(around) == 2


@pytest.mark.parametrize("kv_heads", [(1,), (2,), (1, "all"), (2, 4)])
@pytest.mark.parametrize("given", [1, 2, 4])
def test_heads_that_share_keys_and_values(kv_heads, given):
    """Exact where each query head finds the network's own key/value head: none of the space's is shared by two."""
    space = dataclasses.replace(DENSE, num_heads=(4,), kv_heads=kv_heads)
    net = trained(dataclasses.replace(space.largest(), kv_heads=given))
    supernet, largest = started(space, net), space.largest()
    if given <= largest.layers[0].kv_heads:
        assert_same_logits(supernet, largest, net)
    qkv, whole = net.layers[0].attention.qkv.weight, supernet.whole.layers[0].attention.qkv.weight
    q, k, _ = (part.unflatten(0, (-1, 8)) for part in qkv.split((32, 8 * given, 8 * given)))
    group = 4 // largest.layers[0].kv_heads
    for head in range(4 // group):
        assert torch.equal(whole[32:64].unflatten(0, (-1, 8))[head], k[head * group * given // 4])
    assert torch.equal(whole[:32].unflatten(0, (-1, 8)), q)


def test_the_first_channels_heads_and_layers_are_taken_as_they_are():
    config = dataclasses.replace(DENSE.largest(), embed_dim=40, depth=5, num_heads=6, kv_heads=6, mlp_ratio=3.0)
    net, supernet = trained(config), SuperNet(DENSE)
    init_from_vit(supernet, net)
    for i, layer in enumerate(supernet.whole.layers):
        qkv, given = layer.attention.qkv.weight, net.layers[i].attention.qkv.weight
        for part in range(3):
            assert torch.equal(qkv[part * 32 :][:32], given[part * 48 :][:32, :24])
        assert torch.equal(layer.attention.proj.weight, net.layers[i].attention.proj.weight[:24, :32])
        assert torch.equal(layer.mlp.fc1.weight, net.layers[i].mlp.fc1.weight[:48, :24])
        assert torch.equal(layer.mlp.fc2.bias, net.layers[i].mlp.fc2.bias[:24])
        assert torch.equal(layer.norm2.weight, net.layers[i].norm2.weight[:24])
    assert len(supernet.whole.layers) == 3


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize(
    ("space", "ratio", "block", "names", "ranks"),
    [
        (PATCH, "rank_ratio", "mlp", ("fc1", "fc2"), (6, 12, 24)),
        (AROUND, "attention_rank_ratio", "attention", ("qkv", "proj"), (7, 14, 24)),
    ],
    ids=["mlp", "attention"],
)
def test_factors_are_the_best_of_every_rank(space, ratio, block, names, ranks, low_rank):
    """No matrix of that rank is nearer (Eckart and Young); the network's may be factors too."""
    config = dataclasses.replace(space.largest(), **{ratio: 0.75 if low_rank else None})
    net, supernet = trained(config), SuperNet(space)
    init_from_vit(supernet, net)
    for i in range(config.depth):
        for name in names:
            given, factors = (getattr(getattr(one.layers[i], block), name) for one in (net, supernet.whole))
            weight = given.up.weight @ given.down.weight if low_rank else given.weight
            values = torch.linalg.svdvals(weight)
            for rank in ranks:
                made = factors.up.weight[:, :rank] @ factors.down.weight[:rank]
                least = values[rank:].square().sum().sqrt()
                torch.testing.assert_close((made - weight).norm(), least, rtol=1e-4, atol=1e-5)
            assert torch.equal(factors.up.bias, given.up.bias if low_rank else given.bias)


def test_a_subnet_of_the_networks_patches_starts_as_the_network():
    """Though the supernet's weights are of the largest patch and the finest grid."""
    for space, size in (
        (DENSE, 3),
        (DENSE, 4),
        (dataclasses.replace(KEYWORD, rank_ratio=None), (3, 2)),
        (POST, (3, 2)),
        (BIAS, (3, 2)),
        (TABLES, (3, 2)),
        (PADDED, 4),
    ):
        space = dataclasses.replace(space, rank_ratio=None)
        config = dataclasses.replace(space.largest(), patch_size=size, patch_padding=space.padding_for(size))
        assert space.holds(config) and config.grid_shape != SuperNet(space).grid_shape
        net = trained(config)
        assert_same_logits(started(space, net), config, net)


def test_positions_of_another_image_size_are_interpolated():
    config = dataclasses.replace(DENSE.largest(), image_size=16, patch_size=2)  # 8x8 positions, the space's are 4x4
    net = trained(config)
    ramp = torch.linspace(0.5, 7.5, 8)
    with torch.no_grad():
        net.position.copy_((ramp[:, None] + 10 * ramp).reshape(1, 64, 1))
    table = started(DENSE, net).whole.position[0, :, 0].unflatten(0, (4, 4))
    coarse = torch.tensor([1.0, 3.0, 5.0, 7.0])
    torch.testing.assert_close(table[1:-1, 1:-1], (coarse[:, None] + 10 * coarse)[1:-1, 1:-1], rtol=1e-5, atol=1e-5)


def test_distances_that_the_network_lacks_are_those_of_its_furthest():
    space = dataclasses.replace(TABLES, patch_size=(2,), rank_ratio=None)  # 3 x 4 patches
    for size, grid in ((4, (1, 2)), (1, (7, 8))):
        net = trained(dataclasses.replace(space.largest(), patch_size=size))
        assert net.config.grid_shape == grid
        given, made = net.layers[0].attention.relative, started(space, net).whole.layers[0].attention.relative
        assert made.key_rows.shape == (5, 8) and made.value_columns.shape == (7, 8)
        if size == 4:
            assert torch.equal(made.key_rows, given.key_rows.expand(5, -1))
            assert torch.equal(made.value_columns, given.value_columns[[0, 0, 0, 1, 2, 2, 2]])
        else:
            assert torch.equal(made.key_rows, given.key_rows[4:9])
            assert torch.equal(made.value_columns, given.value_columns[4:11])


def test_the_head_starts_anew_unless_it_is_kept():
    net = trained(DENSE.largest())
    fresh = SuperNet(DENSE, seed=5)
    for keep in (False, True):
        head = started(DENSE, net, keep_head=keep).whole.head
        assert torch.equal(head.weight, (net if keep else fresh.whole).head.weight)
        assert torch.equal(head.bias, (net if keep else fresh.whole).head.bias)
    for classes in (0, 1000):
        other = trained(dataclasses.replace(DENSE.largest(), num_classes=classes))
        assert torch.equal(started(DENSE, other, keep_head=False).whole.head.weight, fresh.whole.head.weight)


MISFITS = {
    "a.pt: has embed_dim = 20, the space up to 24; give a network at least as large": {"embed_dim": 20},
    "a.pt: has depth = 2, the space up to 3": {"depth": 2, "num_heads": 4, "kv_heads": 4, "mlp_ratio": 2.0},
    "a.pt: has num_heads = 2 in layer 0, the space up to 4": {"num_heads": 2, "kv_heads": 2},
    "a.pt: has mlp_dim = 40 in layer 1, the space up to 48": {"mlp_ratio": (2.0, 40 / 24, 2.0)},
    "a.pt: has head_dim = 6 in layer 0, the space 8; give a space with head_dim: 6": {"head_dim": 6},
    "a.pt: has in_channels = 3, the space 1": {"in_channels": 3},
    "a.pt: has stem = 'conv', the space 'patch'": {"stem": "conv", "patch_size": 4},
    "a.pt: has prefix_tokens = 1, the space 0; give a space with prefix_tokens: 1": {"prefix_tokens": 1},
    "a.pt: has pool = 'mean-all', the space 'mean'": {"pool": "mean-all"},
    "a.pt: has final_norm = 'after', the space 'before'": {"final_norm": "after"},
    "a.pt: has norm_pre = True, the space False; give a space with norm_pre: True": {"norm_pre": True},
    "a.pt: has norm = 'post', the space 'pre'": {"norm": "post"},
    "a.pt: has norm_epsilon = 1e-05, the space 1e-06": {"norm_epsilon": 1e-5},
    "a.pt: has activation = 'silu', the space 'gelu'": {"activation": "silu"},
    "a.pt: has relative_position = 'bias', the space 'none'": {"relative_position": "bias"},
    "a.pt: has num_classes = 7, the space 10: its head cannot be kept; leave out --keep-head": {"num_classes": 7},
}


@pytest.mark.parametrize("expected", MISFITS)
def test_a_network_that_does_not_fit_is_refused_by_field_and_values(expected):
    supernet = SuperNet(DENSE)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    config = dataclasses.replace(DENSE.largest(), **MISFITS[expected])
    with pytest.raises(ConfigError) as caught:
        init_from_vit(supernet, FloatViT(config), "a.pt", keep_head=True)
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


@pytest.mark.parametrize(("space", "padding", "ours"), [(DENSE, 1, 0), (PADDED, 2, 3), (PADDED, 0, 3)])
def test_a_network_of_other_padding_is_refused(space, padding, ours):
    config = dataclasses.replace(space.largest(), patch_size=4, patch_padding=padding)
    words = (
        f"a.pt: has patch_padding = {padding} at patch_size = 4, the space {ours}; give a space with patch_padding: "
    )
    with pytest.raises(ConfigError, match=words):
        init_from_vit(SuperNet(space), FloatViT(config), "a.pt")


def test_stems_of_other_depth_or_width_are_refused():
    space = dataclasses.replace(DENSE, patch_size=(4,), stem="conv", stem_channels=(12,))
    for fields, expected in [
        ({"patch_size": 2, "stem_channels": None}, "a stem of 1 convolutions \\(patch_size = 2\\), the space of 2"),
        ({"stem_channels": (8,)}, "stem_channels\\[0\\] = 8, the space up to 12"),
    ]:
        with pytest.raises(ConfigError, match=expected):
            init_from_vit(SuperNet(space), FloatViT(dataclasses.replace(space.largest(), **fields)))
