# SPDX-License-Identifier: Apache-2.0
"""StreamedStem alone in the real interpreter: the params of a real stem, whole and damaged."""

import dataclasses

import numpy as np
import pytest
from conftest import TINY, lively_subnet, structured_images

from mcuformer import convert, run_op
from mcuformer.converter import file_form, tflite_file
from mcuformer.converter.graph import Graph, Op, Tensor
from mcuformer.converter.ops import params_blob, stem_block, streamed_stem
from mcuformer.errors import McuformerError, ModelError
from mcuformer.interpreter import _Session

KIND = "StreamedStem"
CONFIG = dataclasses.replace(TINY, stem="conv", prefix_tokens=2, image_size=(18, 15), stem_channels=(6,))
SHAPE = (1, CONFIG.tokens, CONFIG.embed_dim)
SCALARS = streamed_stem.LAYOUT.scalars
SECTIONS = ["scalars", *streamed_stem.LAYOUT.dtypes]


@pytest.fixture(scope="module")
def model():
    return convert(lively_subnet(CONFIG, 2), structured_images(CONFIG, 2))


def params_of(graph):
    filed, _ = file_form.to_file_form(graph)
    return filed.tensors[filed.ops[0].inputs[file_form.PARAMS]].values


@pytest.fixture(scope="module")
def params(model):
    return params_of(model.graph)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(-128, 128, (1, *CONFIG.image_shape)).astype(np.int8)


def file_graph(params, image, output=SHAPE):
    """A graph in file form of this op alone. image: None for one in strips."""
    filed = Graph()
    source = -1 if image is None else filed.add_input("image", image.shape)
    index = filed.add_tensor(Tensor("output/params", params.shape, params.dtype, None, params))
    filed.output = filed.add_tensor(Tensor("output", output, np.dtype(np.int8)))
    filed.ops.append(Op(KIND, (source, index, -1), filed.output, file_form.InParams()))
    return filed


def run(params, image, output=SHAPE):
    filed = file_graph(params, image, output)
    return _Session(tflite_file.flatbuffer(filed, {}), filed, 1 << 20).invoke(*([] if image is None else [image]))


def changed(params, section, at=None, value=None, dtype="int32", size=None):
    """params with one value of a section changed, or the section cut to `size` bytes."""
    arrays = [np.frombuffer(s, np.uint8).copy() if s else None for s in params_blob.unpack(params)]
    index = SECTIONS.index(section)
    if size is not None:
        arrays[index] = arrays[index][:size]
    else:
        arrays[index].view(dtype)[at] = value
    return params_blob.pack(arrays)


def with_scalar(params, name, value):
    return changed(params, "scalars", SCALARS.index(name), value)


@pytest.mark.parametrize("engine", ["tflm", "c"])
def test_equals_reference(model, params, image, engine):
    graph = model.graph
    op = graph.ops[0]
    roles = zip(streamed_stem.INPUTS[1:], op.inputs[1:], strict=True)
    constants = {role: graph.tensors[i].data for role, i in roles if i >= 0}
    want = streamed_stem.reference(op.options, image, *(constants.get(role) for role in streamed_stem.INPUTS[1:]))
    for pixels in (1, 2, 3, 4):
        options = dataclasses.replace(op.options, pixels_at_once=pixels)
        np.testing.assert_array_equal(run_op(KIND, {"image": image}, constants, vars(options), engine=engine), want)
    np.testing.assert_array_equal(run(params, image), want)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(section="scalars", at=SCALARS.index("pixels_at_once"), value=0), "size"),
        (dict(section="scalars", at=SCALARS.index("pixels_at_once"), value=5), "size"),
        (dict(section="scalars", at=SCALARS.index("pad_value"), value=128), "legal range"),
        (dict(section="scalars", at=SCALARS.index("packing"), value=1), "differ in length"),
        (dict(section="scalars", at=SCALARS.index("packing"), value=2), "differ in length"),
        (dict(section="scalars", at=SCALARS.index("strip_rows"), value=2), "with an image, strip_rows must be 0"),
        (dict(section="scalars", at=len(SCALARS), value=-129), "legal range"),
        (dict(section="scalars", at=len(SCALARS) + 1, value=128), "legal range"),
        (dict(section="scalars", size=4 * len(SCALARS)), "not whole"),
        (dict(section="scalars", size=4 * len(SCALARS) + 4), "position must have"),  # one convolution alone
        (dict(section="scalars", size=4), "not whole"),
        (dict(section="position", size=24), "position must have"),
        (dict(section="position", size=0), "go together"),
        (dict(section="position_scale", size=2), "position_scale"),
        (dict(section="position_scale", size=0), "go together"),
        (dict(section="prefix", size=TINY.embed_dim + 1), "prefix must have"),
        (dict(section="prefix", size=TINY.embed_dim), "'output' has shape"),
        (dict(section="prefix", size=0), "'output' has shape"),
        (dict(section="conv0_weights", size=50), "differ in length"),
        (dict(section="conv0_bias", size=4), "differ in length"),
        (dict(section="conv0_multiplier", size=0), "differ in length"),
        (dict(section="conv1_weights", size=50), "differ in length"),
        (dict(section="conv1_weights", size=0), "differ in length"),
        (dict(section="conv1_bias", size=8), "differ in length"),
        (dict(section="conv0_bias", at=0, value=(1 << 30) + 1), "legal range"),
        (dict(section="conv1_multiplier", at=0, value=-1), "legal range"),
    ],
)
def test_damaged_params_are_refused(params, image, change, message):
    """In Prepare, before anything runs."""
    with pytest.raises(McuformerError, match=message):
        run(changed(params, **change), image)


