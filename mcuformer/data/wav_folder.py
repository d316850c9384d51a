# SPDX-License-Identifier: Apache-2.0
"""Folders of WAV files by class, in the layout of Speech Commands or in that of image folders.

CLASS/*.wav with testing_list.txt and validation_list.txt beside the classes, which name files as CLASS/file.wav: the
files of a list are the splits "test" and "val", all others "train". Or train/CLASS/*.wav with test/ or val/ beside it,
or CLASS/*.wav alone. Folders whose names begin with _, such as _background_noise_, are no classes.
"""

from __future__ import annotations

import os
import threading
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mcuformer.data.class_folders import Kind, read_class_folders
from mcuformer.data.source import Source, listing, one_line, say_once
from mcuformer.errors import DataError
from mcuformer.files import read_text
from mcuformer.sound import LogMel, LogMelStream

SUFFIXES = {".wav"}
LISTS = {"test": "testing_list.txt", "val": "validation_list.txt"}
PROGRESS_FROM = 2000  # files; fewer are read before a bar is worth drawing


def holds_wav(folder: Path) -> bool:
    """Whether a folder's classes, or those of its splits, are WAV files."""
    classes = [entry for entry in listing(folder) if entry.is_dir()]
    classes += [below for entry in classes for below in listing(entry) if below.is_dir()]
    return any(path.suffix.lower() in SUFFIXES for entry in classes for path in listing(entry))


def read_wav_folder(folder: Path) -> Source:
    """The files and their classes; what is left out is said on standard error."""
    left_out = [entry.name for entry in listing(folder) if entry.is_dir() and entry.name.startswith("_")]
    source = read_class_folders(folder, Kind(SUFFIXES, "WAV files", "word.wav", left_out="_"))
    if left_out:
        say_once(f"{folder}: left out {', '.join(left_out)}: a folder whose name begins with _ is no class")
    if set(source.parts) != {"all"}:
        return source
    listed = {split: _listed(folder / name) for split, name in LISTS.items() if (folder / name).is_file()}
    return _split(folder, source, listed) if listed else source


def _listed(path: Path) -> set[str]:
    try:
        return {line.strip() for line in read_text(path).splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}); fetch it again") from error


def _split(folder: Path, source: Source, listed: dict[str, set[str]]) -> Source:
    part = source.parts["all"]
    assert not isinstance(part.images, np.ndarray)
    names = [path.relative_to(folder).as_posix() for path in part.images]
    # A copy with some of the classes keeps the whole lists.
    wanted = {name for files in listed.values() for name in files if name.split("/")[0] in source.class_names}
    if missing := sorted(wanted - set(names)):
        raise DataError(
            f"{folder / missing[0]}: is named in a list but does not exist; give the complete folder, or "
            "remove the line"
        )
    where = {name: split for split, files in listed.items() for name in files}
    splits = np.array([where.get(name, "train") for name in names])
    parts = {split: part.take(np.flatnonzero(splits == split)) for split in ("train", "test", "val")}
    return Source(source.name, {split: p for split, p in parts.items() if len(p.labels)}, source.class_names)


def read_wav_files(paths: list[Path], front_end: LogMel) -> np.ndarray:
    """A clip of each file through the front end: uint8 [n, frames, mels, 1]. Clips are cut or padded with silence."""
    images = np.empty((len(paths), *front_end.image_shape), np.uint8)
    streams = threading.local()

    def read(i: int) -> None:
        if not hasattr(streams, "own"):
            streams.own = LogMelStream(front_end)
        images[i] = streams.own.image(read_wav(paths[i], front_end.rate))

    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(read, range(len(paths)))
        try:
            for _ in track(
                done, "reading sounds", total=len(paths), console=console, transient=True,
                disable=len(paths) < PROGRESS_FROM,
            ):  # fmt: skip
                pass
        finally:
            pool.shutdown(cancel_futures=True)
    return images


def read_wav(path: Path, rate: int) -> np.ndarray:
    """A file's samples, int16 [n]: PCM of 8 or 16 bits, its channels mixed down. DataError names the file."""
    try:
        with path.open("rb") as file, wave.open(file) as sound:
            channels, width, found, frames = sound.getparams()[:4]
            content = sound.readframes(frames)
    except Exception as error:  # a damaged chunk raises many kinds, by Python's version
        raise DataError(f"{path}: cannot be read as PCM WAV ({one_line(error)}); replace or remove it") from error
    if width not in (1, 2):
        raise DataError(f"{path}: has {8 * width} bits a sample; convert it to 16 bits, or remove it")
    if found != rate:
        raise DataError(
            f"{path}: has {found} samples a second; the front end takes {rate}: convert it (sox IN -r {rate} OUT), or "
            "remove it"
        )
    if len(content) != frames * channels * width or frames == 0:
        raise DataError(f"{path}: holds {len(content) // (channels * width)} of {frames} samples; replace or remove it")
    if width == 1:
        samples = (np.frombuffer(content, np.uint8).astype(np.int16) - 128) * 256
    else:
        samples = np.frombuffer(content, "<i2").astype(np.int16)
    if channels > 1:
        samples = (samples.reshape(-1, channels).astype(np.int32).sum(axis=1) // channels).astype(np.int16)
    return samples
