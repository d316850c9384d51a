# SPDX-License-Identifier: Apache-2.0
"""Spaces: read, drawn from, changed, and refused where they make no networks."""

import dataclasses
import random

import numpy as np
import pytest
import yaml
from spaces import AROUND, BIAS, BLOCKS, BOTH, CONV, DENSE, ELASTIC, KEYWORD, PADDED, PATCH, POST, SMALL, STEMS, TABLES

from mcuformer.converter.estimate import feasibility
from mcuformer.errors import ConfigError
from mcuformer.nas import load_space
from mcuformer.nas.search_space import FIXED, SPACES, SearchSpace, space_yaml
from mcuformer.sizes import sides

SPACES_HERE = {"patch": PATCH, "dense": DENSE, "conv": CONV, "small": SMALL, "keyword": KEYWORD, "post": POST,
               "around": AROUND, "padded": PADDED, "elastic": ELASTIC, "stems": STEMS, "both": BOTH,
               "blocks": BLOCKS}  # fmt: skip
NAMES = sorted(path.stem for path in SPACES.glob("*.yaml"))
each_space = pytest.mark.parametrize("space", SPACES_HERE.values(), ids=SPACES_HERE)


@each_space
def test_what_is_drawn_changed_or_crossed_is_in_the_space(space):
    rng = random.Random(1)
    configs = [space.sample(rng) for _ in range(200)]
    for a, b in zip(configs, configs[1:], strict=False):
        for config in (a, space.mutate(a, rng, 0.3), space.cross(a, b, rng)):
            assert space.holds(config)
            assert all(layer.num_heads % layer.kv_heads == 0 for layer in config.layers)
    for gene, choices in space.choices.items():
        seen = {getattr(space.genes(config), gene) for config in configs}
        assert seen == set(choices) or (gene == "stem" and len(seen) > 1)  # small patches tell few stems apart
    assert {layer[:3] for c in configs for layer in zip(c.num_heads, c.kv_heads, c.mlp_ratio, strict=True)} == {
        choice[:3] for choice in space.layer_choices
    }


def test_padding_belongs_to_a_patch_size():
    grids = {config.patch_size: (config.patch_padding, config.grid_shape) for config in PADDED.uniform(1)}
    assert grids == {2: (0, (3, 4)), 4: (3, (3, 3)), (3, 2): (1, (3, 5))}
    assert PADDED.to_dict()["patch_padding"] == {"4": 3, "3x2": 1} and "patch_padding" not in PATCH.to_dict()
    assert SearchSpace.from_dict(PADDED.to_dict()) == PADDED
    other = dataclasses.replace(PADDED.largest(), patch_padding=1 - PADDED.largest().patch_padding)
    assert not PADDED.holds(other)


@pytest.mark.parametrize(
    ("padding", "words"),
    [
        (2, r"patch_padding = 2: give pixels for some patch sizes, such as \{28: 6\}"),
        ({5: 1}, r"patch_padding: 5 is none of patch_size = \[2, 4, \[3, 2\]\]; leave it out, or add it there"),
        ({4: 1, "4": 2}, "the same patch size twice; leave one out"),
        ({4: 4}, "patch_padding = 4 with patch_size = 4 and stem = 'patch': must be pixels from 0 to 3"),
        ({"3x2": "1"}, "patch_padding = '1' with patch_size = 3x2"),
    ],
)
def test_padding_that_no_patch_can_have_is_refused(padding, words):
    with pytest.raises(ConfigError, match=words) as caught:
        SearchSpace.from_dict({**PADDED.to_dict(), "patch_padding": padding})
    assert "\n" not in str(caught.value)


def test_all_subnets_are_counted():
    every = list(SMALL.every())
    assert len(every) == len(set(every)) == SMALL.subnets == 2 * (4 + 16)
    assert set(SMALL.uniform(1)) == {c for c in every if c.depth == 1}
    assert all(SMALL.holds(c) for c in every)


