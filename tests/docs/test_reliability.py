# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md: its commands print what it shows, and its first table adds that up."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mcuformer import engines

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
COLUMNS = ("tried", "refused", "right", "unseen", "wrong", "crashed")  # as the tools call them
PRINTED = dict(re.findall(r"^```\n\$ (.*)\n((?:.*\n)+?)```$", PAGE, re.MULTILINE))
QUICK = [command for command in PRINTED if command.startswith("python ")]  # .ci/run has some of the others' cases


def printed_sums(command: str) -> Counter[str]:
    """The sums of a command's columns."""
    columns: list[str] = []
    sums = Counter[str]()
    for line in filter(None, PRINTED[command].splitlines()):
        words = re.split(r"[\s|]+", line.strip(" |"))
        if "tried" in words:
            columns = words[words.index("tried") :]
        if "tried" in words or "---" in line:
            continue
        values = words[-len(columns) :]
        sums.update({column: int(value.replace(",", "")) for column, value in zip(columns, values, strict=True)})
    return sums


def table_sums(tool: str) -> Counter[str]:
    """The sums of the rows of the first table that name a tool, or a command of the Makefile."""
    sums = Counter[str]()
    for row in re.findall(rf"^\|[^|]+\|(.*)\| \[`{tool}`\]", PAGE, re.MULTILINE):
        values = [value.strip().replace(",", "") for value in row.split("|")]
        sums.update({column: int(v) for column, v in zip(COLUMNS, values, strict=True) if v != "-"})
    return sums


def test_every_command_is_found():
    assert len(PRINTED) == 4 == PAGE.count("\n$ ")


@pytest.mark.parametrize("command", PRINTED)
def test_the_table_adds_up_what_the_command_prints(command):
    sums = table_sums(command if command.startswith("make ") else Path(command.split()[1]).name)
    assert sums == printed_sums(command)
    assert sums["tried"] == sum(sums[column] for column in COLUMNS[1:]) > 0 == sums["wrong"] + sums["crashed"]


def of_any_machine(text: str) -> str:
    """What a command prints, with the sum of those that ended well in one case. Damaged .npz files: a byte between the
    parts of a zip archive may be wrong for one release of Python's zipfile and of no meaning for another."""
    row = re.compile(r"^(\| damaged \.npz \| \d+ \|) (\d+) \| (\d+) \|", re.MULTILINE)
    return row.sub(lambda found: f"{found[1]} {int(found[2]) + int(found[3])} |", text)


@pytest.mark.slow
@pytest.mark.parametrize("command", QUICK)
def test_the_command_prints_what_the_page_shows(command):
    if "threads" in command and engines.choose(None) != "tflm":
        pytest.skip("no tflite-micro wheel for this machine")
    done = subprocess.run([sys.executable, *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, of_any_machine(done.stdout)) == (0, of_any_machine(PRINTED[command])), done.stderr
