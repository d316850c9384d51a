# SPDX-License-Identifier: Apache-2.0
"""Training curves in a CSV file and in TensorBoard, and progress where there is no terminal."""

import csv
import importlib.util

import pytest
from spaces import digits
from test_train import CONFIG, OPTIONS

from mcuformer.cli.curves import COLUMNS, Curves
from mcuformer.cli.progress import Progress
from mcuformer.errors import ConfigError, ToolchainError
from mcuformer.nas import build_subnet, train

IMAGES = digits(0, 128)
ENDLESS = {**OPTIONS.__dict__, "schedule": "constant"}
HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None


def trained(epochs, curves, checkpoint):
    options = type(OPTIONS)(**{**ENDLESS, "epochs": epochs})
    with curves.following(lambda progress: None) as follow:
        return train(build_subnet(CONFIG), IMAGES, options, progress=follow, checkpoint=checkpoint).losses


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_log_has_a_line_an_epoch_and_goes_on_with_its_checkpoint(tmp_path):
    log, checkpoint = tmp_path / "log.csv", tmp_path / "training.pt"
    trained(2, Curves(log, checkpoint=checkpoint), checkpoint)
    first = log.read_bytes()
    with log.open("ab") as file:
        file.write(b"3,0.5,0.1,1.0,2.0\n4,0.")  # killed after the line of an epoch, before its checkpoint
    losses = trained(4, Curves(log, checkpoint=checkpoint), checkpoint)
    rows = rows_of(log)
    assert log.read_bytes().startswith(first) and tuple(rows[0]) == COLUMNS
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [float(row["loss"]) for row in rows] == pytest.approx(losses, rel=1e-12)
    assert all(float(row["learning_rate"]) > 0 for row in rows)
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)


def test_a_log_of_another_training_is_refused(tmp_path):
    log = tmp_path / "log.csv"
    trained(2, Curves(log), None)
    for checkpoint in (None, tmp_path / "none.pt"):
        with pytest.raises(ConfigError, match="log.csv: has 2 epochs of another training, none of which is continued"):
            Curves(log, checkpoint=checkpoint)
    log.write_text("epoch,loss\n1,2\n")
    with pytest.raises(ConfigError, match="log.csv: not a log of training curves; give another name, or remove it"):
        Curves(log)
    log.write_text(",".join(COLUMNS) + "\n1,2,3,4,5\n2,two,3,4,5\n")
    with pytest.raises(ConfigError, match="log.csv: line 3 is no epoch's; remove it and all after it"):
        Curves(log)


@pytest.mark.skipif(HAS_TENSORBOARD, reason="tensorboard is installed")
def test_without_tensorboard_one_line_says_what_to_do(tmp_path):
    with pytest.raises(ToolchainError, match="the package tensorboard is not installed; pip install tensorboard"):
        Curves(tensorboard=tmp_path / "board")


@pytest.mark.skipif(not HAS_TENSORBOARD, reason="tensorboard is not installed")
def test_tensorboard_gets_each_epoch_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    checkpoint = tmp_path / "training.pt"
    for epochs in (2, 3):
        losses = trained(epochs, Curves(tensorboard=tmp_path / "board", checkpoint=checkpoint), checkpoint)
    events = EventAccumulator(str(tmp_path / "board")).Reload().Scalars("training/loss")
    assert [event.step for event in events] == [1, 2, 3]
    assert [event.value for event in events] == pytest.approx(losses, rel=1e-6)


def test_without_a_terminal_a_line_tells_of_each_epoch_and_of_ten_evaluations():
    lines = []
    progress = Progress(line=lines.append)
    with progress.training("training") as show:
        result = train(build_subnet(CONFIG), IMAGES, type(OPTIONS)(**{**ENDLESS, "epochs": 2}), progress=show)
    assert [line.partition(",")[0] for line in lines] == ["training: epoch 1/2", "training: epoch 2/2"]
    assert all(f"loss {loss:.3f}, " in line for line, loss in zip(lines, result.losses, strict=True))
    lines.clear()
    with progress.searching() as show:
        for done in range(1, 26):
            show(done, 25, 0.5)
    assert lines == [f"searching: {done} of at most 25 evaluated, best 50.00 %" for done in (10, 20, 25)]