def test_largest_and_smallest_bound_every_dimension():
    rng = random.Random(0)
    largest, smallest = PATCH.largest(), PATCH.smallest()
    assert PATCH.holds(largest) and PATCH.holds(smallest)
    assert smallest.macs < largest.macs
    for config in (PATCH.sample(rng) for _ in range(100)):
        assert smallest.macs <= config.macs <= largest.macs
        assert smallest.tokens <= config.tokens <= largest.tokens


def test_a_child_has_its_parents_choices_and_no_mutation_changes_nothing():
    rng = random.Random(2)
    a, b = (dataclasses.replace(PATCH, depth=(d,)).sample(rng) for d in (1, 3))
    for _ in range(50):
        child = PATCH.cross(a, b, rng)
        assert child.embed_dim in (a.embed_dim, b.embed_dim) and child.depth in (1, 3)
        assert child.num_heads[0] in (a.num_heads[0], b.num_heads[0])
        assert child.num_heads[1:] in ((), b.num_heads[1:])
    assert PATCH.mutate(a, rng, 0.0) == a


def test_ranks_around_attention_are_a_choice_of_every_layer():
    rng = random.Random(0)
    assert len(AROUND.layer_choices) == 3 * len(PATCH.layer_choices)
    assert AROUND.largest().attention_rank_ratio == (1.0,) * 3 and AROUND.smallest().attention_rank_ratio == (0.3,)
    assert {ratio for _ in range(50) for ratio in AROUND.sample(rng).attention_rank_ratio} == {0.3, 0.6, 1.0}
    assert AROUND.to_dict()["attention_rank_ratio"] == [0.3, 0.6, 1.0]
    assert SearchSpace.from_dict(AROUND.to_dict()) == AROUND
    assert "attention_rank_ratio" not in PATCH.to_dict()
    config = dataclasses.replace(AROUND.smallest(), attention_rank_ratio=None)
    assert PATCH.holds(config) and not AROUND.holds(config)
    # 1.0 is dense, also with fewer heads than the width has.
    largest = dataclasses.replace(AROUND, num_heads=(1,), kv_heads=("all",)).largest()
    assert largest.macs == dataclasses.replace(largest, attention_rank_ratio=None).macs


@pytest.mark.parametrize(
    "choices, words",
    [
        ((), "at least one choice"),
        ((0.5, "all"), "'all' is not a number"),
        ((0.5, 0.5), "the same choice twice"),
        ((0.5, 1.5), "1.5 in layer 0"),
    ],
)
def test_wrong_ranks_around_attention_are_refused(choices, words):
    with pytest.raises(ConfigError, match=f"attention_rank_ratio.*{words}"):
        dataclasses.replace(PATCH, attention_rank_ratio=choices)


def test_a_foreign_config_is_not_held():
    config = PATCH.sample(random.Random(0))
    for fields in ({"embed_dim": 20}, {"head_dim": 4}, {"mlp_ratio": 1.25}, {"num_classes": 9}, {"rank_ratio": None}):
        assert not PATCH.holds(dataclasses.replace(config, **fields))


@pytest.mark.parametrize("name", NAMES)
def test_the_packages_spaces_are_read_and_written(name, tmp_path):
    space = load_space(name)
    (tmp_path / "space.yaml").write_text(space_yaml(space))
    assert load_space(tmp_path / "space.yaml") == space
    assert space.holds(space.sample(random.Random(0)))
    if space.evolution is not None:
        for place in space.evolution.start:
            assert space.window(place).rank_ratio == space.evolution.rank_ratio[place[0] :][: space.evolution.window[0]]


@pytest.mark.parametrize("space", [ELASTIC, STEMS, BOTH, BLOCKS], ids=["elastic", "stems", "both", "blocks"])
def test_every_subnet_is_counted_once(space):
    space = dataclasses.replace(space, depth=(1,), num_heads=(1, 2), kv_heads=(1,), rank_ratio=None)
    every = list(space.every())
    assert len(every) == len(set(every)) == space.subnets and all(map(space.holds, every))
    assert {space.smallest(), space.largest()} <= set(every)
    smaller = {config.image_size for config in every} - {space.image_size}
    assert smaller and space.image_shape[:2] == sides(space.image_size)
    rows, columns = sides(every[0].image_size)
    assert not space.holds(dataclasses.replace(every[0], image_size=(3 * rows, 3 * columns)))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mcuformer"])  # the paper's
