# SPDX-License-Identifier: Apache-2.0
"""Images in files: decoded once a visit, the same whoever decodes them, and no process is waited for in vain."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from spaces import PATCH, digits

from mcuformer.data import Dataset, FileImages, hold_out
from mcuformer.data.image_files import ImageReader
from mcuformer.errors import ConfigError, DataError
from mcuformer.nas import SuperNet, TrainOptions, evaluate, held_out, makers, train
from mcuformer.nas.batches import Batches
from mcuformer.nas.held_out import read_once
from mcuformer.nas.search import HeldOutAccuracy

MIXED = TrainOptions(epochs=2, batch_size=16, crop=0.3, mixup=0.4, cutmix=0.4, threads=1, workers=0)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="makers are forked on Linux")


class CountingReader(ImageReader):
    """Counts what is decoded, in the processes that it is forked into too."""

    def __init__(self, paths, image_size, channels):
        super().__init__(paths, image_size, channels)
        self.count = multiprocessing.Value("q", 0)

    def __call__(self, *arguments):
        with self.count.get_lock():
            self.count.value += 1
        return super().__call__(*arguments)


def files_of(folder: Path, count: int = 64, side: int = 24) -> Dataset:
    """Digits enlarged to side x side in PNG files, which are read as 8x8."""
    made, paths = digits(0, count), []
    for i, image in enumerate(made.images[:, :, :, 0]):
        paths.append(folder / str(made.labels[i]) / f"{i}.png")
        paths[-1].parent.mkdir(exist_ok=True, parents=True)
        if not paths[-1].exists():
            Image.fromarray(image).resize((side, side)).save(paths[-1])
    images = FileImages(paths, 8, CountingReader(paths, 8, 1))
    return dataclasses.replace(made, images=images)


def decoded(dataset: Dataset) -> int:
    """How many files were decoded since it was asked last."""
    count = dataset.images._read.count
    found, count.value = count.value, 0
    return found


def batches_of(dataset: Dataset, options: TrainOptions, epoch: int = 1) -> list[torch.Tensor]:
    return [part for batch in Batches(dataset, options).of(epoch) for part in batch]


@linux_only
@pytest.mark.parametrize("workers", [None, 0, 1, 2])
def test_each_file_is_decoded_once_an_epoch_whoever_decodes(tmp_path, workers):
    dataset = files_of(tmp_path)
    expected = batches_of(dataset, MIXED)
    assert decoded(dataset) == 64
    state = torch.random.get_rng_state()
    for options in (MIXED, dataclasses.replace(MIXED, augmentation=False), dataclasses.replace(MIXED, crop=None)):
        made = batches_of(dataset, dataclasses.replace(options, workers=workers))
        assert decoded(dataset) == 64
        wanted = expected if options == MIXED else batches_of(dataset, options)
        decoded(dataset)
        assert all(torch.equal(a, b) for a, b in zip(made, wanted, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not multiprocessing.active_children()


def test_crops_differ_by_image_and_epoch_and_are_mirrored_only_if_asked(tmp_path):
    dataset = files_of(tmp_path, 2)
    dataset.images.paths[1] = dataset.images.paths[0]
    options = TrainOptions(batch_size=2, crop=0.3, workers=0)
    made = [image for epoch in range(40) for image in batches_of(dataset, options, epoch)[0]]
    assert len({image.numpy().tobytes() for image in made}) == 80
    kept = dataclasses.replace(options, flip=False)
    same = [a.equal(b) for e in range(40) for a, b in zip(made[2 * e :], batches_of(dataset, kept, e)[0], strict=False)]
    assert 20 < sum(same) < 60
    assert all(a.equal(b) or a.equal(b.flip(2)) for a, b in zip(made, (
        image for e in range(40) for image in batches_of(dataset, kept, e)[0]), strict=True))  # fmt: skip


def test_two_images_in_a_pair_are_mixed_with_each_other(tmp_path):
    dataset = files_of(tmp_path, 16)
    options = dataclasses.replace(MIXED, mixup=1.0, cutmix=0.0, epochs=1)
    plain, labels, _, _ = batches_of(dataset, dataclasses.replace(options, mixup=0.0))
    images, mine, others, share = batches_of(dataset, options)
    swapped = torch.arange(16) ^ 1
    assert torch.equal(mine, labels) and torch.equal(others, labels[swapped])
    part = share[:, None, None, None]
    torch.testing.assert_close(images, part * plain + (1 - part) * plain[swapped], rtol=0, atol=1e-6)


@linux_only
def test_a_training_goes_on_with_other_makers_to_the_same_weights(tmp_path):
    dataset, path = files_of(tmp_path), tmp_path / "training.pt"
    whole, parts = SuperNet(PATCH), SuperNet(PATCH)
    options = dataclasses.replace(MIXED, schedule="constant")
    train(whole, dataset, options)
    train(parts, dataset, dataclasses.replace(options, epochs=1, workers=2), checkpoint=path)
    assert "workers" not in torch.load(path, weights_only=True)["options"]  # as of earlier versions
    train(parts, dataset, options, checkpoint=path)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True))


@linux_only
def test_a_damaged_file_is_named_in_one_line_and_all_makers_end(tmp_path):
    dataset = files_of(tmp_path)
    dataset.images.paths[40].write_bytes(b"nothing")
    for workers in (0, 2):
        with pytest.raises(
            DataError, match=r"40\.png: cannot be read as an image \(.*\); replace or remove it$"
        ) as caught:
            train(SuperNet(PATCH), dataset, dataclasses.replace(MIXED, workers=workers))
        assert "\n" not in str(caught.value)
        assert not multiprocessing.active_children()


@linux_only
def test_a_maker_that_is_killed_is_said_in_one_line(tmp_path, monkeypatch):
    dataset, trainer = files_of(tmp_path), os.getpid()

    def killed(self, *_arguments):
        assert os.getpid() != trainer
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(FileImages, "read", killed)
    with pytest.raises(ConfigError, match=r"^workers = 2: a process that decodes images ended \(.*\); give it more"):
        list(Batches(dataset, dataclasses.replace(MIXED, workers=2)).of(0))
    assert not multiprocessing.active_children()


@linux_only
def test_a_batch_that_is_not_awaited_ends_its_makers(tmp_path):
    batches = Batches(files_of(tmp_path), dataclasses.replace(MIXED, workers=2)).of(0)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert not multiprocessing.active_children()


INTERRUPTED = """
import sys, time
from pathlib import Path
from mcuformer.cli import main
from mcuformer.data import image_folder, image_files
image_folder.MAX_BYTES = 1
folder = sys.argv[1]
read = image_files.FileImages.read
def slow(*arguments):
    time.sleep(0.05)
    Path(folder, "started").touch()
    return read(*arguments)
