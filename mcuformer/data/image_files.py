# SPDX-License-Identifier: Apache-2.0
"""Images in files: one read and resized, or many read when indexed."""

from __future__ import annotations

import importlib
import math
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from mcuformer.data import deep_pixels
from mcuformer.data.crop import Crop
from mcuformer.data.deep_pixels import SetRange
from mcuformer.data.source import one_line, say_once
from mcuformer.errors import DataError
from mcuformer.sizes import Size, sides

# What is tried, whatever a file is called. Not all that Pillow reads: opening EPS would run Ghostscript.
FORMATS = ["BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP", "AVIF", "HEIF"]
SUFFIXES = {
    ".apng", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pfm", ".pgm", ".png", ".pnm",
    ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
HEIF_SUFFIXES = {".heic", ".heif"}  # read if pillow-heif is installed
PNG = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 2**26
BACKGROUND = 255  # what transparent pixels lie on: white
COLOUR_MODES = {"CMYK", "HSV", "P", "RGB", "RGBX", "YCbCr"}
ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}
ORIENTATION = 0x0112  # in EXIF; its values and how they turn upright:
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
QUARTER_TURNS = (5, 6, 7, 8)  # of them, those that swap the sides
# A resized picture so many times larger than what is kept of it is cropped before it is resized.
CROP_FIRST = 8


def image_suffixes() -> set[str]:
    """The suffixes, in lower case, of pictures that can be read on this machine."""
    found = set(SUFFIXES)
    if features.check("avif"):
        found.add(".avif")
    if _has_heif():
        found |= HEIF_SUFFIXES
    return found


def _has_heif() -> bool:
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


class ImageReader:
    """Reads the pictures of a set as uint8 [height, width, channels].

    paths: all pictures of the set, also those that are not asked for; image_size: pixels, None: as they are;
    channels: 1 for grey, 3 for RGB; say: called with one line on what the reader had to infer.
    """

    def __init__(
        self, paths: list[Path], image_size: Size | None, channels: int = 3, say: Callable[[str], None] = lambda _: None
    ):
        self.image_size, self.channels = image_size, channels
        self.frames: list[Path] = []  # the files that hold several pictures, of which the first is read
        self._range = SetRange(paths, _deep_values, say)

    def __call__(self, path: Path, crop: Crop | None = None) -> np.ndarray:
        """One file. crop: the part of it that fills the image; None: as fit(). DataError names it."""
        # Pillow is given an open file: by its name it maps TIFF without compression, and mixes up the rows of one that
        # is turned by a quarter.
        try:
            with path.open("rb") as raw, _opened(raw, path) as file:
                _check_pixels(file, path)
                if _has_frames(file) and path not in self.frames:
                    self.frames.append(path)
                if crop is not None and self.image_size is not None:
                    _decode_smaller(file, crop, self.image_size)
                file.load()
                image = _upright(file, self._plain(file, path))
        except DataError:
            raise
        except Exception as error:  # a damaged picture can raise almost anything
            unknown = isinstance(error, UnidentifiedImageError)
            reason = "not an image, or one of pixels that Pillow does not know" if unknown else one_line(error)
            raise DataError(f"{path}: cannot be read as an image ({reason}); replace or remove it") from error
        if self.image_size is not None:
            image = fit(image, self.image_size) if crop is None else crop.cut(image, self.image_size)
        pixels = np.asarray(image if self.channels == 1 or image.mode == "RGB" else image.convert("RGB"))
        return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels

    def _plain(self, file: Image.Image, path: Path) -> Image.Image:
        """As L or RGB; L too if RGB is asked for but all is grey."""
        colour = "L" if self.channels == 1 else "RGB"
        if file.mode in deep_pixels.MODES:
            return self._from_deep(file, path)
        if file.mode in ALPHA_MODES or "transparency" in file.info:
            grey = file.mode in ("L", "LA", "La", "1")
            if file.mode in ("La", "RGBa"):
                file = file.convert(file.mode.upper())
            alpha = file.convert("RGBA")
            composed = Image.alpha_composite(Image.new("RGBA", file.size, (BACKGROUND,) * 3), alpha).convert("RGB")
            return composed.convert("L" if grey else colour)
        if file.mode == colour:
            return file  # convert() would copy it
        if file.mode in ("1", "L"):
            return file.convert("L")
        if file.mode in COLOUR_MODES:
            return file.convert(colour)
        raise DataError(f"{path}: its pixels are of the mode {file.mode}, which has no reading here; save it as RGB")

    def _from_deep(self, file: Image.Image, path: Path) -> Image.Image:
        values = deep_pixels.values_of(file, path)
        limits = deep_pixels.stated_range(file) or self._range.of(values, path)
        grey = deep_pixels.to_grey(values, limits, path)
        if deep_pixels.is_inverted(file):
            grey = 255 - grey
        if isinstance(clear := file.info.get("transparency"), int):
            grey[values == clear] = BACKGROUND
        return Image.fromarray(grey)


