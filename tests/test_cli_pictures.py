# SPDX-License-Identifier: Apache-2.0
"""What can be read can be trained on by command: grey folders, deep pictures, any number of channels."""

import os
import struct

import numpy as np
import pytest
from command_line import forked, mistake
from PIL import Image

from mcuformer import SubnetConfig
from mcuformer.cli.train import train
from mcuformer.nas import TrainOptions


def settings(**values):
    """--set for a tiny network of 16x16 pixels and two classes."""
    given = {
        "stem": "patch", "image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 1,
        "num_classes": 2,
    } | values  # fmt: skip
    return [part for name, value in given.items() for part in ("--set", f"{name}={value}")]


def stripes(label, i):
    """uint8 [16, 16]: stripes across or down, of random phase and strength; equally bright, so that shape decides."""
    rng = np.random.default_rng(2 * i + label)
    wave = 127 + rng.uniform(60, 120) * np.sin(np.arange(16) * np.pi / 4 + rng.uniform(0, 6))
    rows = np.repeat(np.rint(wave).astype(np.uint8)[np.newaxis], 16, axis=0)
    return rows.T if label else rows


def write_folder(folder, write, count=24):
    """write(path without suffix, uint8 [16, 16]) makes a file."""
    for label, name in enumerate(("across", "down")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            write(folder / name / f"{i:02}", stripes(label, i))
    return folder


def as_png16(path, grey):
    Image.fromarray(grey.astype(np.uint16) * 257).save(path.with_suffix(".png"))


def as_tiff12_in_16(path, grey):
    Image.fromarray(grey.astype(np.uint16) * 16).save(path.with_suffix(".tif"))


def as_pgm_of_1023(path, grey):
    values = np.rint(grey * (1023 / 255)).astype(">u2")
    path.with_suffix(".pgm").write_bytes(b"P5 16 16 1023\n" + values.tobytes())


def as_int32_tiff(path, grey):
    Image.fromarray(grey.astype(np.int32) * 5000).save(path.with_suffix(".tif"))


def as_float_tiff(path, grey):
    Image.fromarray((grey / 255).astype(np.float32)).save(path.with_suffix(".tif"))


def as_sideways_jpeg(path, grey):
    """Stored turned by a quarter, with the EXIF that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6 if path.parent.name == "down" else 1
    turned = np.rot90(grey, 1) if path.parent.name == "down" else grey
    Image.fromarray(np.ascontiguousarray(turned)).save(path.with_suffix(".jpg"), exif=exif, quality=95)


def as_transparent_png(path, grey):
    """White, as it is where alpha is 0; the picture is in the alpha channel alone."""
    image = Image.new("RGBA", (16, 16), (0, 0, 0))
    image.putalpha(Image.fromarray(255 - grey))
    image.save(path.with_suffix(".png"))


@pytest.mark.parametrize(
    "write",
    [as_png16, as_tiff12_in_16, as_pgm_of_1023, as_int32_tiff, as_float_tiff, as_sideways_jpeg, as_transparent_png],
)
def test_odd_pictures_are_learnt_as_well_as_plain_ones(tmp_path, write):
    """The two classes differ in direction alone: who sees them white, black or sideways guesses."""
    folder = write_folder(tmp_path / "data", write)
    config = SubnetConfig(
        stem="patch", image_size=16, in_channels=1, patch_size=8, embed_dim=16, depth=1, num_heads=1, num_classes=2
    )
    options = TrainOptions(epochs=30, batch_size=8, flip=False)
    assert train(folder, config=config, options=options, output=tmp_path / "subnet.pt").float_top1 == 1


def test_a_folder_of_colour_pictures_feeds_a_grey_network_all_the_way(tmp_path):
    """Training, calibration, running, fine-tuning, and the sketch of a board with a grey camera."""
    data = write_folder(tmp_path / "data", lambda path, grey: Image.fromarray(grey).convert("RGB").save(f"{path}.png"))
    subnet, model = tmp_path / "subnet.pt", tmp_path / "model.tflite"
    forked("train", "--data", data, *settings(in_channels=1), "--epochs", 1, "-o", subnet)
    forked("finetune", subnet, "--data", data, "--epochs", 1, "--test", "-o", tmp_path / "tuned.pt")
    forked("convert", subnet, "--data", data, "-o", model)
    ran = forked("run", model, "--data", data, "--reference")
    assert "every logit equals the integer reference" in ran.stdout
    forked("export", model, "--to", "arduino", "--data", data, "-o", tmp_path / "library")
    assert (tmp_path / "library" / "library.properties").exists()


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("form", ["npz", "idx"])
def test_two_and_four_channels_are_trained_converted_and_run(tmp_path, channels, form):
    images = np.stack([stripes(i % 2, i)[..., np.newaxis].repeat(channels, -1) for i in range(40)])
    labels = np.arange(40) % 2
    if form == "npz":
        data = tmp_path / "data.npz"
        np.savez(data, x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:])
    else:
        data = tmp_path / "data"
        data.mkdir()
        for split, part in (("train", slice(30)), ("t10k", slice(30, None))):
            header = struct.pack(">5I", 0x0804, *images[part].shape)
            (data / f"{split}-images-idx4-ubyte").write_bytes(header + images[part].tobytes())
            content = struct.pack(">2I", 0x0801, len(labels[part])) + labels[part].astype(np.uint8).tobytes()
            (data / f"{split}-labels-idx1-ubyte").write_bytes(content)
    given = settings(in_channels=channels)
    forked("train", "--data", data, *given, "--epochs", 1, "-o", tmp_path / "subnet.pt")
    forked("convert", tmp_path / "subnet.pt", "--data", data, "-o", tmp_path / "model.tflite")
    ran = forked("run", tmp_path / "model.tflite", "--data", data, "--reference")
    assert "every logit equals the integer reference" in ran.stdout


def test_mistakes_with_folders_are_one_line(tmp_path):
    write = lambda path, grey: Image.fromarray(grey).save(f"{path}.png")  # noqa: E731
    data = write_folder(tmp_path / "data", write, count=5)
    out = tmp_path / "subnet.pt"
    said = mistake("train", "--data", data, *settings(in_channels=2), "-o", out)
    assert "image files have 1 channel or 3, the network takes 2; give an .npz or idx files" in said
    said = mistake("train", "--data", data / "down", *settings(in_channels=1), "-o", out)
    assert "holds images but no class folders" in said
    os.rename(data / "down", os.fsencode(data) + b"/caf\xe9")
    said = mistake("train", "--data", data, *settings(in_channels=1), "-o", out)
    assert "caf\\xe9: the name of this class is not UTF-8" in said


def test_one_class_only_is_refused_whatever_the_form(tmp_path):
    images = np.zeros((10, 16, 16, 1), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.zeros(10, int))
    given = settings(in_channels=1, num_classes=1)
    said = mistake("train", "--data", tmp_path / "data.npz", *given, "-o", tmp_path / "subnet.pt")
    assert "has one class only, 0; give images of two classes or more" in said
