# SPDX-License-Identifier: Apache-2.0
"""From a folder of words to a model, by the commands: every file on the way keeps the front end."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from test_wav import tone, write_wav  # noqa: E402

from mcuformer import Interpreter, SubnetConfig, nas
from mcuformer.cli.convert import convert
from mcuformer.cli.finetune import finetune
from mcuformer.cli.run import run
from mcuformer.cli.search import search
from mcuformer.cli.train import train
from mcuformer.data import load
from mcuformer.errors import ConfigError
from mcuformer.nas import SearchSpace, TrainOptions
from mcuformer.nas.batches import Batches
from mcuformer.nas.search import SearchOptions
from mcuformer.sound import LogMel

FRONT_END = LogMel(hop=320, frames=32, mels=32, low_hz=200)
CONFIG = SubnetConfig(image_size=32, in_channels=1, patch_size=8, embed_dim=16, depth=1, num_heads=1, num_classes=2)
SPACE = SearchSpace(
    image_size=32, in_channels=1, num_classes=2, patch_size=(8,), embed_dim=(8, 16), depth=(1,), head_dim=8,
    num_heads=(1,), mlp_ratio=(1.0,),
)  # fmt: skip
QUICK = TrainOptions(epochs=2, batch_size=8, warmup_epochs=0.5)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """High and low tones."""
    folder = tmp_path_factory.mktemp("words")
    for i, word in enumerate(("low", "high")):
        for k in range(20):
            write_wav(folder / word / f"{k}.wav", tone((400, 3000)[i] + 20 * k, 12000 + 100 * k))
    return str(folder)


@pytest.fixture(scope="module")
def trained(words, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "subnet.pt"
    train(words, config=CONFIG, options=QUICK, front_end=FRONT_END, output=path)
    return path


def test_a_network_of_sound_all_the_way(words, trained, tmp_path):
    assert nas.load_subnet(trained).notes["front_end"] == FRONT_END.to_dict()
    finetune(trained, options=QUICK, test=True, output=tmp_path / "tuned.pt")
    convert(tmp_path / "tuned.pt", data=words, images=16, strips=True, output=tmp_path / "model.tflite")
    interpreter = Interpreter(tmp_path / "model.tflite")
    assert LogMel.from_dict(interpreter.info["front_end"]) == FRONT_END
    done = run(tmp_path / "model.tflite", data=words, reference=True)
    want = interpreter(load(words, "test", front_end=FRONT_END).images)
    np.testing.assert_array_equal(done.host.logits, want)
    assert done.exact


def test_a_supernet_and_what_is_chosen_from_it(words, tmp_path):
    train(words, space=SPACE, options=QUICK, front_end=FRONT_END, output=tmp_path / "supernet.pt")
    search(tmp_path / "supernet.pt", board="nano33ble", output=tmp_path / "best.pt", log=tmp_path / "log.jsonl",
           options=SearchOptions(population=2, generations=1))  # fmt: skip
    assert nas.load_subnet(tmp_path / "best.pt").notes["front_end"] == FRONT_END.to_dict()
    # Trained further, on the same rows without being told how they are made.
    train(words, space=SPACE, options=QUICK, init=tmp_path / "supernet.pt", output=tmp_path / "more.pt")
    assert nas.load_supernet(tmp_path / "more.pt", SPACE).notes["front_end"] == FRONT_END.to_dict()


def test_sounds_are_never_mirrored(words):
    dataset = load(words, "train", front_end=FRONT_END)
    options = TrainOptions(batch_size=len(dataset), augmentation=True, flip=True)
    [(images, labels, _, _)] = Batches(dataset, options).of(0)
    heard = images.mean(dim=2)[:, 0].argmax(dim=1)
    assert (heard[labels == dataset.class_names.index("low")] < 12).all()
    assert (heard[labels == dataset.class_names.index("high")] > 15).all()


def test_numbers_of_a_front_end_on_the_command_line(words, tmp_path):
    from mcuformer.cli.train import _front_end

    assert _front_end(None) is None
    assert _front_end(["hop=320", "frames=49"]) == LogMel(hop=320, frames=49)
    with pytest.raises(ConfigError, match="front_end loudness: unknown; it has"):
        _front_end(["loudness=3"])
    with pytest.raises(ConfigError, match="write it as field=value, such as"):
        _front_end(["hop"])


def test_a_network_of_another_size_is_refused(words, tmp_path):
    with pytest.raises(Exception, match="98x40") as error:
        train(words, config=CONFIG, options=QUICK, output=tmp_path / "subnet.pt")
    assert "\n" not in str(error.value) and not (tmp_path / "subnet.pt").exists()
    assert torch.get_num_threads() == 1


def test_the_network_for_keywords(tmp_path):
    """98 frames of 40 features, whole frames as patches: the space, and a network of it all the way, strip by strip."""
    folder = tmp_path / "words"
    for i, word in enumerate(("low", "high")):
        for k in range(10):
            write_wav(folder / word / f"{k}.wav", tone((400, 3000)[i] + 20 * k, 16000 - 99 * k))
    space = nas.load_space("keyword")
    assert space.image_size == (98, 40) and not space.flip
    assert [config.tokens for config in (space.smallest(), space.largest())] == [14, 98]
    for patch in (1, 2, 7):
        config = SubnetConfig(image_size=(98, 40), in_channels=1, patch_size=(patch, 40), embed_dim=16, depth=1,
                              num_heads=1, num_classes=2)  # fmt: skip
        train(str(folder), config=config, options=QUICK, output=tmp_path / "subnet.pt")
        assert nas.load_subnet(tmp_path / "subnet.pt").notes["front_end"] == LogMel().to_dict()
        convert(tmp_path / "subnet.pt", data=str(folder), images=8, strips=True, output=tmp_path / "model.tflite")
        done = run(tmp_path / "model.tflite", data=str(folder), reference=True)
        assert done.exact and len(done.host.logits) == 4
        assert Interpreter(tmp_path / "model.tflite").graph.ops[0].options.strip_rows == min(patch, 4)
    small = dataclasses.replace(space, num_classes=2, embed_dim=(16, 24), depth=(1,), num_heads=(1, 2))
    train(str(folder), space=small, options=QUICK, output=tmp_path / "supernet.pt")
    search(tmp_path / "supernet.pt", board="nano33ble", strips=True, output=tmp_path / "best.pt",
           options=SearchOptions(population=2, generations=1, children=1))  # fmt: skip
    assert small.holds(nas.load_subnet(tmp_path / "best.pt").config)
    convert(tmp_path / "best.pt", data=str(folder), images=8, strips=True, output=tmp_path / "model.tflite")
    assert run(tmp_path / "model.tflite", data=str(folder), reference=True).exact
