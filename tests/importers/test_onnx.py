# SPDX-License-Identifier: Apache-2.0
"""ONNX as torch's two exporters write it: matrices without names, transposed; positions and tokens folded.

Graphs here are made by hand after exported ones; where the libraries are installed, they are exported.
"""

import numpy as np
import pytest
import torch
from originals import ORIGINALS, fill, image_of, pixels_of
from test_fixtures import TOLERANCE, imported, load, run

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


NAMES = (
    "timm-class-token", "timm-mean-fc-norm", "timm-layer-scale", "timm-registers", "timm-distilled", "timm-clip",
    "torchvision",
)  # fmt: skip
TOKENS = ("cls_token", "class_token", "dist_token", "reg_token")


def exported(name: str, exporter: str, damage: str = "") -> bytes:
    """The fixture as an exporter of torch writes it: "legacy" or "dynamo"."""
    held, nodes = [], []
    state = load(name).state
    for i, (key, value) in enumerate(state.items()):
        value, owner = value.float(), key.removesuffix(".weight").removesuffix(".in_proj_weight")
        if key in TOKENS and exporter == "dynamo":
            stored = "expand" if key.startswith("cl") else "expand_1"
        elif value.ndim == 2 and not key.startswith("head"):
            stored, value = f"onnx::MatMul_{100 + i}" if exporter == "legacy" else f"val_{i}", value.T.contiguous()
            parts = owner.strip(".").split(".")  # /blocks/blocks.0/attn/qkv, /encoder/layers/encoder_layer_0/mlp/mlp.0
            path = "/".join(f"{parts[j - 1]}.{part}" if part.isdecimal() else part for j, part in enumerate(parts))
            label = f"/{path}/MatMul" if exporter == "legacy" else f"node_linear_{i}"
            node = onnx.helper.make_node("MatMul", ["x", stored], [f"m{i}"], label)
            if exporter == "dynamo" and damage != "no scopes":
                scope = node.metadata_props.add()
                scope.key, scope.value = "pkg.torch.onnx.name_scopes", repr(["", owner.strip("."), f"linear_{i}"])
            nodes.append(node)
        else:
            stored = key
        held.append(onnx.numpy_helper.from_array(value.numpy(), stored))
    if exporter == "dynamo":
        tokens = [one.name for one in held if one.name.startswith("expand")]
        nodes.append(onnx.helper.make_node("Concat", [*tokens, "transpose"], ["c"], "node_cat", axis=1))
        mask = np.zeros((1, 1, 17, 17), np.float32) - (damage == "mask") * np.eye(17, dtype=np.float32)
        held += [onnx.numpy_helper.from_array(mask, "val_73"), onnx.numpy_helper.from_array(np.float32(8), "val_143")]
        if not damage:  # transformers has a mask that masks nothing
            nodes.append(onnx.helper.make_node("Add", ["scores", "val_73"], ["masked"], "node_Add_73"))
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], held)).SerializeToString()


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("name", NAMES)
def test_what_torch_exports_is_the_state_dict(name, exporter, tmp_path):
    fixture = load(name)
    (tmp_path / "model.onnx").write_bytes(exported(name, exporter))
    net = mcuformer.import_vit(tmp_path / "model.onnx", fixture.family, **fixture.settings)
    image = fixture.arrays["image"]
    np.testing.assert_array_equal(run(net, image), run(imported(name), image))


@pytest.mark.parametrize(
    ("damage", "words"),
    [("no scopes", "nothing says whose it is"), ("mask", "constant 'val_73' [1, 1, 17, 17] is of no module")],
)
def test_what_no_module_owns_is_refused(damage, words, tmp_path):
    (tmp_path / "model.onnx").write_bytes(exported("timm-class-token", "dynamo", damage))
    with pytest.raises(McuformerError) as caught:
        mcuformer.import_vit(tmp_path / "model.onnx", "timm", **load("timm-class-token").settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
def test_equal_tensors_that_are_stored_once(exporter, tmp_path):
    fixture, once, gone = load("timm-class-token"), "blocks.0.norm1.bias", "blocks.1.norm2.bias"
    model = onnx.load_from_string(exported("timm-class-token", exporter))
    kept = [one for one in model.graph.initializer if one.name != gone]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    if exporter == "legacy":
        node = onnx.helper.make_node("Identity", [once], [gone])
    else:
        node = onnx.helper.make_node("LayerNormalization", ["x", "blocks.1.norm2.weight", once], ["n"], "node_norm")
        scope = node.metadata_props.add()
        scope.key, scope.value = "pkg.torch.onnx.name_scopes", repr(["", "blocks.1.norm2", "layer_norm_3"])
    model.graph.node.append(node)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    got = mcuformer.import_vit(tmp_path / "model.onnx", "timm", **fixture.settings)
    want = mcuformer.import_vit({**fixture.state, gone: fixture.state[once]}, "timm", **fixture.settings)
    image = fixture.arrays["image"]
    np.testing.assert_array_equal(run(got, image), run(want, image))


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("name", [*NAMES, "timm-grey", "hf-vit", "hf-deit-teacher", "hf-dinov2", "hf-dinov2-registers"])
def test_exported_live(name, exporter, tmp_path):
    """The libraries' own modules, where they and torch's exporter are installed."""
    original = ORIGINALS[name]
    pytest.importorskip("onnxscript" if exporter == "dynamo" else "onnx")
    try:
        module = fill(original.build(), 5)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    image = image_of(original.image_shape, 5)
    pixels = pixels_of(image, original.pixels)
    with torch.no_grad():
        want = original.run(module, pixels).numpy()
    more = {"external_data": False, "verbose": False} if exporter == "dynamo" else {}
    try:
        torch.onnx.export(module, (pixels,), str(tmp_path / "model.onnx"), dynamo=exporter == "dynamo", **more)
    except torch.onnx.errors.UnsupportedOperatorError as error:  # dinov2 with registers, by the legacy one
        pytest.skip(f"torch does not export it: {error}")
    net = mcuformer.import_vit(tmp_path / "model.onnx", original.family, **{**original.settings, **original.pixels})
    np.testing.assert_allclose(run(net, image), want, rtol=0, atol=TOLERANCE)
