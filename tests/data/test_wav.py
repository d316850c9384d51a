# SPDX-License-Identifier: Apache-2.0
"""Folders of WAV files, every form of them, and every way in which one can be wrong; windows of other sensors."""

import struct
import wave

import numpy as np
import pytest

from mcuformer.data import hold_out, load
from mcuformer.data.wav_folder import read_wav
from mcuformer.errors import ConfigError, DataError
from mcuformer.sound import LogMel


def tone(hertz: float, samples: int = 16000, level: float = 8000) -> np.ndarray:
    return np.rint(level * np.sin(2 * np.pi * hertz * np.arange(samples) / 16000)).astype(np.int16)


def write_wav(path, samples, rate=16000, width=2, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def write_commands(folder, words=("yes", "no"), files=5):
    for i, word in enumerate(words):
        for k in range(files):
            write_wav(folder / word / f"{k}.wav", tone(300 + 200 * i + 10 * k))
    return folder


def assert_clear_error(path, *parts, error=DataError, **options):
    with pytest.raises(error) as raised:
        load(path, **options)
    message = str(raised.value)
    assert "\n" not in message and ";" in message
    assert all(part in message for part in parts), message


def test_classes_and_splits_of_speech_commands(tmp_path, capfd):
    folder = write_commands(tmp_path)
    write_wav(folder / "_background_noise_" / "rain.wav", tone(100))
    (folder / "testing_list.txt").write_text("yes/1.wav\nno/0.wav\n\nmaybe/3.wav\n")
    (folder / "validation_list.txt").write_text("yes/4.wav\n")
    (folder / "README.md").write_text("words")
    parts = {split: load(folder, split) for split in ("train", "test", "val", "all")}
    assert "left out _background_noise_" in capfd.readouterr().err
    assert parts["train"].class_names == ("no", "yes")
    assert {split: np.bincount(part.labels).tolist() for split, part in parts.items()} == {
        "train": [4, 3], "test": [1, 1], "val": [0, 1], "all": [5, 5],
    }  # fmt: skip
    assert [part.split for part in parts.values()] == list(parts)
    want = LogMel().image(tone(500))
    np.testing.assert_array_equal(parts["test"].images[0], want)
    assert parts["train"].images.shape == (7, 98, 40, 1) and parts["train"].images.dtype == np.uint8
    assert all(part.front_end == LogMel() for part in parts.values())


def test_without_lists_every_fifth_is_a_test_and_folders_of_splits_are_taken(tmp_path):
    folder = write_commands(tmp_path / "plain")
    assert (len(load(folder, "train")), len(load(folder, "test")), len(load(folder, "val"))) == (8, 2, 2)
    write_commands(tmp_path / "split" / "train", files=3)
    write_commands(tmp_path / "split" / "test", files=1)
    assert (len(load(tmp_path / "split", "train")), len(load(tmp_path / "split", "val"))) == (6, 2)


def test_a_front_end_of_your_own(tmp_path):
    front_end = LogMel(hop=320, frames=20, mels=16)
    part = load(write_commands(tmp_path), "train", front_end=front_end)
    assert part.images.shape == (8, 20, 16, 1) and part.front_end == front_end
    np.testing.assert_array_equal(part.images[0], front_end.image(tone(500)))
    kept, held = hold_out(part, 3)
    assert kept.front_end == held.front_end == front_end and len(held) == 3


def test_a_limit_reads_only_so_many(tmp_path):
    folder = write_commands(tmp_path)
    assert load(folder, "train", limit=3).images.shape == (3, 98, 40, 1)


def test_pcm_of_every_kind(tmp_path):
    samples = tone(440, 500)
    want = read_wav(write_wav(tmp_path / "16.wav", samples), 16000)
    np.testing.assert_array_equal(want, samples)
    eight = ((samples >> 8) + 128).astype(np.uint8)
    np.testing.assert_array_equal(read_wav(write_wav(tmp_path / "8.wav", eight, width=1), 16000), samples >> 8 << 8)
    stereo = np.stack([samples, 3 * samples], axis=1)
    np.testing.assert_array_equal(read_wav(write_wav(tmp_path / "2.wav", stereo, channels=2), 16000), 2 * samples)
    loud = np.full((9, 2), -32768, np.int16)
    assert (read_wav(write_wav(tmp_path / "3.wav", loud, channels=2), 16000) == -32768).all()


def test_damaged_and_foreign_files(tmp_path):
    good = write_wav(tmp_path / "good.wav", tone(440)).read_bytes()
    cases = {
        "empty": (b"", "cannot be read as PCM WAV"),
        "text": (b"hello, this is no sound at all", "cannot be read as PCM WAV"),
        "cut": (good[:9000], "holds 4478 of 16000 samples"),
        "header": (good[:30], "cannot be read as PCM WAV"),
        "float": (good[:20] + struct.pack("<H", 3) + good[22:], "cannot be read as PCM WAV"),
        "none": (write_wav(tmp_path / "none.wav", tone(440, 0)).read_bytes(), "holds 0 of 0 samples"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / name / "yes" / "1.wav"
        write_commands(tmp_path / name, files=1)
        path.write_bytes(content)
        assert_clear_error(tmp_path / name, str(path), message, "replace or remove it", split="all")
    for name, options, message in (
        ("rate", {"rate": 44100}, "44100 samples a second; the front end takes 16000: convert it"),
        ("24", {"width": 3}, "24 bits a sample; convert it to 16 bits"),
    ):
        write_wav(tmp_path / name / "yes" / "1.wav", tone(440, 9), **options)
        assert_clear_error(tmp_path / name, "yes/1.wav", message, split="all")


def test_wrong_folders(tmp_path):
    folder = write_commands(tmp_path / "missing")
    (folder / "testing_list.txt").write_text("yes/99.wav\n")
    assert_clear_error(folder, "yes/99.wav", "is named in a list but does not exist")
    (folder / "testing_list.txt").write_bytes(b"\xff\xfe\x00")
    assert_clear_error(folder, "testing_list.txt", "cannot be read")
    write_wav(tmp_path / "flat" / "1.wav", tone(9))
    assert_clear_error(tmp_path / "flat", "holds nothing that can be read", "WAV files in class folders")


def test_a_size_that_no_front_end_makes(tmp_path):
    with pytest.raises((ConfigError, DataError), match="97"):
        load(write_commands(tmp_path), "train", image_size=(97, 40))


@pytest.mark.parametrize("shape", [(98, 40, 1), (1, 128, 6), (50, 3, 1), (8, 8, 2), (7, 5, 40)])
def test_npz_of_any_sensor(tmp_path, shape):
    """Windows of an accelerometer, of a radar: any height, width and channels."""
    values = np.random.default_rng(0).integers(0, 256, (10, *shape), dtype=np.uint8)
    np.savez(
        tmp_path / "sensor.npz", x_train=values[:6], y_train=np.arange(6) % 3, x_test=values[6:], y_test=[0, 1, 2, 0]
    )
    part = load(tmp_path / "sensor.npz", "train")
    np.testing.assert_array_equal(part.images, values[:6])
    assert len(part.class_names) == 3 and part.front_end is None
