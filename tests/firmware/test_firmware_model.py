# SPDX-License-Identifier: Apache-2.0
"""Networks as firmware on a simulated Cortex-M4, M7 and M55: every logit, RAM, flash, stack."""

import dataclasses
import math

import numpy as np
import pytest
from arm_tests import ALL, LARGE_BOARD, every_machine, needs_tools, other_machines
from conftest import TINY, lively_subnet, structured_images
from random_networks import CONFIGS, random_config

from mcuformer import QuantisationOptions, SubnetConfig, convert, data, sources
from mcuformer.converter.export.c_model import generate
from mcuformer.converter.export.c_sources import MARGIN, MEASURED_STACK, stack_bytes
from mcuformer.converter.graph import to_int8
from mcuformer.converter.subnet_config import RELATIVE_POSITIONS
from mcuformer.cores import CORES
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
    assert 0 < run.stack_bytes <= stack_bytes(built.exported.network), case
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
@every_machine
def test_blocks_of_a_stem(machine, shared, tmp_path):
    """Levels of odd sizes and channels, the image whole and in strips."""
    config = dataclasses.replace(
        TINY, image_size=(19, 22), patch_size=8, stem="conv", stem_channels=(5, 9), stem_blocks=(2, 3), prefix_tokens=1
    )
    images = structured_images(config, 2)
    images[1] = np.random.default_rng(0).integers(0, 2, images[1].shape) * 255
    net, board = lively_subnet(config, 1), LARGE_BOARD[machine.core.packing]
    for i, strips in enumerate((False, True)):
        model = convert(net, images[:1], schedule="streamed", strips=strips, board=board)
        check(model, images, machine, shared, tmp_path / str(i))


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
    blocks = {"stem": "conv", "stem_blocks": (2,)}
    for name, options in (
        ("plain", {}), ("padded", {"patch_padding": 1}), ("relative", {"relative_position": "bias"}),
        ("conv", {"stem": "conv"}), ("blocks", blocks),
    ):  # fmt: skip
        config = dataclasses.replace(TINY, **options)
        model = convert(lively_subnet(config, 1), structured_images(config, 2), board="nano33ble")
        built = firmware_model.build(model.graph, model.class_names, machine, tmp_path / name, objects=objects)
        found[name] = firmware.linked_bytes(built.program, objects)
    assert found["padded"] - found["plain"] > 256 and found["relative"] - found["plain"] > 1024
    assert found["blocks"] - found["conv"] > 1024


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
    for weights, measured in zip(("xip", "staged"), MEASURED_STACK[machine.core.key], strict=True):
        model = convert(lively_subnet(config, 1), images, schedule="streamed", weights=weights)
        _, run = check(model, images, machine, shared, tmp_path / weights)
        assert abs(run.stack_bytes - measured) <= measured // MARGIN  # else measure all cores again


def test_the_stated_stack_is_that_of_the_core_or_the_largest():
    model = convert(lively_subnet(TINY, 1), structured_images(TINY, 4))
    stated = {
        key: stack_bytes(generate(model.graph, model.class_names, core=core).network)
        for key, core in {**CORES, "any": None}.items()
    }
    assert {key: stated[key] for key in MEASURED_STACK} == {
        key: math.ceil(measured * 9 / 8 / 8) * 8 for key, (measured, _) in MEASURED_STACK.items()
    }
    assert {stated[key] for key in ("any", "m85", "lx6", "lx7")} == {max(stated.values())}
    assert set(MEASURED_STACK) == {machine.core.key for machine in MACHINES.values()}


MOST_PER_MAC = {"mps2-an386": 1.25, "mps3-an547": 0.35}  # instructions of a block, with those around it
# A layer of 64 inputs and 512 outputs; the attention of a block is far shorter.
WIDE = dataclasses.replace(
    TINY, image_size=32, in_channels=1, patch_size=8, embed_dim=64, depth=1, num_heads=2, head_dim=32, mlp_ratio=8
)  # fmt: skip
BLOCK = 4 * 64 * 512


@pytest.fixture(scope="module")
def yielding(tmp_path_factory):
    """machine, MCUF_YIELD_MACS or None -> kernels that call the hook inside long ops."""
    made = {}

    def objects(machine, macs=None):
        if (machine.name, None) not in made:
            made[machine.name, None] = firmware_model.kernel_objects(machine, tmp_path_factory.mktemp("kernels"), True)
        if (machine.name, macs) not in made:
            core, hooks = sources.c_kernel_folder(), sources.firmware_folder() / "apps"
            flags = [*firmware_model.MODEL_FLAGS, firmware_model.HOOKS, f"-DMCUF_YIELD_MACS={macs}"]
            (layer,) = firmware.compile_objects(
                [core / f"{LAYER}.c"], machine.core, tmp_path_factory.mktemp("layer"), [core, hooks], flags
            )
            made[machine.name, macs] = [layer, *(o for o in made[machine.name, None] if LAYER not in o.name)]
        return made[machine.name, macs]

    return objects


