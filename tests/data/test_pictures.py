# SPDX-License-Identifier: Apache-2.0
"""Pictures of every kind that people have: read as they look, or refused in one line; none white or sideways."""

import os
import struct
import subprocess
import sys
import weakref
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mcuformer import data
from mcuformer.data import deep_pixels, image_files, load
from mcuformer.data.image_files import read_image
from mcuformer.errors import DataError

GREY = np.add.outer(np.arange(12) * 10, np.arange(16) * 9).astype(np.uint8)  # 0 to 245
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def write_tiff(path, values, *, bits, sample_format=1, photometric=1, big=False):
    """A TIFF of any depth, sign and direction of grey, which Pillow does not write. values: [height, width]."""
    height, width = values.shape
    order = ">" if big else "<"
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(np.uint32)
        packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
        content = packed.astype(np.uint8).tobytes()
    else:
        content = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8),
        (277, 3, 1), (278, 4, height), (279, 4, len(content)), (339, 3, sample_format),
    ]  # fmt: skip
    content += b"\0" * (len(content) % 2)
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(f"{order}I" if kind == 4 else f"{order}HH", *value)
        for tag, kind, value in ((tag, kind, (v,) if kind == 4 else (v, 0)) for tag, kind, v in tags)
    )
    start = (b"MM" if big else b"II") + struct.pack(f"{order}HI", 42, 8 + len(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start + content + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))
    return path


def pgm(path, values, maxval):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    path.write_bytes(f"P5 {width} {height} {maxval}\n".encode() + values.astype(">u2").tobytes())
    return path


def assert_reads(path, wanted=GREY, within=1):
    read = read_image(path, None, channels=1)[:, :, 0]
    assert np.abs(read.astype(int) - wanted).max() <= within
    assert np.array_equal(read_image(path, None)[:, :, 1], read), "grey is grey in RGB"


# ---- more than 8 bits ----

