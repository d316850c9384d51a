# SPDX-License-Identifier: Apache-2.0
"""Quantisation for outliers: ranges by a matrix's outputs, weights rounded for what they meet, at no cost."""

import dataclasses

import numpy as np
import pytest
import torch
from arm_tests import LARGE_BOARD, every_machine, needs_tools
from conftest import TINY, lively_subnet, structured_images

from mcuformer import Interpreter, QuantisationOptions, convert
from mcuformer.converter.calibrate import calibrate
from mcuformer.converter.graph import to_int8
from mcuformer.converter.lower import lower
from mcuformer.converter.ops import decomposed_patch_embed
from mcuformer.converter.pixels import to_float
from mcuformer.converter.rounding import compensated
from mcuformer.errors import ConfigError
from mcuformer.simulator import firmware_model

CONFIG = dataclasses.replace(TINY, embed_dim=32, depth=2, num_classes=20, prefix_tokens=1)
BOTH = QuantisationOptions(ranges="outputs", rounding="compensated")


def images_of(config):
    return structured_images(config, 96, seed=3)


def error(net, options) -> float:
    """Root mean square error of logits, over images that calibration did not see."""
    images = images_of(net.config)
    with torch.inference_mode():
        real = net(to_float(images[64:])).numpy()
    return float(np.sqrt(np.mean((convert(net, images[:64], quantisation=options).reference(images[64:]) - real) ** 2)))


def with_wide_channels():
    """Two channels of each norm2 are wide, and little is made of them."""
    net = lively_subnet(CONFIG, 4)
    with torch.no_grad():
        for layer in net.layers:
            layer.norm2.weight[:2] *= 60
            layer.mlp.fc1.weight[:, :2] /= 60
    return net


def with_wide_hidden_values():
    """Of the hidden values one is far from the others, and little is made of it."""
    net = lively_subnet(CONFIG, 5)
    with torch.no_grad():
        for layer in net.layers:
            layer.mlp.fc1.weight[0] *= 60
            layer.mlp.fc2.weight[:, 0] /= 3600
    return net


def with_wide_values():
    """One channel of each head's values is wide, and little is made of it."""
    net = lively_subnet(CONFIG, 6)
    layer, dim = CONFIG.layers[0], CONFIG.layers[0].head_dim
    first = layer.q_dim + layer.kv_dim
    with torch.no_grad():
        for layer in net.layers:
            layer.attention.qkv.weight[first::dim] *= 12
            layer.attention.qkv.bias[first::dim] *= 12
            layer.attention.proj.weight[:, ::dim] /= 12
    return net


