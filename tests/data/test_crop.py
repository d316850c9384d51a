# SPDX-License-Identifier: Apache-2.0
"""Crops of picture files: which part of the file's own pixels an image shows."""

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from mcuformer.data.crop import Crop
from mcuformer.data.image_files import ORIENTATION, ImageReader

SMOOTH = 3  # mean difference, of 255, between a JPEG that is decoded smaller and one that is not


def test_a_part_has_its_share_of_the_area_and_its_shape_and_lies_where_it_is_told():
    left, top, right, bottom = Crop(0.25, 1.0, 0.0, 1.0).box(80, 60, 30)
    assert (right, top) == (80, 0)
    np.testing.assert_allclose((right - left, bottom - top), (1200**0.5, 1200**0.5))
    left, top, right, bottom = Crop(0.25, 4 / 3, 1.0, 0.5).box(80, 60, (20, 30))
    np.testing.assert_allclose([(right - left) / (bottom - top), (right - left) * (bottom - top)], [2, 1200])
    assert bottom == 60 and left == pytest.approx(80 - right)


def test_no_part_sticks_out_of_its_picture_and_none_is_empty():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        width, height = (int(side) for side in np.exp(rng.uniform(0, 8, 2)))
        size = int(rng.integers(1, 300)), int(rng.integers(1, 300))
        crop = Crop(rng.uniform(0.01, 1), rng.uniform(0.75, 4 / 3), rng.random(), rng.random())
        left, top, right, bottom = crop.box(width, height, size)
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        shape = crop.aspect * size[1] / size[0]
        assert (right - left) / (bottom - top) == pytest.approx(shape, rel=1e-6)
        assert (right - left) * (bottom - top) <= crop.area * width * height * (1 + 1e-9)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_part_of_the_images_size_is_the_files_own_pixels(tmp_path, mirrored):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)
    read = ImageReader([path], 8)(path, Crop(1 / 64, 1.0, 16 / 56, 24 / 56, mirrored))
    expected = pixels[16:24, 24:32]
    np.testing.assert_array_equal(read, expected[:, ::-1] if mirrored else expected)


def smooth(height: int, width: int) -> np.ndarray:
    down, right = np.mgrid[0:height, 0:width]
    waves = [np.sin(down / height * a + right / width * b) for a, b in ((9, 4), (3, 11), (7, 7))]
    return np.round(127.5 + 120 * np.stack(waves, axis=2)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_decoded_smaller_and_shows_the_same(tmp_path, monkeypatch, orientation, channels):
    path, plain = tmp_path / "large.jpg", tmp_path / "large.png"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture = Image.fromarray(smooth(400, 640))
    picture.save(path, quality=95, exif=exif)
    picture.save(plain, exif=exif)
    reader, sizes = ImageReader([path, plain], (50, 70), channels), []
    crop = Crop(0.6, 1.2, 0.3, 0.9)
    drafted = reader(path, crop)
    draft = JpegImagePlugin.JpegImageFile.draft

    def seen(self, mode, size):
        done = draft(self, mode, size)
        sizes.append(self.size)
        return done

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", seen)
    np.testing.assert_array_equal(reader(path, crop), drafted)
    assert sizes == [(160, 100)]
    assert drafted.shape == (50, 70, channels)
    assert np.abs(drafted.astype(int) - reader(plain, crop)).mean() < SMOOTH


def test_a_jpeg_is_not_decoded_smaller_than_its_part_is_shown(tmp_path):
    path = tmp_path / "noise.jpg"
    Image.fromarray(smooth(120, 160)).save(path, quality=95)
    whole = np.asarray(Image.open(path))
    read = ImageReader([path], 60)(path, Crop(0.1875, 1.0, 0.5, 0.5))  # 60x60 of its pixels
    np.testing.assert_array_equal(read, whole[30:90, 50:110])
