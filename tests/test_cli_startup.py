# SPDX-License-Identifier: Apache-2.0
"""What a command imports: --help and `boards` answer at once, and so does the --help of each command.

Time depends on the machine, what is imported does not: so the tests name modules. On a free machine `python -X
importtime -m mcuformer boards` says what each takes.
"""

import importlib
import subprocess
import sys

import pytest

from mcuformer.cli import COMMANDS, MODULES

CODE = """
import sys
from mcuformer.cli import main
sys.argv[0] = "mcuformer"
main()
print(*sys.modules, file=sys.stderr)
"""
SLOW = {"numpy", "torch", "matplotlib", "PIL", "scipy", "yaml", "safetensors", "flatbuffers", "pydantic", "asyncio"}
SLOW |= {"importlib.metadata", "rich.progress", "subprocess", "multiprocessing"}


def imported(*arguments: str) -> set[str]:
    """The modules of a process that ran this command."""
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout, done.stderr
    return set(done.stderr.split())


def of_commands(modules: set[str]) -> set[str]:
    return modules & {f"mcuformer.cli.{name}" for name in COMMANDS}


def test_help_needs_click_alone():
    modules = imported("--help")
    assert not SLOW & modules and "rich" not in modules
    assert {name for name in modules if name.startswith("mcuformer")} == {
        "mcuformer", "mcuformer.allocator", "mcuformer.cli", "mcuformer.errors",
    }  # fmt: skip


def test_boards_needs_its_own_module_and_a_table():
    modules = imported("boards")
    assert not SLOW & modules and of_commands(modules) == {"mcuformer.cli.boards"}


@pytest.mark.parametrize("command", MODULES)
def test_help_of_a_command_needs_its_module_and_no_library(command):
    modules = imported(command, "--help")
    assert not SLOW & modules and of_commands(modules) == {f"mcuformer.cli.{MODULES[command]}"}


def test_help_says_what_each_command_says_itself():
    for name, module in MODULES.items():
        command = importlib.import_module(f"mcuformer.cli.{module}").command
        assert command.name == name and " ".join(command.help.split()) == COMMANDS[module]
