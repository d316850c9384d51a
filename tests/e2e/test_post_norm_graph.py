# SPDX-License-Identifier: Apache-2.0
"""A graph of what no schedule makes by itself: Streamed ops without LayerNorm, LayerNorm onto the stream, the means of
two ranges of tokens and LayerNorm of both side by side. Reference, plan, file, interpreter and kernels alone agree."""

import dataclasses

import numpy as np
import pytest
from conftest import TINY

from mcuformer import convert
from mcuformer.converter import tflite_file
from mcuformer.converter.graph import Graph, to_int8
from mcuformer.converter.memory.arena import plan_arena
from mcuformer.converter.ops import OPS, in_place_fc, int_layer_norm, token_mean
from mcuformer.converter.passes.packing import packed
from mcuformer.converter.quantise import Quantisation, per_channel
from mcuformer.engines import get_engine
from mcuformer.engines.session import Loaded

PARTS = ((0, 1), (3, TINY.tokens - 3))


def layer_norm(graph, rng, name, source, target):
    d = TINY.embed_dim
    gamma, beta = rng.normal(1, 0.3, d), rng.normal(0, 0.3, d)
    options, constants, target = int_layer_norm.lower(gamma, beta, 1e-6, graph.tensors[source].quantised_by, target)
    return graph.add_op("IntLayerNorm", name, options, {"input": source}, constants, target)


def post_norm(streamed):
    """The graph with every LayerNorm after its half-layer, and another readout."""
    rng, graph = np.random.default_rng(0), Graph()
    d = TINY.embed_dim
    made = graph.add_input("image", (1, *TINY.image_shape), streamed.tensors[streamed.inputs[0]].quantisation)
    for op in streamed.ops:
        if op.kind not in ("DecomposedPatchEmbed", "StreamedAttention", "StreamedMLP"):
            continue
        roles, target = op.module.INPUTS, streamed.tensors[op.output]
        constants = {
            role: streamed.tensors[i].data
            for role, i in zip(roles, op.inputs, strict=True)
            if i >= 0 and role != roles[0]
        }
        options = op.options
        if op.kind != "DecomposedPatchEmbed":
            constants |= dict.fromkeys(("gamma", "beta", "factor"))
            options = dataclasses.replace(options, norm_zero_point=0, epsilon=0)
        made = graph.add_op(op.kind, target.name, options, {roles[0]: made}, constants, target.quantisation)
        if op.kind != "DecomposedPatchEmbed":
            stream = per_channel(rng.uniform(1, 4, d), int_layer_norm.MAX_FACTOR)
            made = layer_norm(graph, rng, f"{target.name}.norm", made, stream)
    stream = graph.tensors[made].quantised_by
    options, target = token_mean.lower(
        token_mean.Dims(TINY.tokens, d, PARTS), stream, [stream, Quantisation(0.3 * np.asarray(stream.scale))]
    )
    made = graph.add_op("TokenMean", "pool", options, {"input": made}, {}, target)
    made = layer_norm(graph, rng, "norm", made, Quantisation(0.03, 3))
    options, constants, target = in_place_fc.lower(
        rng.normal(0, 0.2, (5, 2 * d)), rng.normal(0, 0.2, 5), graph.tensors[made].quantised_by, Quantisation(0.05)
    )
    graph.output = graph.add_op("InPlaceFC", "head", options, {"input": made}, constants, target)
    return graph


@pytest.fixture(scope="module")
def graph(tiny_net, tiny_images):
    return post_norm(convert(tiny_net, tiny_images, schedule="streamed").graph)


@pytest.mark.parametrize("engine", ["tflm", "c"])
@pytest.mark.parametrize("packing", [0, 1])
def test_engines_equal_the_reference(graph, tiny_images, engine, packing):
    graph = packed(graph, packing)
    plan = plan_arena(graph)
    content = tflite_file.write(graph, plan.tensor_offsets(graph), {"weights": None})
    session = get_engine(engine).open_session(Loaded("by hand", content, graph, plan.sizes), None)
    images = to_int8(tiny_images)
    want = graph.run(images)
    assert len(np.unique(want)) > 10
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate([session.invoke(image[None]) for image in images]), want)
    if engine == "tflm":
        assert session.allocations()["total"] == plan.arena_bytes


def test_everything_overwrites_the_stream(graph):
    plan = plan_arena(graph)
    offsets = plan.tensor_offsets(graph)
    stream = {
        offsets[op.output] for op in graph.ops if graph.tensors[op.output].shape == (1, TINY.tokens, TINY.embed_dim)
    }
    assert len(stream) == 1 and offsets[graph.ops[-2].output] == offsets[graph.ops[-3].output]


def test_the_file_holds_what_dims_say(graph):
    stored = tflite_file.parse(tflite_file.write(graph, [-1] * len(graph.tensors), {"weights": None}, with_plan=False))
    assert [stored.graph.dims(op) for op in stored.graph.ops] == [graph.dims(op) for op in graph.ops]
    dims = {op.kind: graph.dims(op) for op in graph.ops}
    assert dims["TokenMean"].parts == PARTS
    assert dims["IntLayerNorm"] == int_layer_norm.Dims(2, TINY.embed_dim, dims["IntLayerNorm"].factor)
    assert not dims["StreamedAttention"].norm and not dims["StreamedMLP"].norm
    assert not any(work.kernel.startswith("layer_norm") for kind in ("StreamedAttention", "StreamedMLP")
                   for work in OPS[kind].work(dims[kind]))  # fmt: skip