@pytest.mark.parametrize("network", [with_wide_channels, with_wide_hidden_values, with_wide_values])
def test_ranges_by_outputs_hold_on_outliers(network):
    net = network()
    own, outputs = (error(net, QuantisationOptions(ranges=ranges)) for ranges in ("own", "outputs"))
    assert outputs < 0.6 * own, (own, outputs)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_outputs_of_attention_have_the_scales_of_their_values(kv_heads):
    config = dataclasses.replace(CONFIG, kv_heads=kv_heads)
    net, layer = lively_subnet(config, 7), config.layers[0]
    graph = convert(net, images_of(config)[:16], schedule="overwrite", quantisation=BOTH).graph
    scales = {tensor.name: tensor.quantised_by.scale for tensor in graph.tensors if not tensor.is_constant}
    values = scales["layers.0.qkv"][layer.q_dim + layer.kv_dim :].reshape(kv_heads, layer.head_dim)
    assert len(np.unique(values)) > layer.head_dim // 2
    made = scales["layers.0.attention"].reshape(layer.num_heads, layer.head_dim)
    np.testing.assert_array_equal(made, np.repeat(values, layer.num_heads // kv_heads, axis=0))


def test_values_keep_one_scale_per_head_with_tables_of_relative_positions():
    config = dataclasses.replace(CONFIG, relative_position="tables")
    graph = convert(lively_subnet(config, 7), images_of(config)[:16], schedule="overwrite", quantisation=BOTH).graph
    made = next(tensor for tensor in graph.tensors if tensor.name == "layers.0.attention").quantised_by.scale
    assert len(np.unique(made)) <= config.layers[0].num_heads


def test_rounding_for_correlated_inputs():
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, 30, (512, 8)) @ rng.normal(0, 1, (8, 64)) + rng.normal(0, 5, (512, 64))
    steps = rng.uniform(-127, 127, (16, 64))
    made = compensated(steps, inputs)

    def off(weights):
        return np.sqrt(np.mean(((weights - steps) @ inputs.T) ** 2))

    assert made.dtype == np.int8 and np.abs(made.astype(int)).max() <= 127
    assert off(made) < 0.6 * off(np.rint(steps))


def test_rounding_follows_the_weights_of_samples():
    rng = np.random.default_rng(1)
    inputs, steps = rng.normal(0, 30, (40, 64)), rng.uniform(-100, 100, (16, 64))

    def off(share):
        made = compensated(steps, inputs, np.r_[np.full(20, share), np.full(20, 1.0)])
        return np.mean(((made - steps) @ inputs[:20].T) ** 2)

    assert off(100.0) < 0.5 * off(0.01)


def test_a_large_weight_stays_in_range():
    made = compensated(np.array([[127.4, -127.4, 0.5]]), np.eye(3))
    np.testing.assert_array_equal(made[0, :2], [127, -127])


def tokens_off(config, rounding) -> float:
    """Root mean square error of a patch embedding before its output is rounded, by the output's scales, on images that
    calibration did not see. Patches are one field."""
    net, images = lively_subnet(config, 7), images_of(config)
    graph = lower(net, calibrate(net, images[:64]), QuantisationOptions(rounding=rounding))
    op, patch = graph.ops[0], config.patch_shape
    _, weights, bias, multiplier, position, factor, _ = (None if i < 0 else graph.tensors[i].data for i in op.inputs)
    pixels = decomposed_patch_embed.patches(to_int8(images[64:]), patch, config.patch_padding).astype(np.float64)
    steps = (pixels @ weights[0].T + bias + position.astype(np.float64) * factor) * (multiplier / 2**32)
    with torch.inference_mode():
        real = net.stem(to_float(images[64:])).flatten(2).transpose(1, 2) + net.position
    return float(np.sqrt(np.mean((steps - real.numpy() / graph.tensors[op.output].quantised_by.scale) ** 2)))


@pytest.mark.parametrize("padding", [0, 2])
def test_the_patch_embedding_is_rounded_for_the_images(padding):
    config = dataclasses.replace(CONFIG, patch_padding=padding)
    nearest, made = (tokens_off(config, rounding) for rounding in ("nearest", "compensated"))
    assert made < 0.8 * nearest, (made, nearest)


def test_rounding_makes_a_network_more_exact():
    """Means over networks: on one alone chance decides."""
    errors = np.array([
        [error(lively_subnet(CONFIG, seed), QuantisationOptions(rounding=rounding)) for seed in range(6)]
        for rounding in ("nearest", "compensated")
    ])  # fmt: skip
    assert errors[1].mean() < errors[0].mean(), errors


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"prefix_tokens": 0},
        {"rank_ratio": 0.25},
        {"norm": "post", "pool": "token"},
        {"activation": "silu"},
        {"kv_heads": 1, "relative_position": "bias"},
        {"stem": "conv", "image_size": 32, "patch_size": 8},
    ],
)
def test_every_bit_and_no_byte_more(change):
    config = dataclasses.replace(CONFIG, **change)
    net, images = lively_subnet(config, 6), images_of(config)
    want = None
    for schedule in ("overwrite", "streamed"):
        model, plain = (convert(net, images[:16], schedule=schedule, quantisation=options) for options in (BOTH, None))
        want = model.reference(images[-4:]) if want is None else want
        assert (want != plain.reference(images[-4:])).any()
        for engine in ("tflm", "c"):
            np.testing.assert_array_equal(Interpreter(model, engine=engine)(images[-4:]), want, err_msg=schedule)
        assert model.plan.arena_bytes == plain.plan.arena_bytes
        # The file says the scales of what LayerNorms and attention make, and of values; Streamed ops have none of them.
        made = sum(2 * config.embed_dim + layer.q_dim + layer.kv_dim for layer in config.layers)
        scales = 0 if schedule == "streamed" else made
        assert abs(model.model_bytes - plain.model_bytes) <= 12 * scales + 64


def test_gelu_as_an_op_of_its_own():
    net, images = with_wide_hidden_values(), images_of(CONFIG)
    alone = dataclasses.replace(BOTH, fuse_gelu=False)
    np.testing.assert_array_equal(
        convert(net, images[:16], schedule="overwrite", quantisation=alone).reference(images[-4:]),
        convert(net, images[:16], schedule="overwrite", quantisation=BOTH).reference(images[-4:]),
    )


@needs_tools
@every_machine
def test_every_bit_on_arm(machine, shared, tmp_path):
    net, images = with_wide_channels(), images_of(CONFIG)
    model = convert(net, images[:16], board=LARGE_BOARD[machine.core.packing], quantisation=BOTH)
    built = firmware_model.build(model.graph, model.class_names, machine, tmp_path / "build", objects=shared(machine))
    np.testing.assert_array_equal(built.run(images[-2:]).logits, model.graph.run(to_int8(images[-2:])))


@pytest.mark.parametrize(("name", "value"), [("ranges", "wide"), ("rounding", "up")])
def test_an_unknown_option_is_named(name, value):
    with pytest.raises(ConfigError, match=f"{name} = '{value}': must be"):
        QuantisationOptions(**{name: value})
