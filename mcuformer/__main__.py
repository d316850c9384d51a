# SPDX-License-Identifier: Apache-2.0
"""The command `mcuformer`, python -m mcuformer, and so torchrun -m mcuformer."""

import os
import signal


def main() -> None:
    """Runs the command line. Ctrl-C ends it without a traceback, while it still imports its modules too."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as under nohup
        signal.signal(signal.SIGINT, _interrupt)
    try:
        from mcuformer.cli import main as run

        run()
    except KeyboardInterrupt:  # before or after the command itself, which says "interrupted"
        _end()


def _interrupt(_number, frame) -> None:
    """While modules are imported, the signal ends the process: there is nothing to clean up, and what an interrupted
    import raises depends on where it was. Later it is KeyboardInterrupt: files are removed, the cursor comes back."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _end()
        frame = frame.f_back
    raise KeyboardInterrupt


def _end() -> None:
    """As the signal ends a process that does not handle it, so that a shell script ends too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
