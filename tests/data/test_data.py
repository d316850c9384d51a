# SPDX-License-Identifier: Apache-2.0
"""Every form of data set, and every way in which one can be wrong."""

import dataclasses
import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, lively_subnet
from PIL import Image
from scripts import load_script

from mcuformer import Interpreter, convert, data, interpreter
from mcuformer.cli.run import run
from mcuformer.data import load, read_idx
from mcuformer.errors import DataError, McuformerError

ROOT = Path(__file__).resolve().parents[2]


def random_images(n, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def idx_bytes(values):
    return struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape) + values.tobytes()


def write_idx_folder(folder, suffix=".gz", counts=(("train", 12), ("t10k", 6)), classes=3):
    pack = gzip.compress if suffix == ".gz" else bytes
    for seed, (name, n) in enumerate(counts):
        labels = (np.arange(n) % classes).astype(np.uint8)
        (folder / f"{name}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(random_images(n, 5, 5, seed=seed))))
        (folder / f"{name}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels)))
    return folder


def write_image(path, height=8, width=8, mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width) if mode == "L" else (height, width, 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


def write_image_folder(folder, splits=("train", "val"), classes=("cat", "dog"), n=3):
    for split in splits:
        for name in classes:
            for i in range(n):
                write_image(folder / split / name / f"{i}.png", seed=i)
    return folder


def write_cifar10(folder, n=4):
    write_pickle(folder / "batches.meta", {b"label_names": [b"plane", b"car", b"bird"]})
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        labels = [i % 3 for i in range(n)]
        write_pickle(folder / name, {b"data": random_images(n, 3072, seed=seed), b"labels": labels})
    return folder


def write_pickle(path, content):
    path.write_bytes(pickle.dumps(content, protocol=2))


def assert_clear_error(path, *parts, **options):
    """load() raises one line that names `path` and holds each of `parts`."""
    with pytest.raises(DataError) as error:
        load(path, **options)
    message = str(error.value)
    assert "\n" not in message
    assert ";" in message, "the fix comes after the semicolon"
    for part in (str(path), *parts):
        assert part in message


# ---- the sets by name ----


@pytest.mark.parametrize(("split", "n"), [("train", 10_000), ("test", 2_000), ("val", 2_000), ("all", 12_000)])
def test_shipped_subset(split, n):
    part = load("fashion-mnist", split)
    assert part.images.shape == (n, 32, 32, 1)
    assert part.images.dtype == np.uint8
    assert part.labels.dtype == np.int64
    assert np.bincount(part.labels).tolist() == [n // 10] * 10
    assert part.class_names[9] == "Ankle boot"
    assert (part.source, part.split) == ("fashion-mnist", "test" if split == "val" else split)
    assert not part.images[:, [0, 1, 30, 31]].any()
    assert not part.images[:, :, [0, 1, 30, 31]].any()
    assert part.images[:, 2:30, 2:30].any()


@pytest.mark.skipif(not data.FASHION_MNIST_FULL.is_dir(), reason="needs Debian's dataset-fashion-mnist")
@pytest.mark.parametrize("split", ["train", "t10k"])
def test_shipped_subset_is_what_the_tool_makes(split):
    tool = load_script("tools/make_fashion_mnist_subset.py")
    images, labels = tool.subset(data.FASHION_MNIST_FULL, split)
    assert np.array_equal(images, read_idx(data.FASHION_MNIST_SUBSET / f"{split}-images-idx3-ubyte.gz", 3))
    assert np.array_equal(labels, read_idx(data.FASHION_MNIST_SUBSET / f"{split}-labels-idx1-ubyte.gz", 1))


@pytest.mark.skipif(not data.FASHION_MNIST_FULL.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_full_set_where_debian_puts_it(monkeypatch):
    monkeypatch.delenv(data.FASHION_MNIST_ENV, raising=False)
    assert load("fashion-mnist-full").images.shape == (10_000, 32, 32, 1)


def test_full_set_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv(data.FASHION_MNIST_ENV, str(write_idx_folder(tmp_path)))
    assert load("fashion-mnist-full", "train").images.shape == (12, 9, 9, 1)


def test_full_set_in_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(data.FASHION_MNIST_ENV, str(tmp_path / "gone"))
    assert_clear_error("fashion-mnist-full", str(tmp_path / "gone"), "dataset-fashion-mnist", "set MCUFORMER_")


def test_full_set_in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(data.FASHION_MNIST_ENV, str(tmp_path))
    assert_clear_error("fashion-mnist-full", str(tmp_path), "train-images-idx3-ubyte.gz")


# ---- what all have in common ----


def test_limit_draws_the_same_images_for_the_same_seed():
    first, again, other = (load("fashion-mnist", limit=50, seed=seed) for seed in (1, 1, 2))
    assert len(first) == 50
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    assert len(load("fashion-mnist", limit=10**9)) == 2_000


def test_image_size_resizes_images_in_memory():
    whole, small = load("fashion-mnist", limit=20), load("fashion-mnist", limit=20, image_size=16)
    assert small.images.shape == (20, 16, 16, 1)
    assert np.abs(small.images.mean((1, 2)) - whole.images.mean((1, 2))).max() < 4


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": 2.5}, {"image_size": 0}, {"image_size": True}])
def test_bad_number(options):
    name = next(iter(options))
    with pytest.raises(DataError, match=f"{name} is .*; give a whole number"):
        load("fashion-mnist", **options)


def test_unknown_split():
    with pytest.raises(DataError, match="split 'dev' is unknown; choose one of train, test, all"):
        load("fashion-mnist", "dev")


def test_missing_path(tmp_path):
    assert_clear_error(tmp_path / "gone", "does not exist")
    assert_clear_error("x" * 5000, "does not exist")


def test_folder_with_nothing_recognised(tmp_path):
    assert_clear_error(tmp_path, "nothing that can be read", "give idx files")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("hello")
    assert_clear_error(tmp_path, "nothing that can be read", "give idx files")


def test_file_that_is_no_data_set(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(b"")
    assert_clear_error(path, "give a folder or an .npz file")


def test_data_error_is_a_user_error():
    assert issubclass(DataError, McuformerError)
    assert issubclass(McuformerError, ValueError)


# ---- idx ----


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder(tmp_path, suffix):
    train, test = (load(write_idx_folder(tmp_path, suffix), split) for split in ("train", "test"))
    assert np.array_equal(train.images[..., 0], random_images(12, 5, 5, seed=0))
    assert np.array_equal(test.images[..., 0], random_images(6, 5, 5, seed=1))
    assert test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert test.class_names == ("0", "1", "2")


def test_idx_folder_with_test_files_alone(tmp_path):
    write_idx_folder(tmp_path, counts=[("t10k", 6)])
    assert len(load(tmp_path)) == 6
    assert_clear_error(tmp_path, "no split 'train'", split="train")
    assert_clear_error(tmp_path, "no split 'all'", split="all")


def test_idx_without_labels(tmp_path):
    (write_idx_folder(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    assert_clear_error(tmp_path, "t10k-images-idx3-ubyte.gz", "put t10k-labels-idx1-ubyte")


@pytest.mark.parametrize("keep", [0, 3, 10, -1])
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_truncated_idx(tmp_path, suffix, name, keep):
    path = write_idx_folder(tmp_path, suffix) / (name + suffix)
    path.write_bytes(path.read_bytes()[:keep])
    assert_clear_error(tmp_path, path.name)


def test_truncated_inside_the_archive(tmp_path):
    path = write_idx_folder(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    assert_clear_error(tmp_path, path.name, "holds 315 bytes, its header promises 316", "damaged")


def test_damaged_gz(tmp_path):
    path = write_idx_folder(tmp_path) / "train-images-idx3-ubyte.gz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    assert_clear_error(tmp_path, path.name, "damaged")


def test_idx_with_wrong_magic(tmp_path):
    path = write_idx_folder(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes((tmp_path / "train-labels-idx1-ubyte.gz").read_bytes())
    assert_clear_error(tmp_path, path.name, "starts with 00000801, not 00000803")


def test_idx_counts_that_differ(tmp_path):
    path = write_idx_folder(tmp_path) / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(5, np.uint8))))
    assert_clear_error(tmp_path, "'test' has 6 images and 5 labels")


def test_idx_test_label_that_training_does_not_have(tmp_path):
    path = write_idx_folder(tmp_path) / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.array([0, 1, 2, 3, 0, 1], np.uint8))))
    assert_clear_error(tmp_path, "label 3 at image 3, outside 0 to 2")


def test_idx_without_images(tmp_path):
    write_idx_folder(tmp_path, counts=[("train", 12), ("t10k", 0)])
    assert_clear_error(tmp_path, "'test' holds no images")


def test_idx_of_images_without_pixels(tmp_path):
    path = write_idx_folder(tmp_path) / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((6, 0, 5), np.uint8))))
    assert_clear_error(tmp_path, "images of 0x5x1")


def test_idx_splits_of_different_size(tmp_path):
    path = write_idx_folder(tmp_path) / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(random_images(6, 7, 7))))
    assert_clear_error(tmp_path, "training images are 5x5x1, test images 7x7x1", split="all")


