# SPDX-License-Identifier: Apache-2.0
"""Batches from a folder of JPEG files: images decoded, and images made a second of one core's time.

    python benchmarks/input_path.py

Files: 500x375 pixels, quality 90, crops of scikit-learn's two photographs, in a temporary folder. Batches: 240x240
pixels, as docs/imagenet.md trains: crop=0.25, mixup=0.4, cutmix=0.4. A core-second is processor time, user's and
system's, so other programs hardly count. From files to pixels: of the processes that decode (`workers`), their start
included. For the device: of this process, which normalises and mixes on the CPU what a GPU would, and copies. In all:
of both together. decodes: of files, an image in a batch.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

# Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import table
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from mcuformer.data import Dataset, FileImages
from mcuformer.data.image_files import ImageReader
from mcuformer.nas import TrainOptions
from mcuformer.nas.batches import Batches

FILES, CLASSES, SIZE, QUALITY = 512, 8, (500, 375), 90
IMAGE_SIZE, BATCH = 240, 64
RECIPE = {"crop": 0.25, "mixup": 0.4, "cutmix": 0.4}
LEAST = 200  # images a core-second
RUNS = 3  # of each row, the best counts: the machine may be shared
IMAGENET, CORES = 1_181_167, 64  # training images less those held out


def write_files(folder: Path) -> list[Path]:
    """Crops of 45 to 100 % of the photographs' sides, resized to SIZE."""
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    rng, paths = np.random.default_rng(0), []
    for i in range(FILES):
        photograph = photographs[i % 2]
        height = int(rng.uniform(0.45, 0.87) * photograph.height)
        width = height * SIZE[0] // SIZE[1]
        left, top = rng.integers(photograph.width - width + 1), rng.integers(photograph.height - height + 1)
        path = folder / f"{i}.jpg"
        box = (left, top, left + width, top + height)
        photograph.resize(SIZE, Image.Resampling.LANCZOS, box).save(path, quality=QUALITY)
        paths.append(path)
    return paths


class CountingReader(ImageReader):
    """Counts what is decoded, in the processes that it is forked into too."""

    def __init__(self, paths: list[Path]):
        super().__init__(paths, IMAGE_SIZE)
        self.decoded = multiprocessing.Value("q", 0)

    def __call__(self, *arguments) -> np.ndarray:
        with self.decoded.get_lock():
            self.decoded.value += 1
        return super().__call__(*arguments)


def processor_seconds() -> tuple[float, float]:
    """Of this process, and of those it started that have ended."""
    own, ended = (resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, ended.ru_utime + ended.ru_stime


def measured(dataset: Dataset, reader: CountingReader, workers: int) -> dict:
    """One epoch."""
    batches = Batches(dataset, TrainOptions(batch_size=BATCH, workers=workers, **RECIPE))
    before, wall, reader.decoded.value = processor_seconds(), time.perf_counter(), 0
    images = sum(len(batch[0]) for batch in batches.of(0))
    wall = time.perf_counter() - wall
    own, makers = (after - earlier for after, earlier in zip(processor_seconds(), before, strict=True))
    return {
        "workers": workers, "images": images, "decoded": reader.decoded.value / images,
        "decoding": images / makers if workers else None, "for_the_device": images / own if workers else None,
        "in_all": images / (own + makers), "a_second": images / wall,
    }  # fmt: skip


def best(dataset: Dataset, reader: CountingReader, workers: int) -> dict:
    rows = [measured(dataset, reader, workers) for _ in range(RUNS)]
    return max(rows, key=lambda row: row["in_all"])


def main() -> int:
    parser = table.parser(__doc__)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2], help="rows of the table (default 0 1 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        paths = write_files(Path(name))
        reader = CountingReader(paths)
        labels = np.arange(FILES) % CLASSES
        images = FileImages(paths, IMAGE_SIZE, reader)
        dataset = Dataset(images, labels, tuple(map(str, range(CLASSES))), name, "train")
        rows, size = [], sum(path.stat().st_size for path in paths)
        for workers in arguments.workers:
            print(f"workers {workers}", file=sys.stderr, flush=True)
            rows.append(best(dataset, reader, workers))

    def number(value: float | None) -> str | None:
        return None if value is None else f"{value:,.0f}"

    print(f"{FILES} files of {SIZE[0]}x{SIZE[1]} pixels, {size / FILES / 1000:.0f} kB each; images a core-second:\n")
    table.show(
        ["workers", "decodes", "from files to pixels", "for the device", "in all", "images a second"],
        [[r["workers"], f"{r['decoded']:.2f}", number(r["decoding"]), number(r["for_the_device"]),
          number(r["in_all"]), number(r["a_second"])] for r in rows],
    )  # fmt: skip
    speeds = [r["decoding"] for r in rows if r["decoding"] is not None]
    if speeds:
        seconds = IMAGENET / (min(speeds) * CORES)
        print(
            f"\nto decode ImageNet's {IMAGENET:,} training images on {CORES} such cores that do nothing else: "
            f"{seconds:.0f} s an epoch"
        )
    requirements = [
        table.requirement(
            "1.00 decodes an image", f"{max(r['decoded'] for r in rows):.2f}", all(r["decoded"] == 1 for r in rows)
        ),
        table.requirement(
            f"at least {LEAST} images a core-second from files to pixels", number(min(speeds)) if speeds else None,
            min(speeds) >= LEAST if speeds else None,
        ),
    ]  # fmt: skip
    return table.finish({"rows": rows}, requirements, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
