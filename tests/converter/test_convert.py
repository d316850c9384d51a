# SPDX-License-Identifier: Apache-2.0
import dataclasses
import time

import numpy as np
import pytest
import torch
from conftest import TINY, lively_subnet, structured_images

from mcuformer import QuantisationOptions, SubnetConfig, convert
from mcuformer.boards import get_board
from mcuformer.converter.calibrate import calibrate, to_float
from mcuformer.converter.estimate.instructions import op_instructions
from mcuformer.converter.quickest import ScheduleCost, quickest
from mcuformer.converter.report import error_report
from mcuformer.errors import ConfigError, DataError, ModelError, PlanError
from mcuformer.nas import build_subnet


def kinds(model) -> list[str]:
    return [op.kind for op in model.graph.ops]


def test_ops_of_a_layer(tiny_model):
    layer = ["IntLayerNorm", "InPlaceFC", "IntAttention", "InPlaceFC", "IntLayerNorm", "InPlaceFC", "InPlaceFC"]
    assert kinds(tiny_model) == ["DecomposedPatchEmbed", *layer, *layer, "IntLayerNorm", "TokenMean", "InPlaceFC"]


def test_gelu_as_an_op_of_its_own(tiny_net, tiny_images, tiny_model):
    model = convert(tiny_net, tiny_images[:16], schedule="overwrite", quantisation=QuantisationOptions(fuse_gelu=False))
    assert kinds(model).count("IntGeLU") == TINY.depth
    np.testing.assert_array_equal(model.reference(tiny_images), tiny_model.reference(tiny_images))


@pytest.mark.parametrize(("rank_ratio", "factors"), [(0.25, True), (0.79, True), (0.81, False), (1.0, False)])
def test_low_rank_falls_back_to_dense_above_break_even(rank_ratio, factors):
    """mlp_ratio 4: two factors of rank r * d cost less than the dense matrix only below r = 0.8."""
    config = dataclasses.replace(TINY, embed_dim=100, rank_ratio=rank_ratio, head_dim=8)
    model = convert(lively_subnet(config, 0), structured_images(config, 4), schedule="overwrite")
    assert kinds(model).count("InPlaceFC") == config.depth * (6 if factors else 4) + 1
    macs = sum(
        model.graph.tensors[op.inputs[1]].data.size * (config.tokens if op.output != model.graph.output else 1)
        for op in model.graph.ops
        if op.kind == "InPlaceFC"
    )
    attention = sum(2 * config.tokens**2 * layer.q_dim for layer in config.layers)
    embedding = config.tokens * config.embed_dim * config.patch_size**2 * config.in_channels
    assert macs + attention + embedding == config.macs


@pytest.mark.parametrize("stem", ["patch", "conv"])
@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_int8_follows_the_float_network(stem, method):
    config = dataclasses.replace(TINY, stem=stem, num_classes=20)
    net, images = lively_subnet(config, 1), structured_images(config, 64)
    model = convert(net, images[:48], quantisation=QuantisationOptions(method=method))
    with torch.inference_mode():
        real = net(to_float(images)).numpy()
    got = model.reference(images)
    cosine = (real * got).sum(1) / np.linalg.norm(real, axis=1) / np.linalg.norm(got, axis=1)
    assert cosine.min() > 0.98 and cosine.mean() > 0.995


def test_the_residual_stream_gains_from_a_scale_a_channel():
    """Channels of very different size: per-tensor int8 loses the small ones."""
    net, images = lively_subnet(TINY, 2), structured_images(TINY, 64)
    with torch.no_grad():
        net.stem.weight[:3] *= 40
    with torch.inference_mode():
        real = net(to_float(images)).numpy()

    def error(residual):
        got = convert(net, images[:48], quantisation=QuantisationOptions(residual=residual)).reference(images)
        return np.sqrt(np.mean((got - real) ** 2))

    assert error("per-channel") < 0.5 * error("per-tensor")
    assert error("int16") < error("per-channel")


