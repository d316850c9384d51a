# SPDX-License-Identifier: Apache-2.0
"""The words that espeak-ng says: split by voice, a second each, the same every time."""

from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

from mcuformer.data import load

TOOL = Path(__file__).resolve().parents[2] / "tools" / "synthesise_words.py"


@pytest.fixture(scope="module")
def tool():
    return load_script("tools/synthesise_words.py")


def test_no_voice_is_in_two_splits(tool):
    splits = tool.clips(0, 3, 4)
    voices = {split: {clip.voice for clip in part} for split, part in splits.items()}
    assert not voices["train"] & voices["test"] and not (voices["train"] | voices["test"]) & voices["val"]
    assert {split: len(part) for split, part in splits.items()} == {
        split: 10 * count * len(voices[split]) for split, count in (("train", 3), ("val", 2), ("test", 4))
    }
    every = [clip for part in splits.values() for clip in part]
    assert len({clip.name for clip in every}) == len({clip.seed for clip in every}) == len(every)


@pytest.mark.needs("espeak-ng")
def test_a_clip_is_a_second_and_the_same_every_time(tool):
    chosen = [part[i] for part in tool.clips(0, 3, 4).values() for i in (0, -1)]
    made = [tool.made(clip) for clip in chosen]
    for samples in made:
        assert samples.shape == (16000,) and samples.dtype == np.int16 and np.abs(samples).max() > 500
    assert len({samples.tobytes() for samples in made}) == len(made)
    np.testing.assert_array_equal(tool.made(chosen[0]), made[0])


@pytest.mark.needs("espeak-ng")
def test_a_folder_of_words_is_a_data_set(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "WORDS", ("yes", "no"))
    for name, voices in (("TRAIN", ("f1", "m1")), ("VALIDATION", ("m6",)), ("TEST", ("f3",))):
        monkeypatch.setattr(tool, f"{name}_VOICES", voices)
    assert tool.synthesise(tmp_path, seed=1, train=2, test=2) == {"train": 8, "val": 2, "test": 4}
    for split, count in (("train", 8), ("val", 2), ("test", 4)):
        part = load(tmp_path, split)
        assert len(part) == count and part.class_names == ("no", "yes") and part.images.std() > 10