def test_sections_outside_the_tensor_are_refused(params, image):
    for word, value in ((0, 99), (0, -1), (0, 3), (1, 8), (1, 1 << 30), (2, 1 << 30), (3, -16)):
        damaged = params.copy()
        damaged[4 * word : 4 * word + 4] = np.frombuffer(np.int32(value).tobytes(), np.uint8)
        with pytest.raises(ModelError, match="not whole"):
            run(damaged, image)
    with pytest.raises(ModelError, match="not whole"):
        run(params[:-16], image)


def test_other_shapes_are_refused(params, image):
    with pytest.raises(ModelError, match="'output' has shape"):
        run(params, image, (1, CONFIG.tokens - 1, CONFIG.embed_dim))
    with pytest.raises(ModelError, match="differ in length"):
        run(params, np.concatenate([image, image], axis=3))  # of more channels than the weights take
    with pytest.raises(ModelError, match="batch of 1"):
        run(params, np.concatenate([image, image]))
    with pytest.raises(ModelError, match="the image is too large"):
        run(params, np.zeros((1, 4097, 2, 3), np.int8))


@pytest.mark.parametrize("name", ["image", "output"])
def test_what_it_works_on_is_no_constant(params, image, name):
    filed = file_graph(params, image)
    at = next(i for i, tensor in enumerate(filed.tensors) if tensor.name == name)
    filed.tensors[at] = dataclasses.replace(filed.tensors[at], data=np.zeros(filed.tensors[at].shape, np.int8))
    with pytest.raises(McuformerError, match=f"tensor '{name}' is a constant of the model, needs an activation"):
        _Session(tflite_file.flatbuffer(filed, {}), filed, 1 << 20)


def test_weights_of_their_own_are_refused(params, image):
    filed = file_graph(params, image)
    filed.ops[0] = dataclasses.replace(filed.ops[0], inputs=(*filed.ops[0].inputs[:2], 1))
    with pytest.raises(McuformerError, match="has a weights tensor"):
        _Session(tflite_file.flatbuffer(filed, {}), filed, 1 << 20)


@pytest.fixture(scope="module")
def strip_params():
    return params_of(convert(lively_subnet(CONFIG, 2), structured_images(CONFIG, 2), strips=True).graph)


def test_strips_prepare_and_ask_for_a_source(strip_params):
    with pytest.raises(ModelError, match="no source of image rows"):
        run(strip_params, None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("strip_rows", 0, "without an image, strip_rows must be 2"),
        ("strip_rows", 1, "without an image, strip_rows must be 2"),
        ("image_height", 0, "height and width"),
        ("image_height", 4097, "height and width"),
        ("image_width", -1, "height and width"),
        ("image_width", 1 << 30, "height and width"),
        ("image_height", 40, "position must have"),
        ("channels", 0, "differ in length"),
        ("channels", 4, "differ in length"),
        ("channels", 1 << 30, "differ in length"),
    ],
)
def test_damaged_strips_are_refused(strip_params, name, value, message):
    with pytest.raises(ModelError, match=message):
        run(with_scalar(strip_params, name, value), None)


BLOCK_SHAPE = (1, 12, 4)  # of a stem of three convolutions for 9x11x2 pixels, with a block behind the second alone
HIDDEN = 5


@pytest.fixture(scope="module")
def block_graph():
    rng = np.random.default_rng(3)

    def layer(name, inputs, outputs):
        return {
            f"{name}_weights": rng.integers(-127, 128, (outputs, inputs)).astype(np.int8),
            f"{name}_bias": rng.integers(-5000, 5000, outputs).astype(np.int32),
            f"{name}_multiplier": rng.integers(1 << 20, 1 << 23, outputs).astype(np.int32),
        }

    constants = layer("conv0", 18, 3) | layer("conv1", 27, 6) | layer("conv2", 54, 4)
    constants |= layer("block1_expand", 6, HIDDEN) | layer("block1_project", HIDDEN, 6)
    depthwise = layer("block1_depthwise", 9, HIDDEN)
    constants |= depthwise | {"block1_depthwise_weights": depthwise["block1_depthwise_weights"].T.copy()}
    constants["block1_residual_scale"] = rng.integers(0, 3000, 6).astype(np.int16)
    constants["prefix"] = rng.integers(-128, 128, (8, 4)).astype(np.int8)
    graph, blocks = Graph(), ((0, 0, 0), (-128, -100, 3))
    image = graph.add_input("image", (1, 9, 11, 2))
    options = streamed_stem.Options(4, -1, (-128, -128, 5), block_zero_points=blocks)
    graph.output = graph.add_op(KIND, "output", options, {"image": image}, constants)
    return graph


