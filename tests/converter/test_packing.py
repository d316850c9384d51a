# SPDX-License-Identifier: Apache-2.0
"""Weights packed for a board's core: the same logits from every file, in the reference and in the interpreter."""

import dataclasses

import numpy as np
import pytest
from conftest import TINY, lively_subnet, structured_images

from mcuformer import Interpreter, convert
from mcuformer.boards import BOARDS
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS
from mcuformer.converter.passes.packing import packing_of

ODD_HEADS = dataclasses.replace(TINY, num_heads=3, head_dim=7)
ODD_EVERYTHING = dataclasses.replace(TINY, embed_dim=23, mlp_ratio=1.7, num_classes=3, rank_ratio=0.3)
CONV = dataclasses.replace(TINY, stem="conv", stem_channels=(5,))
RANKS = dataclasses.replace(TINY, attention_rank_ratio=0.21)  # an odd rank of 5
ODD_RANKS = dataclasses.replace(ODD_HEADS, attention_rank_ratio=0.3, norm="post")
NAMES = {
    "tiny": TINY, "odd heads": ODD_HEADS, "odd widths": ODD_EVERYTHING, "convolutions": CONV, "ranks": RANKS,
    "odd heads and ranks": ODD_RANKS,
}  # fmt: skip


def test_the_core_decides():
    pairs = {board.core.name for board in BOARDS.values() if packing_of(board) == PAIRS}
    rows = {board.core.name for board in BOARDS.values() if packing_of(board) == ROWS}
    assert pairs == {"Cortex-M4F", "Cortex-M7", "Cortex-M33"}
    assert rows == {"Cortex-M0+", "Cortex-M55", "Cortex-M85", "RV32IMC", "RV32IMAC", "Xtensa LX7"}
    assert packing_of(None) == ROWS


@pytest.mark.parametrize("schedule", ["overwrite", "streamed"])
def test_no_factor_around_odd_heads_is_in_pairs(schedule):
    """One packing for all matrices of the half: in the streamed schedule they are one op."""
    images = structured_images(ODD_RANKS, 2)
    graph = convert(lively_subnet(ODD_RANKS, 0), images, board="nano33ble", schedule=schedule).graph
    packing = {graph.tensors[op.output].name: getattr(op.options, "packing", None) for op in graph.ops}
    around = {name: found for name, found in packing.items() if ".qkv" in name or ".proj" in name}
    assert len(around) == TINY.depth * (4 if schedule == "overwrite" else 1) and set(around.values()) == {ROWS}
    assert packing["layers.0.fc2"] == PAIRS


@pytest.mark.parametrize("options", [{}, {"schedule": "overwrite"}, {"strips": True}, {"weights": "staged"}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_logits(name, options):
    config = NAMES[name]
    net, images = lively_subnet(config, 5), structured_images(config, 6, seed=5)
    options = {"schedule": "streamed", **options}
    plain, packed = (convert(net, images[:4], board=board, **options) for board in (None, "nano33ble"))
    assert {getattr(op.options, "packing", None) for op in packed.graph.ops} >= {PAIRS}
    assert {op.options.packing for op in packed.graph.ops if op.kind == "StreamedStem"} <= {PAIRS}
    want = plain.reference(images)
    np.testing.assert_array_equal(packed.reference(images), want)
    np.testing.assert_array_equal(Interpreter(packed)(images), want)
    if options.get("weights") != "staged":  # there, a board's memory is filled
        assert packed.plan.arena_bytes == plain.plan.arena_bytes