# ---- folders of images ----


@pytest.mark.parametrize("test_folder", ["val", "test"])
def test_imagenet_layout(tmp_path, test_folder):
    write_image_folder(tmp_path, ("train", test_folder))
    part = load(tmp_path)
    assert part.images.shape == (6, 8, 8, 3)
    assert part.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert part.class_names == ("cat", "dog")
    assert np.array_equal(part.images[1], np.asarray(Image.open(tmp_path / test_folder / "cat" / "1.png")))
    assert len(load(tmp_path, "all")) == 12


def test_class_missing_from_the_test_images_keeps_the_numbers(tmp_path):
    write_image_folder(tmp_path, ("train",))
    write_image_folder(tmp_path, ("val",), classes=("dog",))
    assert load(tmp_path).labels.tolist() == [1, 1, 1]


def test_class_folders_alone_are_split(tmp_path):
    write_image_folder(tmp_path, ("",), n=11)
    train, test, everything = (load(tmp_path, split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (18, 4, 22)
    assert np.array_equal(test.images, everything.images[[4, 9, 15, 20]])


def test_class_may_be_called_train(tmp_path):
    write_image_folder(tmp_path, ("",), classes=("bus", "train"), n=5)
    assert load(tmp_path).class_names == ("bus", "train")


def test_too_few_images_to_split(tmp_path):
    write_image_folder(tmp_path, ("",), n=4)
    assert_clear_error(tmp_path, "'test' holds no images")


def test_images_are_resized_and_cropped_in_the_centre(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200  # the middle third of a wide image
    (tmp_path / "val" / "a").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "val" / "a" / "wide.png")
    write_image(tmp_path / "val" / "a" / "grey.jpg", 33, 17, mode="L")
    part = load(tmp_path, image_size=10)
    assert part.images.shape == (2, 10, 10, 3)
    wide = part.images[1]
    assert (wide[:, 1:-1] == 200).all()


def test_limit_reads_only_the_chosen_images(tmp_path):
    write_image_folder(tmp_path, ("val",), n=5)
    chosen = load(tmp_path, limit=2).images
    for path in tmp_path.rglob("*.png"):
        if not any(np.array_equal(np.asarray(Image.open(path)), image) for image in chosen):
            path.write_bytes(b"damaged")
    assert np.array_equal(load(tmp_path, limit=2).images, chosen)
    assert_clear_error(tmp_path, "cannot be read as an image")


def test_hidden_files_do_not_count(tmp_path):
    write_image_folder(tmp_path)
    (tmp_path / "val" / "cat" / "._0.png").write_bytes(b"no image")
    (tmp_path / "val" / ".cache").mkdir()
    assert len(load(tmp_path)) == 6


def test_mixed_image_sizes(tmp_path):
    write_image_folder(tmp_path)
    write_image(tmp_path / "val" / "dog" / "9.png", 8, 9)
    assert_clear_error(tmp_path, "9.png", "8x9x3", "8x8x3", "give image_size")
    assert load(tmp_path, image_size=8).images.shape == (7, 8, 8, 3)


def test_no_class_folders(tmp_path):
    write_image(tmp_path / "0.png")
    assert_clear_error(tmp_path, "no class folders", "CLASS/image.jpg")


def test_no_class_folders_in_a_split(tmp_path):
    write_image_folder(tmp_path, ("train",))
    write_image(tmp_path / "val" / "0.png")
    assert_clear_error(tmp_path, "val: holds images but no class folders")


def test_class_unknown_to_training(tmp_path):
    write_image_folder(tmp_path)
    write_image(tmp_path / "val" / "eel" / "0.png")
    assert_clear_error(tmp_path, "val/eel: is not a class of", "the same class folders")


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_unreadable_image(tmp_path, content):
    path = write_image_folder(tmp_path) / "val" / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:100] if content == "truncated" else content)
    assert_clear_error(tmp_path, "cat/1.png", "cannot be read as an image", "replace or remove it")


