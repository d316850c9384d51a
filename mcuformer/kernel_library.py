# SPDX-License-Identifier: Apache-2.0
"""The compiled kernels: libmcuformer_host.so (.dll, .dylib), built from tflm_kernels/ when the package is installed.

It holds the C kernels. Where the tflite-micro wheel has a build, which is x86-64 Linux, it registers the custom ops in
the wheel's interpreter too:

    runtime.Interpreter.from_bytes(model, custom_op_registerers=[kernel_library.registerer()])

The `*_scratch_bytes` functions are those that the kernels call themselves, so a memory plan cannot disagree.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mcuformer.errors import ToolchainError
from mcuformer.native import library_suffix

REGISTERER = "RegisterMcuformerOps"
# MCUFORMER_HOST_LIBRARY: another build of it, such as one with sanitizers (make test-sanitize).
LIBRARY = Path(
    os.environ.get("MCUFORMER_HOST_LIBRARY")
    or Path(__file__).with_name(f"libmcuformer_host{library_suffix(sys.platform)}")
)
# MCUFORMER_HOST_KERNELS: the version of the kernels to use, instead of the fastest that the processor runs.
KERNELS_VARIABLE = "MCUFORMER_HOST_KERNELS"


@functools.cache
def load() -> ctypes.CDLL:
    """The library, loaded once. Everywhere it has the C kernels and the planner; has_ops() tells of the rest.

    Raises ToolchainError if the library is missing or cannot be loaded.
    """
    if not LIBRARY.is_file():
        raise ToolchainError(
            f"the compiled kernels are missing ({LIBRARY}); install gcc and g++, then run `pip install -e .` in the "
            "project's folder"
        )
    try:
        # Visible to the interpreter, which looks REGISTERER up by name.
        library = ctypes.CDLL(str(LIBRARY), mode=ctypes.RTLD_GLOBAL)
        library.mcuf_host_last_log.restype = ctypes.c_char_p
        library.mcuf_host_clear_log.restype = None
        if hasattr(library, "mcuf_host_headers"):
            library.mcuf_host_headers.restype = ctypes.c_char_p
        library.mcuf_status_text.restype = ctypes.c_char_p
        if hasattr(library, REGISTERER):
            library.mcuf_host_last_error.restype = ctypes.c_char_p
            for name in ("mcuf_host_set_image_source", "mcuf_host_set_weight_source"):
                getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_void_p]
                getattr(library, name).restype = None
            getattr(library, REGISTERER).argtypes = [ctypes.c_void_p]
            getattr(library, REGISTERER).restype = ctypes.c_bool
    except (OSError, AttributeError) as error:
        raise ToolchainError(
            f"the compiled kernels cannot be used ({error}); build them again: run `pip install -e .` in the "
            "project's folder"
        ) from error
    if wanted := os.environ.get(KERNELS_VARIABLE):
        _use_kernels(library, wanted)
    return library


def _names_of_kernels(library: ctypes.CDLL) -> dict[str, bool]:
    library.mcuf_host_kernels_name.restype = ctypes.c_char_p
    names: dict[str, bool] = {}
    while (name := library.mcuf_host_kernels_name(len(names))) is not None:
        names[name.decode()] = bool(library.mcuf_host_kernels_run_here(len(names)))
    return names


def _use_kernels(library: ctypes.CDLL, name: str) -> None:
    names = _names_of_kernels(library)
    if not names.get(name, False):
        why = "this processor does not run them" if name in names else "the library has none of that name"
        usable = ", ".join(known for known, runs in names.items() if runs)
        raise ToolchainError(
            f"kernels {name!r}: {why}; set {KERNELS_VARIABLE} to one of {usable}, or leave it unset for the last"
        )
    library.mcuf_host_use_kernels(list(names).index(name))


def kernels() -> dict[str, bool]:
    """The versions of the kernels that the library has, from the slowest to the fastest: whether this processor runs
    each. All compute the same bits."""
    return _names_of_kernels(load())


def kernels_in_use() -> str:
    """The version in use: the fastest that runs here, or what MCUFORMER_HOST_KERNELS or use_kernels() chose."""
    library = load()
    library.mcuf_host_kernels_used.restype = ctypes.c_char_p
    return library.mcuf_host_kernels_used().decode()


def use_kernels(name: str) -> None:
    """Takes this version of the kernels from now on. No kernel may run meanwhile.

    Raises ToolchainError if the library has no such version, or this processor does not run it.
    """
    _use_kernels(load(), name)


def has_ops() -> bool:
    """Whether the library has the ops for the interpreter of the tflite-micro wheel."""
    return hasattr(load(), REGISTERER)


def registerer() -> str:
    """The name that the wheel's interpreter finds the ops by. ToolchainError if the library has none."""
    if not has_ops():
        raise ToolchainError(
            f"{LIBRARY} has no ops for the tflite-micro interpreter: it was built for a machine without its wheel; use "
            'Interpreter(model, engine="c"), or build it again: run `pip install -e .` in the project\'s folder'
        )
    return REGISTERER


