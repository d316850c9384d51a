# SPDX-License-Identifier: Apache-2.0
"""tools/fuzz_models.py sees what it looks for: a wrong output, a raw exception and a death are planted in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcuformer import engines

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
COUNT = 40
# The first models that a worker runs have a wrong output, then they raise, then one ends the process: both engines run
# each.
PLANTED = """
import sys
if any(argument.endswith("fuzz_worker.py") for argument in sys.orig_argv):
    import os
    from mcuformer import Interpreter
    whole, runs = Interpreter.int8_outputs, []
    def int8_outputs(self, images):
        runs.append(1)
        if len(runs) in (3, 4):
            raise ValueError("planted")
        if len(runs) == 5:
            os.abort()
        return whole(self, images) ^ 1
    Interpreter.int8_outputs = int8_outputs
"""
NO_WORKER = """
import sys
if any(argument.endswith("fuzz_worker.py") for argument in sys.orig_argv):
    raise SystemExit("no mutant may be run")
"""


def fuzz(folder: Path, customised: str, *more: str) -> subprocess.CompletedProcess:
    """The tool, with code that every Python of it runs first."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(customised)
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "tools/fuzz_models.py", "--count", str(COUNT), "--jobs", "1", *more]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)


def sums(printed: str, entry: str) -> dict[str, int]:
    """Of each column of an entry's table."""
    (block,) = (block for block in printed.split("\n\n") if block.startswith(entry))
    head, *rows = block.splitlines()
    columns = head.split()[1:]
    values = [list(map(int, row.split()[-len(columns) :])) for row in rows]
    return dict(zip(columns, map(sum, zip(*values, strict=True)), strict=True))


def test_what_is_planted_is_found(tmp_path):
    done = fuzz(tmp_path, PLANTED)
    found = sums(done.stdout, "Interpreter")
    assert done.returncode == 1, done.stderr
    assert found["tried"] == COUNT and min(found[bad] for bad in ("wrong", "raised", "crashed")) > 0, done.stdout
    assert "ValueError: planted" in done.stderr


def test_a_clean_run_is_not_run_again(tmp_path):
    logs = ("--logs", str(tmp_path / "logs"))
    first = fuzz(tmp_path / "a", "", *logs)
    assert first.returncode == 0, first.stdout + first.stderr
    found = sums(first.stdout, "Interpreter")
    assert found["tried"] == COUNT == found["refused"] + found["right"] and found["right"] > 3
    if engines.choose(None) == "tflm":
        assert sums(first.stdout, "Prepare")["tried"] == COUNT
    again = fuzz(tmp_path / "b", NO_WORKER, *logs)
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    assert fuzz(tmp_path / "b", NO_WORKER).returncode != 0


def test_one_mutant_can_be_had(tmp_path):
    only = "7"
    done = fuzz(tmp_path / "a", "", "--only", only, "--save", str(tmp_path / "mutant.tflite"))
    assert done.returncode == 0 and f"mutant {only} of seed 0" in done.stdout
    assert (tmp_path / "mutant.tflite").read_bytes()[4:8] == b"TFL3"
