# SPDX-License-Identifier: Apache-2.0
"""The Streamed ops alone in the real interpreter: the params of a real layer, whole and damaged."""

import dataclasses

import numpy as np
import pytest
from conftest import TINY, lively_subnet, structured_images

from mcuformer import convert, run_op
from mcuformer.converter import file_form, tflite_file
from mcuformer.converter.graph import Graph, Op, Tensor
from mcuformer.converter.ops import OPS, in_place_fc, int_attention, params_blob
from mcuformer.errors import McuformerError, ModelError
from mcuformer.interpreter import _Session

KINDS = ("StreamedAttention", "StreamedMLP")


def first_ops(graph):
    """params of the first op of each kind, as the file has them."""
    filed, _ = file_form.to_file_form(graph)
    first = {op.kind: op for op in reversed(filed.ops)}
    return {kind: filed.tensors[first[kind].inputs[file_form.PARAMS]].data for kind in KINDS}


@pytest.fixture(scope="module")
def model(tiny_net, tiny_images):
    return convert(tiny_net, tiny_images, schedule="streamed")


@pytest.fixture(scope="module")
def low_rank(tiny_images):
    """params of a StreamedAttention whose matrices are two factors each."""
    config = dataclasses.replace(TINY, attention_rank_ratio=0.3)
    return first_ops(convert(lively_subnet(config, 3), tiny_images, schedule="streamed").graph)["StreamedAttention"]


@pytest.fixture(scope="module")
def layers(model):
    return first_ops(model.graph)


def stream(tokens=TINY.tokens, d=TINY.embed_dim):
    return np.random.default_rng(tokens).integers(-128, 128, (1, tokens, d)).astype(np.int8)


def file_graph(kind, params, x):
    """A graph in file form of this op alone."""
    filed = Graph()
    source = filed.add_input("stream", x.shape, dtype=x.dtype)
    index = filed.add_tensor(Tensor("output/params", params.shape, params.dtype, None, params))
    filed.output = filed.add_tensor(Tensor("output", x.shape, np.dtype(np.int8)))
    filed.ops.append(Op(kind, (source, index, -1), filed.output, file_form.InParams()))
    return filed


def run(kind, params, x=None):
    x = stream() if x is None else x
    filed = file_graph(kind, params, x)
    return _Session(tflite_file.flatbuffer(filed, {}), filed, 1 << 20).invoke(x)


def changed(params, section, at=None, value=None, dtype="int32", size=None):
    """params with one value of a section changed, or the section cut to `size` bytes."""
    sections = params_blob.unpack(params)
    values = params_blob.array(sections[section], dtype).copy()
    if size is not None:
        values = np.frombuffer(values.tobytes()[:size], np.uint8)
    else:
        values[at] = value
    arrays = [np.frombuffer(s, np.uint8) if s else None for s in sections]
    arrays[section] = values
    return params_blob.pack(arrays)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 16, 37])
def test_equals_reference(layers, kind, tokens):
    x = stream(tokens)
    filed = file_graph(kind, layers[kind], x)
    want = file_form.from_file_form(filed)[0].run(x)
    np.testing.assert_array_equal(run(kind, layers[kind], x), want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["stream", "output"])
def test_what_it_works_on_is_no_constant(layers, kind, name):
    """Else it would write into the model; an output over its own params would change them after they were checked."""
    x = stream()
    filed = file_graph(kind, layers[kind], x)
    at = next(i for i, tensor in enumerate(filed.tensors) if tensor.name == name)
    filed.tensors[at] = dataclasses.replace(filed.tensors[at], data=x)
    with pytest.raises(McuformerError, match=f"tensor '{name}' is a constant of the model, needs an activation"):
        _Session(tflite_file.flatbuffer(filed, {}), filed, 1 << 20)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_stays_as_wide_as_it_is(layers, kind):
    with pytest.raises(McuformerError, match="stream and output have different types"):
        run(kind, layers[kind], stream().astype(np.int16))


