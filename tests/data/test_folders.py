# SPDX-License-Identifier: Apache-2.0
"""Layouts of folders as people have them: read, counted in one line, or refused in one; never skipped in silence."""

import gzip
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from mcuformer.data import load
from mcuformer.errors import DataError


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)
    return path


def classes(folder, names=("cat", "dog"), n=5):
    for number, name in enumerate(names):
        for i in range(n):
            picture(folder / name / f"{i}.png", 100 * number + i)
    return folder


def refused(path, *parts, split="test"):
    """load() raises one line with each of `parts` and a fix; returns it."""
    with pytest.raises(DataError) as error:
        load(path, split)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    for part in parts:
        assert part in message, message
    return message


# ---- splits ----


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "training", "Training"])
@pytest.mark.parametrize("test", ["val", "Val", "valid", "validation", "test", "Test", "testing"])
def test_names_of_splits(tmp_path, train, test, capsys):
    classes(tmp_path / train, n=3)
    classes(tmp_path / test, n=2)
    assert (len(load(tmp_path, "train")), len(load(tmp_path, "test"))) == (6, 4)
    assert load(tmp_path).class_names == ("cat", "dog")
    assert capsys.readouterr().err == ""


def test_of_val_and_test_val_is_used_and_that_is_said(tmp_path, capsys):
    for split, n in (("train", 3), ("val", 2), ("test", 1)):
        classes(tmp_path / split, n=n)
    assert len(load(tmp_path)) == 4 and len(load(tmp_path, "train")) == 6
    assert capsys.readouterr().err == f"{tmp_path}: left out: 2 images in test: val has the test images\n"


def test_an_empty_val_gives_way_to_test(tmp_path):
    classes(tmp_path / "train")
    (tmp_path / "val" / "cat").mkdir(parents=True)
    classes(tmp_path / "test", n=1)
    assert len(load(tmp_path)) == 2


@pytest.mark.parametrize(("one", "other"), [("train", "Training"), ("val", "validation"), ("test", "Test")])
def test_two_folders_of_the_same_split_are_refused(tmp_path, one, other):
    classes(tmp_path / "train")
    classes(tmp_path / one)
    classes(tmp_path / other)
    refused(tmp_path, one, other, "are the same split; keep one")


@pytest.mark.parametrize(("train", "test"), [("training", "testing"), ("train", "test"), ("Train", "valid")])
def test_flat_splits_are_no_classes(tmp_path, train, test):
    classes(tmp_path, (train, test))
    refused(tmp_path, f"{train}: holds images but no class folders; put them as CLASS/image.jpg")


def test_a_split_beside_classes_is_refused(tmp_path):
    classes(tmp_path, ("cat", "dog", "test"))
    refused(tmp_path, "holds cat beside test, the name of a split: put classes as train/CLASS/image.jpg", "rename test")
    classes(tmp_path / "more", ("cat", "dog"))
    classes(tmp_path / "more" / "train")
    refused(tmp_path / "more", "holds train with folders of images, and cat beside it: class or split?")


def test_a_folder_beside_the_splits_is_counted(tmp_path, capsys):
    classes(tmp_path / "train")
    classes(tmp_path / "test")
    classes(tmp_path, ("unlabelled",), n=3)
    picture(tmp_path / "cover.png")
    picture(tmp_path / "train" / "stray.png")
    assert len(load(tmp_path, "train")) == 10
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(f"{tmp_path}: left out: ")
    for part in (
        "3 images in unlabelled, which is no split", "1 images beside the splits", "1 images in no class folder"
    ):  # fmt: skip
        assert part in said


def test_splits_within_classes_are_refused(tmp_path):
    for name in ("bottle", "cable"):
        for split in ("train", "test"):
            picture(tmp_path / name / split / "0.png")
    refused(tmp_path, "bottle: holds test and train, names of splits", "put the splits above the classes")


# ---- what is no class, what is no picture ----


@pytest.mark.parametrize("name", ["__MACOSX", ".git", ".ipynb_checkpoints", "@eaDir"])
def test_folders_of_systems_are_no_classes(tmp_path, name, capsys):
    classes(tmp_path)
    picture(tmp_path / name / "cat" / "._0.png")
    picture(tmp_path / name / "0.png")
    picture(tmp_path / "cat" / name / "0.png")
    assert load(tmp_path).class_names == ("cat", "dog") and len(load(tmp_path, "all")) == 10
    assert capsys.readouterr().err == ""


