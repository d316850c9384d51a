# SPDX-License-Identifier: Apache-2.0
"""A network without a head, on rectangular images, as a user of the command line meets it."""

import json

import numpy as np
import pytest
from command_line import mistake
from conftest import HEADLESS, TINY, lively_subnet, structured_images

from mcuformer import cli
from mcuformer.cli.convert import convert
from mcuformer.cli.finetune import finetune
from mcuformer.cli.run import run
from mcuformer.cli.train import train
from mcuformer.converter.export.registry import export
from mcuformer.converter.report import agreement, error_report
from mcuformer.errors import ConfigError, DataError
from mcuformer.gallery import Gallery, cosines, neighbours, read_gallery
from mcuformer.interpreter import Interpreter
from mcuformer.nas import save_subnet


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A subnet, a data set, and the model that the command makes of them."""
    folder = tmp_path_factory.mktemp("headless")
    save_subnet(lively_subnet(HEADLESS, 4), folder / "subnet.pt", {})
    images, labels = structured_images(HEADLESS, 50), np.arange(50) % 3
    np.savez(folder / "data.npz", x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:])
    convert(folder / "subnet.pt", data=str(folder / "data.npz"), report=True, output=folder / "model.tflite")
    return folder


def test_interpreter_gives_int8_vectors_with_scale_and_zero_point(files):
    interpreter = Interpreter(files / "model.tflite")
    images = structured_images(HEADLESS, 3, seed=9)
    assert interpreter.class_names == [] and interpreter.image_size == (12, 20)
    values = interpreter.int8_outputs(images)
    assert values.dtype == np.int8 and values.shape == (3, HEADLESS.embed_dim)
    want = (values.astype(float) - interpreter.output_zero_point) * interpreter.output_scale
    np.testing.assert_allclose(interpreter(images), want, rtol=1e-6)
    np.testing.assert_array_equal(interpreter.reference(images), interpreter(images))


def test_convert_reports_the_cosine_of_the_embedding(files, capsys):
    made = convert(files / "subnet.pt", data=str(files / "data.npz"), report=True, output=files / "again.tflite")
    agreed = made.agreement
    assert agreed.images == 40 and agreed.top1 is None
    assert 0.99 < agreed.least_cosine <= agreed.mean_cosine <= 1 + 1e-9
    cli.convert.show(made)
    shown = capsys.readouterr().out
    assert f"int8 and float embeddings on 40 calibration images: cosine {agreed.mean_cosine:.4f}" in shown
    assert "same class" not in shown and made.to_dict()["agreement"]["least_cosine"] == agreed.least_cosine
    assert all(0.9 < row.cosine <= 1 + 1e-9 for row in made.report) and made.report[-1].name == "pool"


def test_exports_take_no_class_names_and_arduino_stored_embeddings(files, tmp_path):
    model, data = files / "model.tflite", str(files / "data.npz")
    run(model, data=data, split="train", save_embeddings=tmp_path / "gallery.npz")
    for to in ("c", "tflm"):
        export(model, to, tmp_path / to)
        with pytest.raises(ConfigError, match="--gallery x: stored embeddings are an Arduino library's; leave it out"):
            export(model, to, tmp_path / "none", gallery="x")
    result = export(model, "arduino", tmp_path / "lib", data=data, gallery=str(tmp_path / "gallery.npz"))
    assert any(line.startswith("40 stored embeddings of") for line in result.lines)
    header = (tmp_path / "lib" / "src" / "models" / "model" / "model_gallery.h").read_text()
    assert "#define MODEL_GALLERY 40 " in header
    for path in tmp_path.rglob("model*.*"):
        assert "class_names" not in path.read_text(errors="replace")
    with pytest.raises(DataError, match="have 3 values, the model's 24"):
        Gallery(np.ones((1, 3), np.float32), ("a",)).save(tmp_path / "other.npz")
        export(model, "arduino", tmp_path / "none", data=data, gallery=str(tmp_path / "other.npz"))
    assert not (tmp_path / "none").exists()


def test_agreement_of_wrong_outputs():
    real = np.array([[1.0, 0], [0, 2], [3, 4]])
    exact = agreement(real, 2 * real, has_head=True)
    assert exact.mean_cosine == pytest.approx(1) and exact.top1 == 1
    wrong = agreement(real, real[:, ::-1], has_head=True)
    assert wrong.least_cosine == 0 and wrong.mean_cosine == pytest.approx(0.96 / 3) and wrong.top1 == 0


def test_run_finds_the_nearest_image_and_the_nearest_of_a_gallery(files, capsys):
    model, data = files / "model.tflite", str(files / "data.npz")
    done = run(model, data=data, split="train", save_embeddings=files / "gallery.npz", reference=True)
    near, embeddings = done.host.neighbours, done.host.logits
    assert done.exact and done.host.top1 is None and len(near.names) == 40
    assert all(i != j for i, j in enumerate(near.indices))
    for i in range(40):  # no other image is nearer
        each = [embeddings[i] @ e / np.linalg.norm(embeddings[i]) / np.linalg.norm(e) for e in embeddings]
        each[i] = -1
        assert near.cosines[i] == pytest.approx(max(each), abs=1e-5)
    stored = read_gallery(files / "gallery.npz", HEADLESS.embed_dim)
    assert stored.names == tuple(str(i % 3) for i in range(40)) and stored.embeddings.dtype == np.float32
    np.testing.assert_array_equal(stored.embeddings, embeddings)

    again = run(model, data=data, split="train", limit=5, gallery=files / "gallery.npz", on_host=cli.run.show_host)
    assert again.host.neighbours.same == 1 and np.allclose(again.host.neighbours.cosines, 1)
    nearest = again.to_dict()["nearest"]
    assert nearest["gallery"] == str(files / "gallery.npz") and json.dumps(nearest)
    shown = capsys.readouterr().out
    assert "embeddings of 5 images" in shown and "gallery.npz by cosine: 100.00 % have the image's class" in shown


def test_one_image_alone_has_no_neighbour(files):
    done = run(files / "model.tflite", data=str(files / "data.npz"), limit=1)
    assert done.host.neighbours is None and "nearest" not in done.to_dict()


def test_a_gallery_is_for_a_network_without_a_head(tiny_model, tmp_path):
    tiny_model.save(tmp_path / "model.tflite")
    with pytest.raises(ConfigError, match="has a head and gives classes; --gallery and --save-embeddings are for"):
        run(tmp_path / "model.tflite", gallery="gallery.npz")
    with pytest.raises(ConfigError, match="--gallery g.npz: the network has a head and gives classes"):
        export(tmp_path / "model.tflite", "arduino", tmp_path / "lib", gallery="g.npz")


def test_embeddings_do_not_replace_the_gallery_that_is_read(files, tmp_path):
    gallery = tmp_path / "gallery.npz"
    run(files / "model.tflite", data=str(files / "data.npz"), save_embeddings=gallery)
    stored = gallery.read_bytes()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="gallery.npz: the gallery that is read; give another name"):
        run(files / "model.tflite", data=str(files / "data.npz"), gallery=gallery, limit=1,
            save_embeddings=tmp_path / "folder" / ".." / "gallery.npz")  # fmt: skip
    assert gallery.read_bytes() == stored


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"no zip", "cannot be read as a gallery"),
        ({"embeddings": np.zeros((2, 3))}, "has no 'names'; write it with `mcuformer run --save-embeddings`"),
        ({"embeddings": np.zeros(3), "names": ["a"] * 3}, r"embeddings are float64 \[3\]; give float32 \[n, length\]"),
        ({"embeddings": np.zeros((0, 3)), "names": []}, r"embeddings are float64 \[0, 3\]"),
        ({"embeddings": np.zeros((2, 3)), "names": ["a"]}, "has 2 embeddings and names"),
        ({"embeddings": np.full((1, 3), np.nan), "names": ["a"]}, "hold NaN or infinity"),
        ({"embeddings": np.zeros((1, 3)), "names": np.array([{}])}, "cannot be read as a gallery"),
        ({"embeddings": np.zeros((1, 3)), "names": ["a"]}, "have 3 values, the model's 4; write it with this model"),
    ],
)
def test_a_wrong_gallery_is_one_line(stored, message, tmp_path):
    path = tmp_path / "gallery.npz"
    path.write_bytes(stored) if isinstance(stored, bytes) else np.savez(path, **stored)
    with pytest.raises(DataError, match=message) as error:
        read_gallery(path, 4)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="none.npz: cannot be read as a gallery"):
        read_gallery(tmp_path / "none.npz")


def test_zeros_are_near_nothing():
    assert cosines(np.zeros((1, 2)), np.ones((1, 2)))[0, 0] == 0
    near = neighbours(
        np.array([[1.0, 0]]), ["a"], Gallery(np.array([[0.0, 0], [1, 1], [-1, 0]], np.float32), tuple("xyz"))
    )
    assert near.nearest == ("y",) and near.same == 0


def test_what_learns_classes_refuses_a_network_without_a_head(files):
    data = str(files / "data.npz")
    fix = "num_classes = 0: .*; build it with num_classes = the classes of the data, or import it with --new-head"
    with pytest.raises(ConfigError, match=f"subnet.pt: {fix}"):
        finetune(files / "subnet.pt", data=data)
    with pytest.raises(ConfigError, match=fix):
        train(data, config=HEADLESS)
    assert "num_classes = 0" in mistake("train", "--data", data, "--set", "num_classes=0", "-o", files / "none.pt")


def test_class_names_of_a_network_without_a_head():
    from mcuformer import convert

    images, net = structured_images(HEADLESS, 2), lively_subnet(HEADLESS, 4)
    assert convert(net, images, class_names=[]).class_names == ()
    with pytest.raises(
        ConfigError, match="class_names has 2 names for a network without a head: leave class_names out"
    ):
        convert(net, images, class_names=["a", "b"])


def test_report_says_the_same_class_with_a_head(files, tiny_net, tiny_images, tmp_path):
    save_subnet(tiny_net, tmp_path / "subnet.pt", {})
    np.savez(tmp_path / "data.npz", images=tiny_images, labels=np.arange(32) % TINY.num_classes)
    made = convert(tmp_path / "subnet.pt", data=str(tmp_path / "data.npz"), output=tmp_path / "model.tflite")
    assert made.report == () and made.agreement.images == 27 and made.agreement.top1 > 0.9
    rows = error_report(made.model, tiny_net, tiny_images[:4])
    assert min(row.cosine for row in rows) > 0.99 and rows[-1].name == "head"
