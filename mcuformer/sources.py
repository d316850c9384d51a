# SPDX-License-Identifier: Apache-2.0
"""The C and C++ sources that come with the package, and their only list, tflm_kernels/sources.mk."""

from __future__ import annotations

from pathlib import Path

from mcuformer.errors import ToolchainError
from mcuformer.native import SourceListError, listed_sources

_HERE = Path(__file__).resolve().parent


def _folder(checkout: str, installed: str, holds: str) -> Path:
    """Beside the package's folder in a checkout, inside it when installed."""
    for path in (_HERE / installed, _HERE.parent / checkout):
        if (path / holds).is_file():
            return path
    raise ToolchainError(f"the folder {checkout} with the C sources is missing; install the package again")


def kernels_folder() -> Path:
    """tflm_kernels: the C kernels and the ops around them."""
    return _folder("tflm_kernels", "tflm_kernels", "sources.mk")


def firmware_folder() -> Path:
    """firmware: startup, linker script and board support of a program in QEMU."""
    return _folder("firmware", "firmware_sources", "link.ld")


def arduino_folder() -> Path:
    """arduino: the files that all Arduino libraries share, and the sketches."""
    return _folder("arduino", "arduino_sources", "library.properties")


def listed(variable: str) -> list[str]:
    """The files that `variable` lists in sources.mk, relative to tflm_kernels; $(NAME) stands for a list above it."""
    try:
        return listed_sources(kernels_folder() / "sources.mk", variable)
    except SourceListError as error:
        raise ToolchainError(f"{error}") from error


def c_kernel_sources() -> list[Path]:
    """The sources of the C kernels, the int8 arithmetic in C99."""
    return [kernels_folder() / name for name in listed("MCUF_CORE_SRCS")]


def kernels_version() -> str:
    """The version of the kernels, of mcuf_version.h."""
    text = (c_kernel_folder() / "mcuf_version.h").read_text(encoding="utf-8")
    return text.partition('#define MCUF_VERSION "')[2].partition('"')[0]


def c_kernel_folder() -> Path:
    """The folder of the C kernels' headers."""
    return kernels_folder() / "core"
