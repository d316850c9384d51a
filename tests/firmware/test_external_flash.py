# SPDX-License-Identifier: Apache-2.0
"""Constants that are read in place from flash beside the chip: here from the 16 MB of PSRAM of QEMU's mps2 machines."""

import dataclasses

import numpy as np
import pytest
from arm_tests import needs_tools
from conftest import TINY, lively_subnet, structured_images

from mcuformer import SubnetConfig, convert
from mcuformer.boards import get_board
from mcuformer.cli.export import export
from mcuformer.cli.firmware import choose_machine
from mcuformer.converter.export import c_model
from mcuformer.converter.graph import to_int8
from mcuformer.errors import ConfigError, PlanError
from mcuformer.simulator import firmware_model
from mcuformer.simulator.firmware import KB, MACHINES

M7 = MACHINES["mps2-an500"]
DEIT_TINY = SubnetConfig(
    image_size=224, in_channels=3, patch_size=16, embed_dim=192, depth=12, num_heads=3, head_dim=64, num_classes=1000,
    prefix_tokens=1, pool="token",
)  # fmt: skip
BOARD = get_board("stm32f746")
# Larger than the chip's flash; small enough for a quick test.
LARGE = dataclasses.replace(TINY, embed_dim=256, depth=2, num_heads=4, head_dim=32)


@needs_tools
@pytest.mark.parametrize("name", ["mps2-an386", "mps2-an500"])
def test_constants_lie_there_and_code_does_not(name, tiny_net, tiny_images, shared, tmp_path):
    machine = MACHINES[name]
    model = convert(tiny_net, tiny_images, strips=True, board="stm32h743")
    objects = shared(machine)
    inside = firmware_model.build(model.graph, model.class_names, machine, tmp_path / "a", objects=objects)
    beside = firmware_model.build(
        model.graph, model.class_names, machine, tmp_path / "b", objects=objects, external_bytes=64 * KB
    )
    np.testing.assert_array_equal(beside.run(tiny_images[:2]).logits, model.graph.run(to_int8(tiny_images[:2])))
    constants = beside.exported.constant_bytes
    assert inside.program.external_bytes == 0
    assert constants <= beside.program.external_bytes < constants + 16 * len(model.graph.tensors)
    saved = inside.program.flash_bytes - beside.program.flash_bytes
    assert constants <= saved < constants + 16 * len(model.graph.tensors)
    assert beside.program.static_bytes == inside.program.static_bytes
    with pytest.raises(PlanError, match=r"[0-9,]+ bytes over the 4,096 of external flash"):
        firmware_model.build(
            model.graph, model.class_names, machine, tmp_path / "c", objects=objects, external_bytes=4 * KB
        )


@needs_tools
def test_the_arena_lies_there_too(tiny_net, tiny_images, shared, tmp_path):
    machine = MACHINES["mps2-an386"]
    model = convert(tiny_net, tiny_images)
    inside, beside = (
        firmware_model.build(
            model.graph, model.class_names, machine, tmp_path / str(there), objects=shared(machine),
            external_bytes=64 * KB, arena_beside=there,
        )
        for there in (False, True)
    )  # fmt: skip
    saved = inside.program.static_bytes - beside.program.static_bytes
    assert inside.exported.arena_bytes <= saved < inside.exported.arena_bytes + 16
    np.testing.assert_array_equal(beside.run(tiny_images[:2]).logits, model.graph.run(to_int8(tiny_images[:2])))


def test_what_a_machine_or_a_board_has():
    size = 16 * 1024 * KB
    assert choose_machine(None, "stm32f746", None, None, True) == (M7, 320 * KB, 1024 * KB, size)
    assert choose_machine("mps2-an386", None, None, None, True)[3] == size
    assert choose_machine(None, "stm32f746", None, None)[3] == 0
    with pytest.raises(ConfigError, match="board nano33ble has no external flash .* use one of portenta-h7, stm32f746"):
        choose_machine(None, "nano33ble", None, None, True)
    with pytest.raises(
        ConfigError, match="--external-flash: mps3-an547 has no memory .* use one of .*mps2-an386, mps2-"
    ):
        choose_machine("mps3-an547", None, None, None, True)


def test_its_size_is_the_limit_of_convert_and_of_export(tmp_path):
    net, images = lively_subnet(LARGE, 1), structured_images(LARGE, 2)
    with pytest.raises(PlanError, match=r"exceeds stm32f746's .* put it into the 16 MB .*\(--external-flash\), or use"):
        convert(net, images, board="stm32f746")
    model = convert(net, images, board="stm32f746", external_flash=True)
    assert BOARD.flash_budget < model.model_bytes < BOARD.external_flash_bytes
    model.save(tmp_path / "model.tflite")
    for kind in ("c", "tflm"):
        with pytest.raises(PlanError, match="exceeds stm32f746's .*--external-flash"):
            export(tmp_path / "model.tflite", kind, tmp_path / kind, board="stm32f746")
        export(tmp_path / "model.tflite", kind, tmp_path / kind, board="stm32f746", external_flash=True)
    for options, words in (
        ({"board": "nano33ble"}, "board nano33ble has no external flash"),
        ({}, "of which board"),
        ({"board": "stm32f746", "weights": "staged"}, "weights='staged' are not read in place"),
    ):
        with pytest.raises(ConfigError, match=words):
            convert(net, images, external_flash=True, **options)
    with pytest.raises(ConfigError, match="--external-flash: of which board"):
        export(tmp_path / "model.tflite", "c", tmp_path / "d", external_flash=True)
    with pytest.raises(ConfigError, match="--external-flash: Arduino's linker scripts"):
        export(tmp_path / "model.tflite", "arduino", tmp_path / "e", external_flash=True)
    convert(net, images, weights="staged").save(tmp_path / "staged.tflite")
    with pytest.raises(ConfigError, match="staged weights are not read in place"):
        export(tmp_path / "staged.tflite", "c", tmp_path / "f", board="stm32f746", external_flash=True)


@needs_tools
@pytest.mark.slow
@pytest.mark.parametrize("strips", [True, False], ids=["strips", "whole"])
@pytest.mark.parametrize("weights", ["staged", "in place"])
def test_deit_tiny_with_a_class_token_runs_on_an_stm32f746(weights, strips, shared, tmp_path):
    """Random weights. Every logit, in the board's RAM and flash and in 16 MB beside them."""
    options = {"weights": "staged"} if weights == "staged" else {"external_flash": True}
    images = structured_images(DEIT_TINY, 2)
    model = convert(lively_subnet(DEIT_TINY, 1), images, board=BOARD.name, strips=strips, **options)
    assert model.arena_bytes(BOARD) <= BOARD.sram_budget == 294_912
    external = 0 if weights == "staged" else BOARD.external_flash_bytes
    built = firmware_model.build(
        model.graph, model.class_names, M7, tmp_path, BOARD.sram_bytes, BOARD.flash_bytes, shared(M7), external
    )
    assert built.exported.arena_bytes <= BOARD.sram_budget
    run = built.run(images)
    np.testing.assert_array_equal(run.logits, model.graph.run(to_int8(images)))
    assert run.logits.std() > 4 and run.macs == DEIT_TINY.macs
    if weights == "staged":
        assert len(model.weights_content) <= BOARD.external_flash_bytes
    else:
        assert c_model.generate(model.graph, model.class_names).constant_bytes > BOARD.flash_bytes