def test_more_images_than_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(data.image_folder, "MAX_BYTES", 1000)
    assert_clear_error(write_image_folder(tmp_path), "6 images of 8x8x3", "give a limit")
    assert len(load(tmp_path, limit=5)) == 5


def test_more_images_than_memory_are_read_as_they_are_used(tmp_path, monkeypatch):
    write_image_folder(tmp_path)
    held = load(tmp_path, image_size=6)
    monkeypatch.setattr(data.image_folder, "MAX_BYTES", 500)
    files = load(tmp_path, image_size=6)
    assert isinstance(files.images, data.FileImages) and files.images.shape == held.images.shape
    chosen = np.array([4, 1, 1])
    assert np.array_equal(files.images[chosen], held.images[chosen])
    assert np.array_equal(files.images[1:3], held.images[1:3]) and len(files.images[2:2]) == 0
    rest, out = data.hold_out(files, 2)
    assert sorted(rest.images.paths + out.images.paths) == sorted(files.images.paths)


def test_interpreter_runs_more_images_than_memory(tmp_path, monkeypatch):
    """From their files, a few at a time; `run` does so too, and its check against the reference."""
    net = lively_subnet(dataclasses.replace(TINY, image_size=8, in_channels=3, num_classes=2), seed=0)
    write_image_folder(tmp_path)
    held = load(tmp_path, "val", image_size=8)
    model = convert(net, held.images, class_names=held.class_names)
    want = model.reference(held.images)
    monkeypatch.setattr(data.image_folder, "MAX_BYTES", 100)
    monkeypatch.setattr(interpreter, "BATCH", 4)
    read, take = [], data.FileImages.__getitem__

    def counted(self, chosen):
        images = take(self, chosen)
        read.append(len(images))
        return images

    monkeypatch.setattr(data.FileImages, "__getitem__", counted)
    images = load(tmp_path, "val", image_size=8).images
    assert isinstance(images, data.FileImages)
    np.testing.assert_array_equal(Interpreter(model)(images), want)
    np.testing.assert_array_equal(Interpreter(model).reference(images), want)
    assert len(Interpreter(model)(images.take(np.array([], int)))) == 0
    model.save(tmp_path / "model.tflite")
    ran = run(tmp_path / "model.tflite", data=str(tmp_path), split="val", reference=True)
    np.testing.assert_array_equal(ran.host.logits, want)
    assert read == [4, 2] * 4