def test_memory_decides_in_spaces_that_are_made_for_budgets(name):
    """Of 1,000 subnets each budget admits some and refuses some; their arenas are many, and far apart."""
    space, rng = load_space(name), random.Random(0)
    arenas = np.array([feasibility.board_arena_bytes(space.sample(rng)) for _ in range(1000)])
    assert len(set(arenas)) >= 20 and arenas.max() >= 3 * arenas.min()
    shares = [float((arenas <= budget).mean()) for budget in space.budgets]
    assert len(shares) == 3 and all(0.1 <= share <= 0.9 for share in shares), shares


def test_a_small_space_is_part_of_a_large_one():
    small, large = load_space("exhaustible"), load_space("fashion-mnist")
    assert 100 <= small.subnets < 1000 and all(map(large.holds, small.every()))


def test_both_stems_are_choices_of_one_space():
    assert len(BOTH.stems) == 1 + len(STEMS.stems) and BOTH.stems[1:] == STEMS.stems
    assert set(BOTH.embeddings()) > set(STEMS.embeddings())
    assert BOTH.largest() == STEMS.largest() and BOTH.smallest().stem == "patch"
    assert BOTH.to_dict()["stem"] == ["patch", "conv"] and STEMS.to_dict()["stem"] == "conv"
    for order in (("patch", "conv"), ("conv", "patch"), ("conv",), ("patch",)):
        space = dataclasses.replace(BOTH, stem=order, stem_channels=BOTH.stem_channels if "conv" in order else None)
        assert SearchSpace.from_dict(yaml.safe_load(space_yaml(space))) == space
    assert dataclasses.replace(BOTH, stem=("conv",)) == STEMS
    rng, patch = random.Random(0), dataclasses.replace(STEMS, stem="patch", stem_channels=None).largest()
    children = [BOTH.cross(patch, STEMS.largest(), rng) for _ in range(50)]
    assert {child.stem for child in children} == {"patch", "conv"} and all(map(BOTH.holds, children))
    assert not STEMS.holds(patch) and BOTH.holds(patch)


def test_blocks_are_a_choice_of_every_stem_of_convolutions():
    space = dataclasses.replace(BOTH, stem_blocks=BLOCKS.stem_blocks)
    assert len(space.stems) == 1 + len(STEMS.stems) * 3 and space.stems[1:] == BLOCKS.stems
    assert space.stems[0] == ("patch", None, None) and space.stems[-1] == ("conv", (6, 8), (3, 1))
    assert set(space.embeddings()) > set(BOTH.embeddings())
    of_eight = dataclasses.replace(space, patch_size=(8,)).largest()
    assert (of_eight.stem_channels, of_eight.stem_blocks) == ((6, 8), (3, 1)) and space.holds(of_eight)
    assert space.smallest() == BOTH.smallest() and BLOCKS.smallest() == STEMS.smallest()
    assert "stem_blocks" not in STEMS.to_dict() and BLOCKS.to_dict()["stem_blocks"] == [[0, 0], [0, 2], [3, 1]]
    assert SearchSpace.from_dict(yaml.safe_load(space_yaml(space))) == space
    assert SearchSpace.from_dict({**STEMS.to_dict(), "stem_blocks": [0, 2]}).stems[0].blocks == (0, 2)
    # Smaller patches have the first ones, and of those that are then the same, one.
    small = {config.stem_blocks for config in BLOCKS.embeddings() if config.patch_size == 4}
    assert small == {None, (3,)}
    assert not STEMS.holds(of_eight) and not space.holds(dataclasses.replace(of_eight, stem_blocks=(1, 1)))
    # Channels that follow embed_dim may have blocks too.
    follow = dataclasses.replace(CONV, stem_blocks=((0,), (2,)))
    assert {config.block_hidden for config in follow.embeddings()} == {(), (16,), (24,)}
    assert {follow.sample(random.Random(i)).stem_blocks for i in range(20)} == {None, (2,)}