@pytest.mark.parametrize("kind", KINDS)
def test_run_op_takes_options_and_constants(model, layers, kind):
    """As fields and tensors: nobody has to pack params."""
    graph = model.graph
    op = next(op for op in graph.ops if op.kind == kind)
    roles = {role: graph.tensors[i].data for role, i in zip(OPS[kind].INPUTS[1:], op.inputs[1:], strict=True) if i >= 0}
    x = stream()
    np.testing.assert_array_equal(
        run_op(kind, {"stream": x}, roles, vars(op.options)),
        run(kind, layers[kind], x),
    )


def without_norm(kind, params, zero_point=0, epsilon=0):
    """params of the same layers without the LayerNorm before them."""
    names = OPS[kind].LAYOUT.scalars
    arrays = [np.frombuffer(section, np.uint8) if section else None for section in params_blob.unpack(params)]
    scalars = arrays[0].view("<i4").copy()
    scalars[names.index("norm_zero_point")] = zero_point
    scalars[names.index("epsilon_low")], scalars[names.index("epsilon_high")] = params_blob.split_int64(epsilon)
    return params_blob.pack([scalars, None, None, None, *arrays[4:]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 16, 37])
def test_without_layer_norm(layers, kind, tokens):
    """As a post-norm network has it: the same as the ops one after the other, on the stream itself, in any block."""
    x, params = stream(tokens), without_norm(kind, layers[kind])
    graph = file_form.from_file_form(file_graph(kind, params, x))[0]
    op, tensors = graph.ops[0], graph.tensors
    assert op.inputs[1:4] == (-1, -1, -1) and not graph.dims(op).norm
    whole = file_form.from_file_form(file_graph(kind, layers[kind], x))[0]
    assert graph.scratch_bytes(op) == whole.scratch_bytes(whole.ops[0])
    assert sum(op.module.constant_bytes(graph.dims(op))) == params.size
    want = graph.run(x)
    np.testing.assert_array_equal(want, one_after_the_other(op, tensors, x))
    for block in (op.options.tokens_at_once, 3, 100):
        np.testing.assert_array_equal(run(kind, changed(params, 0, 0, block), x), want, err_msg=f"block {block}")


def one_after_the_other(op, tensors, x):
    """What InPlaceFC and IntAttention make of the stream, with the constants of a Streamed op."""
    values = {role: tensors[i].data for role, i in zip(op.module.INPUTS, op.inputs, strict=True) if i >= 0}
    options, y = op.options, x

    def layer(name, zero_point, source, **more):
        constants = [values[f"{name}_{part}"] for part in ("weights", "bias", "multiplier")]
        return in_place_fc.reference(in_place_fc.Options(zero_point, options.packing), source, *constants, **more)

    added = dict(residual=x, residual_scale=values["residual_scale"])
    if op.kind == "StreamedAttention":
        if "qkv_rank_bias" in values:
            y = layer("qkv_rank", options.qkv_rank_zero_point, y)
        y = layer("qkv", options.qkv_zero_point, y)
        attention = int_attention.Options(options.kv_heads, options.head_dim, options.zero_point)
        y = int_attention.reference(attention, y, values["head_params"])
        if "proj_rank_bias" in values:
            y = layer("proj_rank", options.proj_rank_zero_point, y)
        return layer("proj", options.proj_zero_point, y, **added)
    for i, zero_point in enumerate(options.zero_points):
        last = i + 1 == len(options.zero_points)
        gelu = dict(gelu_table=values["gelu_table"]) if i == options.gelu_layer else {}
        y = layer(f"fc{i}", zero_point, y, **gelu, **(added if last else {}))
    return y


