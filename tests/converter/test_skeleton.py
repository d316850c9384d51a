# SPDX-License-Identifier: Apache-2.0
"""The one description of a network against what conversion makes, and what every op module has to say of its op."""

import dataclasses
import inspect

import numpy as np
import pytest
from conftest import TINY, lively_subnet, structured_images
from random_networks import random_config

from mcuformer import Interpreter, QuantisationOptions, SubnetConfig, convert
from mcuformer.converter import file_form
from mcuformer.converter.calibrate import calibrate
from mcuformer.converter.estimate import feasibility, instructions, kernel_model, macs, model_size, stock
from mcuformer.converter.lower import lower
from mcuformer.converter.ops import OPS, can_be_staged, in_place_fc
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS
from mcuformer.converter.skeleton import Place, Schedule, Skeleton, Step, runs_as_factors, skeleton
from mcuformer.errors import ConfigError

COSTS = ("input_elements", "output_elements", "weight_elements", "constants", "constant_bytes", "scratch_bytes", "macs",
         "work")  # fmt: skip


def listed(graph):
    return [(graph.tensors[op.output].name, op.kind, graph.dims(op)) for op in graph.ops]


def expected(config, schedule):
    network = skeleton(config, schedule)
    if schedule.weights == "xip":
        network = feasibility.filled(network)
    return [(name, step.kind, step.dims) for name, step in network.steps()]


def without_sizes(rows):
    """Staged weights use all that a board's arena allows, which dimensions alone do not say."""
    sizes = {"tokens_at_once", "pixels_at_once", "tokens_per_read", "blocks_per_read", "tile_bytes"}
    return [
        (name, kind, dims._replace(**{field: 0 for field in sizes & set(dims._fields)})) for name, kind, dims in rows
    ]


@pytest.mark.parametrize("seed", range(12))
def test_a_converted_network_has_the_ops_of_its_skeleton(seed):
    config = random_config(np.random.default_rng(seed))
    net, images = lively_subnet(config, seed), structured_images(config, 2, seed)
    for name in ("overwrite", "streamed"):
        for strips in (False, True):
            model = convert(net, images, schedule=name, strips=strips)
            assert listed(model.graph) == expected(config, Schedule(name, strips))
            staged = convert(net, images, schedule=name, strips=strips, weights="staged", scratch=1 << 20)
            wanted = expected(config, Schedule(name, strips, "staged"))
            assert without_sizes(listed(staged.graph)) == without_sizes(wanted)
    packed = convert(net, images, schedule="streamed", board="portenta-h7")
    assert listed(packed.graph) == expected(config, Schedule(packing=PAIRS))
    op_by_op = lower(net, calibrate(net, images), QuantisationOptions())
    assert listed(op_by_op) == expected(config, Schedule("overwrite", stem_ops=config.stem_blocks is None))
    own_gelu = convert(net, images, schedule="overwrite", quantisation=QuantisationOptions(fuse_gelu=False))
    assert listed(own_gelu.graph) == expected(config, Schedule("overwrite", fuse_gelu=False))


@pytest.mark.parametrize("fields", [{}, {"stem": "conv"}, {"stem": "conv", "stem_blocks": (3,)}], ids=str)
def test_what_costs_say_is_what_the_graph_has(fields, tiny_images):
    """Constants in the file, and elements of tensors, by op."""
    tiny_net = lively_subnet(dataclasses.replace(TINY, **fields), 0)
    for schedule in ("overwrite", "streamed"):
        for weights in ("xip", "staged"):
            graph = convert(tiny_net, tiny_images, schedule=schedule, weights=weights).graph
            filed, _ = file_form.to_file_form(graph)
            for op, in_file in zip(graph.ops, filed.ops, strict=True):
                dims, module = graph.dims(op), op.module
                inside = [filed.tensors[i] for i in in_file.inputs if i >= 0 and filed.tensors[i].is_constant]
                assert [tensor.bytes for tensor in inside if not tensor.external] == list(module.constant_bytes(dims))
                assert module.constants(dims) == len(module.constant_bytes(dims))
                assert module.output_elements(dims) == graph.tensors[op.output].bytes
                kernels = {name: len(counts) for m in OPS.values() for name, counts in m.KERNELS.items()}
                assert all(len(work.counts) == kernels[work.kernel] for work in module.work(dims))


@pytest.mark.parametrize("kind", OPS)
def test_every_op_says_all_that_is_known_of_it(kind):
    module = OPS[kind]
    for name in (*COSTS, "dims", "reference", "output_shape", "call"):
        assert inspect.isfunction(getattr(module, name)), f"{kind} has no {name}"
    assert issubclass(module.Dims, tuple) and dataclasses.is_dataclass(module.Options)
    assert module.OP_DATA_BYTES % 4 == 0 and isinstance(module.KERNELS, dict)
    if hasattr(module, "WEIGHTS"):
        assert set(module.WEIGHTS) <= set(module.INPUTS) and module.matrices
        assert any(field.name == "packing" for field in dataclasses.fields(module.Options))
    if can_be_staged(kind):
        assert module.resized and module.token_choices and module.traffic


