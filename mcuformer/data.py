# SPDX-License-Identifier: Apache-2.0
"""Images and labels from the forms people have them in.

    load("fashion-mnist")                       the subset in the package: 10,000 train, 2,000 test images
    load("fashion-mnist-full", split="train")   all 60,000 + 10,000, where they lie on this machine
    load("path/to/folder", image_size=96)       idx files, ImageNet layout or CIFAR pickles: it looks
    load("path/to/file.npz")                    x_train, y_train, x_test, y_test, or images, labels

A source without splits of its own (class folders alone, an .npz of images and labels) is split the same way
every time: every fifth image of each class is "test", the others are "train". Split "all" is both together.
"""

from __future__ import annotations

import gzip
import os
import pickle
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from mcuformer.errors import DataError
from mcuformer.image_files import FileImages, fit, read_image

SPLITS = ("train", "test", "all")
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION_MNIST_ENV = "MCUFORMER_FASHION_MNIST"
FASHION_MNIST_FULL = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it
FASHION_MNIST_SUBSET = Path(__file__).parent / "datasets" / "fashion_mnist"

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
# Folder names for the two splits, in the order they are looked for.
SPLIT_FOLDERS = {"train": ("train",), "test": ("val", "test")}
# More than this is not loaded into memory at once.
MAX_BYTES = 8 * 2**30
MAX_CLASSES = 2**16
MAX_HELD_OUT = 5000  # by default
PROGRESS_FROM = 1000  # image files; fewer are read before a bar is worth drawing


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels.

    images: uint8, [n, height, width, channels], or FileImages, which are read when they are indexed; labels: int64,
    [n], each an index into class_names; source: where they came from; split: "train", "test" or "all".
    """

    images: np.ndarray | FileImages
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    split: str

    def __len__(self) -> int:
        return len(self.images)


def hold_out(dataset: Dataset, count: int | None = None, seed: int = 0) -> tuple[Dataset, Dataset]:
    """(all but `count` images, those images), drawn with the seed: to select on what was not trained on.

    count: left out, a sixth of the images, at most 5,000.
    """
    count = min(MAX_HELD_OUT, len(dataset) // 6) if count is None else count
    if not 0 < count < len(dataset):
        raise DataError(
            f"{dataset.source}: {count} images to hold out of {len(dataset)}; give 1 to {len(dataset) - 1} of them"
        )
    order = np.random.default_rng(seed).permutation(len(dataset))

    def part(chosen: np.ndarray, name: str) -> Dataset:
        images = dataset.images
        images = images.take(chosen) if isinstance(images, FileImages) else images[chosen]
        return Dataset(images, dataset.labels[chosen], dataset.class_names, dataset.source, name)

    return part(np.sort(order[count:]), dataset.split), part(np.sort(order[:count]), f"{dataset.split}, held out")


@dataclass(frozen=True)
class _Part:
    """Images as uint8 NHWC in memory or as paths of image files, and their labels, int64 [n]."""

    images: np.ndarray | list[Path]
    labels: np.ndarray

    def take(self, chosen: np.ndarray) -> _Part:
        if isinstance(self.images, np.ndarray):
            return _Part(self.images[chosen], self.labels[chosen])
        return _Part([self.images[i] for i in chosen], self.labels[chosen])


@dataclass(frozen=True)
class _Source:
    """All a source holds: parts "train" and "test", one of them, or "all" where it has no splits."""

    name: str
    parts: dict[str, _Part]
    class_names: tuple[str, ...]


def load(
    spec: str | Path,
    split: str = "test",
    image_size: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Loads one split of a data set.

    spec: "fashion-mnist", "fashion-mnist-full" (both padded from 28 to 32 pixels with zeros), or a path; the
    module's text says what a path may hold. Where a folder has such a name, write "./fashion-mnist".
    split: "train", "test" ("val" means the same) or "all".
    image_size: pixels; images become squares of it (shorter side resized, centre cropped). None: as they are.
    limit: at most this many images, drawn without replacement with `seed`, kept in the order of the source.

    Raises DataError, one line that names the file, the value and the fix.
    """
    split = "test" if split == "val" else split
    if split not in SPLITS:
        raise DataError(f"split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
    for name, value in (("image_size", image_size), ("limit", limit)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise DataError(f"{name} is {value!r}; give a whole number from 1, or leave it out")

    source = _open(spec)
    _check(source)
    part = _select(source, split)
    if limit is not None and limit < len(part.labels):
        part = part.take(np.sort(np.random.default_rng(seed).choice(len(part.labels), limit, replace=False)))
    if isinstance(part.images, np.ndarray):
        images = _fit_array(part.images, image_size)
    else:
        images = _read_image_files(part.images, image_size)
    return Dataset(images, part.labels, source.class_names, source.name, split)


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Reads an idx file of unsigned bytes, gzipped where its name ends in .gz: uint8 of `ndim` dimensions."""
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked ({_line(error)}); it is damaged, fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({_line(error)}); check the path and its permissions") from error
    expected = 0x0800 | ndim
    magic = int.from_bytes(data[:4], "big")
    if len(data) < 4 or magic != expected:
        raise DataError(
            f"{path}: starts with {data[:4].hex() or 'nothing'}, not {expected:08x}; "
            f"give an idx file of unsigned bytes with {ndim} dimension{'s' if ndim > 1 else ''}"
        )
    header = 4 + 4 * ndim
    shape = struct.unpack(f">{ndim}I", data[4:header]) if len(data) >= header else None
    size = None if shape is None else header + int(np.prod(shape, dtype=object))
    if size != len(data):
        raise DataError(
            f"{path}: holds {len(data)} bytes, its header promises {size or f'at least {header}'}; "
            f"it is damaged, fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


# ---- what all sources have in common ----


def _open(spec: str | Path) -> _Source:
    """Finds out what `spec` means, and reads all of it but image files."""
    if spec == "fashion-mnist":
        return _read_fashion_mnist(spec, FASHION_MNIST_SUBSET)
    if spec == "fashion-mnist-full":
        folder = Path(os.environ.get(FASHION_MNIST_ENV) or FASHION_MNIST_FULL)
        if not folder.is_dir():
            raise DataError(
                f"{spec}: folder {folder} does not exist; install Debian's package dataset-fashion-mnist, "
                f"or set {FASHION_MNIST_ENV} to a folder with its four idx files"
            )
        return _read_fashion_mnist(spec, folder)

    path = Path(spec).expanduser()
    if not os.path.exists(path):
        raise DataError(f"{path}: does not exist; give fashion-mnist, fashion-mnist-full or a path that does")
    if path.is_file():
        if path.suffix != ".npz":
            raise DataError(f"{path}: is not a data set that can be read; give a folder or an .npz file")
        return _read_npz(path)
    files = {entry.name for entry in _list(path) if entry.is_file()}
    if any(IDX_IMAGES.fullmatch(name) for name in files):
        return _read_idx_folder(path)
    for layout in CIFAR_LAYOUTS:
        if files & {layout.meta, *layout.train, *layout.test}:
            return _read_cifar(path, layout)
    return _read_image_folder(path)


def _check(source: _Source) -> None:
    """Refuses a source whose images and labels cannot belong together."""
    for name, part in source.parts.items():
        where = f"{source.name}: " if name == "all" else f"{source.name}: split {name!r} "
        if len(part.images) != len(part.labels):
            raise DataError(
                f"{where}has {len(part.images)} images and {len(part.labels)} labels; give one label an image"
            )
        if isinstance(part.images, np.ndarray) and 0 in part.images.shape[1:]:
            raise DataError(f"{where}has images of {_shape(part.images)}; give images of at least one pixel")
        wrong = np.flatnonzero((part.labels < 0) | (part.labels >= len(source.class_names)))
        if len(wrong):
            raise DataError(
                f"{where}has label {part.labels[wrong[0]]} at image {wrong[0]}, outside 0 to "
                f"{len(source.class_names) - 1}; number the classes from 0, the same in every split"
            )


def _select(source: _Source, split: str) -> _Part:
    """The asked split, never empty."""
    parts = source.parts
    if "all" in parts:
        part = parts["all"]
        if split != "all":
            is_test = _every_fifth(part.labels)
            part = part.take(np.flatnonzero(is_test if split == "test" else ~is_test))
    elif split == "all" and len(parts) == 2:
        part = _concatenate(source.name, parts["train"], parts["test"])
    elif split in parts:
        part = parts[split]
    else:
        raise DataError(f"{source.name}: has no split {split!r}; it holds {' and '.join(parts)}: ask for that")
    if len(part.labels) == 0:
        raise DataError(f"{source.name}: split {split!r} holds no images; ask for another split or give more")
    return part


def _every_fifth(labels: np.ndarray) -> np.ndarray:
    """True for the images 4, 9, 14 ... of each class: the test images of a source without splits."""
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return is_test


def _concatenate(name: str, train: _Part, test: _Part) -> _Part:
    labels = np.concatenate([train.labels, test.labels])
    if not isinstance(train.images, np.ndarray):
        return _Part([*train.images, *test.images], labels)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{name}: training images are {_shape(train.images)}, test images {_shape(test.images)}; "
            f"ask for one split at a time"
        )
    return _Part(np.concatenate([train.images, test.images]), labels)


def _numbered_classes(name: str, parts: dict[str, _Part]) -> tuple[str, ...]:
    """The names 0, 1 ... as far as the training labels go, or the only labels there are."""
    labels = (parts.get("train") or next(iter(parts.values()))).labels
    highest = int(labels.max(initial=0))
    if highest >= MAX_CLASSES:
        raise DataError(f"{name}: has label {highest}, of at most {MAX_CLASSES} classes; number them from 0")
    return tuple(str(i) for i in range(highest + 1))


def _shape(images: np.ndarray) -> str:
    return "x".join(str(n) for n in images.shape[1:])


def _line(error: Exception) -> str:
    """The error's text on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _list(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({_line(error)}); check its permissions") from error


# ---- idx files ----

IDX_IMAGES = re.compile(r"(train|t10k|test)-images[.-]idx3-ubyte(\.gz)?")


def _read_idx_folder(folder: Path) -> _Source:
    """train-images-idx3-ubyte and its like, with the labels beside them."""
    parts = {}
    for path in _list(folder):
        match = IDX_IMAGES.fullmatch(path.name)
        if not match:
            continue
        split = "train" if match[1] == "train" else "test"
        if split in parts:
            continue  # the same file is there twice, packed and unpacked
        stem = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
        labels = next((folder / name for name in (stem, stem + ".gz") if (folder / name).is_file()), None)
        if labels is None:
            raise DataError(f"{folder}: has {path.name} without its labels; put {stem} or {stem}.gz beside it")
        parts[split] = _Part(read_idx(path, 3)[..., np.newaxis], read_idx(labels, 1).astype(np.int64))
    return _Source(str(folder), parts, _numbered_classes(str(folder), parts))


def _read_fashion_mnist(name: str, folder: Path) -> _Source:
    """Its idx files, with the names of its classes, padded from 28 to 32 pixels with zeros."""
    files = {path.name for path in _list(folder)}
    if not any(IDX_IMAGES.fullmatch(file) for file in files):
        raise DataError(f"{name}: no idx files in {folder}; it should hold train-images-idx3-ubyte.gz and the like")
    source = _read_idx_folder(folder)
    parts = {
        split: _Part(np.pad(part.images, ((0, 0), (2, 2), (2, 2), (0, 0))), part.labels)
        for split, part in source.parts.items()
    }
    return _Source(name, parts, FASHION_MNIST_CLASSES)


# ---- CIFAR pickles ----

CIFAR_FIX = "give the complete folder of CIFAR's python version, unchanged"


@dataclass(frozen=True)
class _CifarLayout:
    """Where one CIFAR keeps what: file names and the keys in them."""

    meta: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels_key: bytes
    names_key: bytes


CIFAR_LAYOUTS = (
    _CifarLayout(
        meta="batches.meta",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test=("test_batch",),
        labels_key=b"labels",
        names_key=b"label_names",
    ),
    _CifarLayout(
        meta="meta",
        train=("train",),
        test=("test",),
        labels_key=b"fine_labels",
        names_key=b"fine_label_names",
    ),
)


def _read_cifar(folder: Path, layout: _CifarLayout) -> _Source:
    meta = _read_pickle(folder / layout.meta)
    names = _entry(folder / layout.meta, meta, layout.names_key, list)
    class_names = tuple(n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in names)
    parts = {}
    for split, files in (("train", layout.train), ("test", layout.test)):
        batches = [_read_cifar_batch(folder / name, layout.labels_key) for name in files]
        parts[split] = _Part(
            np.concatenate([batch.images for batch in batches]),
            np.concatenate([batch.labels for batch in batches]),
        )
    return _Source(str(folder), parts, class_names)


def _read_cifar_batch(path: Path, labels_key: bytes) -> _Part:
    batch = _read_pickle(path)
    data = _entry(path, batch, b"data", _PickledArray).value
    if data is None or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        form = "nothing" if data is None else f"{data.dtype} {list(data.shape)}"
        raise DataError(f"{path}: its data is {form}, not uint8 [n, 3072]; {CIFAR_FIX}")
    labels = _entry(path, batch, labels_key, (list, _PickledArray))
    if isinstance(labels, _PickledArray):
        labels = [] if labels.value is None else labels.value.ravel().tolist()
    if not all(isinstance(label, int) and abs(label) < 2**31 for label in labels):
        raise DataError(f"{path}: its labels are not whole numbers; {CIFAR_FIX}")
    if len(labels) != len(data):
        raise DataError(f"{path}: has {len(data)} images and {len(labels)} labels; give one label an image")
    return _Part(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.int64))


def _entry(path: Path, content: dict, key: bytes, kind: type | tuple[type, ...]) -> object:
    value = content.get(key, content.get(key.decode()))
    if not isinstance(value, kind):
        raise DataError(f"{path}: has no usable entry {key.decode()!r}; {CIFAR_FIX}")
    return value


class _PickledArray:
    """Stands for numpy.ndarray in a pickle; takes plain numbers and nothing else."""

    value: np.ndarray | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, fortran_order, raw = state
        order = "F" if fortran_order else "C"
        self.value = np.frombuffer(raw, dtype.numpy).reshape(shape, order=order)


class _PickledDtype:
    """Stands for numpy.dtype in a pickle."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        text = code.decode() if isinstance(code, bytes) else code
        if text not in {"u1", "i4", "i8"}:
            raise pickle.UnpicklingError(f"an array of type {text!r}")
        self.numpy = np.dtype("<" + text)

    def __setstate__(self, state: tuple) -> None:
        pass


def _pickled_bytes(text: str, encoding: str) -> bytes:
    """Stands for _codecs.encode, which Python 3 writes for bytes in old pickles."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"a text encoded as {encoding!r}")
    return text.encode("latin1")


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, numbers, text and plain arrays. Every other name is refused, so no code runs."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
        ("_codecs", "encode"): _pickled_bytes,
    }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which image data does not need")
        return self.ALLOWED[module, name]