def test_an_int16_residual_stream():
    """Its price is the stream once more; what it takes is said before anything is computed."""
    net, images, wide = lively_subnet(TINY, 2), structured_images(TINY, 8), QuantisationOptions(residual="int16")
    narrow, model = convert(net, images), convert(net, images, quantisation=wide)
    stream = TINY.tokens * TINY.embed_dim
    assert 0 < model.plan.head_bytes - narrow.plan.head_bytes <= stream + 64
    assert [op.kind for op in model.graph.ops] == [op.kind for op in narrow.graph.ops]
    with pytest.raises(ConfigError, match='residual = "int16" with schedule = "overwrite": must be "streamed"'):
        convert(net, images, quantisation=wide, schedule="overwrite")
    assert convert(net, images, quantisation=wide, board="stm32f746").schedule == "streamed"
    with pytest.raises(ConfigError, match="instructions of an int16 residual stream on m4 are unknown"):
        [op_instructions(model.graph, op, "m4") for op in model.graph.ops]
    for field, value in (("norm", "post"), ("norm_pre", True), ("final_norm", "none")):
        other = lively_subnet(dataclasses.replace(TINY, **{field: value}), 2)
        with pytest.raises(ConfigError, match=f'residual = "int16" with {field} = {value!r}: must be'):
            convert(other, images, quantisation=wide)


def test_streamed_layers(tiny_net, tiny_images, tiny_model):
    model = convert(tiny_net, tiny_images[:16], schedule="streamed")
    layer = ["StreamedAttention", "StreamedMLP"]
    assert kinds(model) == ["DecomposedPatchEmbed", *layer, *layer, "IntLayerNorm", "TokenMean", "InPlaceFC"]
    np.testing.assert_array_equal(model.reference(tiny_images), tiny_model.reference(tiny_images))
    assert model.plan.arena_bytes < 0.8 * tiny_model.plan.arena_bytes


def test_streamed_needs_its_gelu_fused(tiny_net, tiny_images):
    with pytest.raises(ConfigError, match="fuse_gelu = False"):
        convert(tiny_net, tiny_images, schedule="streamed", quantisation=QuantisationOptions(fuse_gelu=False))


def test_report_names_every_tensor_and_finds_a_bad_one(tiny_net, tiny_images, tiny_model):
    rows = {row.name: row for row in error_report(tiny_model, tiny_net, tiny_images[:4])}
    assert list(rows) == [tiny_model.graph.tensors[op.output].name for op in tiny_model.graph.ops]
    assert all(0 < row.added < 0.05 and 0 < row.total < 0.5 for row in rows.values())
    ops = tiny_model.graph.ops
    broken = dataclasses.replace(
        ops[1].options, zero_point=ops[1].options.zero_point + 40 if ops[1].options.zero_point < 60 else 0
    )
    graph = dataclasses.replace(tiny_model.graph, ops=[*ops[:1], dataclasses.replace(ops[1], options=broken), *ops[2:]])
    worse = error_report(dataclasses.replace(tiny_model, graph=graph), tiny_net, tiny_images[:4])
    assert worse[1].total > 3 * rows["layers.0.norm1"].total


def test_calibration_shows_progress(tiny_net, tiny_images):
    seen = []
    calibrate(tiny_net, tiny_images, batch_size=10, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 32), (20, 32), (30, 32), (32, 32)]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 16, 16, 1), np.uint8), "calibration set is empty"),
        (np.full((4, 16, 16, 1), 7, np.uint8), "all calibration pixels have the value 7"),
        (np.zeros((4, 16, 16, 1), np.float32), "dtype float32"),
        (np.zeros((4, 16, 16, 3), np.uint8), r"\[n, 16, 16, 1\]"),
        (np.zeros((16, 16, 1), np.uint8), "shape"),
    ],
)
def test_bad_calibration(tiny_net, images, message):
    with pytest.raises(DataError, match=message):
        convert(tiny_net, images)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tiny_images, value):
    net = build_subnet(TINY)
    with torch.no_grad():
        net.layers[1].mlp.fc1.weight[3, 4] = value
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.fc1\.weight holds 1 NaN or infinite"):
        convert(net, tiny_images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "stream"}, "schedule = 'stream': must be one of overwrite, streamed"),
        ({"board": "nano"}, "nano33ble"),
        ({"class_names": ["a"]}, "class_names has 1 names for num_classes = 5"),
    ],
)
def test_bad_options(tiny_net, tiny_images, options, message):
    with pytest.raises(ConfigError, match=message):
        convert(tiny_net, tiny_images, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"method": "max"}, "max"), ({"gelu": "tanh"}, "tanh"), ({"residual": "int4"}, "int4")],
)
def test_bad_quantisation_options(options, message):
    with pytest.raises(ConfigError, match=message):
        QuantisationOptions(**options)


