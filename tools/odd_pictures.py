# SPDX-License-Identifier: Apache-2.0
"""Prints what becomes of odd, damaged and hostile pictures and folders: a row for each kind, of fixed seeds.

    python tools/odd_pictures.py [--count 200] [--damaged 2000]

right: the pixels are those of the plain 8-bit picture within 1 of 255 (within 12 where JPEG lost some).
refused: a DataError of one line. wrong: other pixels, or a refusal of what should be read, or the other way round.
crashed: any other exception. A damaged picture is right if its pixels are those of the undamaged one, and `unseen` if
they differ in a format that has no checksum by which anyone could tell. Exits with 1 if anything is wrong or crashed.
"""

from __future__ import annotations

import argparse
import io
import struct
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mcuformer.data import load
from mcuformer.data.image_files import read_image
from mcuformer.errors import DataError

HEIGHT, WIDTH = 24, 32
COLUMNS = ("refused", "right", "unseen", "wrong", "crashed")
CHECKED = {"png"}  # formats whose damage a checksum shows
TURNED = {6: 1, 3: 2, 8: 3}  # EXIF orientation: quarters that the stored picture is turned to the left


def picture(rng: np.random.Generator) -> np.ndarray:
    """uint8 [HEIGHT, WIDTH], smooth and of the whole range."""
    small = rng.integers(0, 256, (4, 5), dtype=np.uint8)
    small.flat[:2] = 0, 255
    return np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def saved(values: np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(file, kind, **options)
    return file.getvalue()


def deep(bits: int, kind: str) -> Callable[[np.ndarray], bytes]:
    return lambda grey: saved(np.rint(grey / 255 * (2**bits - 1)).astype(np.uint16), kind)


def pgm(maxval: int) -> Callable[[np.ndarray], bytes]:
    return lambda grey: (
        f"P5 {WIDTH} {HEIGHT} {maxval}\n".encode() + np.rint(grey / 255 * maxval).astype(">u2").tobytes()
    )


def turned(orientation: int, kind: str) -> Callable[[np.ndarray], bytes]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return lambda grey: saved(np.rot90(grey, TURNED[orientation]), kind, exif=exif)


def through_alpha(grey: np.ndarray) -> bytes:
    """Black under white: where alpha is a, 255 - a is seen."""
    zeros = np.zeros_like(grey)
    return saved(np.stack([zeros, zeros, zeros, 255 - grey], axis=-1), "PNG")


READ: dict[str, Callable[[np.ndarray], bytes]] = {
    **{f"grey of {bits} bits in a 16-bit PNG": deep(bits, "PNG") for bits in (10, 12, 14, 16)},
    **{f"grey of {bits} bits in a 16-bit TIFF": deep(bits, "TIFF") for bits in (12, 16)},
    **{f"PGM of maxval {maxval}": pgm(maxval) for maxval in (1023, 4095, 65535)},
    "TIFF of floats, 0 to 1": lambda grey: saved((grey / 255).astype(np.float32), "TIFF"),
    "TIFF of floats, 0 to 255": lambda grey: saved(grey.astype(np.float32), "TIFF"),
    "TIFF of 32 bits": lambda grey: saved(grey.astype(np.int32) * 257, "TIFF"),
    "transparent PNG": through_alpha,
    **{f"JPEG turned by EXIF {o}": turned(o, "JPEG") for o in (3, 6, 8)},
    **{f"TIFF turned by EXIF {o}": turned(o, "TIFF") for o in (3, 6, 8)},
    **{kind: lambda grey, kind=kind: saved(grey, kind) for kind in ("BMP", "GIF", "PNG", "TIFF", "JPEG")},
    "WebP without loss": lambda grey: saved(grey, "WEBP", lossless=True),
}


def header_only(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels."""
    plain = bytearray(saved(np.zeros((1, 1), np.uint8), "PNG"))
    plain[16:24] = struct.pack(">II", width, height)
    plain[29:33] = struct.pack(">I", zlib.crc32(plain[12:29]))
    return bytes(plain)


REFUSED: dict[str, Callable[[np.random.Generator], bytes]] = {
    "PNG that promises over 67 million pixels": lambda rng: header_only(
        *(int(n) for n in rng.integers(9000, 2**31, 2))
    ),
    "TIFF of floats with a nan": lambda rng: saved(np.where(rng.random((9, 9)) < 0.5, np.nan, 1).astype("f4"), "TIFF"),
    "PostScript called .png": lambda rng: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n" + rng.bytes(40),
    "noise called .png": lambda rng: rng.bytes(500),
    "an empty file called .png": lambda rng: b"",
}


def outcome(path: Path, wanted: np.ndarray | None, within: int) -> str:
    """One of COLUMNS. wanted: what should be read, None: it should be refused."""
    try:
        read = read_image(path, None, channels=1)[:, :, 0]
    except DataError as error:
        return "refused" if wanted is None and "\n" not in str(error) else "wrong"
    except Exception:
        return "crashed"
    is_right = wanted is not None and read.shape == wanted.shape and np.abs(read.astype(int) - wanted).max() <= within
    return "right" if is_right else "wrong"


def damaged(raw: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed; of every fifth the end is missing."""
    changed = bytearray(raw)
    for place in rng.integers(0, len(raw), rng.integers(1, 6)):
        changed[place] = rng.integers(0, 256)
    return bytes(changed[: rng.integers(0, len(raw))] if rng.random() < 0.2 else changed)


def after_damage(path: Path, original: np.ndarray, kind: str) -> str:
    try:
        read = read_image(path, None)
    except DataError as error:
        return "wrong" if "\n" in str(error) else "refused"
    except Exception:
        return "crashed"
    if np.array_equal(read, original):
        return "right"
    return "wrong" if kind in CHECKED else "unseen"


def archives(folder: Path, rng: np.random.Generator, count: int) -> Counter[str]:
    """Damaged .npz files, which have a checksum for each array."""
    path = folder / "set.npz"
    images, labels = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 4
    np.savez_compressed(path, images=images, labels=labels)
    raw, seen = path.read_bytes(), Counter[str]()
    for _ in range(count):
        path.write_bytes(damaged(raw, rng))
        try:
            read = load(path, "all")
        except DataError as error:
            seen["wrong" if "\n" in str(error) else "refused"] += 1
        except Exception:
            seen["crashed"] += 1
        else:
            same = np.array_equal(read.images[..., 0], images) and np.array_equal(read.labels, labels)
            seen["right" if same else "wrong"] += 1
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="pictures of each odd kind")
    parser.add_argument("--damaged", type=int, default=2000, help="damaged pictures of each format")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow's, of what it skips
    total = Counter[str]()

    def show(what: str, tried: int, seen: Counter[str]) -> None:
        total.update(seen)
        print(f"| {what} | {tried:,} | " + " | ".join(f"{seen[column]:,}" for column in COLUMNS) + " |", flush=True)

    print("| what | tried | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (2 + len(COLUMNS)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "a.png"
        for what, make in READ.items():
            rng, seen = np.random.default_rng(13), Counter[str]()
            for _ in range(options.count):
                grey = picture(rng)
                path.write_bytes(make(grey))
                seen[outcome(path, grey, 12 if what.startswith("JPEG") else 1)] += 1
            show(what, options.count, seen)
        for what, hostile in REFUSED.items():
            rng, seen = np.random.default_rng(13), Counter[str]()
            for _ in range(options.count):
                path.write_bytes(hostile(rng))
                seen[outcome(path, None, 0)] += 1
            show(what, options.count, seen)
        for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"):
            rng, seen = np.random.default_rng(13), Counter[str]()
            raw = saved(np.stack([picture(rng) for _ in range(3)], axis=-1), kind)
            path.write_bytes(raw)
            original = read_image(path, None)
            for _ in range(options.damaged):
                path.write_bytes(damaged(raw, rng))
                seen[after_damage(path, original, kind)] += 1
            show(f"damaged {kind.upper()}", options.damaged, seen)
        show("damaged .npz", options.damaged, archives(folder, np.random.default_rng(13), options.damaged))
    sys.exit(1 if total["wrong"] or total["crashed"] else 0)


if __name__ == "__main__":
    main()