def without_ranks(params, kept):
    """params without the first factors of a low rank but those of `kept`, "qkv" or "proj"."""
    sections = params_blob.unpack(params)
    arrays = [np.frombuffer(section, np.uint8) if section else None for section in sections]
    names = ["scalars", *OPS["StreamedAttention"].LAYOUT.dtypes]
    for name in [name for name in names if "_rank_" in name and not name.startswith(kept)]:
        arrays[names.index(name)] = None
    return params_blob.pack(arrays)


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 16, 37])
def test_low_rank(low_rank, tokens):
    """The same as the ops one after the other, in any block and any number of passes."""
    x, low_rank = stream(tokens), without_norm("StreamedAttention", low_rank)
    graph = file_form.from_file_form(file_graph("StreamedAttention", low_rank, x))[0]
    op = graph.ops[0]
    rank = round(0.3 * TINY.embed_dim)
    assert graph.dims(op).ranks == (rank, rank)
    assert op.options.qkv_rank_zero_point or op.options.proj_rank_zero_point
    assert sum(op.module.constant_bytes(graph.dims(op))) == low_rank.size
    want = graph.run(x)
    np.testing.assert_array_equal(want, one_after_the_other(op, graph.tensors, x))
    for block in (op.options.tokens_at_once, 3, 100):
        for heads in (1, op.options.kv_heads):
            params = changed(changed(low_rank, 0, 0, block), 0, 2, heads)
            np.testing.assert_array_equal(run("StreamedAttention", params, x), want, err_msg=f"{block}, {heads}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(section=12, size=5, dtype="int8"), "size"),  # weights of qkv_rank
        (dict(section=13, size=4), "size"),
        (dict(section=13, size=0), "size"),  # no such layer: then qkv takes too little
        (dict(section=14, at=0, value=-1), "legal range"),
        (dict(section=15, size=5, dtype="int8"), "size"),  # of proj_rank
        (dict(section=16, size=0), "size"),
        (dict(section=17, at=0, value=-1), "legal range"),
        (dict(section=0, at=13, value=128), "legal range"),
        (dict(section=0, at=14, value=-129), "legal range"),
        (dict(section=0, size=56), "not whole"),
    ],
)
def test_damaged_factors_are_refused(low_rank, change, message):
    with pytest.raises(ModelError, match=message):
        run("StreamedAttention", changed(low_rank, **change))


@pytest.mark.parametrize("kept", ["qkv", "proj"])
def test_a_missing_factor_is_refused(low_rank, kept):
    with pytest.raises(ModelError, match="size"):
        run("StreamedAttention", without_ranks(low_rank, kept))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [dict(zero_point=1), dict(epsilon=1), dict(epsilon=1 << 40)])
def test_options_of_a_missing_layer_norm_are_refused(layers, kind, norm):
    with pytest.raises(ModelError, match="legal range"):
        run(kind, without_norm(kind, layers[kind], **norm))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [1, 2, 3])
def test_part_of_a_layer_norm_is_refused(layers, kind, kept):
    arrays = [np.frombuffer(section, np.uint8) if section else None for section in params_blob.unpack(layers[kind])]
    assert arrays[kept] is not None
    arrays[1:4] = [array if i == kept else None for i, array in enumerate(arrays[1:4], 1)]
    with pytest.raises(ModelError, match="differ in length"):
        run(kind, params_blob.pack(arrays))


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_tokens_at_once_gives_the_same(layers, kind):
    want = run(kind, layers[kind])
    for tokens in (1, 2, 3, 5, 8, 100):
        np.testing.assert_array_equal(run(kind, changed(layers[kind], 0, 0, tokens)), want, err_msg=f"{tokens} at once")