def test_a_network_too_large_for_the_board():
    config = SubnetConfig(image_size=224, embed_dim=192, depth=1, mlp_ratio=5.0, num_classes=10)
    with pytest.raises(PlanError, match=r"arena of \d+,\d+ bytes exceeds nano33ble's budget of \d+,\d+ bytes"):
        convert(build_subnet(config), structured_images(config, 1), board="nano33ble", schedule="overwrite")
    config = SubnetConfig(image_size=32, in_channels=1, patch_size=8, embed_dim=192, depth=3)
    with pytest.raises(PlanError, match="model of .* exceeds nano33ble's budget of .* bytes of flash"):
        convert(build_subnet(config), structured_images(config, 1), board="nano33ble")


def costs_of(model):
    return {cost.schedule: cost for cost in model.costs}


def test_with_a_board_the_quickest_schedule_that_fits_is_taken(tiny_net, tiny_images):
    """The costs are those of a conversion with that schedule alone; a limit between the two arenas changes the
    choice."""
    alone = {
        name: convert(tiny_net, tiny_images, schedule=name, board="nano33ble") for name in ("streamed", "overwrite")
    }
    free = convert(tiny_net, tiny_images, board="nano33ble")
    costs = costs_of(free)
    for name, model in alone.items():
        taken = sum(op_instructions(model.graph, op, "m4") for op in model.graph.ops)
        assert costs[name] == ScheduleCost(name, model.arena_bytes("nano33ble"), model.model_bytes, taken)
        assert model.costs == ()
    assert costs["overwrite"].instructions < costs["streamed"].instructions
    assert costs["overwrite"].arena_bytes > costs["streamed"].arena_bytes
    assert (free.schedule, free.content) == ("overwrite", alone["overwrite"].content)
    limit = costs["overwrite"].arena_bytes
    exactly, less = (convert(tiny_net, tiny_images, board="nano33ble", sram=sram) for sram in (limit, limit - 1))
    assert (exactly.schedule, less.schedule) == ("overwrite", "streamed")
    assert less.content == alone["streamed"].content and costs_of(less) == costs


def test_a_model_file_that_is_too_large_is_not_chosen(tiny_net, tiny_images):
    board = get_board("nano33ble")
    models = [convert(tiny_net, tiny_images, schedule=name, board="nano33ble") for name in ("streamed", "overwrite")]
    small, large = sorted(models, key=lambda model: model.model_bytes)
    for flash, want in ((large.model_bytes, "overwrite"), (small.model_bytes, small.schedule), (10, "streamed")):
        tight = dataclasses.replace(board, flash_bytes=flash, reserved_flash_bytes=0)
        assert quickest(models, tight).schedule == want
    unknown = dataclasses.replace(board, core=dataclasses.replace(board.core, coefficients=None))
    assert (quickest(models, unknown).schedule, quickest(models, unknown).costs) == ("streamed", ())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"schedule": "auto"}, "Give board"), ({"sram": 4096}, "Give board"),
     ({"sram": 0, "board": "nano33ble"}, "sram = 0: must be"), ({"sram": 1 << 30, "board": "nano33ble"}, "262144"),
     ({"sram": 2000, "board": "nano33ble"}, "the limit of 2,000 bytes: use strips, .* larger limit .--sram"),
     ({"schedule": "fast"}, "streamed, auto")],
    ids=str,
)  # fmt: skip
def test_no_schedule_to_choose(tiny_net, tiny_images, options, message):
    with pytest.raises((ConfigError, PlanError), match=message):
        convert(tiny_net, tiny_images, **options)


def test_saving_is_whole_or_not_at_all(tiny_model, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"before")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="cannot be written"):
        tiny_model.save(tmp_path / "folder")
    tiny_model.save(path)
    assert path.read_bytes() == tiny_model.content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "model.tflite"]


def test_one_network_of_any_odd_size_is_quick_to_convert():
    config = SubnetConfig(image_size=30, in_channels=3, patch_size=7, embed_dim=51, depth=3, num_heads=3, kv_heads=1)
    net, images = build_subnet(config), structured_images(config, 8)
    start = time.perf_counter()
    assert convert(net, images).model_bytes > 0
    assert time.perf_counter() - start < 10