def _read_pickle(path: Path) -> dict:
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file, encoding="bytes").load()
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; {CIFAR_FIX}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(f"{path}: is not a readable CIFAR pickle ({_line(error)}); fetch it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not a dict; {CIFAR_FIX}")
    return content


# ---- .npz ----

# Keys of images and labels, in the order they are looked for.
NPZ_SPLITS = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
NPZ_ALL = {"all": ("images", "labels")}


def _read_npz(path: Path) -> _Source:
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = set(archive.files)
            layout = NPZ_ALL if keys >= {"images", "labels"} else NPZ_SPLITS
            found = {split: pair for split, pair in layout.items() if keys >= set(pair)}
            arrays = {key: archive[key] for pair in found.values() for key in pair}
    except Exception as error:  # a damaged archive can raise nearly anything
        raise DataError(f"{path}: is not a readable .npz file ({_line(error)}); fetch it again") from error
    if not found:
        raise DataError(
            f"{path}: holds {', '.join(sorted(keys)) or 'nothing'}; it needs images and labels, "
            f"or x_train, y_train, x_test and y_test"
        )
    parts = {
        split: _Part(_npz_images(path, x, arrays[x]), _npz_labels(path, y, arrays[y]))
        for split, (x, y) in found.items()
    }
    return _Source(str(path), parts, _numbered_classes(str(path), parts))


