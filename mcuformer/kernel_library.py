# SPDX-License-Identifier: Apache-2.0
"""The compiled kernels: libmcuformer_host.so (.dll, .dylib), built from tflm_kernels/ when the package is installed.

It holds the int8 core. Where the tflite-micro wheel has a build, which is x86-64 Linux, it registers the custom ops in
the wheel's interpreter too:

    runtime.Interpreter.from_bytes(model, custom_op_registerers=[kernel_library.registerer()])

The `*_scratch_bytes` functions are those that the kernels call themselves, so a memory plan cannot disagree.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from pathlib import Path

from mcuformer.errors import ToolchainError
from mcuformer.native import library_suffix

REGISTERER = "RegisterMcuformerOps"
# MCUFORMER_HOST_LIBRARY: another build of it, such as one with sanitizers (make test-sanitize).
LIBRARY = Path(
    os.environ.get("MCUFORMER_HOST_LIBRARY")
    or Path(__file__).with_name(f"libmcuformer_host{library_suffix(sys.platform)}")
)

# Scratch getters of the core: all take int32. Without argtypes, which ctypes checks slowly: a search calls them often.
_SCRATCH_GETTERS = (
    "mcuf_decomposed_patch_embed_s8_scratch_bytes",
    "mcuf_decomposed_patch_embed_strips_s8_scratch_bytes",
    "mcuf_in_place_fc_s8_scratch_bytes",
    "mcuf_int_attention_s8_scratch_bytes",
    "mcuf_stem_conv_s8_scratch_bytes",
    "mcuf_streamed_attention_s8_scratch_bytes",
    "mcuf_streamed_mlp_s8_scratch_bytes",
)


@functools.cache
def load() -> ctypes.CDLL:
    """The library, loaded once. Everywhere it has the core and the planner; has_ops() tells of the rest.

    Raises ToolchainError where the library is missing or cannot be loaded.
    """
    if not LIBRARY.is_file():
        raise ToolchainError(
            f"the compiled kernels are missing ({LIBRARY}); install gcc and g++, then run `pip install -e .` in the "
            "project's folder"
        )
    try:
        # Visible to the interpreter, which looks REGISTERER up by name.
        library = ctypes.CDLL(str(LIBRARY), mode=ctypes.RTLD_GLOBAL)
        for name in _SCRATCH_GETTERS:
            getattr(library, name).restype = ctypes.c_int32
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
    return library


def has_ops() -> bool:
    """True where the library has the ops for the interpreter of the tflite-micro wheel."""
    return hasattr(load(), REGISTERER)


def registerer() -> str:
    """The name that the wheel's interpreter finds the ops by. Raises ToolchainError where the library has none."""
    if not has_ops():
        raise ToolchainError(
            f"{LIBRARY} has no ops for the tflite-micro interpreter: it was built for a machine without its wheel; use "
            'Interpreter(model, engine="c"), or build it again: run `pip install -e .` in the project\'s folder'
        )
    return REGISTERER


def last_error() -> str:
    """Why the ops could not be registered the last time in this thread; empty where they could."""
    return load().mcuf_host_last_error().decode(errors="replace")


def last_log() -> str:
    """The last line an op logged in this thread since clear_log(), such as why it refused a model; empty if none."""
    return load().mcuf_host_last_log().decode(errors="replace")


def clear_log() -> None:
    """Forgets last_log()."""
    load().mcuf_host_clear_log()


def status_text(status: int) -> str:
    """What a status of the core says."""
    return load().mcuf_status_text(status).decode()


def headers() -> str:
    """The headers_digest() of the core's headers that the library was compiled with; empty: it does not know."""
    library = load()
    return library.mcuf_host_headers().decode() if hasattr(library, "mcuf_host_headers") else ""


def decomposed_patch_embed_scratch_bytes(
    image_width: int, channels: int, patch_size: int, embed_dim: int, blocks: int = 1, tile_bytes: int = 0
) -> int:
    """Scratch of one DecomposedPatchEmbed op, in bytes. tile_bytes, here and below: 0 where weights are not staged."""
    return load().mcuf_decomposed_patch_embed_s8_scratch_bytes(
        image_width, channels, patch_size, embed_dim, blocks, tile_bytes
    )


def stem_conv_scratch_bytes(in_channels: int) -> int:
    """Scratch of one StemConv op, in bytes."""
    return load().mcuf_stem_conv_s8_scratch_bytes(in_channels)


def decomposed_patch_embed_strips_scratch_bytes(
    image_width: int,
    channels: int,
    patch_size: int,
    embed_dim: int,
    strip_rows: int,
    blocks: int = 1,
    tile_bytes: int = 0,
) -> int:
    """Scratch of one DecomposedPatchEmbed op whose image comes in strips, in bytes."""
    return load().mcuf_decomposed_patch_embed_strips_s8_scratch_bytes(
        image_width, channels, patch_size, embed_dim, blocks, tile_bytes, strip_rows
    )


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


def in_place_fc_scratch_bytes(in_features: int, tile_bytes: int = 0, block: int = 0) -> int:
    """Scratch of one InPlaceFC op, in bytes. block: tokens that staged weights come once for."""
    return load().mcuf_in_place_fc_s8_scratch_bytes(in_features, tile_bytes, block)


def int_attention_scratch_bytes(tokens: int, head_dim: int) -> int:
    """Scratch of one IntAttention op, in bytes."""
    return load().mcuf_int_attention_s8_scratch_bytes(tokens, head_dim)


def streamed_attention_scratch_bytes(
    tokens: int,
    block: int,
    embed_dim: int,
    num_heads: int,
    kv_heads: int,
    kv_heads_at_once: int,
    head_dim: int,
    tile_bytes: int = 0,
) -> int:
    """Scratch of one StreamedAttention op, in bytes."""
    return load().mcuf_streamed_attention_s8_scratch_bytes(
        tokens, block, embed_dim, num_heads, kv_heads, kv_heads_at_once, head_dim, tile_bytes
    )


def streamed_mlp_scratch_bytes(block: int, inputs: tuple[int, ...], tile_bytes: int = 0) -> int:
    """Scratch of one StreamedMLP op, in bytes. inputs: the channels that each of its layers takes."""
    even, odd = max(inputs[::2]), max(inputs[1::2], default=0)
    return load().mcuf_streamed_mlp_s8_scratch_bytes(block, even, odd, tile_bytes)
