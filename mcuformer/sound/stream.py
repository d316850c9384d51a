# SPDX-License-Identifier: Apache-2.0
"""LogMelStream: the front end as C, mcuf_log_mel.c, on this machine: samples in pieces, rows as they are complete."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np

from mcuformer import kernel_library
from mcuformer.engines.c_structs import check_headers
from mcuformer.sound.log_mel import LOG_TABLE, LogMel, checked

_NUMBERS = ("window", "hop", "fft", "mels", "first_bin", "floor", "multiplier")
_TABLES = ("taper", "sine", "band_bins", "rise", "log2_table")


def params_of(front_end: LogMel) -> dict[str, int | np.ndarray]:
    """The fields of mcuf_log_mel_params, in their order: integers and tables."""
    first_bin, band_bins = front_end.bands
    return {
        "window": front_end.window, "hop": front_end.hop, "fft": front_end.fft, "mels": front_end.mels,
        "first_bin": first_bin, "floor": front_end.floor, "multiplier": front_end.multiplier,
        "taper": front_end.taper, "sine": front_end.sine, "band_bins": band_bins, "rise": front_end.rise,
        "log2_table": LOG_TABLE,
    }  # fmt: skip


class Params(ctypes.Structure):
    """mcuf_log_mel_params."""

    _fields_ = [(name, ctypes.c_int32) for name in _NUMBERS] + [(name, ctypes.c_void_p) for name in _TABLES]


class State(ctypes.Structure):
    """mcuf_log_mel_state."""

    _fields_ = [("samples", ctypes.c_void_p), ("spectrum", ctypes.c_void_p), ("filled", ctypes.c_int32)]


class LogMelStream:
    """Rows of a stream of samples, as a microcontroller makes them.

    ToolchainError if the compiled kernels are missing or older than the package.
    """

    def __init__(self, front_end: LogMel):
        check_headers()
        library = kernel_library.load()
        self.front_end, self._tables = front_end, params_of(front_end)
        self._params = Params(
            **{name: v.ctypes.data if isinstance(v, np.ndarray) else v for name, v in self._tables.items()}
        )
        if status := library.mcuf_log_mel_check(ctypes.byref(self._params)):
            raise AssertionError(f"the kernels refuse {front_end}: {kernel_library.status_text(status)}")
        self._samples, self._spectrum = np.zeros(front_end.window, np.int16), np.zeros(front_end.fft, np.int32)
        self._state = State(self._samples.ctypes.data, self._spectrum.ctypes.data, 0)
        self._push, self._row = library.mcuf_log_mel_push, library.mcuf_log_mel_row

    def reset(self) -> None:
        """Forgets all samples."""
        self._state.filled = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """int16 [n] -> int8 [frames, mels]: the rows that these samples complete."""
        rows = list(self._rows(np.ascontiguousarray(checked(samples))))
        return np.stack(rows) if rows else np.empty((0, self.front_end.mels), np.int8)

    def _rows(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        params, state, at = ctypes.byref(self._params), ctypes.byref(self._state), 0
        while at < len(samples):
            address = ctypes.c_void_p(samples.ctypes.data + samples.itemsize * at)
            at += self._push(params, state, address, ctypes.c_int32(len(samples) - at))
            row = np.empty(self.front_end.mels, np.int8)
            if self._row(params, state, ctypes.c_void_p(row.ctypes.data)):
                yield row

    def image(self, samples: np.ndarray) -> np.ndarray:
        """A clip, int16 [n], cut or padded with silence at its end -> uint8 [frames, mels, 1], as LogMel.image()."""
        self.reset()
        rows = self.push(self.front_end.clip(samples))
        return (rows.astype(np.int16) + 128).astype(np.uint8)[..., np.newaxis]
