# SPDX-License-Identifier: Apache-2.0
"""The wheel's interpreter with the planner for firmware: the arena that was predicted, the logits of the reference."""

import dataclasses

import numpy as np
import pytest
from conftest import TINY, lively_subnet, structured_images

from mcuformer import Interpreter, convert, planner_run
from mcuformer.converter import tflite_file
from mcuformer.errors import DataError, ModelError, ToolchainError
from mcuformer.planner_run import LESS_TAIL_BYTES, arena_with_planner

CONFIGS = {"tiny": {}, "conv stem": {"stem": "conv"}, "low rank": {"rank_ratio": 0.4}, "kv_heads": {"kv_heads": 1}}


@pytest.mark.parametrize("schedule", ["overwrite", "streamed"])
@pytest.mark.parametrize("name", CONFIGS)
def test_arena_and_logits_are_as_predicted(name, schedule):
    config = dataclasses.replace(TINY, **CONFIGS[name])
    images = structured_images(config, 8, seed=4)
    model = convert(lively_subnet(config, 2), images[:4], schedule=schedule)
    wanted = model.reference(images)
    own = arena_with_planner(model, images)
    offline = arena_with_planner(model, images, with_plan=True)
    for run in (own, offline):
        np.testing.assert_array_equal(run["logits"], wanted)
        assert run["head"] == model.plan.head_bytes
        assert run["total"] == model.plan.arena_bytes - LESS_TAIL_BYTES
    # The wheel's planner, given the offline plan.
    assert Interpreter(model).allocations["head"] == own["head"]


@pytest.mark.parametrize("options", [{"strips": True}, {"weights": "staged"}, {"strips": True, "weights": "staged"}])
def test_strips_and_staged_weights_come_through_the_external_context(options):
    """As on firmware: image rows and weights from callbacks that the interpreter itself was given."""
    images = structured_images(TINY, 4, seed=4)
    model = convert(lively_subnet(TINY, 2), images, **options)
    run = arena_with_planner(model, images)
    np.testing.assert_array_equal(run["logits"], model.reference(images))
    assert run["head"] == model.plan.head_bytes
    assert run["total"] == model.plan.arena_bytes - LESS_TAIL_BYTES


def test_without_images_nothing_runs(tiny_model):
    run = arena_with_planner(tiny_model)
    assert run["logits"] is None and run["head"] == tiny_model.plan.head_bytes
    assert run["total"] == run["head"] + run["tail"]


def test_bad_images_and_models_are_refused(tiny_model, tiny_images):
    with pytest.raises(DataError, match="takes uint8"):
        arena_with_planner(tiny_model, tiny_images.astype(np.float32))
    with pytest.raises(DataError, match="takes uint8"):
        arena_with_planner(tiny_model, tiny_images[:, :8])
    with pytest.raises(ModelError, match="checksum"):
        arena_with_planner(tiny_model.content[:-200])


def test_a_bad_offline_plan_is_refused(tiny_model, monkeypatch):
    """By the planner alone too; the runtime itself would take it in silence."""
    offsets = list(tiny_model.plan.tensor_offsets(tiny_model.graph))
    offsets[tiny_model.graph.inputs[0]] += 8
    content = tflite_file.write(tiny_model.graph, offsets, tiny_model.info)
    with pytest.raises(ModelError, match="offset .* is not a positive multiple of 16"):
        arena_with_planner(content, with_plan=True)
    monkeypatch.setattr(tflite_file, "read", tflite_file.parse)
    with pytest.raises(ModelError, match="not a multiple of 16"):
        arena_with_planner(content, with_plan=True)


def test_a_crash_is_one_clear_error(tiny_model, monkeypatch):
    monkeypatch.setattr(planner_run, "_COMMAND", ("-c", "import os; os.abort()"))
    with pytest.raises(ToolchainError, match="crashed"):
        arena_with_planner(tiny_model)