@functools.cache
def scratch_getter(kernel: str) -> Callable[..., int]:
    """The scratch of one op, in bytes, from its dims (Python ints): the C kernels' mcuf_<kernel>_s8_scratch_bytes.

    Without argtypes, which ctypes checks slowly: a search asks often.
    """
    return getattr(load(), f"mcuf_{kernel}_s8_scratch_bytes")


def scratch_bytes(kernel: str, *dims: int) -> int:
    """Scratch of one op, in bytes: see scratch_getter."""
    return scratch_getter(kernel)(*dims)


def address_of(name: str) -> int:
    """Where a constant of the C kernels is."""
    return ctypes.addressof(ctypes.c_byte.in_dll(load(), name))


def last_error() -> str:
    """Why the ops could not be registered the last time in this thread; empty if they could."""
    return load().mcuf_host_last_error().decode(errors="replace")


def last_log() -> str:
    """The last line an op logged in this thread since clear_log(), such as why it refused a model; empty if none."""
    return load().mcuf_host_last_log().decode(errors="replace")


def clear_log() -> None:
    """Forgets last_log()."""
    load().mcuf_host_clear_log()


def check_model(content: bytes) -> str | None:
    """What firmware that checks its model (MCUFORMER_CHECK_MODEL) says of these bytes of a .tflite file: one line; None
    if it finds nothing wrong."""
    check = load().mcuf_host_check_model
    check.restype, check.argtypes = ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_size_t]
    room = ctypes.create_string_buffer(len(content) + 15)
    start = -ctypes.addressof(room) % 16
    ctypes.memmove(ctypes.addressof(room) + start, content, len(content))
    wrong = check(ctypes.addressof(room) + start, len(content))
    return None if wrong is None else wrong.decode()


def status_text(status: int) -> str:
    """What a status of the C kernels says."""
    return load().mcuf_status_text(status).decode()


def headers() -> str:
    """The headers_digest() of the C kernels' headers that the library was compiled with; empty: it does not know."""
    library = load()
    return library.mcuf_host_headers().decode() if hasattr(library, "mcuf_host_headers") else ""


IMAGE_ROWS = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p)
"""mcuf_image_rows_fn: (user, first_row, row_count, rows) -> rows brought."""


def set_image_source(rows) -> None:
    """Where the ops of this thread get image rows from: an IMAGE_ROWS, which the caller keeps alive; None: nowhere."""
    load().mcuf_host_set_image_source(ctypes.cast(rows, ctypes.c_void_p) if rows else None, None)


WEIGHTS = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p)
"""mcuf_weights_fn: (user, offset, bytes, target) -> bytes brought."""


def set_weight_source(read) -> None:
    """Where the ops of this thread get staged weights from: a WEIGHTS, which the caller keeps alive; None: nowhere."""
    load().mcuf_host_set_weight_source(ctypes.cast(read, ctypes.c_void_p) if read else None, None)