def incomplete(missing):
    """A module of an op that does not say one of its costs."""
    module = type("module", (), {"NAME": "Unknown", "OVERWRITES": (), "OP_DATA_BYTES": 0, "KERNELS": {}})
    for known in COSTS:
        if known != missing:
            setattr(module, known, staticmethod(getattr(in_place_fc, known)))
    return module


@pytest.mark.parametrize(
    ("missing", "estimate", "fold"),
    [
        ("macs", macs, macs.macs),
        ("scratch_bytes", feasibility, feasibility.arena_bytes),
        ("constant_bytes", model_size, model_size.model_bytes),
        ("work", kernel_model, lambda config: instructions.instructions(config, "m4")),
    ],
)
def test_an_op_that_a_fold_does_not_know_is_an_error(missing, estimate, fold, monkeypatch):
    part = 4, ((Place(incomplete(missing), "unknown"), in_place_fc.Dims(1, 4, 4)),)
    monkeypatch.setattr(estimate, "skeleton", lambda config, schedule: Skeleton((("", (lambda: part,)),), 1))
    with pytest.raises(AttributeError, match=missing):
        fold(TINY)


def test_the_stock_formula_knows_no_other_ops():
    with pytest.raises(KeyError, match="Unknown"):
        stock._stock(Step(*Place(incomplete("call"), "unknown"), in_place_fc.Dims(1, 4, 4)), keras=True)


def test_low_rank_pays_below_break_even():
    assert not runs_as_factors(None, 96, 384)
    assert runs_as_factors(76, 96, 384) and not runs_as_factors(77, 96, 384)  # 96 * 384 / (96 + 384) = 76.8
    for rank, names in ((0.5, 4), (0.95, 2)):
        config = dataclasses.replace(TINY, rank_ratio=rank, depth=1)
        made = [name for name, _ in skeleton(config, Schedule("overwrite")).steps() if ".fc" in name]
        assert len(made) == names


def test_each_matrix_around_attention_has_its_own_break_even():
    """q, k and v together are wider than the projection: as factors they pay for longer."""
    for rank, names in ((0.4, ["qkv.rank", "qkv", "proj.rank", "proj"]), (0.7, ["qkv.rank", "qkv", "proj"]),
                        (0.8, ["qkv", "proj"])):  # fmt: skip
        config = SubnetConfig(embed_dim=40, num_heads=2, depth=1, attention_rank_ratio=rank)
        made = [name for name, _ in skeleton(config, Schedule("overwrite")).steps()]
        assert [name[9:] for name in made if "qkv" in name or "proj" in name] == names
        ranks = next(step.dims.ranks for _, step in skeleton(config, Schedule()).steps() if step.name == "proj")
        assert ranks == (round(40 * rank) * ("qkv.rank" in names), round(40 * rank) * ("proj.rank" in names))


def test_equal_layers_are_one_part():
    network = skeleton(dataclasses.replace(TINY, depth=3), Schedule())
    layers = [recipe for prefix, recipe in network.recipes if prefix]
    assert len(layers) == 3 and len(set(layers)) == 1
    narrower = skeleton(dataclasses.replace(TINY, depth=3, head_dim=TINY.layers[0].head_dim - 1), Schedule())
    assert not set(layers) & {recipe for _, recipe in narrower.recipes}


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="schedule = 'none'"):
        Schedule("none")
    with pytest.raises(ConfigError, match="weights = 'flash'"):
        Schedule(weights="flash")
    with pytest.raises(ConfigError, match="fuse_gelu = False"):
        Schedule(fuse_gelu=False)
    with pytest.raises(ConfigError, match="stem_ops = True with strips = True"):
        Schedule(strips=True, stem_ops=True)
    with pytest.raises(ConfigError, match=r"stem_ops = True with stem_blocks = \(2,\): blocks are part of one op"):
        skeleton(dataclasses.replace(TINY, stem="conv", stem_blocks=(2,)), Schedule(stem_ops=True))


def test_packed_and_staged_weights_of_an_odd_width_are_planned_to_the_byte():
    """The plan counted their padding as input."""
    config = SubnetConfig(
        image_size=68, in_channels=3, patch_size=7, embed_dim=63, depth=1, num_heads=1, head_dim=42, num_classes=2
    )
    images = structured_images(config, 2)
    model = convert(lively_subnet(config, 7), images, schedule="overwrite", weights="staged", board="nano33ble")
    assert {op.options.packing for op in model.graph.ops if op.kind == "InPlaceFC"} == {PAIRS}
    assert Interpreter(model).arena_used_bytes == model.plan.arena_bytes


def test_rows_stay_where_heads_have_an_odd_width():
    config = dataclasses.replace(TINY, num_heads=3, head_dim=7)
    packings = {name: s.dims.packing for name, s in skeleton(config, Schedule("overwrite", packing=PAIRS)).steps()
                if hasattr(s.dims, "packing")}  # fmt: skip
    assert packings["layers.0.qkv"] == packings["layers.0.proj"] == ROWS
    assert packings["layers.0.fc1"] == packings["head"] == PAIRS