TWELVE = np.round(GREY / 255 * 4095).astype(np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_grey_of_16_bits_and_less_is_not_white_or_black(tmp_path, suffix, bits):
    assert_reads(save(tmp_path / f"a.{suffix}", np.round(GREY / 255 * (2**bits - 1)).astype(np.uint16)))


@pytest.mark.parametrize("maxval", [1023, 4095, 65535])
def test_pgm_has_the_range_of_its_maxval(tmp_path, maxval):
    assert_reads(pgm(tmp_path / "a.pgm", np.round(GREY / 255 * maxval), maxval))
    assert_reads(pgm(tmp_path / "dark.pgm", np.round(GREY / 2550 * maxval), maxval), GREY / 10)


def test_tiff_of_12_bits_has_that_range(tmp_path):
    assert_reads(write_tiff(tmp_path / "a.tif", TWELVE, bits=12))
    assert_reads(write_tiff(tmp_path / "dark.tif", TWELVE // 10, bits=12), GREY / 10)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("scale", [1, 257, 2**20])
def test_tiff_of_32_bits(tmp_path, scale, big):
    values = GREY.astype(np.int32) * scale
    limit = next(level for level in deep_pixels.LEVELS if level >= values.max())
    assert_reads(write_tiff(tmp_path / "a.tif", values, bits=32, sample_format=2, big=big), values * (255 / limit))


def test_tiff_of_unsigned_32_bits_does_not_turn_negative(tmp_path):
    assert_reads(write_tiff(tmp_path / "a.tif", GREY.astype(np.uint32) * 0x01010101, bits=32))


def test_tiff_of_signed_16_bits(tmp_path):
    values = GREY.astype(np.int16) * 256 - 32767
    assert_reads(write_tiff(tmp_path / "a.tif", values, bits=16, sample_format=2), (values + 32767.0) * 255 / 65534)


@pytest.mark.parametrize("scale", [1 / 255, 1, 257])
def test_tiff_of_floats(tmp_path, scale):
    assert_reads(save(tmp_path / "a.tif", GREY.astype(np.float32) * np.float32(scale)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_are_refused(tmp_path, value):
    values = GREY.astype(np.float32)
    values[3, 4] = value
    with pytest.raises(DataError, match=r"a\.tif: holds pixels that are no numbers .*; replace or remove it"):
        read_image(save(tmp_path / "a.tif", values), None)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_whose_least_value_is_white(tmp_path, bits):
    values = GREY if bits == 8 else GREY.astype(np.uint16) * 257
    assert_reads(write_tiff(tmp_path / "a.tif", values, bits=bits, photometric=0), 255 - GREY)


def test_a_set_has_one_range_so_that_a_dark_picture_stays_dark(tmp_path, capsys):
    for i in range(10):
        save(tmp_path / "cat" / f"{i}.png", TWELVE // (4 if i == 4 else 1))
        save(tmp_path / "dog" / f"{i}.png", TWELVE // 2)
    test, train = load(tmp_path, "test", channels=1), load(tmp_path, "train", channels=1)
    assert np.abs(test.images[0, :, :, 0] - GREY / 4).max() <= 1, "by the brightest of the set, which train/ has"
    assert np.abs(train.images[0, :, :, 0] - GREY.astype(int)).max() <= 1
    line = f"{tmp_path}: 16-bit pictures such as 0.png do not state their range: their values, 0 to 3,934, are read as "
    assert capsys.readouterr().err == f"{line}0 to 4,095\n"


def test_a_picture_outside_the_range_of_its_set_is_refused(tmp_path, monkeypatch):
    for i in range(4):
        save(tmp_path / "val" / "cat" / f"{i}.png", TWELVE * (16 if i == 3 else 1))
    monkeypatch.setattr(deep_pixels, "SAMPLE", 2)
    with pytest.raises(
        DataError, match=r"3\.png: holds the value 62,?944, outside the 0 to 4,095 of the other .*; save"
    ):
        load(tmp_path, "test")


def test_the_range_is_said_with_a_picture_that_has_it(tmp_path, capsys):
    save(tmp_path / "val" / "cat" / "0.png", GREY)
    save(tmp_path / "val" / "cat" / "1.png", TWELVE)
    load(tmp_path)
    assert "16-bit pictures such as 1.png do not state" in capsys.readouterr().err


def test_a_set_is_looked_at_one_picture_at_a_time():
    """A thousand photographs of 16 bits are 24 GB."""
    alive, most = set(), []

    def look(path):
        values = np.full((2, 2), 900, np.uint16)
        alive.add(path)
        weakref.finalize(values, alive.discard, path)
        most.append(len(alive))
        return values

    paths = [Path(f"{i}.png") for i in range(50)]
    found = deep_pixels.SetRange(paths, look, lambda _: None).of(np.full((2, 2), 5, np.uint16), paths[0])
    assert (found.black, found.white) == (0, 1023) and len(most) == 50 and max(most) <= 2


def test_colour_of_16_bits(tmp_path):
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 16 12 65535\n" + (COLOUR.astype(">u2") * 257).tobytes())
    assert np.array_equal(read_image(path, None), COLOUR)


# ---- transparency, modes, orientation ----


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_lie_on_white(tmp_path, mode):
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8)).convert("RGBA")
    picture.putalpha(Image.fromarray(np.repeat(np.array([[0, 0, 128, 128, 255, 255, 255, 255]], np.uint8), 8, axis=0)))
    suffix = "tif" if mode == "PA" else "png"
    (picture if mode != "LA" else picture.convert("LA")).save(tmp_path / f"a.{suffix}")
    for channels in (1, 3):
        row = read_image(tmp_path / f"a.{suffix}", None, channels)[0, :, 0]
        assert row.tolist() == [255, 255, 127, 127, 0, 0, 0, 0]


def test_a_transparent_colour_lies_on_white(tmp_path):
    grey = np.array([[0, 7, 200, 7]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "l.png", transparency=7)
    Image.fromarray(grey.repeat(3, 0).T.reshape(1, 4, 3)).save(tmp_path / "rgb.png", transparency=(7, 7, 7))
    palette = Image.fromarray(np.array([[0, 1, 2, 1]], np.uint8))
    palette.putpalette([0, 0, 0, 7, 7, 7, 200, 200, 200])
    palette.save(tmp_path / "p.png", transparency=1)
    palette.save(tmp_path / "p.gif", transparency=1)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png", transparency=7 * 257)
    for name in ("l.png", "rgb.png", "p.png", "p.gif", "deep.png"):
        assert read_image(tmp_path / name, None)[0, :, 0].tolist() == [0, 255, 200, 255], name


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "RGBX"])
def test_modes_with_a_reading(tmp_path, mode):
    suffix = "tif" if mode in ("CMYK", "YCbCr", "RGBX") else "png"
    Image.fromarray(COLOUR).convert(mode).save(tmp_path / f"a.{suffix}")
    wanted = np.asarray(Image.open(tmp_path / f"a.{suffix}").convert("RGB"))
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}", None), wanted)


def test_a_mode_without_a_reading_is_refused_by_name(tmp_path):
    Image.new("LAB", (8, 8)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: its pixels are of the mode LAB, .*; save it as RGB"):
        read_image(tmp_path / "a.tif", None)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "heic"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    """Each of the eight ways to store the same picture shows the same picture."""
    if suffix == "heic":
        can_write_heic()
    upright = np.zeros((32, 48), np.uint8)
    upright[:16, :16] = 250  # the bright corner is at the upper left
    undo = {5: np.transpose, 6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a.T, 2), 8: lambda a: np.rot90(a, -1),
            2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 1: lambda a: a}  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / f"a.{suffix}", np.ascontiguousarray(undo[orientation](upright)), exif=exif.tobytes())
    read = read_image(tmp_path / f"a.{suffix}", None)
    assert read.shape == (32, 48, 3)
    assert read[2:14, 2:14].min() > 200 and read[18:].max() < 50 and read[:, 18:].max() < 50


def test_a_damaged_exif_leaves_the_picture_as_it_is(tmp_path):
    save(tmp_path / "a.jpg", GREY, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f\x01\x02")
    assert read_image(tmp_path / "a.jpg", None).shape == (12, 16, 3)


# ---- grey networks ----


def test_a_folder_is_read_as_grey(tmp_path, monkeypatch):
    for i in range(4):
        save(tmp_path / "val" / "cat" / f"{i}.png", np.roll(COLOUR, i, axis=0))
    wanted = np.stack([np.asarray(Image.fromarray(np.roll(COLOUR, i, axis=0)).convert("L")) for i in range(4)])
    grey = load(tmp_path, channels=1)
    assert grey.images.shape == (4, 12, 16, 1) and np.array_equal(grey.images[..., 0], wanted)
    monkeypatch.setattr(data.image_folder, "MAX_BYTES", 100)
    files = load(tmp_path, channels=1, image_size=(12, 16))
    assert isinstance(files.images, data.FileImages) and files.images.shape == (4, 12, 16, 1)
    assert np.array_equal(files.images.take(np.arange(4))[:], grey.images)


def test_image_files_have_no_two_channels(tmp_path):
    save(tmp_path / "val" / "cat" / "0.png", GREY)
    with pytest.raises(DataError, match="image files have 1 channel or 3, the network takes 2; give an .npz"):
        load(tmp_path, channels=2)
    with pytest.raises(DataError, match="channels is 0; give a whole number from 1"):
        load(tmp_path, channels=0)


# ---- hostile ones ----


def png_of(width, height, bits=8, kind=0):
    """A PNG of zeros of any size, as small as it gets."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer = zlib.compressobj(9)
    line = bytes(1 + (width * bits + 7) // 8)
    rows = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


PEAK = """
import resource, sys
from pathlib import Path
from mcuformer.data.image_files import read_image
from mcuformer.errors import DataError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(read_image(Path(sys.argv[1]), 96).shape, end=" ")
except DataError as error:
    print(error, end=" ")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def peak_of(path):
    """What reading a picture in a process of its own says, and the kilobytes that it took."""
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    said, _, kilobytes = done.stdout.rpartition(" ")
    return said, int(kilobytes)


@pytest.mark.parametrize(("width", "height"), [(20000, 1), (1, 20000), (5_000_000, 1)])
def test_a_thin_picture_is_cropped_before_it_is_resized(tmp_path, width, height):
    path = tmp_path / "a.png"
    path.write_bytes(png_of(width, height, bits=1))
    said, kilobytes = peak_of(path)
    assert said == "(96, 96, 3)"
    assert kilobytes < 60_000


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (10_000, 10_000), (2**31 - 1, 1)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_read(tmp_path, width, height):
    path = tmp_path / "a.png"
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rest = zlib.compress(b"")
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    idat = struct.pack(">I", len(rest)) + b"IDAT" + rest + struct.pack(">I", zlib.crc32(b"IDAT" + rest))
    end = bytes(4) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + idat + end)
    said, kilobytes = peak_of(path)
    wanted = "more than 67,108,864; shrink it" if height < 60_000 and width < 60_000 else "cannot be read as an image"
    assert str(path) in said and wanted in said
    assert kilobytes < 30_000


def test_cropping_first_gives_the_same_pixels(tmp_path, monkeypatch):
    """It happens to extreme shapes alone; here to others too, whole and cropped first."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    for size in (8, 32, 64, (10, 50), (50, 10)):
        whole = np.asarray(image_files.fit(picture, size)).astype(int)
        monkeypatch.setattr(image_files, "CROP_FIRST", 0)
        assert np.abs(np.asarray(image_files.fit(picture, size)) - whole).max() <= 1
        monkeypatch.undo()


def test_a_picture_cannot_run_ghostscript(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    gs = tmp_path / "bin" / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n")
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image(tmp_path / "a.png", None)
    assert not (tmp_path / "ran").exists()


# ---- formats ----


@pytest.mark.parametrize("suffix", sorted(image_files.SUFFIXES | {".JPG", ".Png", ".GIF", ".JFIF"}))
def test_a_suffix_that_is_listed_is_read(tmp_path, suffix):
    kind = {".apng": "PNG", ".jfif": "JPEG", ".jpe": "JPEG", ".dib": "DIB", ".pbm": "PPM", ".pfm": "PPM", ".pnm": "PPM"}
    values = GREY > 128 if suffix == ".pbm" else GREY.astype(np.float32) if suffix == ".pfm" else GREY
    path = tmp_path / "val" / "cat" / f"a{suffix}"
    save(path, values, format=kind.get(suffix.lower(), Image.registered_extensions()[suffix.lower()]))
    wanted = GREY // 129 * 255 if suffix == ".pbm" else GREY
    (image,) = load(tmp_path, channels=1).images
    assert np.abs(image[:, :, 0] - wanted.astype(int)).max() <= (14 if suffix.lower()[1:3] in ("jp", "jf", "we") else 1)


def can_write_heic():
    """Pillow reads and writes HEIC from here on; skips where the package is not installed."""
    pytest.importorskip(
        "pillow_heif", reason="pillow-heif is not installed: pip install -e '.[dev]'"
    ).register_heif_opener()


def test_heic_without_its_package_is_counted_with_the_fix(tmp_path, capsys, monkeypatch):
    save(tmp_path / "val" / "cat" / "a.png", GREY)
    (tmp_path / "val" / "cat" / "b.HEIC").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # importing it fails
    assert len(load(tmp_path)) == 1
    said = capsys.readouterr().err
    assert said == f"{tmp_path}: left out: 1 .heic (pip install pillow-heif reads them)\n"


def test_heic_alone_without_its_package_is_refused_with_the_fix(tmp_path, monkeypatch):
    (tmp_path / "val" / "cat").mkdir(parents=True)
    (tmp_path / "val" / "cat" / "b.heic").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DataError, match=r"\.heic \(pip install pillow-heif reads them\)") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".heic", ".HEIC", ".heif"])
def test_heic_is_read(tmp_path, suffix):
    can_write_heic()
    path = save(
        tmp_path / "val" / "cat" / f"a{suffix}", np.repeat(np.repeat(COLOUR, 4, 0), 4, 1), quality=-1, format="HEIF"
    )
    (image,) = load(tmp_path, channels=3).images
    assert np.abs(image[2::4, 2::4] - COLOUR.astype(int)).max() <= 4
    clear = np.dstack([np.full((32, 32, 3), 40), np.repeat([[0], [255]], 16, 0) * np.ones(32)]).astype(np.uint8)
    read = read_image(save(tmp_path / f"clear{suffix}", clear, quality=-1, format="HEIF"), None)
    assert read[:14].min() > 250 and abs(int(read[18:].mean()) - 40) <= 2
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be read as an image") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png", "heic"])
def test_of_several_pictures_in_a_file_the_first_is_read_and_that_is_said(tmp_path, capsys, suffix, monkeypatch):
    if suffix == "heic":
        can_write_heic()
    first, second = (Image.fromarray(np.full((8, 8, 3), v, np.uint8)) for v in (0, 255))
    path = tmp_path / "val" / "cat" / f"a.{suffix}"
    path.parent.mkdir(parents=True)
    first.save(path, save_all=True, append_images=[second])
    (image,) = load(tmp_path).images
    assert image.max() < 10
    said = f"{tmp_path / 'val'}: 1 files of several pictures, such as a.{suffix}: the first of each is read\n"
    assert capsys.readouterr().err == said
    monkeypatch.setattr(data.image_folder, "MAX_BYTES", 1)
    assert load(tmp_path, image_size=8).images[:].max() < 10
    assert "files of several pictures, such as a." in capsys.readouterr().err


# ---- damage ----


def test_a_png_whose_pixels_are_damaged_is_refused(tmp_path):
    """Stored pixels, not packed: nothing but the chunk's checksum shows that one changed."""
    path = save(tmp_path / "a.png", COLOUR, compress_level=0)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") + 40] ^= 1
    path.write_bytes(raw)
    with pytest.raises(
        DataError, match=r"a\.png: cannot be read as an image \(a checksum in it is wrong\); replace or remove it"
    ):
        read_image(path, None)


def pictures(folder):
    """A picture of each kind of file."""
    suffixes = ("bmp", "gif", "jp2", "jpg", "png", "ppm", "tif", "webp")
    files = [save(folder / f"a.{suffix}", COLOUR) for suffix in suffixes]
    deep = [save(folder / f"deep.{suffix}", TWELVE) for suffix in ("png", "tif")]
    return [*files, *deep, pgm(folder / "a.pgm", TWELVE, 4095)]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it skips
def test_damaged_pictures_are_read_or_refused_in_one_line(tmp_path):
    """500 of fixed seeds: flipped bits, cut ends, doubled pieces."""
    rng = np.random.default_rng(13)
    files = pictures(tmp_path)
    originals = [path.read_bytes() for path in files]
    for i in range(500):
        path, raw = files[i % len(files)], bytearray(originals[i % len(files)])
        for place in rng.integers(0, len(raw), rng.integers(1, 6)):
            raw[place] = rng.integers(0, 256)
        if i % 5 == 0:
            raw = raw[: rng.integers(0, len(raw))]
        path.write_bytes(raw)
        try:
            read = read_image(path, 8)
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error) and ";" in str(error)
        else:
            assert read.shape == (8, 8, 3) and read.dtype == np.uint8


def test_the_tool_that_counts_finds_nothing_wrong():
    tool = Path(__file__).resolve().parents[2] / "tools" / "odd_pictures.py"
    given = [sys.executable, tool, "--count", "2", "--damaged", "20"]
    done = subprocess.run(given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "| damaged PNG | 20 | 20 | 0 | 0 | 0 | 0 |" in done.stdout
