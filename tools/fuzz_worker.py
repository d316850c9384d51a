# SPDX-License-Identifier: Apache-2.0
"""What becomes of mutants, for tools/fuzz_models.py, in a process that may die of one.

    python tools/fuzz_worker.py SEEDS SEED FIRST STOP

SEEDS: a file with pickled seeds. Prints lines of JSON: [number, kind, entry] before each step, so that a death tells
by whom, and [number, kind, {entry: outcome}, what was said] after each mutant.
"""

from __future__ import annotations

import json
import pickle
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
from fuzz_mutations import Seed, mutate

from mcuformer import Interpreter, McuformerError, engines, kernel_library
from mcuformer.converter.graph import to_int8
from mcuformer.engines import callbacks, tflm

READER, PREPARE = "Interpreter", "Prepare"
# From best to worst.
OUTCOMES = ("refused", "right", "unseen", "wrong", "raised", "hung", "crashed")
SECONDS = 60  # of one step, before it counts as hung; most take milliseconds
SPARE_BYTES = 16384  # of an arena, over what the sound model needs
MOST_PIXELS = 1 << 16  # of an image that the reference is run on


def read_by_interpreter(content: bytes, weights: bytes | None) -> tuple[str, str]:
    """The worst outcome in both engines, and what was said. Right: two images have the outputs of the integer
    reference of that very file."""
    outcomes = [_in_engine(engine, content, weights) for engine in _engines()]
    return max(outcomes, key=lambda outcome: OUTCOMES.index(outcome[0]))


def _engines() -> tuple[str, ...]:
    return ("tflm", "c") if engines.choose(None) == "tflm" else ("c",)


def _in_engine(engine: str, content: bytes, weights: bytes | None) -> tuple[str, str]:
    try:
        interpreter = Interpreter(content, engine=engine, weights=weights)
        shape = interpreter.graph.tensors[interpreter.graph.inputs[0]].shape[1:]
        if int(np.prod(shape, dtype=np.float64)) > MOST_PIXELS:
            return "raised", f"{engine}: an image of {shape} was accepted"
        images = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.uint8)
        outputs = interpreter.int8_outputs(images)
        want = interpreter.graph.run(to_int8(images))
    except McuformerError as error:
        return ("raised" if "\n" in str(error) else "refused"), f"{engine}: {error}"
    except Exception as error:
        return "raised", f"{engine}: {type(error).__name__}: {error}"
    if outputs.shape != want.shape or not np.array_equal(outputs, want):
        return "wrong", f"{engine}: {outputs.tolist()}, the reference {want.tolist()}"[:300]
    return "right", ""


def prepare_alone(seed: Seed, content: bytes, weights: bytes | None) -> tuple[str, str]:
    """As firmware takes a model: the check on the device, then Prepare and Eval of the ops in the interpreter, without
    what Python reads. Unseen: it ran, to whatever end."""
    if refusal := kernel_library.check_model(content):
        return "refused", refusal
    runtime = tflm._runtime()._runtime  # without the wheel's own parser in Python
    config = runtime.PythonInterpreterConfig.kAllocationRecording
    registerer, arena = kernel_library.registerer(), seed.arena_bytes + SPARE_BYTES
    image = np.random.default_rng(1).integers(-128, 128, (1, *seed.image_shape)).astype(np.int8)
    rows, bring = callbacks.rows_of(image[0]), callbacks.weights_from(weights or b"", [])
    with tflm.captured():
        try:
            interpreter = runtime.InterpreterWrapper(content, [registerer], arena, 0, config, 0)
            kernel_library.set_image_source(rows)
            kernel_library.set_weight_source(bring)
            try:
                interpreter.SetInputTensor(image, 0)
            except Exception:  # the image in strips, or of another size: it is what the arena has there
                pass
            interpreter.Invoke()
        except Exception as error:  # the wheel raises several kinds
            return "refused", str(error)
        finally:
            kernel_library.set_image_source(None)
            kernel_library.set_weight_source(None)
    return "unseen", ""


def run_mutant(seeds: list[Seed], seed: int, number: int) -> None:
    """One mutant through each entry; prints what becomes of it."""
    kind, source, content, weights = mutate(seeds, seed, number)
    steps = {
        READER: lambda: read_by_interpreter(content, weights),
        PREPARE: lambda: prepare_alone(source, content, weights),
    }
    if engines.choose(None) != "tflm":
        del steps[PREPARE]
    found, said = {}, []
    for entry, step in steps.items():
        print(json.dumps([number, kind, entry]), flush=True)
        signal.alarm(SECONDS)  # ends the process, in whatever code it is
        found[entry], what = step()
        signal.alarm(0)
        said.append(f"{source.name}: {entry}: {what}")
    print(json.dumps([number, kind, found, said]), flush=True)


def main() -> None:
    path, seed, first, stop = sys.argv[1:]
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    seeds = pickle.loads(Path(path).read_bytes())
    for number in range(int(first), int(stop)):
        run_mutant(seeds, int(seed), number)


if __name__ == "__main__":
    main()