def test_hold_out_splits_by_seed():
    whole = load("fashion-mnist", "test")
    rest, out = data.hold_out(whole, 300)
    assert (len(rest), len(out)) == (len(whole) - 300, 300) and out.split == "test, held out"
    both = np.concatenate([rest.images, out.images]).reshape(len(whole), -1)
    assert np.array_equal(np.sort(both.sum(1)), np.sort(whole.images.reshape(len(whole), -1).sum(1)))
    assert np.array_equal(data.hold_out(whole, 300)[1].images, out.images)
    assert not np.array_equal(data.hold_out(whole, 300, seed=1)[1].images, out.images)
    assert len(data.hold_out(whole)[1]) == len(whole) // 6
    for count in (0, len(whole)):
        with pytest.raises(DataError, match="give 1 to "):
            data.hold_out(whole, count)


def unequal(sizes: dict[int, int]) -> data.Dataset:
    labels = np.random.default_rng(1).permutation(np.repeat(list(sizes), list(sizes.values())))
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return data.Dataset(images, labels, tuple(map(str, sizes)), "set", "train")


@pytest.mark.parametrize(
    ("count", "shares"),
    [(20, [16, 3, 1, 0]), (10, [8, 1, 1, 0]), (3, [1, 1, 1, 0]), (100, [79, 17, 4, 0]), (118, [95, 19, 4, 0])],
)
def test_each_class_gives_its_share_of_what_is_held_out(count, shares):
    whole = unequal({0: 96, 1: 20, 2: 5, 3: 1})
    rest, out = data.hold_out(whole, count)
    assert np.bincount(out.labels, minlength=4).tolist() == shares and len(rest) + len(out) == len(whole)
    assert np.bincount(rest.labels, minlength=4).min() >= 1
    assert set(rest.images.ravel()) | set(out.images.ravel()) == set(range(122))
    for part in (rest, out):
        assert np.array_equal(part.labels, whole.labels[part.images.ravel()])


