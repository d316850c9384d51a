# SPDX-License-Identifier: Apache-2.0
"""The command line for tests: in a process of its own, as a user starts it, or in a copy of the test's process.

The copy (fork) differs only in that the package is imported already, which takes most of a command's time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import traceback

from mcuformer.cli import main

SECONDS = 300


def mcuformer(*arguments, status: int = 0, folder=None) -> subprocess.CompletedProcess:
    """Runs a command in a process of its own."""
    command = [sys.executable, "-c", "from mcuformer.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=folder)
    return _checked(done, status)


def forked(*arguments, status: int = 0, folder=None) -> subprocess.CompletedProcess:
    """As mcuformer(), in a copy of this process; where there is no fork, the same."""
    if not hasattr(os, "fork"):
        return mcuformer(*arguments, status=status, folder=folder)
    given = list(map(str, arguments))
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            _run(given, out.fileno(), err.fileno(), folder)
        returncode = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = [(stream.seek(0), stream.read())[1] for stream in (out, err)]
    return _checked(subprocess.CompletedProcess(given, returncode, *texts), status)


def mistake(*arguments, folder=None) -> str:
    """The one line, after a progress bar perhaps, that a user's mistake gives."""
    return error_line(forked(*arguments, status=2, folder=folder))


def error_line(done: subprocess.CompletedProcess) -> str:
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("error: ") and sum("error" in line.lower() for line in lines) == 1
    return lines[-1]


def _checked(done: subprocess.CompletedProcess, status: int) -> subprocess.CompletedProcess:
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def _run(arguments: list[str], out: int, err: int, folder) -> None:
    """What the copy does; it ends here. Status and output are those of Python's own start."""
    status = 1
    try:
        signal.alarm(SECONDS)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = (open(fd, "w", closefd=False) for fd in (1, 2))
        sys.argv = ["mcuformer", *arguments]
        if folder is not None:
            os.chdir(folder)
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