def test_pictures_in_folders_of_a_class_are_read_and_that_is_said(tmp_path, capsys):
    classes(tmp_path)
    picture(tmp_path / "dog" / "2023" / "may" / "0.png", 255)
    everything = load(tmp_path, "all")
    assert everything.labels.tolist() == [0] * 5 + [1] * 6 and everything.images[-1].min() == 255
    said = f"{tmp_path}: 1 images are read from folders in class folders, such as dog/2023/may/0.png\n"
    assert capsys.readouterr().err == said


def test_links_in_circles_end(tmp_path):
    classes(tmp_path)
    (tmp_path / "cat" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "dog" / "other").symlink_to(tmp_path / "dog", target_is_directory=True)
    assert len(load(tmp_path, "all")) == 10


def test_what_is_left_out_is_counted_by_its_suffix(tmp_path, capsys):
    classes(tmp_path)
    for name in ("a.txt", "b.txt", "c.svg", "README", ".hidden.txt", "Thumbs.db"):
        (tmp_path / "cat" / name).write_text("no picture")
    (tmp_path / "dog" / "broken.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "dog" / "pipe.png")
    (tmp_path / "dog" / "null.jpg").symlink_to("/dev/null")
    assert len(load(tmp_path, "all")) == 10
    load(tmp_path)
    said = capsys.readouterr().err
    assert said == f"{tmp_path}: left out: 1 without a suffix, 2 .txt, 1 .svg, 3 that are no regular files\n"


@pytest.mark.parametrize("inside", [None, "a.txt", "a.HEIC"])
def test_a_class_without_a_picture_is_refused(tmp_path, inside, monkeypatch):
    monkeypatch.setattr("mcuformer.data.image_files._has_heif", lambda: False)
    classes(tmp_path)
    (tmp_path / "eel").mkdir()
    if inside:
        (tmp_path / "eel" / inside).write_bytes(b"")
    message = refused(tmp_path, "eel: a class without images that can be read", "add some, or remove the folder")
    assert inside is None or inside in message


def test_a_class_that_has_test_pictures_alone_is_refused(tmp_path):
    classes(tmp_path / "train")
    (tmp_path / "train" / "eel").mkdir()
    classes(tmp_path / "val", ("cat", "dog", "eel"))
    refused(tmp_path, "train/eel: a class without images")


def test_one_class_only_is_refused_in_training(tmp_path):
    classes(tmp_path, ("cat",))
    refused(tmp_path, "has one class only, cat; give the folder that holds the class folders", split="train")


def test_a_folder_too_high_is_refused(tmp_path):
    classes(tmp_path / "photos")
    refused(tmp_path, "has one class only, photos, whose images lie in cat, dog", f"give {tmp_path / 'photos'}")


def test_names_that_are_not_utf8_are_refused_when_read(tmp_path):
    classes(tmp_path)
    name = os.fsdecode(b"caf\xe9")
    picture(tmp_path / name / "0.png")
    message = refused(tmp_path, "caf\\xe9: the name of this class is not UTF-8", "rename the folder")
    message.encode()


def test_a_file_whose_name_is_not_utf8_is_read(tmp_path, capsys):
    classes(tmp_path)
    picture(tmp_path / "cat" / os.fsdecode(b"caf\xe9.png"))
    (tmp_path / "cat" / os.fsdecode(b"caf.\xe9")).write_bytes(b"")
    assert len(load(tmp_path, "all")) == 11
    assert capsys.readouterr().err.endswith("left out: 1 .\\xe9\n")


def test_pipes_and_devices_are_refused_without_waiting(tmp_path):
    refused("/dev/zero", "is a pipe or a device")
    os.mkfifo(tmp_path / "set.npz")
    refused(tmp_path / "set.npz", "is a pipe or a device, not a file; give a folder or an .npz file")
    (tmp_path / "idx").mkdir()
    write_idx(tmp_path / "idx", np.zeros((4, 2, 2), np.uint8), np.arange(4) % 2)
    (tmp_path / "idx" / "t10k-images-idx3-ubyte").unlink()
    os.mkfifo(tmp_path / "idx" / "t10k-images-idx3-ubyte")
    refused(tmp_path / "idx", "t10k-images-idx3-ubyte: is a folder, a pipe or a device; give an idx file")
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar" / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a", b"b"]}))
    os.mkfifo(tmp_path / "cifar" / "data_batch_1")
    refused(tmp_path / "cifar", "data_batch_1: is a folder, a pipe or a device")


# ---- labels ----


