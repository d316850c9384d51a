# SPDX-License-Identifier: Apache-2.0
"""The command line: mcuformer demo | train | evolve | search | finetune | convert | run | inspect | report | export |
boards | check-board.

Each command is a module here. Its function of the same name does the work from Python, prints nothing and returns the
result; `command` reads the options, calls it, prints the result as a table and writes it as JSON:

    from mcuformer.cli.inspect import inspect
    inspect("model.tflite").arena_bytes
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import warnings

from mcuformer.cli.common import app, progress_out
from mcuformer.errors import McuformerError, McuformerWarning

COMMANDS = (
    "import_",
    "train",
    "search",
    "evolve",
    "finetune",
    "demo",
    "export",
    "boards",
    "convert",
    "run",
    "inspect",
    "report",
    "check_board",
)

INTERRUPTED = 130  # the exit status after Ctrl-C
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

for _name in COMMANDS:  # each adds itself to the app; --help keeps this order
    importlib.import_module(f"mcuformer.cli.{_name}")


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit status 2."""
    # Read when torch is loaded. On a busy machine, threads that spin make training many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            try:
                app()
            finally:
                _flush()
        except SystemExit as ended:
            if ended.code == INTERRUPTED:
                _say("interrupted", "bold red")
            raise
        except McuformerError as error:
            _say(f"error: {error}", "bold red")
            sys.exit(2)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            _drop_output()
            _say(f"error: what is printed cannot be written ({error.strerror}); make room", "bold red")
            sys.exit(2)


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
    progress_out.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