def test_a_space_without_blocks_draws_what_it_drew():
    """Also if it says that there are none."""
    for space in (STEMS, BOTH, CONV):
        inner = [0] * (1 if space is CONV else 2)
        said = SearchSpace.from_dict({**space.to_dict(), "stem_blocks": inner})
        one, other = random.Random(5), random.Random(5)
        assert [space.sample(one) for _ in range(20)] == [said.sample(other) for _ in range(20)]


def test_what_all_subnets_share_is_in_each_of_them():
    config = KEYWORD.sample(random.Random(0))
    for field in (*FIXED, "image_size", "in_channels", "num_classes"):
        assert getattr(config, field) == getattr(KEYWORD, field)
    assert not KEYWORD.holds(dataclasses.replace(config, activation="gelu"))
    assert config.image_shape == KEYWORD.image_shape == (9, 5, 1)


def test_options_stand_in_a_file_only_if_they_are_not_the_defaults(tmp_path):
    assert not {*FIXED, "flip"} & set(PATCH.to_dict())
    assert {name: KEYWORD.to_dict()[name] for name in ("pool", "norm_pre", "flip", "image_size", "patch_size")} == {
        "pool": "token+mean", "norm_pre": True, "flip": False, "image_size": [9, 5],
        "patch_size": [[1, 5], [3, 2], [2, 5]],
    }  # fmt: skip
    assert "norm" not in KEYWORD.to_dict()
    for space in (KEYWORD, POST, BIAS, TABLES):
        path = tmp_path / "space.yaml"
        path.write_text(space_yaml(space))
        assert load_space(path) == space


def test_of_two_equal_sides_one_is_kept_and_an_exponent_needs_no_point(tmp_path):
    path = tmp_path / "space.yaml"
    values = {**PATCH.to_dict(), "image_size": [8, 8], "patch_size": [[2, 2], "4x2"]}
    path.write_text(yaml.safe_dump(values) + "norm_epsilon: 1e-5\n")
    space = load_space(path)
    assert (space.image_size, space.patch_size, space.norm_epsilon) == (8, (2, (4, 2)), 1e-5)
    assert space.largest().patch_size == 2 and space.smallest().patch_size == (4, 2)


def test_the_papers_space():
    space = load_space("mcuformer")
    assert (space.embed_dim, space.depth, space.num_heads) == ((168, 192, 216), (12, 13, 14), (3, 4))
    assert space.image_size == 240 and space.evolution.rank_ratio[::11] == (0.4, 0.95)
    assert space.evolution.patch_size[::8] == (16, 32)
    assert [space.window((0, at)).largest().tokens for at in (0, 6)] == [225, 64]


