# SPDX-License-Identifier: Apache-2.0
"""The command line: mcuformer demo | train | evolve | search | finetune | convert | run | inspect | report | export |
boards | check-board | import.

Each command is a module here. Its function of the same name does the work from Python, prints nothing and returns the
result; `command` reads the options, calls it, prints the result as a table and writes it as JSON:

    from mcuformer.cli.inspect import inspect
    inspect("model.tflite").arena_bytes

A command's module is imported when the command is called, and libraries where they are used: so --help and `boards`
answer at once (tests/test_cli_startup.py).
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import warnings

import click

from mcuformer.allocator import keep_freed_memory
from mcuformer.errors import McuformerError, McuformerWarning

# Modules in the order of --help, and the help of their commands, which a test compares with what these say themselves.
COMMANDS = {
    "import_": "Read a Vision Transformer that another library trained.",
    "train": "Train one network, or with --space a supernet; under torchrun on all GPUs.",
    "search": "Search a supernet for the most accurate subnet within a budget; under torchrun in all processes.",
    "evolve": "Move a space's window of rank ratios and tokens to where its supernet is accurate and its subnets fit.",
    "finetune": "Train a chosen subnet further, alone.",
    "demo": "The whole way: evolve a space, train its supernet, search it, fine-tune, convert, run in the interpreter.",
    "export": "Export models as sources for firmware.",
    "boards": "List the boards by core and the memory they leave for a model; say whether models fit.",
    "convert": "Convert a subnet to an int8 .tflite.",
    "run": "Run a model on this machine, as firmware in QEMU too if you like; prints its top-1, or without a head the "
    "nearest of each image's embedding.",
    "inspect": "Show a model's ops, tensors, offsets and memory plan.",
    "report": "Show a search, its training and its models as one HTML page that loads nothing.",
    "check_board": "Compare a board that runs the sketch SelfTest with the host, bit for bit, and measure its time.",
}
MODULES = {module.rstrip("_").replace("_", "-"): module for module in COMMANDS}  # by the name of the command

INTERRUPTED = 130  # the exit status after Ctrl-C
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Commands(click.Group):
    """Commands that hold their help alone, until one is asked for: then its module is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        return importlib.import_module(f"mcuformer.cli.{MODULES[cmd_name]}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help or "") for name, command in self.commands.items()])


app = Commands(
    help="Vision Transformers on microcontrollers.",
    commands={name: click.Command(name, help=COMMANDS[module]) for name, module in MODULES.items()},
    context_settings={"show_default": True, "max_content_width": 120},
)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit status 2."""
    # Read when torch is loaded. On a busy machine, threads that spin make training many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            try:
                app(prog_name="mcuformer", standalone_mode=False)
            finally:
                _flush()
        except click.Abort as stopped:  # what click makes of Ctrl-C, and of an EOFError, which is no user's
            if not isinstance(stopped.__cause__, KeyboardInterrupt):
                raise
            _say("interrupted", "bold red")
            sys.exit(INTERRUPTED)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.UsageError as error:
            _say(f"error: {_one_line(error)}", "bold red")
            sys.exit(2)
        except McuformerError as error:
            _say(f"error: {error}", "bold red")
            sys.exit(2)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            _drop_output()
            _say(f"error: what is printed cannot be written ({error.strerror}); make room", "bold red")
            sys.exit(2)


def _one_line(error: click.UsageError) -> str:
    """What click says of an option or an argument, and where to look it up."""
    found = " ".join(error.format_message().split()).removesuffix(".")
    return found if error.ctx is None else f"{found} (see {error.ctx.command_path} --help)"


def _flush() -> None:
    """Writes what is still buffered here, where a failure can be said; Python itself would only do it at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough
        _drop_output()
        sys.exit(1)


def _drop_output() -> None:
    """Standard output goes nowhere from here on, and so does what is still buffered."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


_show_other_warning = warnings.showwarning


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """One line for what we warn of; the usual form, with the place in the code, for what libraries do."""
    if issubclass(category, McuformerWarning):
        _say(f"warning: {message}", "yellow")
    else:
        _show_other_warning(message, category, filename, lineno, file, line)


def _say(text: str, style: str) -> None:
    from mcuformer.cli.common import progress_out

    progress_out.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