LAYER = "mcuf_in_place_fc_s8"  # the only source that reads MCUF_YIELD_MACS


def hooked(config, options, machine, objects, folder):
    """The run of a network, whose logits are the reference's."""
    images = structured_images(config, 2)
    model = convert(lively_subnet(config, 3), images, board=LARGE_BOARD[machine.core.packing], **options)
    run = firmware_model.build(model.graph, model.class_names, machine, folder, objects=objects).run(images)
    np.testing.assert_array_equal(run.logits, model.graph.run(to_int8(images)))
    return run


@needs_tools
@pytest.mark.parametrize("name", MOST_PER_MAC)
def test_a_hook_is_called_inside_long_ops(name, shared, yielding, tmp_path):
    """Between two calls there is no more than a block of four tokens through the widest layer, with some to spare; or
    no more than MCUF_YIELD_MACS of it. The logits are the same."""
    machine, most, overwrite = MACHINES[name], MOST_PER_MAC[name], {"schedule": "overwrite"}
    plain = hooked(WIDE, overwrite, machine, shared(machine), tmp_path / "plain")
    longest_op = max(op.instructions for op in plain.ops)
    assert abs(plain.longest - longest_op) < 100
    for schedule in ("overwrite", "streamed"):
        yields = hooked(WIDE, {"schedule": schedule}, machine, yielding(machine), tmp_path / schedule)
        assert BLOCK / 8 < yields.longest < most * BLOCK < longest_op / 2
    limit = 16 * 1024
    limited = hooked(WIDE, overwrite, machine, yielding(machine, limit), tmp_path / "limited")
    assert limited.longest < 1.5 * most * limit < yields.longest


@needs_tools
@pytest.mark.parametrize("name", MOST_PER_MAC)
def test_the_least_limit_between_hooks_computes_the_same(name, yielding, tmp_path):
    """Layers of odd widths, four outputs of a block at a time, staged weights too."""
    odd, machine = dataclasses.replace(TINY, embed_dim=23, num_heads=1, head_dim=11), MACHINES[name]
    for options in ({"schedule": "overwrite"}, {"schedule": "streamed", "weights": "staged"}):
        hooked(odd, options, machine, yielding(machine, 1), tmp_path / options["schedule"])


@needs_tools
@pytest.mark.parametrize("name", MOST_PER_MAC)
def test_a_hook_is_called_inside_ops_without_blocks(name, yielding, tmp_path):
    """IntGeLU; TokenMean and, on a Cortex-M55, a layer of two outputs, of so many tokens that each is longer than any
    block."""
    machine, options = MACHINES[name], {"schedule": "overwrite", "quantisation": QuantisationOptions(fuse_gelu=False)}
    run = hooked(WIDE, options, machine, yielding(machine), tmp_path / "gelu")
    assert run.longest < MOST_PER_MAC[name] * BLOCK
    few = dataclasses.replace(
        WIDE, image_size=96, patch_size=4, embed_dim=192, num_heads=1, head_dim=8, mlp_ratio=2 / 192, pool="mean-all"
    )
    assert few.tokens == 576 and few.layers[0].mlp_dim == 2
    run = hooked(few, options, machine, yielding(machine), tmp_path / "few")
    first_layer = [op for op in run.ops if op.op == "InPlaceFC"][2]
    mean = next(op for op in run.ops if op.op == "TokenMean")
    assert first_layer.macs == 576 * 192 * 2
    assert run.longest < 0.8 * min(first_layer.instructions, mean.instructions)


@needs_tools
def test_strips_take_no_memory_for_the_image(shared, tmp_path):
    config = dataclasses.replace(TINY, image_size=64, patch_size=16)
    images, machine = structured_images(config, 2), MACHINES["mps2-an386"]
    net = lively_subnet(config, 1)
    whole, _ = check(convert(net, images), images, machine, shared, tmp_path / "whole")
    strips, _ = check(convert(net, images, strips=True), images, machine, shared, tmp_path / "strips")
    assert whole.program.static_bytes > 64 * 64 > strips.program.static_bytes
    assert whole.exported.arena_bytes <= whole.program.static_bytes < whole.exported.arena_bytes + 256
