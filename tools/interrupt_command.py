# SPDX-License-Identifier: Apache-2.0
"""Interrupts a command at many moments, as Ctrl-C does, and counts how it ends.

    python tools/interrupt_command.py --count 60 -- convert subnet.pt --out model.tflite

The moments are spread over the time that the command takes when nobody interrupts it. Exits with 1 if one of them
showed a traceback, or left other files than an uninterrupted run. What Python shows while it starts does not count.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("arguments", nargs="+", help="of mcuformer; file names are relative to an empty folder")
    given = parser.parse_args()
    command = [sys.executable, "-m", "mcuformer"]
    command += [str(Path(word).resolve()) if os.path.exists(word) else word for word in given.arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))}

    def run(seconds: float | None) -> tuple[float, str, list[str]]:
        """Seconds, stderr, and the files that are there afterwards. seconds: until it is interrupted."""
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=folder, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            if seconds is not None:
                time.sleep(seconds)
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate()
            return time.perf_counter() - start, errors, sorted(os.listdir(folder))

    whole, errors, wanted = run(None)
    print(f"{' '.join(given.arguments)}: {whole:.1f} s, leaves {', '.join(wanted) or 'no file'}")
    found = Counter[str]()
    for i in range(given.count):
        _, errors, files = run(0.05 + whole * i / given.count)
        shown = "Traceback" in errors and "mcuformer/__main__.py" in errors  # else Python had not come to us yet
        if shown:
            print(errors)
        found["traceback"] += shown
        found["files left"] += not set(files) <= set(wanted)
    print(f"interrupted {given.count} times: {found['traceback']} tracebacks, {found['files left']} times other files")
    sys.exit(1 if found.total() else 0)


if __name__ == "__main__":
    main()