def test_any_number_of_heads_at_once_gives_the_same(layers):
    want = run("StreamedAttention", layers["StreamedAttention"])
    for at_once in (1, 2):
        np.testing.assert_array_equal(
            run("StreamedAttention", changed(layers["StreamedAttention"], 0, 2, at_once)), want
        )


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("StreamedMLP", dict(section=0, at=0, value=0), "size"),
        ("StreamedMLP", dict(section=0, at=1, value=200), "legal range"),
        ("StreamedMLP", dict(section=0, size=16), "not whole"),
        ("StreamedMLP", dict(section=0, at=4, value=2), "layer for the GELU does not exist"),
        ("StreamedMLP", dict(section=0, at=4, value=-2), "layer for the GELU does not exist"),
        ("StreamedMLP", dict(section=0, at=4, value=-1), "gelu_table"),
        ("StreamedMLP", dict(section=8, size=4), "size"),
        ("StreamedMLP", dict(section=1, size=4, dtype="int16"), "differ in length"),
        ("StreamedMLP", dict(section=3, size=5, dtype="uint8"), "differ in length"),
        ("StreamedMLP", dict(section=4, size=255, dtype="int8"), "gelu_table"),
        ("StreamedMLP", dict(section=5, size=2, dtype="int16"), "residual_scale"),
        ("StreamedMLP", dict(section=6, size=7, dtype="int8"), "size"),
        ("StreamedMLP", dict(section=8, at=0, value=-1), "legal range"),
        ("StreamedMLP", dict(section=7, at=0, value=(1 << 30) + 1), "legal range"),
        ("StreamedMLP", dict(section=0, at=5, value=16), "size"),
        ("StreamedMLP", dict(section=6, size=0, dtype="int8"), "size"),
        ("StreamedAttention", dict(section=0, at=10, value=16), "size"),
        ("StreamedAttention", dict(section=6, size=0, dtype="int8"), "size"),
        ("StreamedAttention", dict(section=0, at=0, value=0), "size"),
        ("StreamedAttention", dict(section=0, at=0, value=16385), "size"),
        ("StreamedAttention", dict(section=0, at=5, value=200), "legal range"),
        ("StreamedAttention", dict(section=8, at=0, value=-1), "legal range"),
        ("StreamedAttention", dict(section=0, at=1, value=-(1 << 31)), "size"),
        ("StreamedAttention", dict(section=0, at=1, value=3), "size"),
        ("StreamedAttention", dict(section=0, at=2, value=0), "size"),
        ("StreamedAttention", dict(section=0, at=3, value=11), "size"),
        ("StreamedAttention", dict(section=0, size=36), "not whole"),
        ("StreamedAttention", dict(section=4, at=1, value=1), "legal range"),
        ("StreamedAttention", dict(section=4, size=16), "size"),
        ("StreamedAttention", dict(section=5, size=2, dtype="int16"), "residual_scale"),
        ("StreamedAttention", dict(section=11, at=0, value=-1), "legal range"),
    ],
)
def test_damaged_params_are_refused(layers, kind, change, message):
    """In Prepare, before anything runs."""
    with pytest.raises(McuformerError, match=message):
        run(kind, changed(layers[kind], **change))


@pytest.fixture(scope="module", params=["bias", "tables"])
def relative_attention(request):
    """params of a StreamedAttention with relative positions, and a stream for it."""
    config = dataclasses.replace(TINY, prefix_tokens=2, relative_position=request.param)
    model = convert(lively_subnet(config, 1), structured_images(config, 2), schedule="streamed")
    return first_ops(model.graph)["StreamedAttention"], stream(config.tokens), request.param


def test_relative_positions_equal_the_ops_one_by_one(relative_attention):
    params, x, kind = relative_attention
    graph = file_form.from_file_form(file_graph("StreamedAttention", params, x))[0]
    assert sum(graph.ops[0].module.constant_bytes(graph.dims(graph.ops[0]))) == params.size
    assert graph.dims(graph.ops[0]).relative.tables == (kind == "tables")
    want = graph.run(x)
    for block in (1, 3, 4, 100):
        np.testing.assert_array_equal(run("StreamedAttention", changed(params, 0, 0, block), x), want)


