# SPDX-License-Identifier: Apache-2.0
"""The command line: mcuformer demo | train | evolve | search | finetune | convert | run | inspect | export | boards.

Each command is a module here. Its function of the same name does the work from Python, prints nothing and returns the
result; `command` reads the options, calls it, prints the result as a table and writes it as JSON:

    from mcuformer.cli.inspect import inspect
    inspect("model.tflite").arena_bytes
"""

from __future__ import annotations

import importlib
import os
import sys

from mcuformer.cli.common import app, progress_out
from mcuformer.errors import McuformerError

COMMANDS = ("import_", "train", "search", "evolve", "finetune", "demo", "export", "boards", "convert", "run", "inspect")

for _name in COMMANDS:  # each adds itself to the app; --help keeps this order
    importlib.import_module(f"mcuformer.cli.{_name}")


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit status 2."""
    # Read when torch is loaded. On a busy machine, threads that spin make training many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except McuformerError as error:
        progress_out.print(f"error: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