image_files.FileImages.read = slow
sys.argv = ["mcuformer", "train", "--data", sys.argv[1], "--set", "image_size=16", "patch_size=8", "--epochs", "1000",
            "--option", "workers=2", "--option", "batch_size=8", "-o", sys.argv[1] + "/out.pt"]
main()
"""


@linux_only
def test_control_c_ends_all_processes_without_a_traceback(tmp_path):
    files_of(tmp_path)
    started = tmp_path / "started"
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        for _ in range(600):
            if started.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        try:
            _, said = process.communicate(timeout=60)  # ends when no process holds the pipes any more
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in said and said.splitlines()[-1] == "interrupted", said


def test_room_and_cores_decide_how_many_makers_there_are(monkeypatch):
    if sys.platform != "linux":
        assert makers.default_workers(1) == 0
        return
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(40)))
    monkeypatch.setattr(makers.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 64 * 2**20}))
    assert makers.default_workers(1000) == makers.MOST
    assert makers.default_workers(22_000_000) == 1
    assert makers.default_workers(200_000_000) == 0
    monkeypatch.setattr(makers.distributed, "local_ranks", lambda: 8)
    assert makers.default_workers(1000) == 5


def test_held_out_files_are_decoded_once_for_all_visits(tmp_path, monkeypatch):
    dataset = files_of(tmp_path)
    supernet = SuperNet(PATCH)
    scores = HeldOutAccuracy(supernet, dataset), evaluate(supernet, dataset)
    decoded(dataset)
    monkeypatch.setattr(held_out.tempfile, "tempdir", str(tmp_path))
    kept = read_once(dataset)
    assert decoded(dataset) == 64 and not list(tmp_path.glob("mcuformer-*"))
    assert read_once(kept) is kept
    for _ in range(2):
        assert evaluate(supernet, kept) == scores[1] == scores[0](PATCH.largest())
    assert decoded(dataset) == 0
    assert np.array_equal(kept.images, dataset.images[:])


def test_held_out_files_that_need_too_much_room_stay_files(tmp_path, monkeypatch):
    dataset = files_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(held_out, "MEMORY_SHARE", 2**50)
        assert read_once(dataset) is dataset
    with monkeypatch.context() as patch:
        patch.setattr(held_out.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
        assert read_once(dataset) is dataset
    dataset.images.paths[40].write_bytes(b"nothing")
    monkeypatch.setattr(held_out.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DataError, match=r"40\.png: cannot be read"):
        read_once(dataset)
    assert not list(tmp_path.glob("mcuformer-*"))


def test_held_out_images_too_many_for_the_device_give_the_same_accuracy(tmp_path, monkeypatch):
    supernet, images = SuperNet(PATCH), digits(0, 100)
    expected = HeldOutAccuracy(supernet, images, 32)(PATCH.largest())
    monkeypatch.setattr("mcuformer.nas.search.MAX_DEVICE_BYTES", 10)
    accuracy = HeldOutAccuracy(supernet, images, 32)
    assert accuracy.batches is None and accuracy(PATCH.largest()) == accuracy(PATCH.largest()) == expected


def test_evaluation_computes_in_the_precision_of_the_training():
    supernet, images, seen = SuperNet(PATCH), digits(0, 100), []
    supernet.register_forward_hook(lambda _net, _inputs, output: seen.append(output.dtype))
    for precision, expected in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        seen.clear()
        evaluate(supernet, images, precision=precision)
        HeldOutAccuracy(supernet, images, precision=precision)(PATCH.largest())
        assert set(seen) == {expected}
    train(supernet, images, dataclasses.replace(MIXED, epochs=1, precision="bfloat16"), validation=images)
    assert seen[-1] == torch.bfloat16


def test_by_default_100_images_of_each_class_are_held_out_of_many_classes():
    labels = np.arange(800 * 61) % 61
    images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    many = Dataset(images, labels, tuple(map(str, range(61))), "many", "train")
    rest, kept = hold_out(many)
    assert len(kept) == 6100 and set(np.bincount(kept.labels)) == {100} and len(rest) == len(many) - 6100
    few = dataclasses.replace(many, labels=labels % 10, class_names=many.class_names[:10])
    assert len(hold_out(few)[1]) == 5000


SCRIPT = """
import json, sys
from pathlib import Path
import torch
from test_input_path import curve
from mcuformer.nas.distributed import from_all, process_group, rank
torch.set_num_threads(1)
with process_group():
    result = from_all(curve(Path(sys.argv[1])))
    if rank() == 0:
        print("RESULT", json.dumps(result))
"""


def curve(folder: Path) -> dict:
    """The loss of every step of a training from files; how many this process decoded; whose array the kept ones are."""
    dataset = files_of(folder)
    decoded(dataset)
    supernet, steps = SuperNet(PATCH), []
    train(supernet, dataset, dataclasses.replace(MIXED, workers=1), progress=lambda state: steps.append(state.loss))
    decoded(dataset)
    kept = read_once(dataset)
    return {
        "steps": steps,
        "decoded": decoded(dataset),
        "file": str(kept.images.filename),
        "sum": int(kept.images.sum()),
    }


@linux_only
def test_two_processes_follow_the_loss_of_one_and_share_what_is_held_out(tmp_path, monkeypatch):
    files_of(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    done = subprocess.run(
        [*command, sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}",
             "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    first, second = json.loads(line.removeprefix("RESULT"))
    monkeypatch.setattr(held_out, "CHUNK", 64)
    one = curve(tmp_path)
    assert len(one["steps"]) == 8 and first["steps"] == second["steps"]
    np.testing.assert_allclose(first["steps"], one["steps"], rtol=1e-5)
    assert first["file"] == second["file"] and first["sum"] == second["sum"] == one["sum"]
    assert first["decoded"] + second["decoded"] == one["decoded"] == 64
