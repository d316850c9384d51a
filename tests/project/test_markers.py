# SPDX-License-Identifier: Apache-2.0
"""Which tests run when: `slow` ones by `make test-slow`, others skip where a tool is missing and name its package."""

import re
import subprocess
import sys
from pathlib import Path

from conftest import PACKAGES

ROOT = Path(__file__).resolve().parents[2]

SUITE = """
import pytest

@pytest.mark.slow
def test_slow():
    pass

@pytest.mark.needs("{tool}")
def test_tool(missing_fixture_too):
    pass

def test_quick():
    pass
"""


def pytest_prints(folder: Path, *words: str, tool: str = "cmake", path: str = "") -> str:
    """What pytest says of SUITE, with this project's settings and hooks."""
    (folder / "test_suite.py").write_text(SUITE.format(tool=tool))
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (folder / "once.py").write_text((ROOT / "tests" / "once.py").read_text())
    (folder / "setup.cfg").write_text((ROOT / "setup.cfg").read_text())
    command = [sys.executable, "-m", "pytest", "-rs", "-c", "setup.cfg", *words, "test_suite.py"]
    environment = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout


def test_a_missing_tool_is_a_skip_that_names_its_package(tmp_path):
    printed = pytest_prints(tmp_path, tool="c++")
    assert "1 passed, 1 skipped, 1 deselected" in printed
    assert "c++ is not installed: Debian's package g++" in printed


def test_slow_tests_run_when_they_are_asked_for(tmp_path):
    assert "1 passed, 2 deselected" in pytest_prints(tmp_path, "-m", "slow")


def test_every_tool_that_a_test_needs_has_a_package():
    text = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    calls = re.findall(r"(?:mark\.needs|skip_without)\(((?:\"[^\"{}]+\"(?:, )?)+)\)", text)
    named = {name for call in calls for name in re.findall(r"\"([^\"]+)\"", call)}
    assert {"cmake", "g++", "debootstrap"} <= named <= set(PACKAGES)


def test_ci_runs_slow_tests_too():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^test-slow:.*\n\t.* pytest .*-m slow", makefile, flags=re.MULTILINE)
    assert re.search(r"^make test$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
    assert re.search(r"^make test-slow", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
