# SPDX-License-Identifier: Apache-2.0
"""The workflow for GitHub: it has not run there, so what can be checked without it is checked here."""

import configparser
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
WORKFLOW = yaml.safe_load(TEXT)
JOBS = WORKFLOW["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]
COMMANDS = [line.strip() for step in STEPS if "run" in step for line in step["run"].splitlines()]


def documented(page: str) -> set[str]:
    """The lines of a page's blocks of code."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return {line.strip() for block in blocks for line in block.splitlines()}


def settings() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg", encoding="utf-8")
    return found


def test_it_is_a_workflow():
    assert set(WORKFLOW) == {"name", True, "permissions", "concurrency", "defaults", "jobs"}  # YAML reads "on" as true
    assert set(JOBS) == {"test", "docs", "wheels"}
    for job in JOBS.values():
        assert set(job) <= {"runs-on", "timeout-minutes", "steps", "strategy", "env"}
        assert "runs-on" in job and job["timeout-minutes"] <= 60
    for step in STEPS:
        assert ("run" in step) != ("uses" in step), step
        assert set(step) <= {"run", "uses", "with", "if"}, step


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_every_command_is_documented(command):
    if command.startswith("make "):
        (target,) = command.split()[1:]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), target
        assert command in (ROOT / "docs" / "release.md").read_text()
    else:
        assert command in documented("docs/release.md") | documented("README.md")


def test_what_it_names_is_there():
    named = [
        word for command in COMMANDS for word in command.split() if re.match(r"(tests|tools)/|\w[\w-]*\.txt$", word)
    ]
    assert len(named) >= 5 and all((ROOT / word).exists() for word in named), named


def test_its_versions_are_the_projects():
    floor = settings()["options"]["python_requires"].removeprefix(">=")
    assert {step["with"]["python-version"] for step in STEPS if "setup-python" in step.get("uses", "")} == {floor}
    (pinned,) = re.findall(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"torch==(\S+)", "\n".join(COMMANDS))) == {pinned}
    installs = [command for command in COMMANDS if "pip install" in command and "torch==" not in command]
    assert installs and all("-c constraints.txt" in command for command in installs)
    for command in installs:
        for name in re.findall(r" ([a-z]\w+)(?= |$)", command.partition("constraints.txt")[2]):
            assert re.search(rf"^{name}==", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE), name


def test_wheels_are_built_on_every_system_that_setup_names():
    systems = {"MacOS": "macos", "Microsoft :: Windows": "windows", "POSIX :: Linux": "ubuntu"}
    named = set(re.findall(r"Operating System :: (.*)", settings()["metadata"]["classifiers"]))
    built = {row["os"].partition("-")[0] for row in JOBS["wheels"]["strategy"]["matrix"]["include"]}
    assert {systems[name] for name in named} == built


def test_it_publishes_nothing_and_takes_actions_of_githubs_own_alone():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not re.search(r"secrets|id-token|twine|publish", re.sub("#.*", "", TEXT))
    uses = {step["uses"] for step in STEPS if "uses" in step}
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", name) for name in uses), uses
    one_version = {name.partition("@")[0] for name in uses}
    assert len(one_version) == len(uses)