def _npz_images(path: Path, key: str, images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            f"{path}: {key} is {images.dtype} {list(images.shape)}; save uint8 images as "
            f"[n, height, width, channels] with 1 or 3 channels, or [n, height, width]"
        )
    return images


def _npz_labels(path: Path, key: str, labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(f"{path}: {key} is {labels.dtype} {list(labels.shape)}; save whole numbers of shape [n]")
    return labels.astype(np.int64)


# ---- folders of images ----


def _read_image_folder(folder: Path) -> _Source:
    """ImageNet's layout, train/CLASS/*.jpg with val/ or test/ beside it, or CLASS/*.jpg alone."""
    roots = _split_folders(folder)
    images: dict[str, dict[str, list[Path]]] = {}  # split -> class -> files
    for split, root in roots.items():
        images[split] = {entry.name: _images_in(entry) for entry in _list(root) if entry.is_dir()}
        if any(images[split].values()):
            continue
        if _images_in(root):
            raise DataError(f"{root}: holds images but no class folders; put them as CLASS/image.jpg")
        raise DataError(
            f"{root}: holds nothing that can be read; give idx files, CIFAR's python files or images in class folders"
        )

    first = next(iter(images))
    class_names = tuple(images[first])
    parts = {}
    for split, classes in images.items():
        unknown = sorted(set(classes) - set(class_names))
        if unknown:
            raise DataError(
                f"{roots[split] / unknown[0]}: is no class of {roots[first]}; "
                f"name the class folders alike in every split"
            )
        paths = [path for paths in classes.values() for path in paths]
        counts = [len(paths) for paths in classes.values()]
        numbers = [class_names.index(name) for name in classes]
        parts[split] = _Part(paths, np.repeat(np.array(numbers, np.int64), counts))
    return _Source(str(folder), parts, class_names)


def _split_folders(folder: Path) -> dict[str, Path]:
    """Where the splits lie: train/, and val/ or test/; or the folder itself, as "all"."""
    known = [name for names in SPLIT_FOLDERS.values() for name in names]
    if any(entry.is_dir() and entry.name not in known and _images_in(entry) for entry in _list(folder)):
        return {"all": folder}  # even where a class is called "train"
    roots = {}
    for split, names in SPLIT_FOLDERS.items():
        for name in names:
            if split not in roots and (folder / name).is_dir():
                roots[split] = folder / name
    return roots or {"all": folder}


def _images_in(folder: Path) -> list[Path]:
    return [path for path in _list(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def _read_image_files(paths: list[Path], image_size: int | None) -> np.ndarray | FileImages:
    """The images as uint8 [n, height, width, 3]; grey ones become RGB. Too many for memory stay files."""
    first = read_image(paths[0], image_size)
    if len(paths) * first.nbytes > MAX_BYTES:
        if image_size is not None:
            return FileImages(paths, image_size)
        raise DataError(
            f"{paths[0].parent.parent}: {len(paths)} images of {_shape(first[np.newaxis])} need more than "
            f"{MAX_BYTES / 2**30:.0f} GiB of memory; give a limit, or image_size to read them as they are used"
        )
    images = np.empty((len(paths), *first.shape), np.uint8)
    console = Console(stderr=True)
    for i, path in enumerate(
        track(paths, "reading images", console=console, transient=True, disable=len(paths) < PROGRESS_FROM)
    ):
        image = read_image(path, image_size)
        if image.shape != first.shape:
            raise DataError(
                f"{path}: is {_shape(image[np.newaxis])} pixels while {paths[0].name} is "
                f"{_shape(first[np.newaxis])}; give image_size to bring all to one size"
            )
        images[i] = image
    return images


# ---- sizes ----


def _fit_array(images: np.ndarray, size: int | None) -> np.ndarray:
    """uint8 NHWC of any size to [n, size, size, channels], one channel at a time."""
    if size is None or images.shape[1:3] == (size, size):
        return np.ascontiguousarray(images)
    fitted = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for n, image in enumerate(images):
        for channel in range(images.shape[3]):
            fitted[n, :, :, channel] = fit(Image.fromarray(np.ascontiguousarray(image[:, :, channel])), size)
    return fitted
