# SPDX-License-Identifier: Apache-2.0
"""Ops on an int16 residual stream on simulated microcontrollers, and networks of them."""

import numpy as np
import wide_cases
from arm_tests import ALL, LARGE_BOARD, MAIN, every_machine, needs_tools
from conftest import lively_subnet, structured_images

from mcuformer import QuantisationOptions, SubnetConfig, convert
from mcuformer.converter.export.c_sources import stack_bytes
from mcuformer.converter.graph import to_int8
from mcuformer.simulator import firmware_model
from mcuformer.simulator.firmware_ops import run_ops

CASES = 40


@needs_tools
@every_machine
def test_ops_equal_the_reference(machine, shared, tmp_path):
    for seed in range(8 if ALL else 1):
        rng = np.random.default_rng(seed)
        cases = [wide_cases.KINDS[i % len(wide_cases.KINDS)](rng) for i in range(CASES)]
        runs = run_ops(cases, machine, tmp_path / str(seed), shared(machine))
        wrong = [case.graph.ops[0] for case, run in zip(cases, runs, strict=True) if not run.exact]
        assert not wrong, wrong


@needs_tools
@every_machine
def test_a_network(machine, shared, tmp_path):
    """In strips and with staged weights on one of the machines, as a whole on the others."""
    config = SubnetConfig(
        image_size=(29, 35), patch_size=(5, 7), embed_dim=41, depth=2, num_heads=3, head_dim=11, prefix_tokens=2,
        pool="token+mean", num_classes=5, attention_rank_ratio=0.5, final_norm="after",
    )  # fmt: skip
    images = structured_images(config, 6, 0)
    one = machine.name == MAIN[1]
    model = convert(
        lively_subnet(config, 0), images[:4], quantisation=QuantisationOptions(residual="int16"), strips=one,
        weights="staged" if one else "xip", board=LARGE_BOARD[machine.core.packing],
    )  # fmt: skip
    built = firmware_model.build(model.graph, model.class_names, machine, tmp_path, objects=shared(machine))
    run = built.run(images[4:])
    np.testing.assert_array_equal(run.logits, model.graph.run(to_int8(images[4:])))
    assert 0 < run.stack_bytes <= stack_bytes(built.exported.network)
