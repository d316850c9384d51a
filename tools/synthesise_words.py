#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a folder of spoken words in the layout of Speech Commands, with espeak-ng (Debian's package espeak-ng).

    python tools/synthesise_words.py build/words                # 10 words, about 6,000 clips of a second, 2 minutes

The words are synthesised: they say whether a network, its conversion and its front end work, not how well a keyword is
understood when people speak. A voice is one of espeak-ng's variants: another vocal tract. Every voice speaks with
several accents, pitches and speeds, at any place in the second, loud and soft, over noise of several colours and
levels, some of it in a room. Voices of testing_list.txt and validation_list.txt are in no other list, so they are never
trained on. The same seed and version of espeak-ng give the same files.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import wave
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATE = 16000
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
# Of all variants, those that sound like people: neither whispers nor robots.
TRAIN_VOICES = (
    "f1", "f2", "f4", "m1", "m2", "m4", "m5", "m7", "klatt", "klatt3", "klatt5", "Alex", "Alicia", "Andy", "Annie",
    "adam", "belinda", "benjamin", "caleb", "david", "edward", "gene", "iven", "john", "linda", "Marco", "max",
    "Michael", "paul", "steph", "zac", "norbert",
)  # fmt: skip
VALIDATION_VOICES = ("m6", "aunty", "rob", "Hugo")
TEST_VOICES = ("f3", "f5", "m3", "m8", "Andrea", "anika", "boris", "Denis", "travis", "victor")
ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-029")


@dataclass(frozen=True)
class Clip:
    """What one file is made of. number: of this voice's files of this word; seed: of everything that is random."""

    word: str
    voice: str
    number: int
    seed: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.word}/{self.voice.lower()}_nohash_{self.number}.wav"


def clips(seed: int, train: int, test: int) -> dict[str, list[Clip]]:
    """Split -> its clips. train, test: of each word by each voice; half of `test` for validation voices."""
    splits = {
        "train": (TRAIN_VOICES, train),
        "val": (VALIDATION_VOICES, max(1, test // 2)),
        "test": (TEST_VOICES, test),
    }
    every_voice = [*TRAIN_VOICES, *VALIDATION_VOICES, *TEST_VOICES]
    return {
        split: [
            Clip(word, voice, number, (seed, every_voice.index(voice), w, number))
            for w, word in enumerate(WORDS)
            for voice in voices
            for number in range(count)
        ]
        for split, (voices, count) in splits.items()
    }


def spoken(clip: Clip, rng: np.random.Generator) -> np.ndarray:
    """The word alone, float [n] at RATE, without the silence around it."""
    accent = ACCENTS[rng.integers(len(ACCENTS))]
    command = ["espeak-ng", "--stdout", "-v", f"{accent}+{clip.voice}", "-p", str(rng.integers(25, 76)),
               "-s", str(rng.integers(130, 221)), clip.word]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True)
    with wave.open(io.BytesIO(done.stdout)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(1 << 30), "<i2").astype(np.float64)
    spectrum, count = np.fft.rfft(samples), len(samples) * RATE // rate
    samples = np.fft.irfft(spectrum[: count // 2 + 1], count) * (count / len(samples))
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Of a random colour, from white to brown, of power 1; sometimes with hum."""
    spectrum = np.fft.rfft(rng.normal(size=count))
    made = np.fft.irfft(spectrum * np.maximum(np.arange(len(spectrum)), 5.0) ** -rng.uniform(0, 1), count)
    if rng.random() < 0.2:
        made = made / made.std() + np.sin(2 * np.pi * 50 * rng.integers(1, 4) * np.arange(count) / RATE)
    return made / made.std()


def in_a_room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With echoes that die away within 0.1 to 0.4 seconds."""
    length = int(rng.uniform(0.1, 0.4) * RATE)
    echoes = rng.normal(size=length) * np.exp(-6.9 * np.arange(length) / length) * rng.uniform(0.02, 0.1)
    echoes[0] = 1
    size = len(samples) + length - 1
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(echoes, size), size)


def made(clip: Clip) -> np.ndarray:
    """One second, int16."""
    rng = np.random.default_rng(clip.seed)
    word = spoken(clip, rng)
    if rng.random() < 0.4:
        word = in_a_room(word, rng)
    word = word[:RATE] * 10 ** (rng.uniform(-26, -6) / 20) / np.abs(word).max()
    second = np.zeros(RATE)
    start = rng.integers(0, RATE - len(word) + 1)
    second[start : start + len(word)] = word
    power = np.sqrt((word**2).mean())
    second += noise(RATE, rng) * power * 10 ** (-rng.uniform(5, 40) / 20)
    return np.clip(np.rint(32767 * second), -32768, 32767).astype(np.int16)


def write(folder: Path, clip: Clip) -> None:
    path = folder / clip.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(made(clip).astype("<i2").tobytes())


def synthesise(folder: Path, seed: int = 0, train: int = 14, test: int = 12) -> dict[str, int]:
    """Writes the files and the lists; returns how many clips each split has."""
    splits = clips(seed, train, test)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda clip: write(folder, clip), [clip for part in splits.values() for clip in part]))
    for split, name in (("val", "validation_list.txt"), ("test", "testing_list.txt")):
        (folder / name).write_text("".join(f"{clip.name}\n" for clip in splits[split]))
    return {split: len(part) for split, part in splits.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=14, help="clips of each word by each voice to train on")
    parser.add_argument("--test", type=int, default=12, help="clips of each word by each voice to test on")
    args = parser.parse_args()
    if shutil.which("espeak-ng") is None:
        print("espeak-ng is not installed: on Debian and Ubuntu, apt-get install espeak-ng", file=sys.stderr)
        return 1
    if args.folder.exists() and any(args.folder.iterdir()):
        print(f"{args.folder}: not empty; give another folder, or remove it", file=sys.stderr)
        return 1
    counts = synthesise(args.folder, args.seed, args.train, args.test)
    voices = {"train": TRAIN_VOICES, "val": VALIDATION_VOICES, "test": TEST_VOICES}
    for split, count in counts.items():
        print(f"{split}: {count:,} clips by {len(voices[split])} voices")
    print(f"wrote {args.folder}: synthesised words, no recordings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
