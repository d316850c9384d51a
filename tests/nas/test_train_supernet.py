# SPDX-License-Identifier: Apache-2.0
"""One-shot training: it learns, resumes to the same weights, and processes under torchrun follow the curve of one."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from spaces import CONV, PATCH, digits

from mcuformer.converter.subnet_config import RELATIVE_POSITIONS
from mcuformer.errors import ConfigError
from mcuformer.nas import SuperNet, TrainOptions, evaluate, train

OPTIONS = TrainOptions(epochs=3, batch_size=64, learning_rate=3e-3, flip=False, threads=1)


def weights_of(supernet) -> torch.Tensor:
    return torch.cat([value.flatten() for value in supernet.state_dict().values()])


OPTIONS_SPACE = dataclasses.replace(
    PATCH, patch_size=((2, 4), 4, (4, 2)), prefix_tokens=2, pool="token+mean", norm="post", activation="silu",
    relative_position="tables",
)  # fmt: skip


@pytest.mark.parametrize("space", [PATCH, CONV, OPTIONS_SPACE], ids=["patch", "conv", "options"])
@pytest.mark.parametrize("sampling", ["alternate", "sandwich"])
def test_all_of_a_supernet_learns_digits(space, sampling):
    supernet = SuperNet(space)
    epochs = 12 if sampling == "alternate" else 8
    options = dataclasses.replace(OPTIONS, epochs=epochs, learning_rate=1e-2, sampling=sampling, ema_decay=0.95)
    held_out = digits(1400, 1797, "test")
    result = train(supernet, digits(0, 1400), options, validation=held_out)
    assert result.losses[-1] < result.losses[0] and not supernet.training
    assert result.top1 > 0.8 and evaluate(supernet, held_out) == result.top1
    assert evaluate(supernet, held_out, config=space.smallest()) > 0.25  # of 10 classes


@pytest.mark.parametrize("relative", RELATIVE_POSITIONS)
def test_mixed_precision_and_all_augmentation_run(relative):
    supernet = SuperNet(dataclasses.replace(PATCH, relative_position=relative))
    options = dataclasses.replace(
        OPTIONS, epochs=3, precision="bfloat16", sampling="sandwich", mixup=0.3, cutmix=0.3, crop=0.5, flip=True
    )
    result = train(supernet, digits(0, 640), options)
    assert all(np.isfinite(result.losses)) and result.losses[-1] < result.losses[0]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("sampling", ["alternate", "sandwich"])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, sampling):
    options = dataclasses.replace(OPTIONS, ema_decay=0.9, sampling=sampling, cutmix=0.2)
    images, path = digits(0, 200), tmp_path / "training.pt"
    whole = SuperNet(CONV)
    expected = train(whole, images, options)

    def interrupt(state):
        if state.epoch == 3 and state.step == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(SuperNet(CONV), images, options, checkpoint=path, progress=interrupt)
    resumed = SuperNet(CONV, seed=1)
    assert train(resumed, images, options, checkpoint=path).losses == expected.losses
    assert torch.equal(weights_of(whole), weights_of(resumed))


def test_a_constant_schedule_goes_on_where_it_ended(tmp_path):
    options = dataclasses.replace(OPTIONS, schedule="constant", ema_decay=0.9)
    images, path = digits(0, 200), tmp_path / "training.pt"
    whole, parts = SuperNet(PATCH), SuperNet(PATCH)
    train(whole, images, options)
    for epochs in (1, 3):
        train(parts, images, dataclasses.replace(options, epochs=epochs), checkpoint=path)
    assert torch.equal(weights_of(whole), weights_of(parts))


def test_a_checkpoint_of_another_space_is_refused(tmp_path):
    path, options = tmp_path / "training.pt", dataclasses.replace(OPTIONS, epochs=1)
    train(SuperNet(CONV), digits(0, 64), options, checkpoint=path)
    with pytest.raises(ConfigError, match="belongs to another training, with space patch_size = \\[4\\] instead of"):
        train(SuperNet(PATCH), digits(0, 64), options, checkpoint=path)


SCRIPT = """
import json, sys
import torch
from test_train_supernet import curve
from mcuformer.nas.distributed import process_group, rank
torch.set_num_threads(1)
with process_group():
    result = curve(json.loads(sys.argv[1]))
    if rank() == 0:
        print("RESULT", json.dumps(result))
"""


def curve(options: dict) -> dict:
    """The loss of every step, and weights after the last."""
    supernet, steps = SuperNet(PATCH), []
    train(supernet, digits(0, 320), TrainOptions(**options), progress=lambda state: steps.append(state.loss))
    weights = {name: value.tolist() for name, value in supernet.state_dict().items() if "norm" in name}
    return {"steps": steps, "weights": weights}


@pytest.mark.parametrize("sampling", ["alternate", "sandwich"])
def test_two_processes_follow_the_loss_curve_of_one(sampling):
    """A patch embedding has no batch norm, and augmentation is seeded per sample: only float rounding differs."""
    options = {"epochs": 3, "batch_size": 64, "sampling": sampling, "cutmix": 0.3, "ema_decay": 0.3, "threads": 1}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    done = subprocess.run(
        [*command, sys.executable, "-c", SCRIPT, json.dumps(options)], capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).removeprefix("RESULT")
    )
    one = curve(options)
    assert len(one["steps"]) == 15 and one["steps"][-1] < one["steps"][0]
    np.testing.assert_allclose(two["steps"], one["steps"], rtol=1e-5)
    for name, value in one["weights"].items():
        np.testing.assert_allclose(two["weights"][name], value, atol=1e-5)
