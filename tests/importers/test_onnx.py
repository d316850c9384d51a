# SPDX-License-Identifier: Apache-2.0
"""ONNX as torch.onnx.export writes it: matrices without names, transposed, and positions folded into constants."""

import numpy as np
import pytest
import torch
from test_fixtures import imported, load, run

import mcuformer
from mcuformer.errors import McuformerError

onnx = pytest.importorskip("onnx")

NAME = "hf-dinov2-no-head"


@pytest.fixture
def path(tmp_path):
    """The fixture below `backbone`, and a decoder beside it."""
    held, nodes = [], []

    def constant(name: str, value: torch.Tensor) -> None:
        held.append(onnx.numpy_helper.from_array(value.float().numpy(), name))

    for i, (name, value) in enumerate(load(NAME).state.items()):
        if name == "embeddings.position_embeddings":
            constant("onnx::Concat_1", value[:, :1])
            constant("onnx::Reshape_2", value[:, 1:])
            at = "/backbone/embeddings"
            nodes.append(onnx.helper.make_node("Reshape", ["onnx::Reshape_2", "shape"], ["r"], f"{at}/Reshape_1"))
            nodes.append(onnx.helper.make_node("Concat", ["onnx::Concat_1", "r"], ["c"], f"{at}/Concat_6", axis=1))
        elif name.endswith("weight") and value.ndim == 2:
            constant(f"onnx::MatMul_{100 + i}", value.T.contiguous())
            owner = "/".join(["/backbone", *name.removesuffix(".weight").replace("layer.", "layer_").split(".")])
            owner = owner.replace("layer_/", "layer.").replace("layer_", "layer.")
            nodes.append(onnx.helper.make_node("MatMul", ["x", held[-1].name], [f"m{i}"], f"{owner}/MatMul"))
        else:
            constant(f"backbone.{name}", value)
    constant("decoder.conv.weight", torch.ones(1, 1, 1, 1))
    graph = onnx.helper.make_graph(nodes, "g", [], [], held)
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return file


def test_equals_the_state_dict(path):
    settings = load(NAME).settings
    net = mcuformer.import_vit(path, "hf", weights="backbone", **settings)
    image = load(NAME).arrays["image"]
    np.testing.assert_array_equal(run(net, image), run(imported(NAME), image))


@pytest.mark.parametrize(
    "name, part",
    [("/backbone/encoder/layer.0/attention/Add_1", "backbone"), ("/blocks.0/attn/Add_1", None),
     ("/backbone/layers.0/relative_position_bias/Resize", "backbone")],
)  # fmt: skip
def test_relative_positions_are_refused_where_no_name_tells_of_them(name, part, path, tmp_path):
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 2, 5, 5), np.float32), "onnx::Add_7"))
    model.graph.node.append(onnx.helper.make_node(name.split("/")[-1].split("_")[0], ["s", "onnx::Add_7"], ["t"], name))
    (tmp_path / "beit.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(McuformerError) as caught:
        mcuformer.import_vit(tmp_path / "beit.onnx", "hf", weights=part, **load(NAME).settings)
    assert f"node '{name}' adds relative positions" in str(caught.value) and "\n" not in str(caught.value)


def test_mistakes_end_in_one_line(path, tmp_path):
    settings = load(NAME).settings
    (tmp_path / "half.onnx").write_bytes(path.read_bytes()[:1000])
    for source, part, words in (
        (path, None, "decoder.conv.weight"),
        (path, "encoder", "weights = 'encoder'"),
        (tmp_path / "half.onnx", "backbone", "half.onnx"),
    ):
        with pytest.raises(McuformerError) as caught:
            mcuformer.import_vit(source, "hf", weights=part, **settings)
        assert words in str(caught.value) and "\n" not in str(caught.value)
