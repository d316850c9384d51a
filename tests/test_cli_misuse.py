# SPDX-License-Identifier: Apache-2.0
"""The command line interrupted, warned, and without the streams that it writes to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import error_line, forked, mistake
from conftest import TINY, lively_subnet, structured_images

from mcuformer.cli.convert import convert
from mcuformer.errors import McuformerWarning
from mcuformer.nas import save_subnet

GOLDEN = Path(__file__).parent / "golden" / "0.1.0"
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run where it is ignored, as under nohup

class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == WHERE:
            os.kill(os.getpid(), signal.SIGINT)

WHERE = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupt())
from mcuformer.__main__ import main
main()
"""


def convert_arguments(tmp_path):
    return ["convert", GOLDEN / "subnet_conv.pt", "--data", GOLDEN / "data.npz", "-o", tmp_path / "model.tflite"]


@pytest.mark.parametrize("where", ["numpy", "rich.console", "mcuformer.cli.convert", "torch", "mcuformer.nas.subnet"])
def test_ctrl_c_during_imports_shows_no_traceback(where, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, where, *convert_arguments(tmp_path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    assert os.listdir(tmp_path) == []


def test_the_command_is_the_one_that_ctrl_c_may_end():
    """The installed script too must not import anything before it can."""
    setup = (Path(__file__).parents[1] / "setup.cfg").read_text()
    assert "\n    mcuformer = mcuformer.__main__:main\n" in setup
    code = "import sys, mcuformer.__main__; print(len({'numpy', 'rich', 'click', 'mcuformer.cli'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "0\n"


USAGE = {  # with what the line must name; the words between are click's
    ("convrt",): ("'convrt'", "'convert'", "(see mcuformer --help)"),
    ("--verbose",): ("'--verbose'", "(see mcuformer --help)"),
    ("convert",): ("'SUBNET'", "(see mcuformer convert --help)"),
    ("convert", "a", "b"): ("(b)", "(see mcuformer convert --help)"),
    ("convert", "a", "--wieghts", "3"): ("'--wieghts'", "'--weights'", "(see mcuformer convert --help)"),
    ("convert", "a", "--images", "x"): ("'--images'", "'x'", "valid integer (see mcuformer convert --help)"),
    ("convert", "a", "--images"): ("'--images'",),
    ("check-board", "--port", "a", "--baud", "0"): ("'--baud'", "0", ">=1 (see mcuformer check-board --help)"),
    ("export", "a", "-o", "b"): ("'--to'", "(see mcuformer export --help)"),
}


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_a_wrong_option_or_argument_is_one_line(arguments):
    done = forked(*arguments, status=2)
    assert done.stdout == "" and error_line(done) + "\n" == done.stderr
    assert not [part for part in USAGE[arguments] if part not in done.stderr], done.stderr


def test_no_command_at_all_shows_them():
    done = forked(status=2)
    assert done.stdout == "" and done.stderr == forked("--help").stdout


def test_a_warning_is_one_line(tmp_path):
    command = [sys.executable, "-m", "mcuformer", "finetune", GOLDEN / "subnet_conv.pt", "--data", tmp_path / "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    first, *rest = done.stderr.splitlines()
    assert first.startswith(f"warning: {GOLDEN / 'subnet_conv.pt'}: of an earlier version")
    assert [line.partition(":")[0] for line in rest] == ["error"] and done.returncode == 2, done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams(closed, tmp_path):
    command = f'exec "{sys.executable}" -m mcuformer boards --json "{tmp_path}/boards.json" {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "boards.json").stat().st_size > 100


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["boards"], ["--help"]], ids=["boards", "help"])
def test_a_full_disk_behind_what_is_printed(arguments, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "mcuformer", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: what is printed cannot be written (No space left on device)")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough(unbuffered):
    command = f'"{sys.executable}" -m mcuformer boards | true'
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, env=environment)
    assert done.stderr == ""


def test_an_int8_model_far_from_its_float_network_is_warned_of(tmp_path):
    """The weight is small enough to be possible, but too large for the others."""
    net = lively_subnet(TINY, 3)
    net.position.data[0, 0, :3] = 9000
    save_subnet(net, tmp_path / "subnet.pt")
    np.savez(tmp_path / "data.npz", x_train=structured_images(TINY, 32, 1), y_train=np.arange(32) % 5)
    with pytest.warns(McuformerWarning, match="model.tflite: the int8 outputs are far from .* cosine 0") as seen:
        convert(tmp_path / "subnet.pt", data=str(tmp_path / "data.npz"), output=tmp_path / "model.tflite")
    assert len(seen) == 1


EARLY = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import mcuformer.cli
mcuformer.cli.main = lambda: os.kill(os.getpid(), signal.SIGINT)
from mcuformer.__main__ import main
main()
"""


def test_ctrl_c_just_before_the_command_shows_no_traceback():
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


MODEL, STAGED, SPACE = (GOLDEN / name for name in ("streamed.tflite", "staged.tflite", "space.yaml"))
READ = {
    "run": ("run", "X"), "inspect": ("inspect", "X"), "export": ("export", "X", "--to", "c", "-o", "c"),
    "weights": ("run", STAGED, "--weights", "X", "--data", GOLDEN / "data.npz"), "data": ("run", MODEL, "--data", "X"),
    "convert": ("convert", "X"), "finetune": ("finetune", "X"), "search": ("search", "X", "--board", "nano33ble"),
    "space": ("train", "--space", "X"), "config": ("train", "--config", "X"),
    "import": ("import", "X", "--family", "timm"),
    "init": ("train", "--space", SPACE, "--init", "X", "--data", GOLDEN / "data.npz"),
    "log": ("search", GOLDEN / "supernet.pt", "--board", "nano33ble", "--log-file", "X", "--data", GOLDEN / "data.npz"),
}  # fmt: skip


@pytest.mark.parametrize("what", READ)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_no_command_waits_for_a_pipe_or_reads_a_device_for_ever(kind, what, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    given = tmp_path / "pipe" if kind == "pipe" else "/dev/zero"
    line = mistake(*(given if word == "X" else word for word in READ[what]), folder=tmp_path)
    assert str(given) in line and ("a pipe or a device" in line or "no such file" in line)