@pytest.fixture(scope="module")
def block_params(block_graph):
    return params_of(block_graph)


@pytest.fixture(scope="module")
def block_image():
    return np.random.default_rng(1).integers(-128, 128, (1, 9, 11, 2)).astype(np.int8)


@pytest.mark.parametrize("engine", ["tflm", "c"])
def test_blocks_equal_the_reference(block_graph, block_params, block_image, engine):
    op = block_graph.ops[0]
    constants = {
        role: block_graph.tensors[i].data for role, i in zip(streamed_stem.INPUTS, op.inputs, strict=True) if i > 0
    }
    (want,) = block_graph.run(block_image)[None]
    for pixels in (1, 2, 3, 4):
        options = dataclasses.replace(op.options, pixels_at_once=pixels)
        given = run_op(KIND, {"image": block_image}, constants, vars(options), engine=engine)
        np.testing.assert_array_equal(given.reshape(want.shape), want)
    np.testing.assert_array_equal(run(block_params, block_image, BLOCK_SHAPE).reshape(want.shape), want)


def test_blocks_survive_the_file(block_graph):
    filed, _ = file_form.to_file_form(block_graph)
    back, _ = file_form.from_file_form(filed)
    before, after = block_graph.ops[0], back.ops[0]
    assert after.options == before.options
    for role, a, b in zip(streamed_stem.INPUTS, before.inputs, after.inputs, strict=True):
        assert (a < 0) == (b < 0), role
        if a >= 0 and role != "image":
            np.testing.assert_array_equal(block_graph.tensors[a].data, back.tensors[b].data, err_msg=role)


FIRST = len(SCALARS) + streamed_stem.MAX_CONVS  # zero point of blocks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(section="scalars", size=4 * FIRST), "not whole"),  # blocks without zero points
        (dict(section="scalars", size=4 * FIRST + 12), "not whole"),  # of two convolutions, with two blocks
        (dict(section="scalars", size=4 * FIRST + 20), "not whole"),
        (dict(section="scalars", size=4 * FIRST - 20), "not whole"),
        (dict(section="scalars", at=FIRST + 3, value=128), "legal range"),
        (dict(section="scalars", at=FIRST + 4, value=-129), "legal range"),
        (dict(section="scalars", at=FIRST + 5, value=1 << 20), "legal range"),
        (dict(section="scalars", at=SCALARS.index("packing"), value=1), "differ in length"),
        (dict(section="scalars", at=SCALARS.index("pixels_at_once"), value=5), "size"),
        (dict(section="conv2_weights", size=0), "differ in length"),
        *[
            (dict(section=f"block1_{name}", size=size), "constants of a block differ in length")
            for name in stem_block.TYPES for size in (0, 4)
        ],
        (dict(section="block1_depthwise_weights", size=9 * HIDDEN - 1), "constants of a block differ in length"),
        (dict(section="block1_depthwise_weights", at=9 * HIDDEN - 1, value=-128, dtype="int8"), "legal range"),
        (dict(section="block1_expand_bias", at=0, value=(1 << 30) + 1), "legal range"),
        (dict(section="block1_depthwise_bias", at=4, value=-(1 << 30) - 1), "legal range"),
        (dict(section="block1_project_bias", at=5, value=(1 << 31) - 1), "legal range"),
        (dict(section="block1_expand_multiplier", at=4, value=-1), "legal range"),
        (dict(section="block1_depthwise_multiplier", at=0, value=-1), "legal range"),
        (dict(section="block1_project_multiplier", at=0, value=-1), "legal range"),
    ],
)  # fmt: skip
def test_damaged_blocks_are_refused(block_params, block_image, change, message):
    with pytest.raises(ModelError, match=message):
        run(changed(block_params, **change), block_image, BLOCK_SHAPE)


def test_blocks_beyond_the_last_are_refused(block_params, block_image):
    arrays = [np.frombuffer(section, np.uint8) if section else None for section in params_blob.unpack(block_params)]
    with pytest.raises(ModelError, match="not whole"):
        run(params_blob.pack([*arrays, None]), block_image, BLOCK_SHAPE)
    with pytest.raises(ModelError, match="not whole"):
        run(params_blob.pack(arrays[: SECTIONS.index("block0_expand_weights")]), block_image, BLOCK_SHAPE)


def test_a_block_that_is_not_there_is_none(block_graph, block_image):
    """All its sections empty."""
    params = params_of(block_graph)
    for name in stem_block.TYPES:
        params = changed(params, f"block1_{name}", size=0)
    op = block_graph.ops[0]
    layers = [None if i < 0 else block_graph.tensors[i].data for i in op.inputs[1:]]
    plain = dataclasses.replace(op.options, block_zero_points=())
    without = layers[: streamed_stem.FIRST_BLOCK - 1]
    want = streamed_stem.reference(plain, block_image, *without)
    np.testing.assert_array_equal(run(params, block_image, BLOCK_SHAPE), want)


def test_an_image_where_strips_are_expected_is_refused(strip_params, image):
    with pytest.raises(ModelError, match="with an image, strip_rows must be 0"):
        run(strip_params, image)
