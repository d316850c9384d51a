# SPDX-License-Identifier: Apache-2.0
"""Weights are packed for the core that a model is exported to, whatever board it was converted for; the logits stay."""

import dataclasses
import json
import os

import numpy as np
import pytest
from arm_tests import needs_tools
from conftest import TINY, lively_subnet, structured_images

from mcuformer import Interpreter, convert
from mcuformer.converter import repack, tflite_file
from mcuformer.converter.export.registry import core_of, export
from mcuformer.converter.ops.packed_weights import PAIRS, ROWS
from mcuformer.cores import CORES
from mcuformer.simulator.firmware_model import build

CONFIGS = {
    "tiny": TINY,
    "odd heads": dataclasses.replace(TINY, num_heads=3, head_dim=7),
    "odd widths": dataclasses.replace(TINY, embed_dim=23, mlp_ratio=1.7, num_classes=3, rank_ratio=0.3),
    "convolutions": dataclasses.replace(TINY, stem="conv", stem_channels=(5,)),
    "blocks": dataclasses.replace(TINY, stem="conv", patch_size=8, stem_channels=(5, 3), stem_blocks=(0, 3)),
}
VARIANTS = [{}, {"schedule": "overwrite"}, {"strips": True}, {"weights": "staged"},
            {"weights": "staged", "schedule": "overwrite"}]  # fmt: skip


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_moves_to_another_core_and_back(name, options, tmp_path):
    config = CONFIGS[name]
    net, images = lively_subnet(config, 5), structured_images(config, 4, seed=5)
    options = {"schedule": "streamed", **options}
    plain, wanted = (convert(net, images, board=board, **options) for board in (None, "nano33ble"))
    logits = plain.reference(images)
    content, graph = repack.repacked(plain.content, plain.graph, CORES["m4"])
    assert {op.options.packing for op in graph.ops if hasattr(op.options, "packing")} >= {PAIRS}
    interpreter = Interpreter(content, weights=weights_of(graph, options))
    np.testing.assert_array_equal(interpreter(images), logits)
    np.testing.assert_array_equal(interpreter.reference(images), logits)
    assert interpreter.arena_used_bytes == interpreter.info["arena_bytes"]
    if "weights" not in options:  # there, a board's memory is filled
        assert tflite_file.same(graph, wanted.graph) is None
        back, _ = repack.repacked(content, graph, CORES["m55"])
        assert back == plain.content
        assert repack.repacked(content, graph, CORES["m33"]) == (content, graph)


def weights_of(graph, options):
    from mcuformer.converter.passes.staging import weights_content

    return weights_content(graph) if options.get("weights") == "staged" else None


def test_which_core_is_meant(tmp_path):
    from mcuformer.boards import BOARDS

    assert core_of(None, None, None) is None and core_of(None, None, "mine") is None
    assert core_of(None, None, "mine", "m55") is CORES["m55"]
    assert core_of(None, None, "corstone300") is CORES["m55"]
    assert core_of(None, BOARDS["corstone300"], "nano33ble") is CORES["m55"]
    assert core_of(CORES["m0plus"], BOARDS["nano33ble"], None) is CORES["m0plus"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_net, tiny_images):
    path = tmp_path_factory.mktemp("repacking") / "model.tflite"
    convert(tiny_net, tiny_images).save(path)
    return path


@pytest.mark.parametrize(
    ("options", "packing"), [({}, PAIRS), ({"core": "m55"}, ROWS), ({"board": "corstone300"}, ROWS)]
)
def test_an_export_is_packed_for_its_core(saved, options, packing, tmp_path):
    for kind in ("c", "tflm"):
        result = export(saved, kind, tmp_path / kind, **options)
        assert result.values["packing"] == {PAIRS: "pairs", ROWS: "rows"}[packing]
        assert any(line.startswith("weights packed for ") for line in result.lines)
        json.dumps(result.values)
    text = (tmp_path / "c" / "models" / "model" / "model.c").read_text()
    assert text.count(".packing = 1") > 0 if packing == PAIRS else ".packing = 1" not in text


@needs_tools
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="what sanitizers say of QEMU is in its output")
def test_a_model_converted_without_a_board_is_as_quick_as_one_for_it(tiny_net, tiny_images, tmp_path):
    counts = {}
    for board in (None, "nano33ble"):
        graph = convert(tiny_net, tiny_images, schedule="streamed", board=board).graph
        built = build(
            repack.repacked_graph(graph, CORES["m4"]), list("abcde"), CORES["m4"].machine, tmp_path / str(board)
        )
        run = built.run(tiny_images[:1])
        counts[board] = run.instructions
        np.testing.assert_array_equal(graph.logits(run.logits), graph.reference(tiny_images[:1]))
    assert counts[None] == counts["nano33ble"]