def test_classes_that_cannot_be_held_out_are_told_of(capsys):
    whole = unequal({0: 96, 1: 20, 2: 5, 3: 1})
    data.hold_out(dataclasses.replace(whole, source="set of few"), 2)
    said = capsys.readouterr().err
    assert "set of few: 3 of 4 classes have no image among the 2 held out; hold out more, or add images" in said
    with pytest.raises(DataError, match="119 images to hold out leave some of its 4 classes none .* give at most 118"):
        data.hold_out(whole, 119)


def test_the_split_of_version_0_1_0_is_still_to_be_had():
    whole = load("fashion-mnist", "test")
    order = np.random.default_rng(0).permutation(len(whole))
    out = data.hold_out(whole, 300, stratified=False)[1]
    assert np.array_equal(out.images, whole.images[np.sort(order[:300])])


# ---- CIFAR ----


def test_cifar10(tmp_path):
    write_cifar10(tmp_path)
    train, test = load(tmp_path, "train"), load(tmp_path)
    assert train.images.shape == (20, 32, 32, 3)
    assert np.array_equal(test.images[2, 1, 4], random_images(4, 3, 32, 32, seed=5)[2, :, 1, 4])
    assert test.labels.tolist() == [0, 1, 2, 0]
    assert test.class_names == ("plane", "car", "bird")


def test_cifar100(tmp_path):
    write_pickle(tmp_path / "meta", {b"fine_label_names": [b"apple", b"bear"], b"coarse_label_names": [b"x"]})
    for name in ("train", "test"):
        write_pickle(
            tmp_path / name,
            {b"data": random_images(2, 3072), b"fine_labels": [1, 0], b"coarse_labels": [0, 0]},
        )
    part = load(tmp_path)
    assert part.class_names == ("apple", "bear")
    assert part.labels.tolist() == [1, 0]


def test_cifar_as_python_2_wrote_it(tmp_path):
    pixels = random_images(1, 3072)
    raw = pixels.tobytes()
    written = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<I", len(raw)) + raw + b"tbU\x06labels]K\x01au."
    )
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(written)
    part = load(tmp_path)
    assert np.array_equal(part.images[0], pixels.reshape(3, 32, 32).transpose(1, 2, 0))
    assert part.labels.tolist() == [1]