def test_damaged_relative_positions_are_refused(relative_attention):
    params, x, kind = relative_attention
    scalars = OPS["StreamedAttention"].LAYOUT.scalars
    sections = ["scalars", *OPS["StreamedAttention"].LAYOUT.dtypes]
    rows, columns, first = scalars.index("grid_rows"), scalars.index("grid_columns"), sections.index("relative_params")
    cases = [(dict(section=0, at=rows, value=value), "do not fit") for value in (0, -1, 1, 3, 2049, (1 << 31) - 1)] + [
        (dict(section=0, at=columns, value=value), "do not fit") for value in (0, -5, 1, 1 << 30)
    ]
    cases += [(dict(section=first, size=size), "do not fit") for size in (0, 8)]
    cases += [(dict(section=first, at=0, value=-1), "legal range"), (dict(section=0, size=4 * rows), "do not fit")]
    cases += [(dict(section=0, size=4 * rows + 4), "not whole")]
    if kind == "bias":
        cases += [(dict(section=first + 1, size=size, dtype="int16"), "do not fit") for size in (0, 2)]
        cases += [(dict(section=first, at=1, value=1), "legal range")]
    else:
        cases += [(dict(section=first + i, size=size, dtype="int8"), "do not fit") for i in (2, 3) for size in (0, 7)]
    for change, message in cases:
        with pytest.raises(McuformerError, match=message):
            run("StreamedAttention", changed(params, **change), x)


@pytest.fixture(scope="module")
def staged_layers(tiny_net, tiny_images):
    return first_ops(convert(tiny_net, tiny_images, schedule="streamed", weights="staged").graph)


@pytest.mark.parametrize("kind", KINDS)
def test_staged_params_prepare_and_ask_for_a_source(staged_layers, kind):
    with pytest.raises(ModelError, match="no source of weights"):
        run(kind, staged_layers[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tile_bytes", 0), ("tile_bytes", 4), ("tile_bytes", -4), ("tile_bytes", 1002), ("tile_bytes", (1 << 20) + 4),
        ("weights_offset", -1), ("weights_offset", (1 << 31) - 400), ("weights_offset", (1 << 31) - 1),
        ("tokens_at_once", 0), ("tokens_at_once", 16385),
    ],
)  # fmt: skip
def test_damaged_staged_params_are_refused(staged_layers, kind, name, value):
    with pytest.raises(ModelError, match="size"):
        run(kind, changed(staged_layers[kind], 0, OPS[kind].LAYOUT.scalars.index(name), value))


@pytest.mark.parametrize("kind", KINDS)
def test_sections_outside_the_tensor_are_refused(layers, kind):
    for word, value in ((0, 25), (0, -1), (1, 8), (1, 1 << 30), (2, 1 << 30), (3, -16)):
        params = layers[kind].copy()
        params[4 * word : 4 * word + 4] = np.frombuffer(np.int32(value).tobytes(), np.uint8)
        with pytest.raises(ModelError, match="not whole"):
            run(kind, params)
    with pytest.raises(ModelError, match="not whole"):
        run(kind, layers[kind][:-16])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_another_width_is_refused(layers, kind):
    with pytest.raises(ModelError, match="differ in their channels"):
        run(kind, layers[kind], stream(d=TINY.embed_dim + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_of_another_shape_is_refused(layers, kind):
    filed = file_graph(kind, layers[kind], stream())
    filed.tensors[filed.output] = dataclasses.replace(
        filed.tensors[filed.output], shape=(1, TINY.tokens - 1, TINY.embed_dim)
    )
    with pytest.raises(ModelError, match="'output' has shape"):
        _Session(tflite_file.flatbuffer(filed, {}), filed, 1 << 20)


def test_attention_takes_one_image(layers):
    with pytest.raises(ModelError, match="batch of 1"):
        run("StreamedAttention", layers["StreamedAttention"], np.concatenate([stream(), stream()]))
