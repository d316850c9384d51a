# SPDX-License-Identifier: Apache-2.0
"""A model with ChannelScale between two other ops: what docs/add_an_op.md promises of the op that it adds.

tests/docs/test_add_an_op.py runs it in a copy of the project, where the op was added. Here it is missing: the file's
name keeps pytest from collecting it.
"""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from mcuformer import Interpreter, SubnetConfig, run_op
from mcuformer.converter import model_check
from mcuformer.converter.estimate import feasibility, instructions, macs, model_size
from mcuformer.converter.export import c_folder
from mcuformer.converter.export.folder import write_folder
from mcuformer.converter.export.registry import Source
from mcuformer.converter.file_form import constant_bytes
from mcuformer.converter.graph import Graph, to_int8
from mcuformer.converter.memory.arena import plan_arena
from mcuformer.converter.model import Model
from mcuformer.converter.ops import channel_scale, decomposed_patch_embed, token_mean
from mcuformer.converter.ops.work import Work
from mcuformer.converter.quantise import Quantisation, affine
from mcuformer.converter.skeleton import Place, Skeleton
from mcuformer.errors import ConfigError, ModelError

DRIVER = """
#include <stdio.h>
#include "model.h"
int main(void) {
  int8_t logits[MODEL_CLASSES];
  while (fread(model_image(), 1, MODEL_IMAGE_BYTES, stdin) == MODEL_IMAGE_BYTES) {
    if (model_invoke(model_image(), logits) != MCUF_OK) return 1;
    fwrite(logits, 1, MODEL_CLASSES, stdout);
  }
  return 0;
}
"""


def random_model(seed: int) -> tuple[Model, np.ndarray]:
    """Patches, ChannelScale, mean: of an odd size, and images for it, uint8."""
    rng = np.random.default_rng(seed)
    patch, grid, channels, d = (int(rng.integers(*limits)) for limits in ((2, 6), (1, 5), (1, 4), (1, 30)))
    config = SubnetConfig(
        image_size=patch * grid, in_channels=channels, patch_size=patch, embed_dim=d, depth=1, num_heads=1,
        num_classes=max(2, d),
    )  # fmt: skip
    graph = Graph()
    image = graph.add_input("image", (1, *config.image_shape), Quantisation(1 / 127.5, 0))
    options, constants, embedded = decomposed_patch_embed.lower(
        rng.normal(0, 0.3, (d, patch, patch, channels)), rng.normal(0, 0.1, d), rng.normal(0, 0.1, (grid**2, d)),
        1 / 127.5, -0.5, affine(-2, 2.5),
    )  # fmt: skip
    x = graph.add_op("DecomposedPatchEmbed", "embed", options, {"image": image}, constants, embedded)
    options, constants, scaled = channel_scale.lower(rng.normal(0, 1, d), embedded, affine(-3, 2))
    x = graph.add_op("ChannelScale", "scale", options, {"input": x}, constants, scaled)
    options, mean = token_mean.lower(token_mean.Dims(grid**2, d, ((0, grid**2),)), scaled, [affine(-1, 1)])
    graph.output = graph.add_op("TokenMean", "mean", options, {"input": x}, {}, mean)
    names = tuple(f"class {i}" for i in range(d))
    images = rng.integers(0, 256, (3, *config.image_shape)).astype(np.uint8)
    return Model(graph, plan_arena(graph), config, "overwrite", None, names), images


def skeleton_of(graph: Graph) -> Skeleton:
    """A network that lists the graph's ops."""
    ops = tuple((Place(one.module, f"op{i}", ((0, i - 1),)), graph.dims(one)) for i, one in enumerate(graph.ops))
    image = graph.tensors[graph.inputs[0]].bytes
    return Skeleton((("", (lambda: (image, ops),)),), 1)