class _RunsOnLoading:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_pickle_never_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar"
    folder.mkdir()
    write_pickle(write_cifar10(folder) / "data_batch_2", {b"data": _RunsOnLoading()})
    assert_clear_error(folder, "data_batch_2", "asks for posix.mkdir")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "numpy.load", "numpy._core.multiarray.scalar", "_codecs.decode"])
def test_pickle_with_other_names_is_refused(tmp_path, name):
    module, attribute = name.rsplit(".", 1)
    write_cifar10(tmp_path)
    (tmp_path / "test_batch").write_bytes(b"\x80\x02c" + f"{module}\n{attribute}\n.".encode())
    assert_clear_error(tmp_path, "test_batch", f"asks for {name}")


def test_pickle_cannot_make_arrays_of_objects(tmp_path):
    write_cifar10(tmp_path)
    write_pickle(tmp_path / "test_batch", {b"data": np.array([None, {}], object), b"labels": [0, 1]})
    assert_clear_error(tmp_path, "test_batch", "an array of type 'O8'")


@pytest.mark.parametrize("keep", [0, 1, 50, 1000, -1])
def test_truncated_pickle(tmp_path, keep):
    path = write_cifar10(tmp_path) / "test_batch"
    path.write_bytes(path.read_bytes()[:keep])
    assert_clear_error(tmp_path, "test_batch", "not a readable CIFAR pickle")


def test_cifar_with_a_file_missing(tmp_path):
    (write_cifar10(tmp_path) / "data_batch_4").unlink()
    assert_clear_error(tmp_path, "data_batch_4", "does not exist", "complete folder")


@pytest.mark.parametrize("name", ["batches.meta", "test_batch"])
@pytest.mark.parametrize("content", [[1, 2], {}, {b"data": 3, b"label_names": 3}])
def test_pickle_without_what_is_needed(tmp_path, name, content):
    write_pickle(write_cifar10(tmp_path) / name, content)
    assert_clear_error(tmp_path, name, "give the complete folder")


@pytest.mark.parametrize(
    ("images", "labels", "part"),
    [
        (random_images(2, 100), [0, 1], "uint8 [2, 100], not uint8 [n, 3072]"),
        (np.zeros((2, 3072), np.int64), [0, 1], "int64 [2, 3072]"),
        (random_images(2, 3072), [0, "a"], "not whole numbers"),
        (random_images(2, 3072), [0, 2**80], "not whole numbers"),
        (random_images(2, 3072), [0, 1, 2], "2 images and 3 labels"),
        (random_images(2, 3072), [0, 3], "label 3 at image 1, outside 0 to 2"),
        (random_images(2, 3072), [-1, 0], "label -1 at image 0, outside 0 to 2"),
    ],
)
def test_cifar_batch_of_the_wrong_form(tmp_path, images, labels, part):
    write_pickle(write_cifar10(tmp_path) / "test_batch", {b"data": images, b"labels": labels})
    assert_clear_error(tmp_path, part)


# ---- .npz ----


def test_npz_with_splits(tmp_path):
    path, images = tmp_path / "set.npz", random_images(6, 4, 6, 3)
    labels = np.arange(4)[:, np.newaxis]
    np.savez(path, x_train=images[:4], y_train=labels, x_test=images[4:], y_test=np.array([3, 1], np.uint8))
    part = load(path)
    assert np.array_equal(part.images, images[4:])
    assert part.labels.tolist() == [3, 1]
    assert part.class_names == ("0", "1", "2", "3")
    assert len(load(path, "all")) == 6


def test_npz_without_splits_and_channels(tmp_path):
    path, images = tmp_path / "set.npz", random_images(20, 4, 4)
    np.savez_compressed(path, images=images, labels=np.arange(20) % 2)
    train, test = load(path, "train"), load(path, "test")
    assert (len(train), len(test)) == (16, 4)
    assert np.array_equal(test.images[..., 0], images[[8, 9, 18, 19]])