EVOLUTION = {
    "rank_ratio": [0.5, 1.0], "patch_size": [2, 4], "window": [1, 1], "threshold": [1, 1], "start": [[9, 0]],
}  # fmt: skip
BAD = {
    "unknown key embed_dims": {"embed_dims": [16]},
    "embed_dim is missing": {"embed_dim": None},
    "depth = \\[\\]: give a list of at least one choice": {"depth": []},
    "depth = 3: give a list": {"depth": 3},
    "num_heads: 3 is divided by none of kv_heads = \\[2\\]": {"num_heads": [2, 3], "kv_heads": [2]},
    "kv_heads: 3 divides none of num_heads": {"kv_heads": [1, 3]},
    "mlp_ratio: 'big' is not a number": {"mlp_ratio": ["big"]},
    "the same choice twice": {"embed_dim": [16, 16]},
    "patch_size = 3 with stem = 'conv': must be a power of two": {
        "stem": "conv", "patch_size": [3, 4], "stem_channels": [8],
    },
    "of several, stems share their first convolutions": {"stem": "conv", "patch_size": [2, 4]},
    "image_sizes: 9 is not image_size = 8 made smaller": {"image_sizes": [8, 9]},
    "image_sizes: \\[8, 4\\] is not image_size = 8 made smaller": {"image_sizes": [[8, 4]]},
    "image_sizes: 'small' is not a whole number": {"image_sizes": ["small"]},
    "image_sizes = \\[\\]: give a list": {"image_sizes": []},
    "patch_size = 4 is larger than image_size": {"image_sizes": [8, 3], "patch_size": [4]},
    "budgets = \\[0\\]: give a list of bytes": {"budgets": [0]},
    "stem = 'cnn': must be patch, conv, or": {"stem": "cnn"},
    "stem = \\['conv', 'conv'\\]: must be patch": {"stem": ["conv", "conv"], "patch_size": [4]},
    "stem = \\[\\['patch'\\], 3\\]: must be patch": {"stem": [["patch"], 3]},
    "stem = \\[\\]: must be patch": {"stem": []},
    "stem_channels is given but stem = 'patch'": {"stem_channels": [8]},
    "patch_size = 3 with stem = 'conv': must be a power": {
        "stem": ["patch", "conv"], "patch_size": [3, 4], "stem_channels": [8],
    },
    "stem_channels = \\[8, \\[8\\]\\]: give a list": {"stem": "conv", "patch_size": [4], "stem_channels": [8, [8]]},
    "stem_channels = \\[\\[8\\], \\[8\\]\\]: the same choice twice": {
        "stem": "conv", "patch_size": [4], "stem_channels": [[8], [8]],
    },
    "stem_blocks is given but stem = 'patch'": {"stem_blocks": [4]},
    "stem_blocks = 4: give a list of whole numbers from 0": {"stem": "conv", "patch_size": [4], "stem_blocks": 4},
    "stem_blocks = \\[-1\\]: give a list of whole": {"stem": "conv", "patch_size": [4], "stem_blocks": [-1]},
    "stem_blocks = \\[\\[4\\], 0\\]: give a list": {"stem": "conv", "patch_size": [4], "stem_blocks": [[4], 0]},
    "stem_blocks = \\[\\[0\\], \\[0\\]\\]: the same choice twice": {
        "stem": "conv", "patch_size": [4], "stem_blocks": [[0], [0]],
    },
    "stem_blocks = \\[0, 4\\]: patches of 4 have 1 convolutions": {
        "stem": "conv", "patch_size": [4], "stem_blocks": [0, 4],
    },
    "stem_blocks = \\[\\]: patches of 4 have 1 convolutions": {"stem": "conv", "patch_size": [4], "stem_blocks": []},
    "stem_blocks = \\(9,\\): patch_size = 4 needs 1 integers from 0 to 8": {
        "stem": "conv", "patch_size": [4], "stem_blocks": [[0], [9]],
    },
    "stem_blocks: 8 behind a convolution of 200 channels makes 1600": {
        "stem": "conv", "patch_size": [4], "stem_channels": [[8], [200]], "stem_blocks": [[0], [8]],
    },
    "patch_size = 9 is larger than image_size": {"patch_size": [9]},
    "embed_dim = 5000": {"embed_dim": [16, 5000]},
    "rank_ratio = 2.0 in layer 0": {"rank_ratio": [0.5, 2.0]},
    "head_dim = 'wide'": {"head_dim": "wide"},
    "depth = 65": {"depth": [1, 65]},
    "depth = 1000000000": {"depth": [1000000000]},
    "depth: 0 is not a whole number from 1": {"depth": [0]},
    "depth: 2.0 is not a whole number": {"depth": [2.0]},
    "embed_dim: \\[16\\] is not a whole number": {"embed_dim": [[16]]},
    "stem_channels = 5: give a list": {"stem_channels": 5},
    "stem_channels = \\[8, 8\\]: patches of 4 have 1 convolutions": {
        "stem": "conv", "patch_size": [4], "stem_channels": [8, 8],
    },
    "evolution.window = \\[2\\]: must be two whole numbers": {"evolution": {**EVOLUTION, "window": [2]}},
    "evolution.window = \\[1.9, 1\\]: must be two": {"evolution": {**EVOLUTION, "window": [1.9, 1]}},
    "evolution.rank_ratio = \\['a', 0.5\\]: must be numbers": {"evolution": {**EVOLUTION, "rank_ratio": ["a", 0.5]}},
    "evolution.patch_size = \\[\\[2\\], 4\\]: must be whole": {"evolution": {**EVOLUTION, "patch_size": [[2], 4]}},
    "evolution.threshold = \\[1\\]: must be two numbers": {"evolution": {**EVOLUTION, "threshold": [1]}},
    "evolution.start: \\[0\\] is not a place": {"evolution": {**EVOLUTION, "start": [[0]]}},
    "evolution: 'int' object is not iterable": {"evolution": {**EVOLUTION, "window": 1}},
    "patch_size: \\[1, 2, 3\\] is not a whole number from 1, nor \\[height, width\\]": {"patch_size": [[1, 2, 3]]},
    "patch_size: \\[0, 2\\] is not a whole number": {"patch_size": [[0, 2]]},
    "patch_size = \\[4, \\[4, 2\\], 4\\]: the same choice twice": {"patch_size": [4, [4, 2], [4, 4]]},
    "patch_size = 2x9 is larger than image_size = 8": {"patch_size": [[2, 9]]},
    "patch_size: \\[4, 2\\] with stem = 'conv'": {"stem": "conv", "patch_size": [[4, 2]], "stem_channels": [8]},
    "image_size = 'wide': must be an integer": {"image_size": "wide"},
    "image_size = \\(8, 8, 8\\): must be an integer": {"image_size": [8, 8, 8]},
    "num_classes = 0: must be a whole number from 1": {"num_classes": 0},
    'pool = "token" reads 1 prefix tokens and prefix_tokens = 0': {"pool": "token"},
    "pool = \\['mean', 'token'\\]: not a list of choices": {"pool": ["mean", "token"]},
    "prefix_tokens = \\[0, 1\\]: not a list of choices": {"prefix_tokens": [0, 1]},
    "activation = 'tanh': must be one of gelu": {"activation": "tanh"},
    "relative_position = 'rope': must be one of none, bias, tables": {"relative_position": "rope"},
    "relative_position = \\['none', 'bias'\\]: not a list of choices": {"relative_position": ["none", "bias"]},
    "norm_epsilon = 'small': must be a number": {"norm_epsilon": "small"},
    "norm_pre = 1: must be true or false": {"norm_pre": 1},
    "flip = 'no': must be true or false": {"flip": "no"},
    "evolution.patch_size = \\[\\[2, 4\\]\\]: must be whole": {"evolution": {**EVOLUTION, "patch_size": [[2, 4]]}},
    "unknown key evolution.windows": {"evolution": {"windows": [1, 1]}},
    "evolution.start: \\[9, 0\\] is outside": {"evolution": EVOLUTION},
}  # fmt: skip


@pytest.mark.parametrize("expected", BAD)
def test_a_bad_file_is_one_clear_line(tmp_path, expected):
    values = {name: v for name, v in {**PATCH.to_dict(), **BAD[expected]}.items() if v is not None}
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=expected) as caught:
        load_space(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="give a YAML file, or one of colour, exhaustible, fashion-mnist"):
        load_space(tmp_path / "none.yaml")
    for text, expected in [("a: [1", "not YAML"), ("- 1", "must be a mapping"), ("", "must be a mapping")]:
        (tmp_path / "space.yaml").write_text(text)
        with pytest.raises(ConfigError, match=expected) as caught:
            load_space(tmp_path / "space.yaml")
        assert "\n" not in str(caught.value)


def test_from_dict_equals_the_space():
    assert SearchSpace.from_dict(PATCH.to_dict()) == PATCH


def test_a_space_without_evolution_has_no_window():
    space = dataclasses.replace(load_space("tiny"), evolution=None)
    with pytest.raises(ConfigError, match="no key evolution: where its window may move"):
        space.window((0, 0))
    assert len(load_space("tiny").evolution_range.every()) == np.prod(load_space("tiny").evolution.places)
