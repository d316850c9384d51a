# SPDX-License-Identifier: Apache-2.0
"""Runs the models of a golden folder with the mcuformer that is installed: how a wheel is tried on its machine.

    python tools/run_golden.py tests/golden/0.1.0

By every engine that is there. It needs numpy and flatbuffers, and no PyTorch. One line a model; it ends with status 1
if any logit is not what the folder says, or not what the integer reference gives.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import mcuformer
from mcuformer import Interpreter, engines, kernel_library


def results(golden: Path) -> Iterator[tuple[str, str, bool]]:
    """(model, engine, whether all logits are equal) of each model of the folder, by each engine of this machine."""
    models = json.loads((golden / "golden.json").read_text(encoding="utf-8"))["models"]
    here = dict.fromkeys((engines.choose(None), "c"))
    with np.load(golden / "values.npz") as values:
        for name, facts in models.items():
            images, logits = values[f"{facts['network']}.images"], values[f"{name}.logits"]
            for engine in here:
                interpreter = Interpreter(golden / f"{name}.tflite", engine=engine)
                got = interpreter(images)
                yield name, engine, np.array_equal(got, logits) and np.array_equal(got, interpreter.reference(images))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Runs golden models with the installed package.")
    parser.add_argument("golden", type=Path, help="such as tests/golden/0.1.0")
    golden = parser.parse_args().golden
    print(f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {mcuformer.__file__}")
    print(f"kernels: {kernel_library.kernels_in_use()}")
    exact = True
    for name, engine, equal in results(golden):
        print(f"{name}, {engine}: {'exact' if equal else 'NOT EQUAL'}")
        exact = exact and equal
    sys.exit(0 if exact else 1)


if __name__ == "__main__":
    main()
