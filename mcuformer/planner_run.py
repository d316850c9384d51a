# SPDX-License-Identifier: Apache-2.0
"""Runs a model in the tflite-micro wheel with the firmware's TokenOverwritePlanner.

The wheel's Python interface accepts no planner, so this calls its C++ functions by name, relying on a layout that is
checked where possible. It runs in a process of its own, which may crash without harm.
"""

from __future__ import annotations

import ctypes
import io
import json
import subprocess
import sys

import numpy as np

from mcuformer import kernel_library
from mcuformer.converter import tflite_file
from mcuformer.converter.graph import to_int8
from mcuformer.converter.passes.staging import with_weights
from mcuformer.converter.passes.strips import takes_strips
from mcuformer.errors import DataError, ModelError, ToolchainError

_COMMAND = ("-m", "mcuformer.planner_run")
TIMEOUT_SECONDS = 600
ALIGNMENT = 16
# By how much this tail is smaller than with the wheel's Python interface: the planner and the allocation recorder.
LESS_TAIL_BYTES = 304


class _Run(ctypes.Structure):
    """mcuf_host_planner_run of host_planner_run.cc."""

    _fields_ = [
        ("runtime", ctypes.c_char_p),
        ("model", ctypes.c_void_p),
        ("model_bytes", ctypes.c_size_t),
        ("arena", ctypes.c_void_p),
        ("arena_bytes", ctypes.c_size_t),
        ("inputs", ctypes.c_void_p),
        ("input_bytes", ctypes.c_size_t),
        ("outputs", ctypes.c_void_p),
        ("output_bytes", ctypes.c_size_t),
        ("runs", ctypes.c_size_t),
        ("image_row_bytes", ctypes.c_size_t),
        ("weights", ctypes.c_void_p),
        ("weights_bytes", ctypes.c_size_t),
        ("total", ctypes.c_size_t),
        ("head", ctypes.c_size_t),
        ("message", ctypes.c_char * 512),
    ]


def arena_with_planner(model, images: np.ndarray | None = None, *, with_plan: bool = False, weights=None) -> dict:
    """Runs a model with TokenOverwritePlanner. Image rows and staged weights come as in firmware: through callbacks of
    an mcuf_external_context given to the interpreter.

    model      a path, the bytes of a .tflite file, or what convert() returned
    images     uint8 [n, H, W, C]; None: the model is prepared, but not run
    weights    the weights file of a model with staged weights, as for Interpreter
    with_plan  keep the model's offline plan, whose offsets the planner then honours; else it places all tensors

    Returns {"total", "head", "tail": bytes of the arena; "logits": float32 [n, classes] or None}. The tail is
    LESS_TAIL_BYTES shorter than the one in the model's plan. ModelError if the interpreter refuses the model,
    ToolchainError if this tflite-micro has an unknown layout or crashes.
    """
    from mcuformer.interpreter import _content_of, weights_of

    name, content = _content_of(model)
    stored = tflite_file.read(content, name)
    graph = stored.graph
    weights = weights_of(model, stored, weights, name)
    if weights is not None:
        with_weights(graph, stored.info["weights"], weights, name)
    if not with_plan:
        content = tflite_file.write(graph, [], stored.info, with_plan=False)
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    images = np.zeros((0, *shape), np.uint8) if images is None else np.asarray(images)
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise DataError(
            f"images are {images.dtype} {images.shape}: {name} takes uint8 [n, {', '.join(map(str, shape))}]"
        )
    output = graph.tensors[graph.output]
    # Room for its plan, and for lists as long as those of the wheel's planner.
    arena_bytes = 2 * int(stored.info["needed_bytes"]) + (1 << 16)
    row = shape[1] * shape[2] if takes_strips(graph) else 0
    found = _in_own_process(content, to_int8(images), weights, [output.bytes, arena_bytes, row])
    total, head = int(found["total"]), int(found["head"])
    logits = graph.logits(found["outputs"].reshape(-1, output.shape[-1])) if len(images) else None
    return {"total": total, "head": head, "tail": total - head, "logits": logits}


def _in_own_process(content: bytes, inputs: np.ndarray, weights: bytes | None, sizes: list[int]) -> dict:
    """sizes: bytes of the output, of the arena, and of an image row if the image comes in strips (else 0)."""
    sent = io.BytesIO()
    model, staged = np.frombuffer(content, np.uint8), np.frombuffer(weights or b"", np.uint8)
    np.savez(sent, content=model, weights=staged, inputs=inputs, sizes=np.array(sizes))
    try:
        done = subprocess.run(
            [sys.executable, *_COMMAND],
            input=sent.getvalue(),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"the run with TokenOverwritePlanner did not end: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ToolchainError(
            f"the run with TokenOverwritePlanner crashed (exit status {done.returncode}); this tflite-micro may have "
            f"an unknown layout: {said[-1] if said else 'it said nothing'}"
        )
    received = np.load(io.BytesIO(done.stdout))
    answer = json.loads(str(received["answer"]))
    if answer["message"]:
        kind = ModelError if answer["message"].startswith("the interpreter") else ToolchainError
        raise kind(answer["message"])
    return {"outputs": received["outputs"], **answer}


def _child() -> None:
    """Reads what _in_own_process sends, and answers."""
    from tflite_micro.python.tflite_micro import _runtime

    sent = np.load(io.BytesIO(sys.stdin.buffer.read()))
    content, inputs = _aligned(sent["content"]), np.ascontiguousarray(sent["inputs"])
    output_bytes, arena_bytes, image_row_bytes = (int(size) for size in sent["sizes"])
    weights = np.ascontiguousarray(sent["weights"])
    outputs = np.zeros((len(inputs), output_bytes), np.int8)
    arena = _aligned(np.zeros(arena_bytes, np.uint8))
    run = _Run(
        runtime=_runtime.__file__.encode(),
        model=content.ctypes.data,
        model_bytes=content.size,
        arena=arena.ctypes.data,
        arena_bytes=arena.size,
        inputs=inputs.ctypes.data,
        input_bytes=int(np.prod(inputs.shape[1:])),
        outputs=outputs.ctypes.data,
        output_bytes=output_bytes,
        runs=len(inputs),
        image_row_bytes=image_row_bytes,
        weights=weights.ctypes.data if weights.size else None,
        weights_bytes=weights.size,
    )
    function = kernel_library.load().mcuf_host_run_with_planner
    function.argtypes, function.restype = [ctypes.POINTER(_Run)], ctypes.c_bool
    done = function(ctypes.byref(run))
    message = "" if done else run.message.decode(errors="replace") or "it failed and gave no reason"
    answer = json.dumps({"total": run.total, "head": run.head, "message": message})
    reply = io.BytesIO()
    np.savez(reply, outputs=outputs, answer=np.array(answer))
    sys.stdout.buffer.write(reply.getvalue())


def _aligned(values: np.ndarray) -> np.ndarray:
    """A copy whose first byte is at a multiple of ALIGNMENT."""
    memory = np.empty(values.size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    memory[start : start + values.size] = values
    return memory[start : start + values.size]


if __name__ == "__main__":
    _child()
