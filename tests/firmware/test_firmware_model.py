# SPDX-License-Identifier: Apache-2.0
"""Networks as firmware on a simulated Cortex-M4, M7 and M55: every logit, RAM, flash, stack."""

import dataclasses

import numpy as np
import pytest
from arm_tests import ALL, LARGE_BOARD, MAIN, every_machine, needs_tools, other_machines
from conftest import TINY, lively_subnet, structured_images
from random_networks import CONFIGS, random_config

from mcuformer import QuantisationOptions, SubnetConfig, convert, data
from mcuformer.converter.export.c_sources import stack_bytes
from mcuformer.converter.graph import to_int8
from mcuformer.converter.passes.staging import is_staged
from mcuformer.converter.subnet_config import RELATIVE_POSITIONS
from mcuformer.errors import PlanError
from mcuformer.nas import TrainOptions, build_subnet, recipes, train
from mcuformer.simulator import firmware, firmware_model
from mcuformer.simulator.firmware import KB, MACHINES

A = SubnetConfig(image_size=96, in_channels=3, patch_size=16, embed_dim=96, depth=6, num_heads=3, head_dim=32)
STRIPS = {"schedule": "streamed", "strips": True}
SAMPLE = 4  # of the random networks, in every run of the tests


def check(model, images, machine, shared, folder, case=""):
    """Builds and runs a model; its logits are the reference's."""
    names = model.class_names
    built = firmware_model.build(model.graph, names, machine, folder, objects=shared(machine))
    run = built.run(images)
    np.testing.assert_array_equal(run.logits, model.graph.run(to_int8(images)), err_msg=f"{machine.name} {case}")
    stated = stack_bytes(built.exported.network)  # for the main machines; other compilers' code takes a little more
    assert 0 < run.stack_bytes <= (stated if machine.name in MAIN else stated * 5 // 4), case
    assert stated <= (1472 if is_staged(model.graph) else 1024), case
    return built, run


@pytest.fixture(scope="session")
def trained():
    """core -> a network, trained for a moment on real images, and some test images."""
    training, test = data.load("fashion-mnist", "train", limit=512), data.load("fashion-mnist", "test", limit=8)
    net = build_subnet(recipes.NETWORK_CONFIG, 0)
    train(net, training, TrainOptions(epochs=1, seed=0))
    return lambda core: (convert(net, training.images[:64], board=LARGE_BOARD[core.packing]), test.images)


@needs_tools
@every_machine
def test_a_trained_network(machine, trained, shared, tmp_path):
    model, images = trained(machine.core)
    built, run = check(model, images, machine, shared, tmp_path)
    assert run.macs == recipes.NETWORK_CONFIG.macs
    assert built.program.flash_bytes > built.exported.constant_bytes > 100 * KB
    assert [op.op for op in run.ops] == [op.kind for op in model.graph.ops]
    assert all(op.instructions > 0 for op in run.ops)


@needs_tools
@every_machine
@pytest.mark.parametrize("seed", range(CONFIGS if ALL else SAMPLE))
def test_random_networks(seed, machine, shared, tmp_path):
    rng = np.random.default_rng(seed)
    config = random_config(rng)
    images = structured_images(config, 2, seed)
    images[1] = rng.integers(0, 2, images[1].shape) * 255  # far from what it was calibrated with
    net = lively_subnet(config, seed)
    variants = [{"schedule": "streamed"}, {"schedule": "overwrite"}]
    variants[seed % 2] = {**variants[seed % 2], "strips": True}
    if seed % 5 == 0:
        variants.append({"schedule": "overwrite", "quantisation": QuantisationOptions(fuse_gelu=False)})
    if seed % 3 == 0:
        variants[seed % 2] = {**variants[seed % 2], "weights": "staged"}
    for i, options in enumerate(variants):
        if (seed + i) % 4:  # else with rows of weights, which every core takes too
            options = {**options, "board": LARGE_BOARD[machine.core.packing]}
        model = convert(net, images[:1], **options)
        check(model, images, machine, shared, tmp_path / str(i), f"seed {seed} {options}: {config}")


@needs_tools
@other_machines
def test_a_network_on_every_other_machine(machine, shared, tmp_path):
    """A prefix, relative positions, images in strips, weights as the core likes them."""
    config = dataclasses.replace(TINY, prefix_tokens=1, relative_position="bias")
    images = structured_images(config, 2)
    model = convert(lively_subnet(config, 1), images, board=LARGE_BOARD[machine.core.packing], **STRIPS)
    check(model, images, machine, shared, tmp_path)


@needs_tools
def test_network_a_fits_a_cortex_m4_of_256_kb_and_a_larger_one_says_by_how_much_it_does_not(shared, tmp_path):
    machine = MACHINES["mps2-an386"]
    assert (machine.ram_bytes, machine.flash_bytes) == (256 * KB, 1024 * KB)
    images = structured_images(A, 2)
    model = convert(lively_subnet(A, 3), images, board="nano33ble")
    built, run = check(model, images, machine, shared, tmp_path / "a")
    assert built.program.static_bytes + built.program.stack_bytes <= 256 * KB
    assert run.macs == A.macs
    wide = dataclasses.replace(A, embed_dim=192, num_heads=6)
    large = convert(lively_subnet(wide, 3), structured_images(wide, 2))
    with pytest.raises(PlanError, match=r"does not fit mps2-an386: [0-9,]+ bytes over the 1,048,576 of FLASH"):
        firmware_model.build(large.graph, large.class_names, machine, tmp_path / "b", objects=shared(machine))
    with pytest.raises(PlanError, match=r"[0-9,]+ bytes over the 32,768 of RAM"):
        firmware_model.build(
            model.graph, model.class_names, machine, tmp_path / "c", ram_bytes=32 * KB, objects=shared(machine)
        )


@needs_tools
def test_kernels_of_options_are_linked_into_networks_that_have_them(shared, tmp_path):
    machine, found = MACHINES["mps2-an386"], {}
    objects = shared(machine)
    for name, options in (("plain", {}), ("padded", {"patch_padding": 1}), ("relative", {"relative_position": "bias"})):
        config = dataclasses.replace(TINY, **options)
        model = convert(lively_subnet(config, 1), structured_images(config, 2), board="nano33ble")
        built = firmware_model.build(model.graph, model.class_names, machine, tmp_path / name, objects=objects)
        found[name] = firmware.linked_bytes(built.program, objects)
    assert found["padded"] - found["plain"] > 256 and found["relative"] - found["plain"] > 1024


@needs_tools
def test_an_embedding_longer_than_the_stack(shared, tmp_path):
    config = dataclasses.replace(
        TINY, embed_dim=2048, depth=1, num_heads=1, mlp_ratio=0.01, num_classes=0, prefix_tokens=1, pool="token+mean"
    )
    assert config.outputs == firmware_model.STACK_BYTES
    images, machine = structured_images(config, 2), MACHINES["mps2-an386"]
    model = convert(lively_subnet(config, 1), images, board=LARGE_BOARD["pairs"])
    check(model, images, machine, shared, tmp_path)


@needs_tools
@pytest.mark.parametrize("relative", RELATIVE_POSITIONS)
def test_the_deepest_stack(relative, shared, tmp_path):
    """Weights of rows, which accumulate on the stack, and a block of three tokens at the end, which is split."""
    config = dataclasses.replace(TINY, prefix_tokens=3, head_dim=11, relative_position=relative)
    assert config.tokens % 4 == 3
    images, machine = structured_images(config, 2), MACHINES["mps2-an386"]
    for weights in ("xip", "staged"):
        model = convert(lively_subnet(config, 1), images, schedule="streamed", weights=weights)
        check(model, images, machine, shared, tmp_path / weights)


@needs_tools
@pytest.mark.parametrize("schedule", ["overwrite", "streamed"])
def test_a_hook_is_called_inside_long_ops(schedule, shared, tmp_path):
    """Between two calls there is no more than a block of four tokens through the widest layer, with some to spare; the
    logits are the same."""
    machine, config = MACHINES["mps2-an386"], dataclasses.replace(A, depth=1)
    images = structured_images(config, 2)
    model = convert(lively_subnet(config, 3), images, schedule=schedule, board="nano33ble")
    runs = []
    for yielding in (False, True):
        objects = firmware_model.kernel_objects(machine, tmp_path / str(yielding), yielding) if yielding else None
        built = firmware_model.build(
            model.graph, model.class_names, machine, tmp_path / f"b{yielding}", objects=objects or shared(machine)
        )
        runs.append(built.run(images))
        np.testing.assert_array_equal(runs[-1].logits, model.graph.run(to_int8(images)))
    plain, yields = runs
    most = max(op.instructions for op in plain.ops)
    assert abs(plain.longest - most) < 100
    widest = max(max(layer.mlp_dim, layer.q_dim + 2 * layer.kv_dim) for layer in config.layers)
    assert yields.longest < 1.25 * 4 * widest * config.embed_dim < most / 4


@needs_tools
def test_strips_take_no_memory_for_the_image(shared, tmp_path):
    config = dataclasses.replace(TINY, image_size=64, patch_size=16)
    images, machine = structured_images(config, 2), MACHINES["mps2-an386"]
    net = lively_subnet(config, 1)
    whole, _ = check(convert(net, images), images, machine, shared, tmp_path / "whole")
    strips, _ = check(convert(net, images, strips=True), images, machine, shared, tmp_path / "strips")
    assert whole.program.static_bytes > 64 * 64 > strips.program.static_bytes
    assert whole.exported.arena_bytes <= whole.program.static_bytes < whole.exported.arena_bytes + 256