GOOD = {"images": random_images(6, 4, 4, 3), "labels": np.arange(6)}


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({}, "holds nothing"),
        ({"images": GOOD["images"]}, "holds images; it needs images and labels"),
        ({"a": GOOD["images"], "b": GOOD["labels"]}, "holds a, b"),
        (GOOD | {"images": GOOD["images"] / 255}, "images is float64 [6, 4, 4, 3]; save uint8"),
        (GOOD | {"images": GOOD["images"].astype(np.int8)}, "images is int8 [6, 4, 4, 3]; save uint8"),
        (GOOD | {"images": GOOD["images"][0, 0]}, "images is uint8 [4, 3]"),
        (GOOD | {"labels": np.eye(6)}, "labels is float64 [6, 6]; save whole numbers"),
        (GOOD | {"labels": np.arange(6) / 2}, "labels is float64 [6]"),
        (GOOD | {"labels": np.arange(5)}, "6 images and 5 labels"),
        (GOOD | {"labels": np.arange(6) - 1}, "label -1 at image 0"),
        (GOOD | {"labels": np.arange(6) + 2**40}, "number them from 0"),
        ({"images": GOOD["images"][:0], "labels": GOOD["labels"][:0]}, "holds no images"),
        (GOOD | {"labels": np.array([None] * 6)}, "not a readable .npz file"),
    ],
)
def test_npz_of_the_wrong_form(tmp_path, arrays, part):
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    assert_clear_error(path, part, split="all")


@pytest.mark.parametrize("keep", [0, 3, 200, -1])
def test_truncated_npz(tmp_path, keep):
    path = tmp_path / "set.npz"
    np.savez(path, **GOOD)
    path.write_bytes(path.read_bytes()[:keep])
    assert_clear_error(path, "not a readable .npz file")


def test_npz_that_is_something_else(tmp_path):
    path = tmp_path / "set.npz"
    with path.open("wb") as file:
        np.save(file, GOOD["labels"])
    assert_clear_error(path, "not a readable .npz file")


# ---- the arrays a Dataset holds ----


def test_images_lie_in_one_piece_and_can_be_written(tmp_path):
    part = load(write_cifar10(tmp_path))
    assert part.images.flags.c_contiguous
    part.images[0] = 0


# ---- rectangles ----


@pytest.mark.parametrize(
    ("image_size", "seen"),
    [((10, 20), slice(0, 20)), ((20, 10), slice(25, 35)), ((5, 15), slice(0, 60)), ((10, 30), slice(0, 60))],
)
def test_images_cover_a_rectangle_and_keep_the_centre(tmp_path, image_size, seen):
    """Rows come before columns; a 20x60 picture is resized until it just covers height x width."""
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 30:] = 200
    (tmp_path / "val" / "a").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "val" / "a" / "wide.png")
    (image,) = load(tmp_path, image_size=image_size).images
    assert image.shape == (*image_size, 3)
    middle = image_size[1] // 2
    assert (image[:, : middle - 1] == 0).all() and (image[:, middle + 1 :] == 200).all()


def test_a_rectangle_of_images_in_memory_and_of_files(tmp_path, monkeypatch):
    assert load("fashion-mnist", limit=3, image_size=(16, 24)).images.shape == (3, 16, 24, 1)
    write_image_folder(tmp_path)
    held = load(tmp_path, image_size=(6, 10))
    assert held.images.shape[1:] == (6, 10, 3)
    monkeypatch.setattr(data.image_folder, "MAX_BYTES", 500)
    files = data.load_sized(tmp_path, "test", (6, 10))
    assert isinstance(files.images, data.FileImages) and files.images.shape == held.images.shape
    assert np.array_equal(files.images[:], held.images) and files.images[2:2].shape == (0, 6, 10, 3)


@pytest.mark.parametrize("image_size", [(8, 8, 3), (8,), (0, 8), (8, 2.5), "8x8"])
def test_a_rectangle_is_two_whole_numbers(image_size):
    with pytest.raises(DataError, match=r"image_size is .*; give a whole number from 1, \(height, width\)"):
        load("fashion-mnist", image_size=image_size)