def write_idx(folder, images, labels, splits=("train", "t10k"), suffix=""):
    for split in splits:
        for kind, values in (("images", images), ("labels", labels.astype(np.uint8))):
            header = struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape)
            content = header + values.tobytes()
            path = folder / f"{split}-{kind}-idx{values.ndim}-ubyte{suffix}"
            path.write_bytes(gzip.compress(content) if suffix else content)
    return folder


LABELS = [
    ([1, 2, 3, 1], "its labels run from 1 to 3; number the classes from 0: subtract 1"),
    ([5, 6, 5, 6], "its labels run from 5 to 6; number the classes from 0: subtract 5"),
    ([0, 2, 5, 0], "its labels go up to 5, but no image to train on has label 1, 3, 4; number the classes from 0 "),
    (
        [0, 99, 0, 0],
        "no image to train on has label 1, 2, 3, 4, 5, 6, 7, 8 ...; number the classes from 0 without gaps",
    ),
]


@pytest.mark.parametrize(("labels", "part"), LABELS)
def test_labels_with_gaps_or_from_1_are_refused(tmp_path, labels, part):
    images, labels = np.zeros((4, 2, 2), np.uint8), np.array(labels)
    np.savez(tmp_path / "all.npz", images=images, labels=labels)
    np.savez(tmp_path / "splits.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    for path in (tmp_path / "all.npz", tmp_path / "splits.npz", write_idx(tmp_path, images, labels)):
        refused(path, part)


def test_test_images_alone_may_lack_a_class(tmp_path):
    np.savez(tmp_path / "set.npz", x_test=np.zeros((3, 2, 2), np.uint8), y_test=np.array([1, 3, 3]))
    assert load(tmp_path / "set.npz").labels.tolist() == [1, 3, 3]


# ---- idx of any rank ----


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("shape", "wanted"), [((7,), (1, 7, 1)), ((5, 7), (5, 7, 1)), ((5, 7, 2), (5, 7, 2)), ((5, 7, 4), (5, 7, 4))]
)
def test_idx_of_any_rank(tmp_path, shape, wanted, suffix):
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    read = load(write_idx(tmp_path, images, np.arange(4) % 2, suffix=suffix))
    assert read.images.shape == (4, *wanted) and np.array_equal(read.images.ravel(), images.ravel())


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((), "has images of 1 dimensions; give [n, width], [n, height, width], [n, height, width, channels]"),
        ((2, 2, 2, 2), "has images of 5 dimensions; give [n, width]"),
        ((3, 8, 80), "so 80 channels; save them as [n, height, width, channels]"),
    ],
)
def test_idx_of_a_rank_or_an_order_that_is_no_image(tmp_path, shape, part):
    refused(write_idx(tmp_path, np.zeros((4, *shape), np.uint8), np.arange(4) % 2), part)


# ---- bombs ----


LIMITED = """
import resource
import sys
from mcuformer.data import load
from mcuformer.errors import DataError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(load(sys.argv[1]).images.shape)
except DataError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def read_apart(path):
    """What a process of its own says of a set, and the kilobytes that it took."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    said, kilobytes = done.stdout.strip().splitlines()
    return said, int(kilobytes)


def test_a_gzip_bomb_is_unpacked_up_to_what_its_header_promises(tmp_path):
    write_idx(tmp_path, np.zeros((4, 2, 2), np.uint8), np.arange(4) % 2, suffix=".gz")
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(10**9), 1))
    said, kilobytes = read_apart(tmp_path)
    assert "holds more than 32 bytes, its header promises 32; it is damaged" in said
    assert kilobytes < 50_000


def test_a_header_that_promises_more_than_there_is(tmp_path):
    write_idx(tmp_path, np.zeros((4, 2, 2), np.uint8), np.arange(4) % 2)
    path = tmp_path / "t10k-images-idx3-ubyte"
    for dimensions, part in (((2**32 - 1,) * 3, "more than 8,589,934,592"), ((2000, 2000, 2000), "header promises 80")):
        path.write_bytes(struct.pack(">4I", 0x0803, *dimensions) + bytes(16))
        said, kilobytes = read_apart(tmp_path)
        assert part in said and kilobytes < 50_000


def test_an_npz_that_promises_more_than_memory(tmp_path):
    """By its array's header, before a byte of it is unpacked."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000, 1000, 3), }"
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        archive.writestr("labels.npy", b"")
    said, kilobytes = read_apart(tmp_path / "set.npz")
    assert "images is uint8 [1000000, 1000, 1000, 3], 3,000,000,000,000 bytes, more than 8,589,934,592; give" in said
    assert kilobytes < 50_000
