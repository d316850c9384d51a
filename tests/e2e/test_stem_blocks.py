# SPDX-License-Identifier: Apache-2.0
"""Networks with blocks behind the convolutions of their stem, from floats to the kernels: at odd sizes the logits of
the interpreter and of the kernels alone equal the integer reference bit for bit, and estimates say what they take."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import TINY, lively_subnet, structured_images

from mcuformer import Interpreter, QuantisationOptions, SubnetConfig, convert
from mcuformer.converter import tflite_file
from mcuformer.converter.calibrate import calibrate
from mcuformer.converter.estimate import feasibility, kernel_model, model_size
from mcuformer.converter.graph import to_int8
from mcuformer.converter.lower import lower
from mcuformer.converter.pixels import to_float
from mcuformer.converter.skeleton import Schedule, skeleton

BLOCK = dataclasses.replace(TINY, stem="conv", stem_channels=(7,), stem_blocks=(3,))
WAYS = (  # schedule, strips, board
    ("overwrite", False, None), ("streamed", True, None), ("streamed", False, "nano33ble"),
    ("overwrite", True, "nano33ble"),
)  # fmt: skip


def odd_network(seed: int) -> SubnetConfig:
    """Images of 4 to 17 pixels each way, of 1 to 3 channels, levels of 1 to 9 channels, one block at least."""
    rng = np.random.default_rng(seed)
    patch, prefix = int(rng.choice([4, 4, 8, 16])), int(rng.choice([0, 0, 1, 3]))
    inner = patch.bit_length() - 2
    blocks = rng.choice([0, 1, 2, 3, 5], inner)
    blocks[rng.integers(inner)] += 1
    return SubnetConfig(
        image_size=tuple(rng.integers(patch, 18, 2).tolist()), in_channels=int(rng.choice([1, 1, 2, 3])),
        patch_size=patch, embed_dim=int(rng.integers(1, 24)), depth=1, num_heads=1, head_dim=5, mlp_ratio=2.0,
        num_classes=4, stem="conv", stem_channels=tuple(rng.integers(1, 10, inner).tolist()),
        stem_blocks=tuple(blocks.tolist()), prefix_tokens=prefix, pool="token" if prefix else "mean",
    )  # fmt: skip


@pytest.mark.parametrize("group", range(8))
def test_the_kernels_equal_the_reference(group):
    for seed in range(6 * group, 6 * group + 6):
        config = odd_network(seed)
        net, images = lively_subnet(config, seed), structured_images(config, 4, seed)
        images[3] = np.random.default_rng(seed).integers(0, 2, images[3].shape) * 255  # far from the calibration's
        want = None
        for schedule, strips, board in WAYS:
            model = convert(net, images[:3], schedule=schedule, strips=strips, board=board)
            case = f"seed {seed}, {schedule}, strips {strips}, for {board}: {config}"
            want = model.reference(images) if want is None else want
            np.testing.assert_array_equal(model.reference(images), want, err_msg=case)
            check(model, images, want, strips, case)


def check(model, images, want, strips, case):
    config, graph = model.config, model.graph
    alone = Interpreter(model, engine="c")
    np.testing.assert_array_equal(alone(images), want, err_msg=case)
    interpreter = Interpreter(model, engine="tflm")
    for _ in range(2):  # the second time on a used arena
        np.testing.assert_array_equal(interpreter(images), want, err_msg=case)
    used = interpreter.allocations
    assert (used["head"], used["tail"]) == (model.plan.head_bytes, model.plan.tail_bytes), case
    assert alone.arena_used_bytes <= used["head"], case
    assert feasibility.arena_bytes(config, model.schedule, strips) == model.plan.arena_bytes, case
    assert feasibility.board_arena_bytes(config, model.schedule, strips) == model.arena_bytes("nano33ble"), case
    packing = graph.ops[0].options.packing
    steps = feasibility.filled(skeleton(config, Schedule(model.schedule, strips, packing=packing))).steps()
    assert [step.dims for _, step in steps] == [graph.dims(op) for op in graph.ops], case
    assert sum(op.module.macs(graph.dims(op)) for op in graph.ops) == config.macs, case
    assert model.schedule == "overwrite" or model.model_bytes <= model_size.model_bytes(config), case
    work = [kernel_model.work_of(graph, op) for op in graph.ops]
    assert kernel_model.config_work(config, model.schedule, strips, packing=packing) == work, case


def test_macs_are_those_of_every_pixel_of_a_level():
    plain = dataclasses.replace(BLOCK, stem_blocks=None)
    assert BLOCK.block_hidden == (21,)
    assert BLOCK.macs - plain.macs == 8 * 8 * 21 * (7 + 9 + 7)


@pytest.mark.parametrize("residual", ["per-channel", "per-tensor"])
@pytest.mark.parametrize("blocks", [(4, 2), (0, 3), (6, 0), (1, 1)])
def test_what_the_stem_makes_follows_the_floats(blocks, residual):
    """Tokens are off by less than a step on average, nearly as little as those of a stem without blocks."""
    errors = {}
    for given in (blocks, None):
        config = dataclasses.replace(BLOCK, image_size=(19, 26), patch_size=8, stem_channels=(9, 12), stem_blocks=given)
        net, images = lively_subnet(config, 0), structured_images(config, 32)
        graph = lower(net, calibrate(net, images), QuantisationOptions(residual=residual))
        real: dict[str, torch.Tensor] = {}
        found: dict[str, np.ndarray] = {}
        with torch.inference_mode():
            net(to_float(images), real.__setitem__)
        graph.run(to_int8(images), record=found.__setitem__)
        (scale,) = {id(t.quantisation): t.quantised_by for t in graph.tensors if t.name == "embed"}.values()
        steps = np.abs(scale.dequantise(found["embed"]) - real["embed"].numpy()) / scale.scale
        errors[given] = np.sqrt(np.mean(steps**2))
    assert errors[blocks] < 1 and errors[blocks] < 2 * errors[None]


def test_a_file_with_blocks_is_read_as_it_was_written():
    images = structured_images(BLOCK, 4)
    for board in (None, "nano33ble"):
        model = convert(lively_subnet(BLOCK, 0), images, schedule="streamed", board=board)
        stored = tflite_file.read(model.content)
        assert stored.info["config"] == BLOCK.to_dict() and tflite_file.same(stored.graph, model.graph) is None
        np.testing.assert_array_equal(stored.graph.reference(images), model.reference(images))
