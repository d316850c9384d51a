# SPDX-License-Identifier: Apache-2.0
"""Many images in several processes: the same logits, and what goes wrong in a process is said once."""

import multiprocessing

import numpy as np
import pytest
from PIL import Image

from mcuformer import Interpreter, workers
from mcuformer import interpreter as host_interpreter
from mcuformer.data.image_files import FileImages, ImageReader
from mcuformer.data.source import say_once
from mcuformer.errors import ConfigError, DataError

IMAGES = 40


@pytest.fixture(autouse=True)
def worthwhile(monkeypatch):
    """Processes begin after the first batch, of eight."""
    monkeypatch.setattr(workers, "WORTHWHILE", 0.0)
    monkeypatch.setattr(host_interpreter, "BATCH", 8)


@pytest.fixture(scope="module")
def interpreter(tiny_model):
    return Interpreter(tiny_model)


@pytest.fixture(scope="module")
def images(interpreter):
    shape = interpreter.graph.tensors[interpreter.graph.inputs[0]].shape[1:]
    return np.random.default_rng(0).integers(0, 256, (IMAGES, *shape)).astype(np.uint8)


@pytest.fixture
def files(images, tmp_path):
    paths = [tmp_path / f"{i:02}.png" for i in range(IMAGES)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[:, :, 0]).save(path)
    size = images.shape[1:3]
    return FileImages(paths, size, ImageReader(paths, size, 1, say_once))


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("processes", [2, 3])
def test_the_same_logits_in_order(interpreter, images, reference, processes):
    seen = []
    found = workers.run(
        interpreter, images, processes, reference, progress=lambda done, total: seen.append((done, total))
    )
    assert np.array_equal(found.logits, interpreter(images))
    assert found.processes == processes and found.images_per_second > 0
    assert (found.invoke_ms is None) == reference
    assert seen == [(done, IMAGES) for done in range(8, IMAGES + 1, 8)]


def test_pictures_are_read_where_they_are_run(interpreter, images, files):
    found = workers.run(interpreter, files, 2)
    assert found.processes == 2 and np.array_equal(found.logits, interpreter(images))


def test_a_damaged_picture_is_one_line(interpreter, files):
    files.paths[33].write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"33.png: cannot be read as an image"):
        workers.run(interpreter, files, 2)


def test_a_process_that_dies_is_said(interpreter, images):
    def kill(done, total):
        for process in multiprocessing.active_children():
            process.kill()

    many = np.concatenate([images] * 20)
    with pytest.raises(ConfigError, match="workers = 2: one of these processes was killed"):
        workers.run(interpreter, many, 2, progress=kill)


def test_what_is_quickly_done_takes_no_process(interpreter, images, monkeypatch):
    monkeypatch.setattr(workers, "WORTHWHILE", 60.0)
    assert workers.run(interpreter, images, 2).processes == 1
    assert workers.run(interpreter, images[:3], 2).logits.shape[0] == 3


def test_no_more_processes_than_batches(interpreter, images):
    found = workers.run(interpreter, images[:20], 5)
    assert found.processes == 2 and np.array_equal(found.logits, interpreter(images[:20]))
    assert workers.run(interpreter, images[:16], 5).processes == 1


def test_this_process_runs_images_while_others_start(interpreter, images, monkeypatch):
    mine = []
    run_batch = workers._run_batch
    monkeypatch.setattr(workers, "_run_batch", lambda *given: mine.append(len(given[1])) or run_batch(*given))
    many = np.concatenate([images] * 10)
    found = workers.run(interpreter, many, 2)
    assert np.array_equal(found.logits, interpreter(many)) and 8 * 3 < sum(mine) < len(many)


def test_a_number_that_makes_no_sense(interpreter, images):
    with pytest.raises(ConfigError, match="workers = 0: must be"):
        workers.run(interpreter, images, 0)
