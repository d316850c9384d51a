# SPDX-License-Identifier: Apache-2.0
"""Pictures as files: PNG, SVG or PDF by the name's ending, whole or not at all, equal each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcuformer.errors import ConfigError
from mcuformer.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = ".png, .svg or .pdf"
# Without a date, so that the same picture is the same file.
METADATA: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def check_pictures(*paths: str | os.PathLike | None) -> None:
    """ConfigError for a name that says no kind of picture."""
    for path in paths:
        if path is not None and Path(path).suffix.lower() not in METADATA:
            raise ConfigError(f"{path}: a picture's name ends in {ENDINGS}; give it one of these")


@contextmanager
def picture(path: str | os.PathLike, dpi: int = 110, **layout: Any) -> Iterator[tuple[Figure, Any]]:
    """Yields (figure, axes) of pyplot.subplots(**layout) to draw on, then writes them. dpi: of a PNG. ConfigError as
    check_pictures()."""
    check_pictures(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    ending = Path(path).suffix.lower()
    with matplotlib.rc_context({"svg.hashsalt": "mcuformer"}):
        figure, axes = plt.subplots(layout="constrained", **layout)
        try:
            yield figure, axes
            write_whole(
                path, lambda file: figure.savefig(file, format=ending[1:], dpi=dpi, metadata=METADATA[ending])
            )  # fmt: skip
        finally:
            plt.close(figure)
