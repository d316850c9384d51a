# SPDX-License-Identifier: Apache-2.0
"""The supernet: subnets are slices of it, and extracted they give the same logits."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from spaces import (
    AROUND,
    BIAS,
    BLOCKS,
    BOTH,
    CONV,
    DENSE,
    ELASTIC,
    KEYWORD,
    PADDED,
    PATCH,
    POST,
    SMALL,
    STEMS,
    TABLES,
    random_space,
)

from mcuformer.converter.ops.int_gelu import ACTIVATIONS
from mcuformer.converter.pixels import to_float
from mcuformer.converter.subnet_config import FINAL_NORMS, NORMS, POOLS, RELATIVE_POSITIONS, SubnetConfig
from mcuformer.data.image_files import fit_array
from mcuformer.errors import ConfigError, ModelError
from mcuformer.nas import SuperNet, build_subnet, load_supernet, save_supernet, saved_network, supernet
from mcuformer.nas.supernet import _resize, resized

SPACES = {
    "patch": PATCH, "dense": DENSE, "conv": CONV, "fixed-stem": dataclasses.replace(CONV, stem_channels=(6,)),
    "keyword": KEYWORD, "post": POST, "bias": BIAS, "tables": TABLES, "around": AROUND,
    "padded": PADDED, "elastic": ELASTIC, "stems": STEMS, "both": BOTH,
    "blocks": BLOCKS,
}  # fmt: skip
each_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def lively(space, seed: int = 0) -> SuperNet:
    """A supernet whose norms and biases are not at their start values."""
    supernet = SuperNet(space, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in supernet.named_parameters():
            if value.ndim < 2 or ".relative." in name:
                value.add_(0.2 * torch.randn(value.shape, generator=generator))
    supernet.calibrate(images(64, seed, space.image_shape))
    return supernet.eval()


def images(count: int, seed: int = 1, shape: tuple[int, int, int] = (8, 8, 1)) -> torch.Tensor:
    """shape: height, width, channels."""
    height, width, channels = shape
    return torch.rand((count, channels, height, width), generator=torch.Generator().manual_seed(seed)) * 2 - 1


@each_space
def test_extracted_subnets_give_the_same_logits(space):
    supernet, rng, x = lively(space), random.Random(0), images(5, shape=space.image_shape)
    seen = set()
    for config in [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(30))]:
        net = supernet.extract(config)
        assert net.config == config and not net.training
        with torch.inference_mode():
            expected = supernet(x, config)
            torch.testing.assert_close(net(resized(x, config)), expected, rtol=0, atol=1e-5)
        seen.add(round(expected.sum().item(), 4))
    assert len(seen) > 20  # they are different networks


def test_so_do_those_of_any_space():
    rng, drawn = random.Random(0), []
    for seed in range(40):
        space = random_space(rng)
        supernet, x = lively(space, seed), images(3, seed, space.image_shape)
        for config in (space.largest(), space.smallest(), *(space.sample(rng) for _ in range(4))):
            with torch.inference_mode():
                torch.testing.assert_close(supernet.extract(config)(x), supernet(x, config), rtol=1e-5, atol=1e-5)
        drawn.append(space)
    options = {"stem": ("conv", "patch"), "pool": POOLS, "final_norm": FINAL_NORMS, "norm": NORMS}
    options["relative_position"] = RELATIVE_POSITIONS
    for field, values in {**options, "norm_pre": (False, True), "activation": ACTIVATIONS}.items():
        assert {getattr(space, field) for space in drawn} == set(values)


def test_a_head_of_two_vectors_is_sliced_in_each():
    supernet, d, most = SuperNet(KEYWORD), min(KEYWORD.embed_dim), max(KEYWORD.embed_dim)
    weight = supernet.weights(KEYWORD.smallest())["head.weight"]
    whole = supernet.whole.head.weight
    assert whole.shape[1] == 2 * most
    assert torch.equal(weight, torch.cat([whole[:, :d], whole[:, most : most + d]], dim=1))


def test_the_weights_enclose_patches_and_grids_of_all_shapes():
    supernet = SuperNet(KEYWORD)
    assert supernet.hull.patch_shape == (3, 5) and supernet.grid_shape == (9, 2)  # of 9x1, 3x2 and 4x1
    config = dataclasses.replace(KEYWORD.largest(), patch_size=(3, 2))
    weights = supernet.weights(config)
    assert weights["stem.weight"].shape[2:] == (3, 2) and weights["position"].shape[1] == 6
    rows = _resize(9, 3, torch.device("cpu"))  # columns stay
    table = torch.einsum("ai,ijd->ajd", rows, supernet.whole.position[0].unflatten(0, (9, 2)))
    torch.testing.assert_close(weights["position"][0], table.flatten(0, 1), rtol=0, atol=1e-6)


@each_space
def test_a_subnet_is_the_first_rows_columns_heads_and_layers(space):
    supernet = SuperNet(space)
    patch = space.patch_size[-1]
    config = dataclasses.replace(space.smallest(), patch_size=patch, patch_padding=space.padding_for(patch))
    weights, whole = supernet.weights(config), supernet.whole
    layer, most, d = config.layers[0], supernet.hull.layers[0], config.embed_dim
    rows = [*range(layer.q_dim), *range(most.q_dim, most.q_dim + layer.kv_dim)]
    rows += range(most.q_dim + most.kv_dim, most.q_dim + most.kv_dim + layer.kv_dim)
    attention, at = whole.layers[0].attention, "layers.0.attention"
    if space.attention_rank_ratio is None:
        assert torch.equal(weights[f"{at}.qkv.weight"], attention.qkv.weight[rows, :d])
        assert torch.equal(weights[f"{at}.proj.weight"], attention.proj.weight[:d, : layer.q_dim])
    else:
        rank, proj_rank = layer.attention_rank, layer.proj_rank
        assert rank < most.attention_rank
        assert torch.equal(weights[f"{at}.qkv.down.weight"], attention.qkv.down.weight[:rank, :d])
        assert torch.equal(weights[f"{at}.qkv.up.weight"], attention.qkv.up.weight[rows, :rank])
        assert torch.equal(weights[f"{at}.qkv.up.bias"], attention.qkv.up.bias[rows])
        assert torch.equal(weights[f"{at}.proj.down.weight"], attention.proj.down.weight[:proj_rank, : layer.q_dim])
        assert torch.equal(weights[f"{at}.proj.up.weight"], attention.proj.up.weight[:d, :proj_rank])
    if space.rank_ratio is not None:
        mlp = whole.layers[0].mlp
        assert torch.equal(weights["layers.0.mlp.fc1.down.weight"], mlp.fc1.down.weight[: layer.rank, :d])
        assert torch.equal(weights["layers.0.mlp.fc2.up.weight"], mlp.fc2.up.weight[:d, : layer.rank])
    assert not any(name.startswith(f"layers.{config.depth}.") for name in weights)


def test_relative_positions_are_those_of_the_same_distance():
    supernet = lively(BIAS)  # grids of 9 x 1, 3 x 2 and 4 x 1
    config = dataclasses.replace(BIAS.smallest(), patch_size=(3, 2))
    heads, weights = config.layers[0].num_heads, supernet.weights(config)
    bias, whole = weights["layers.0.attention.relative.bias"], supernet.whole.layers[0].attention.relative.bias
    assert whole.shape == (4, 17 * 3 + 3) and bias.shape == (heads, 5 * 3 + 3)
    rows = whole[:heads, :51].reshape(heads, 17, 3)[:, 6:11]  # 2 rows up to 2 rows down
    assert torch.equal(bias, torch.cat([rows.flatten(1), whole[:heads, 51:]], dim=1))

    supernet = lively(TABLES)  # grids of 3 x 4 and 2 x 4
    weights = supernet.weights(dataclasses.replace(TABLES.largest(), patch_size=(3, 2)))
    whole = supernet.whole.layers[0].attention.relative
    assert whole.key_rows.shape == (5, 8) and whole.key_prefix is None
    assert torch.equal(weights["layers.0.attention.relative.key_rows"], whole.key_rows[1:4])
    assert torch.equal(weights["layers.0.attention.relative.value_columns"], whole.value_columns)


def test_gradients_reach_the_distances_of_the_subnets_grid_only():
    supernet = lively(TABLES).train()
    config = dataclasses.replace(TABLES.largest(), patch_size=(3, 2))
    supernet(images(4, shape=TABLES.image_shape), config).square().sum().backward()
    gradient = supernet.whole.layers[0].attention.relative.key_rows.grad.abs().sum(dim=1)
    assert (gradient[1:4] > 0).all() and gradient[0] == gradient[4] == 0


def test_gradients_reach_what_the_subnet_has_and_nothing_else():
    supernet = SuperNet(PATCH).train()
    config = dataclasses.replace(PATCH.smallest(), patch_size=3)
    supernet(images(4), config).square().sum().backward()
    weight = supernet.whole.layers[0].attention.proj.weight
    d, q = config.embed_dim, config.layers[0].q_dim
    assert weight.grad[:d, :q].abs().sum() > 0
    assert weight.grad[d:].abs().sum() == weight.grad[:, q:].abs().sum() == 0
    assert supernet.whole.layers[1].norm1.weight.grad is None
    assert supernet.whole.stem.weight.grad.abs().sum() > 0 and supernet.whole.position.grad.abs().sum() > 0


def test_a_small_patch_sees_what_the_large_one_sees_of_the_enlarged_patch():
    supernet = lively(PATCH)
    config = dataclasses.replace(PATCH.largest(), patch_size=2)
    patch = images(1)[:, :, :2, :2]
    enlarge = _resize(2, 4, patch.device)
    enlarged = torch.einsum("ia,jb,ncab->ncij", enlarge, enlarge, patch)
    weight = supernet.weights(config)["stem.weight"]
    expected = torch.nn.functional.conv2d(enlarged, supernet.whole.stem.weight)
    torch.testing.assert_close(torch.nn.functional.conv2d(patch, weight), expected, rtol=0, atol=1e-5)


def test_a_smooth_position_table_stays_itself_when_it_is_interpolated():
    supernet = SuperNet(PATCH)
    side = 4  # patches of 2 pixels
    centres = (torch.arange(side) + 0.5) / side
    with torch.no_grad():
        table = centres[:, None] + 2 * centres[None]
        supernet.whole.position.copy_(table.reshape(1, -1, 1).expand_as(supernet.whole.position))
    got = supernet.weights(dataclasses.replace(PATCH.largest(), patch_size=4))["position"][0, :, 0].reshape(2, 2)
    centres = torch.tensor([0.25, 0.75])
    torch.testing.assert_close(got, centres[:, None] + 2 * centres[None], rtol=0, atol=0.2)


def test_a_patch_that_was_measured_first_can_still_be_trained():
    _resize.cache_clear()
    supernet, config = SuperNet(PATCH), dataclasses.replace(PATCH.largest(), patch_size=3)
    with torch.inference_mode():
        supernet(images(2), config)
    supernet.train()(images(2), config).sum().backward()
    assert supernet.whole.stem.weight.grad.abs().sum() > 0


def test_batch_norm_is_that_of_the_subnet():
    """With statistics measured on the very images, eval mode gives the logits of train mode."""
    supernet, x = SuperNet(CONV), images(200)
    supernet.calibrate(x)
    stems = {c.conv_channels for c in (dataclasses.replace(CONV.largest(), embed_dim=d) for d in CONV.embed_dim)}
    assert len(stems) == 2  # inner channels differ, so do their statistics
    for width in CONV.embed_dim:
        config = dataclasses.replace(CONV.largest(), embed_dim=width)
        with torch.inference_mode():
            torch.testing.assert_close(supernet.eval()(x, config), supernet.train()(x, config), rtol=0, atol=1e-2)


def test_stems_of_several_patches_and_image_sizes_have_statistics_of_their_own():
    supernet, x = SuperNet(STEMS), images(300, shape=STEMS.image_shape)
    supernet.calibrate(x)
    seen = set()
    for config in STEMS.embeddings():
        with torch.inference_mode():
            torch.testing.assert_close(supernet.eval()(x, config), supernet.train()(x, config), rtol=0, atol=2e-2)
        seen.add((config.image_size, config.conv_channels))
    assert len(seen) == 2 * 2 * (1 + 2 + 3)  # images, embed_dim, and stems of patches of 2, 4 and 8
    shared, own = supernet.whole.stem.convs[0].weight, supernet.lasts["1"].get_parameter("conv.weight")
    supernet.train()(x, dataclasses.replace(config, patch_size=2, stem_channels=())).sum().backward()
    assert own.grad is not None and shared.grad is None  # one convolution alone is the last
    supernet(x, dataclasses.replace(config, patch_size=4, stem_channels=(4,))).sum().backward()
    assert shared.grad is not None


def test_blocks_have_statistics_of_their_own_and_share_their_first_channels():
    supernet, x = SuperNet(BLOCKS), images(300, shape=BLOCKS.image_shape)
    assert supernet.hull.block_hidden == (3 * 6, 2 * 9)
    supernet.calibrate(x)
    seen = set()
    for config in BLOCKS.embeddings():
        with torch.inference_mode():
            torch.testing.assert_close(supernet.eval()(x, config), supernet.train()(x, config), rtol=0, atol=2e-2)
        seen.add((config.image_size, config.conv_channels, config.block_hidden))
    # Images, embed_dim, and stems of patches of 2, of 4 with and without a block, and of 8.
    assert len(seen) == len(supernet.stems) == 2 * 2 * (1 + 2 * 2 + 3 * 3)
    config = dataclasses.replace(config, patch_size=8, stem_channels=(4, 9), stem_blocks=(3, 1))
    weights, blocks = supernet.weights(config), supernet.whole.stem.blocks
    for name, channels, hidden in (("0", 4, 12), ("1", 9, 9)):
        for part, sliced in (("expand", (hidden, channels)), ("depthwise", (hidden,)), ("project", (channels, hidden))):
            whole = blocks[name].get_parameter(f"{part}.weight")
            wanted = whole[tuple(map(slice, sliced))]
            assert torch.equal(weights[f"stem.blocks.{name}.{part}.weight"], wanted)
    supernet.train()(x, dataclasses.replace(config, stem_blocks=None)).sum().backward()
    assert blocks["0"].expand.weight.grad is None and supernet.whole.stem.convs[1].weight.grad is not None
    supernet(x, config).square().sum().backward()
    assert blocks["1"].depthwise.weight.grad[:9].abs().sum() > 0 and not blocks["1"].depthwise.weight.grad[9:].any()


def test_a_stem_without_blocks_has_the_buffers_that_files_have():
    names = {name for name, _ in SuperNet(STEMS).named_buffers() if name.startswith("stem")}
    assert names == {
        f"stem{i}_{kind}{j}"
        for i, (channels, _, _) in enumerate(SuperNet(STEMS).stems)
        for kind in ("mean", "var")
        for j in range(len(channels))
    }


def test_a_supernet_of_both_stems_trains_each():
    supernet, x = SuperNet(BOTH, 0).train(), images(8, shape=BOTH.image_shape)
    conv = dataclasses.replace(BOTH.largest(), patch_size=8, stem_channels=(6, 8))
    patch = dataclasses.replace(conv, stem="patch", stem_channels=None)
    convolution, embedding = supernet.whole.stem.convs[0].weight, supernet.patch.weight
    supernet(x, conv).square().sum().backward()
    assert convolution.grad.abs().sum() > 0 and embedding.grad is None and supernet.patch.bias.grad is None
    convolution.grad = supernet.whole.position.grad = None
    supernet(x, patch).square().sum().backward()
    assert convolution.grad is None and embedding.grad.abs().sum() > 0 and supernet.patch.bias.grad.abs().sum() > 0
    assert supernet.whole.position.grad.abs().sum() > 0  # one table for both
    assert torch.equal(supernet.weights(patch)["stem.weight"], embedding[: patch.embed_dim])
    assert not any(name.startswith("patch.") for name, _ in SuperNet(STEMS).named_parameters())  # as files have it


def test_images_are_resized_as_data_are_read():
    config = ELASTIC.smallest()
    assert config.image_size == 4
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    ours = ((resized(to_float(pixels), config) + 1) * 127.5).round().numpy()
    read = fit_array(pixels, config.image_size).transpose(0, 3, 1, 2)
    assert ours.shape == read.shape and abs(ours - read).max() <= 1  # where a mean is half a level, to either
    assert (ours != read).mean() < 0.02
    assert resized(to_float(pixels), ELASTIC.largest()).shape[2:] == (8, 8)


def test_uncalibrated_batch_norm_and_foreign_configs_are_refused():
    supernet = SuperNet(CONV).eval()
    with pytest.raises(ValueError, match="calibrate"):
        supernet(images(2), CONV.largest())
    with pytest.raises(ValueError, match="does not hold"):
        supernet(images(2), SubnetConfig(image_size=8, in_channels=1, patch_size=2, embed_dim=16, num_heads=2))


def test_the_seed_decides_and_training_changes_no_statistics():
    a, b, c = SuperNet(CONV, 0), SuperNet(CONV, 0), SuperNet(CONV, 1)
    pairs = list(zip(a.parameters(), b.parameters(), c.parameters(), strict=True))
    assert all(torch.equal(x, y) for x, y, _ in pairs) and not all(torch.equal(x, z) for x, _, z in pairs)
    a.calibrate(images(50))
    before = {name: value.clone() for name, value in a.named_buffers()}
    a.train()(images(8), CONV.largest())
    assert all(torch.equal(value, before[name]) for name, value in a.named_buffers())


def test_saved_and_loaded(tmp_path):
    supernet, config = lively(CONV), CONV.sample(random.Random(3))
    save_supernet(supernet, tmp_path / "supernet.pt", {"top1": 0.5})
    loaded = load_supernet(tmp_path / "supernet.pt", CONV)
    assert loaded.space == CONV and loaded.notes == {"top1": 0.5}
    assert torch.equal(loaded(images(3), config), supernet(images(3), config))


@pytest.mark.parametrize("space", [BOTH, BLOCKS], ids=["both", "blocks"])
def test_all_stems_are_saved_and_loaded(tmp_path, space):
    supernet, x = lively(space), images(3, shape=space.image_shape)
    save_supernet(supernet, tmp_path / "supernet.pt")
    loaded = load_supernet(tmp_path / "supernet.pt", space)
    for config in (space.largest(), space.smallest()):
        assert torch.equal(loaded(x, config), supernet(x, config))


def test_files_that_are_no_supernet_of_the_space_are_refused(tmp_path):
    path = tmp_path / "supernet.pt"
    save_supernet(lively(CONV), path)
    with pytest.raises(ConfigError, match="another space, with patch_size = \\[4\\] instead of \\[2, 3, 4\\]"):
        load_supernet(path, PATCH)
    content = torch.load(path, weights_only=True)
    for change, expected in [
        ({"state": {}}, "weights do not fit"),
        ({"space": SMALL.to_dict()}, "weights do not fit"),
        ({"space": {"depth": []}}, "its space is not valid"),
        ({"format": "x"}, "not an MCUFormer supernet"),
    ]:
        torch.save(saved_network.sealed({**content, **change}), path)
        with pytest.raises(ModelError, match=expected) as caught:
            load_supernet(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not a readable"):
        load_supernet(path)
    with pytest.raises(ModelError, match="no such file; make one with `mcuformer train --space`"):
        load_supernet(tmp_path / "none.pt")


def test_an_extracted_subnet_has_the_shape_of_a_built_one():
    config = PATCH.sample(random.Random(5))
    built, extracted = build_subnet(config).state_dict(), lively(PATCH).extract(config).state_dict()
    assert {name: value.shape for name, value in built.items()} == {n: v.shape for n, v in extracted.items()}


@pytest.mark.parametrize("space", [BIAS, TABLES], ids=["bias", "tables"])
def test_relative_positions_that_were_only_evaluated_can_be_trained(space):
    supernet._pairs.cache_clear()
    net, config = SuperNet(space, 0), space.largest()
    images = torch.zeros(1, config.in_channels, *config.image_shape[:2])
    with torch.inference_mode():
        net(images, config)
    net(images, config).sum().backward()