@pytest.mark.parametrize("seed", range(20))
def test_alone_in_the_interpreter(seed):
    rng = np.random.default_rng(seed)
    shape = (1, *(int(n) for n in rng.integers(1, 40, rng.integers(1, 4))))
    x, multiplier = rng.integers(-128, 128, shape).astype(np.int8), rng.integers(-(1 << 31), 1 << 31, shape[-1])
    multiplier = (multiplier >> rng.integers(0, 16, shape[-1])).astype(np.int32)
    options = {"in_zero_point": int(rng.integers(-128, 128)), "zero_point": int(rng.integers(-128, 128))}
    want = channel_scale.reference(channel_scale.Options(**options), x, multiplier)
    np.testing.assert_array_equal(run_op("ChannelScale", {"input": x}, {"multiplier": multiplier}, options), want)


def test_prepare_says_what_is_wrong():
    with pytest.raises(ModelError, match=r"mcuformer.ChannelScale: tensor 'multiplier' has shape \[2\], needs \[3\]"):
        run_op("ChannelScale", {"input": np.zeros((1, 3), np.int8)}, {"multiplier": np.zeros(2, np.int32)},
               {"in_zero_point": 0, "zero_point": 0})  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_model_in_the_interpreter_and_in_c(seed, tmp_path, monkeypatch):
    model, images = random_model(seed)
    monkeypatch.setattr(model_check, "skeleton", lambda config, schedule: skeleton_of(model.graph))
    offsets, (embed, scale, _) = model.offsets, model.graph.ops
    assert offsets[scale.output] == offsets[embed.output], "its output stands over its input"
    want = model.graph.run(to_int8(images))
    assert len(np.unique(want)) > 3 or want.size < 8
    interpreter = Interpreter(model)
    np.testing.assert_array_equal(interpreter(images), model.reference(images))
    assert interpreter.arena_used_bytes == model.plan.arena_bytes
    np.testing.assert_array_equal(Interpreter(model, engine="c")(images), model.reference(images))

    layout = c_folder.c_layout([Source(model.content, model.graph, model.class_names)])
    write_folder(tmp_path, layout.files)
    (exported,) = layout.models
    assert exported.arena_bytes <= model.plan.head_bytes
    (tmp_path / "driver.c").write_text(DRIVER)
    files = [tmp_path / name for name in ("driver.c", *layout.kernel_sources, *layout.model_sources(exported))]
    flags = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    cc, include = (
        shutil.which("cc") or "cc",
        [f"-I{tmp_path / folder}" for folder in (*layout.kernel_includes, "models/model")],
    )
    subprocess.run([cc, *flags, *include, *files, "-o", tmp_path / "driver"], check=True)
    done = subprocess.run([tmp_path / "driver"], input=to_int8(images).tobytes(), capture_output=True, check=True)
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.int8).reshape(want.shape), want)


def test_the_estimates_know_it(monkeypatch):
    model, _ = random_model(3)
    graph, (_, op, _) = model.graph, model.graph.ops
    dims = graph.dims(op)
    tokens, features = graph.tensors[op.output].shape[1:]
    assert dims == channel_scale.Dims(tokens, features)
    assert macs.op_macs(graph, op) == 0 and graph.scratch_bytes(op) == 0
    assert constant_bytes(graph, op) == 4 * features
    assert instructions.work_of(graph, op) == [Work("channel_scale", (1, tokens * features))]
    with pytest.raises(ConfigError, match="kernel 'channel_scale' on m4 are unknown: run tools/fit_instruction_model"):
        instructions.op_instructions(graph, op, "m4")
    assert instructions.instructions(model.config, "m4") > 0, "networks without it are counted as before"

    # Where a network lists it, the folds over its dimensions give what the plan of the graph has.
    for user in (feasibility, macs, model_size, model_check):
        monkeypatch.setattr(user, "skeleton", lambda config, schedule: skeleton_of(graph))
    assert feasibility.arena_bytes(model.config) == model.plan.arena_bytes
    assert macs.macs(model.config) == sum(macs.op_macs(graph, one) for one in graph.ops)
    assert model_size.model_bytes(model.config) >= model.model_bytes
