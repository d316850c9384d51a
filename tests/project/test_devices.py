# SPDX-License-Identifier: Apache-2.0
"""README's table of boards is the code's, and docs/devices.md names every core and what the benchmark printed."""

import re
from itertools import groupby
from pathlib import Path

from mcuformer.cli.boards import boards
from mcuformer.cores import CORES

ROOT = Path(__file__).resolve().parents[2]


def test_readme_has_the_table_of_boards():
    by_core = groupby(boards().boards, lambda board: board.core.name)
    rows = [f"| {core} | {', '.join(f'`{board.name}`' for board in members)} |" for core, members in by_core]
    table = "\n".join(["| core | boards |", "|---|---|", *rows])
    assert f"\n\n{table}\n\n" in (ROOT / "README.md").read_text(), f"README.md needs:\n{table}"


def test_devices_shows_what_the_benchmark_printed():
    shown = re.search(r"```\n(core .*?)```", (ROOT / "docs" / "devices.md").read_text(), re.DOTALL)[1]
    assert shown in (ROOT / "benchmarks" / "RESULTS.md").read_text()
    assert [re.split(r"  +", line)[0] for line in shown.splitlines()[1:]] == [core.name for core in CORES.values()]