class FileImages:
    """Looks like a uint8 array [n, height, width, channels]; indexing reads the images from their files.

    Index it with a slice or an array of indices: images[a:b], images[chosen].
    """

    ndim, dtype = 4, np.dtype(np.uint8)

    def __init__(self, paths: list[Path], image_size: Size, reader: ImageReader | None = None):
        self.paths, self.image_size = paths, image_size
        self._read = reader or ImageReader(paths, image_size)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), *sides(self.image_size), self._read.channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, chosen: slice | np.ndarray) -> np.ndarray:
        images = self.read(np.arange(len(self))[chosen], threads=os.cpu_count())
        self.tell_of_frames()
        return images

    def read(
        self, chosen: np.ndarray, crops: Sequence[Crop | None] | None = None, threads: int | None = None
    ) -> np.ndarray:
        """The images of these indices, uint8 [n, height, width, channels], each decoded once. crops: of each image;
        threads: that decode; None: this one does."""
        paths, parts = [self.paths[i] for i in chosen], crops or [None] * len(chosen)
        if threads is None:
            images = list(map(self._read, paths, parts))
        else:
            with ThreadPoolExecutor(threads) as pool:  # decoding releases the interpreter's lock
                images = list(pool.map(self._read, paths, parts))
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)

    @property
    def frames(self) -> list[Path]:
        """Of the files that were read, those that hold several pictures."""
        return self._read.frames

    def tell_of_frames(self, found: Sequence[Path] = ()) -> None:
        """Says once that files hold several pictures. found: such files that another process read."""
        if first := [*self.frames, *found][:1]:
            folder, name = first[0].parent.parent, first[0].name
            say_once(f"{folder}: files of several pictures, such as {name}: the first is read")

    def take(self, chosen: np.ndarray) -> FileImages:
        """These images, still as files."""
        return FileImages([self.paths[i] for i in chosen], self.image_size, self._read)


def read_image(path: Path, image_size: Size | None, channels: int = 3) -> np.ndarray:
    """One file as uint8 [height, width, channels], of image_size pixels unless that is None. DataError names it."""
    return ImageReader([path], image_size, channels)(path)


def fit(image: Image.Image, size: Size) -> Image.Image:
    """An image of `size` pixels: resized until it just covers them, the centre kept."""
    height, width = sides(size)
    scale = max(height / image.height, width / image.width)
    across, down = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, top = (across - width) // 2, (down - height) // 2
    if across * down > CROP_FIRST * height * width:
        x, y = image.width / across, image.height / down
        right, bottom = min(image.width, (left + width) * x), min(image.height, (top + height) * y)
        return image.resize((width, height), Image.Resampling.BILINEAR, (left * x, top * y, right, bottom))
    if (across, down) != image.size:
        image = image.resize((across, down), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + width, top + height))


def fit_array(images: np.ndarray, size: Size | None) -> np.ndarray:
    """uint8 NHWC of any size -> [n, height, width, channels], one channel at a time."""
    if size is None or images.shape[1:3] == sides(size):
        return np.ascontiguousarray(images)
    fitted = np.empty((len(images), *sides(size), images.shape[3]), np.uint8)
    for n, image in enumerate(images):
        for channel in range(images.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(image[:, :, channel]))
            fitted[n, :, :, channel] = np.asarray(fit(plane, size))
    return fitted


def _deep_values(path: Path) -> np.ndarray | None:
    """The values of a picture of more than 8 bits that does not state its range; None of any other file."""
    try:
        with path.open("rb") as raw, Image.open(raw, formats=FORMATS) as file:
            if file.mode not in deep_pixels.MODES or deep_pixels.stated_range(file) is not None:
                return None
            _check_pixels(file, path)
            return deep_pixels.values_of(file, path)
    except Exception:  # named when it is read
        return None


def _opened(raw: BinaryIO, path: Path) -> Image.Image:
    """A file as Pillow sees it; of a PNG, all checksums first, since Pillow skips those of the pixels."""
    if raw.read(len(PNG)) == PNG:
        _check_chunks(raw, path)
    raw.seek(0)
    return Image.open(raw, formats=FORMATS)


def _check_chunks(raw: BinaryIO, path: Path) -> None:
    """raw: a PNG behind its signature."""
    while len(head := raw.read(8)) == 8:
        left, checksum = int.from_bytes(head[:4], "big"), zlib.crc32(head[4:])
        while left and (piece := raw.read(min(left, 2**20))):
            left, checksum = left - len(piece), zlib.crc32(piece, checksum)
        stated = raw.read(4)
        if len(stated) == 4 and int.from_bytes(stated, "big") != checksum:
            raise DataError(f"{path}: cannot be read as an image (a checksum in it is wrong); replace or remove it")
        if len(stated) == 4 and head[4:] == b"IEND":
            return
    raise DataError(f"{path}: cannot be read as an image (it ends too early); replace or remove it")


def _check_pixels(file: Image.Image, path: Path) -> None:
    if file.width * file.height > MAX_PIXELS:
        raise DataError(
            f"{path}: has {file.width}x{file.height} pixels, more than {MAX_PIXELS:,}; shrink it, or remove it"
        )


def _has_frames(file: Image.Image) -> bool:
    """Whether more than the first picture of a file matters. An MPO's others are previews."""
    return file.format in ("GIF", "TIFF", "PNG", "WEBP", "AVIF", "HEIF") and bool(getattr(file, "is_animated", False))


def _upright(file: Image.Image, image: Image.Image) -> Image.Image:
    """Turned as the EXIF of its file says; as it is if that is damaged."""
    orientation = _orientation(file)
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _orientation(file: Image.Image) -> int:
    try:
        return file.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF can raise almost anything
        return 1


def _decode_smaller(file: Image.Image, crop: Crop, size: Size) -> None:
    """Lets a JPEG be decoded at a half, a quarter or an eighth of its sides, if the part still has `size` pixels."""
    if file.format not in ("JPEG", "MPO"):
        return
    width, height = file.size
    upright = (height, width) if _orientation(file) in QUARTER_TURNS else (width, height)
    share = crop.enlargement(*upright, size)
    if share <= 0.5:
        file.draft(None, (math.ceil(width * share), math.ceil(height * share)))  # type: ignore[arg-type]
