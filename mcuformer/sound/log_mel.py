# SPDX-License-Identifier: Apache-2.0
"""LogMel: sound to an image of int8 log-mel features, in integers. This is the specification of mcuf_log_mel.c.

    front_end = LogMel()                       # 16 kHz, 98 frames of 25 ms every 10 ms, 40 mels
    front_end.rows(samples)                    # int16 [n] -> int8 [frames, mels]
    front_end.image(samples)                   # a clip -> uint8 [98, 40, 1], what a network takes

A frame of `window` samples becomes a row:

    x[n] = (sample[n] * hann[n] + half) >> log2(fft)      hann in Q15; then zeros up to `fft`
    X    = real FFT of x                                  int32; |X| < 2^30 for every input, so nothing is scaled
    p[k] = (re^2 + im^2) >> 12
    mel  = sum of p * triangle                            triangles in Q15; below 2^63
    row  = sat8(-128 + mulhi_round(log2(mel) - floor, multiplier))       log2 in Q15, from a table of 33 entries

-128 is low_db and 127 is high_db, where 0 dB is a sine of full scale in one bin of the FFT. The scale is fixed: it does
not depend on what was heard before or comes later, so rows can be made one by one.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from mcuformer.checks import is_number, shown, whole
from mcuformer.errors import ConfigError, DataError

KIND = "log-mel"
FFT_SIZES = (64, 2048)  # least and most
MAX_MELS = 128
POWER_SHIFT = 12
LOG_BITS = 15  # of the fraction of log2
LOG_STEPS = 32  # table entries an octave
LOG_TABLE = np.rint(2.0**LOG_BITS * np.log2(1 + np.arange(LOG_STEPS + 1) / LOG_STEPS)).astype(np.uint16)


@dataclass(frozen=True)
class LogMel:
    """A fixed-point log-mel front end. ConfigError if its parts make no sense together.

    rate             samples per second
    window, hop      samples of a frame, and from one frame to the next; the FFT has the next power of two of window
    mels             features of a frame: an image's width
    frames           frames of a clip: an image's height
    low_hz, high_hz  where the lowest triangle begins and the highest ends
    low_db, high_db  the levels that become -128 and 127; 0 dB: a sine of full scale
    """

    rate: int = 16000
    window: int = 400
    hop: int = 160
    mels: int = 40
    frames: int = 98
    low_hz: float = 125.0
    high_hz: float = 7500.0
    low_db: float = -96.0
    high_db: float = 0.0

    def __post_init__(self) -> None:
        whole("front_end rate", self.rate, 1000, 192000, unit="samples a second")
        whole("front_end window", self.window, 16, FFT_SIZES[1], unit="samples")
        whole("front_end hop", self.hop, 1, self.window, unit="samples")
        whole("front_end mels", self.mels, 1, MAX_MELS)
        whole("front_end frames", self.frames, 1, 4096)
        for name in ("low_hz", "high_hz", "low_db", "high_db"):
            if not is_number(getattr(self, name)):
                raise ConfigError(f"front_end {name} = {getattr(self, name)!r}: must be a number")
        if not 0 < self.low_hz < self.high_hz <= self.rate / 2:
            raise ConfigError(
                f"front_end low_hz = {self.low_hz:g}, high_hz = {self.high_hz:g}: must rise, above 0 and up to "
                f"half the rate, {self.rate / 2:g}"
            )
        if not (-200 <= self.low_db and self.low_db + 6 <= self.high_db <= 20):
            raise ConfigError(
                f"front_end low_db = {self.low_db:g}, high_db = {self.high_db:g}: must be from -200 to 20, and at "
                "least 6 dB apart"
            )
        if np.any(self.mel_weights().sum(axis=1) == 0):
            raise ConfigError(
                f"front_end mels = {self.mels}: the lowest are narrower than a bin of the FFT of {self.fft}; use "
                "fewer, a longer window or a higher low_hz"
            )

    @property
    def fft(self) -> int:
        """Points of the FFT."""
        return max(FFT_SIZES[0], 1 << (self.window - 1).bit_length())

    @property
    def clip_samples(self) -> int:
        """Samples that an image is made of."""
        return self.window + (self.frames - 1) * self.hop

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height (frames), width (mels) and channels of an image."""
        return self.frames, self.mels, 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a network's notes and a model's file hold them."""
        return {"kind": KIND, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Any) -> LogMel:
        """What to_dict() returned. ConfigError for anything else."""
        if not isinstance(values, dict) or values.get("kind") != KIND:
            raise ConfigError(f"front_end {shown(values)}: must be a mapping of kind {KIND!r}")
        names = {field.name for field in dataclasses.fields(cls)}
        given = {name: value for name, value in values.items() if name != "kind"}
        if unknown := sorted(set(given) - names):
            raise ConfigError(f"front_end {unknown[0]}: unknown; it has {', '.join(sorted(names))}")
        return cls(**given)

    @classmethod
    def of_image(cls, height: int, width: int, rate: int = 16000) -> LogMel:
        """The front end that makes height x width of one second: windows of 25 ms, every 10 or 20 ms.

        ConfigError if there is none.
        """
        window = rate * 25 // 1000
        for milliseconds in (10, 20):
            hop = rate * milliseconds // 1000
            if (rate - window) // hop + 1 == height:
                high = min(cls.high_hz, 0.475 * rate)
                return cls(rate, window, hop, width, height, high_hz=high)
        raise ConfigError(
            f"image_size = ({height}, {width}): no front end makes {height} rows of one second of sound; use 98 (one "
            "every 10 ms) or 49 (every 20 ms), or say how with a front end of your own"
        )

    # ---- tables ----

    @functools.cached_property
    def taper(self) -> np.ndarray:
        """The Hann window, periodic: int16 Q15 [window]."""
        return np.minimum(np.rint(2.0**15 * self._hann()), 2**15 - 1).astype(np.int16)

    @functools.cached_property
    def sine(self) -> np.ndarray:
        """sin(2 pi i / fft): int32 Q31 [fft]. The cosine is a quarter further on."""
        return np.minimum(np.rint(2.0**31 * np.sin(2 * np.pi * np.arange(self.fft) / self.fft)), 2**31 - 1).astype(
            np.int32
        )

    @functools.cached_property
    def bands(self) -> tuple[int, np.ndarray]:
        """The first bin, and how many bins lie in each of the mels + 1 bands between neighbouring corners: uint16."""
        first, _ = self._bins()
        return first, np.bincount(self._band_of_bins(), minlength=self.mels + 1).astype(np.uint16)

    @functools.cached_property
    def rise(self) -> np.ndarray:
        """How high each bin is on the rising side of the triangle that it lies in: uint16 Q15, from 0 to 32768."""
        first, last = self._bins()
        corners, mel = self._corners(), _mel(np.arange(first, last + 1) * self.rate / self.fft)
        band = self._band_of_bins()
        return np.rint(2.0**15 * (mel - corners[band]) / (corners[1] - corners[0])).astype(np.uint16)

    @property
    def floor(self) -> int:
        """log2(mel), Q15, that becomes -128."""
        return round(2.0**LOG_BITS * (np.log2(self._full_scale()) + self.low_db / 10 * np.log2(10)))

    @property
    def multiplier(self) -> int:
        """Steps of the output for one of log2 in Q15, times 2^32."""
        return round(2.0**32 * self._steps_per_octave() / 2.0**LOG_BITS)

    # ---- the integers ----

    def rows(self, samples: np.ndarray) -> np.ndarray:
        """int16 [n] -> int8 [frames, mels]: every whole frame; none if there are fewer samples than a window."""
        samples = checked(samples)
        if len(samples) < self.window:
            return np.empty((0, self.mels), np.int8)
        frames = np.lib.stride_tricks.sliding_window_view(samples, self.window)[:: self.hop].astype(np.int64)
        shift = self.fft.bit_length() - 1
        x = np.zeros((len(frames), self.fft), np.int64)
        x[:, : self.window] = (frames * self.taper + (1 << (shift - 1))) >> shift
        re, im = self._spectrum(x)
        first, _ = self._bins()
        power = (re * re + im * im) >> POWER_SHIFT
        log = _log2(np.maximum(self._mel_sums(power[:, first : first + len(self.rise)]), 1))
        scaled = _mulhi_round(log - self.floor, self.multiplier)
        return np.clip(scaled - 128, -128, 127).astype(np.int8)

    def image(self, samples: np.ndarray) -> np.ndarray:
        """A clip, int16 [n], cut or padded with silence at its end -> uint8 [frames, mels, 1]."""
        rows = self.rows(self.clip(samples))
        return (rows.astype(np.int16) + 128).astype(np.uint8)[..., np.newaxis]

    def clip(self, samples: np.ndarray) -> np.ndarray:
        """int16 [n], cut or padded with silence at its end to clip_samples."""
        samples = checked(samples)[: self.clip_samples]
        return np.pad(samples, (0, self.clip_samples - len(samples)))

    def _spectrum(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bins 0 to fft / 2 - 1 of the real FFT: a complex one of half the points, then the split. Bin 0 stays 0."""
        points = self.fft // 2
        order = _bit_reversed(points)
        re, im = _complex_fft(x[:, 0::2][:, order], x[:, 1::2][:, order], self.sine)
        k = np.arange(1, points // 2 + 1)
        back = points - k
        even_re, even_im = re[:, k] + re[:, back], im[:, k] - im[:, back]  # twice the spectrum of the even samples
        odd_re, odd_im = im[:, k] + im[:, back], re[:, back] - re[:, k]
        s, c = self.sine[k].astype(np.int64), self.sine[k + self.fft // 4].astype(np.int64)
        turned_re = _mulhi_round(odd_re, c) + _mulhi_round(odd_im, s)
        turned_im = _mulhi_round(odd_im, c) - _mulhi_round(odd_re, s)
        re[:, 0] = im[:, 0] = 0
        re[:, back], im[:, back] = (even_re >> 1) - turned_re, turned_im - (even_im >> 1)
        re[:, k], im[:, k] = (even_re >> 1) + turned_re, (even_im >> 1) + turned_im
        return re, im

    def _mel_sums(self, power: np.ndarray) -> np.ndarray:
        """int64 [n, bins of all bands] -> [n, mels]: a bin is on a triangle's rising side and another's falling one."""
        _, counts = self.bands
        ends = np.cumsum(counts.astype(np.int64))
        totals = np.zeros((len(power), len(counts)), np.int64)
        rising = np.zeros_like(totals)
        for band, (end, count) in enumerate(zip(ends, counts, strict=True)):
            chosen = slice(end - count, end)
            totals[:, band] = power[:, chosen].sum(axis=1) << 15
            rising[:, band] = (power[:, chosen] * self.rise[chosen].astype(np.int64)).sum(axis=1)
        return rising[:, :-1] + (totals - rising)[:, 1:]

    # ---- the same in float64 ----

    def exact(self, samples: np.ndarray) -> np.ndarray:
        """What rows() approximates, in float64 and not rounded: [frames, mels], in steps of the output."""
        samples = checked(samples).astype(np.float64)
        frames = np.lib.stride_tricks.sliding_window_view(samples, self.window)[:: self.hop]
        spectrum = np.fft.rfft(frames * self._hann(), self.fft)
        mel = (np.abs(spectrum) ** 2) @ self.mel_weights().T
        full_scale = (2.0**15 * self._hann().sum() / 2) ** 2
        decibels = 10 * np.log10(np.maximum(mel / full_scale, 1e-30))
        return np.clip(255 * (decibels - self.low_db) / (self.high_db - self.low_db) - 128, -128, 127)

    def mel_weights(self) -> np.ndarray:
        """The triangles in float64: [mels, fft / 2 + 1]."""
        corners, step = self._corners(), self._corners()[1] - self._corners()[0]
        mel = _mel(np.arange(self.fft // 2 + 1) * self.rate / self.fft)
        return np.maximum(0.0, 1 - np.abs(mel - corners[1:-1, np.newaxis]) / step)

    def _hann(self) -> np.ndarray:
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)

    def _corners(self) -> np.ndarray:
        """Where the triangles begin, peak and end, in mel: [mels + 2]."""
        return np.linspace(_mel(self.low_hz), _mel(self.high_hz), self.mels + 2)

    def _bins(self) -> tuple[int, int]:
        """The first and last bin that lie in a band; neither DC nor half the rate."""
        first = max(1, int(np.ceil(self.low_hz * self.fft / self.rate)))
        last = min(self.fft // 2 - 1, int(np.floor(self.high_hz * self.fft / self.rate)))
        return first, last

    def _band_of_bins(self) -> np.ndarray:
        first, last = self._bins()
        mel = _mel(np.arange(first, last + 1) * self.rate / self.fft)
        return np.clip(np.searchsorted(self._corners(), mel, side="right") - 1, 0, self.mels)

    def _full_scale(self) -> float:
        """`mel` of a sine of full scale that lies in one bin."""
        amplitude = 2.0 ** (30 - (self.fft.bit_length() - 1))
        return (amplitude * self._hann().sum() / 2) ** 2 * 2.0 ** (15 - POWER_SHIFT)

    def _steps_per_octave(self) -> float:
        return 255 / ((self.high_db - self.low_db) / 10 * np.log2(10))


def checked(samples: np.ndarray) -> np.ndarray:
    """The samples, int16 [n]; DataError if they are not."""
    samples = np.asarray(samples)
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise DataError(f"samples are {samples.dtype} {list(samples.shape)}; give int16 of shape [n]")
    return samples


def _mel(hz):
    """The scale of HTK."""
    return 2595 * np.log10(1 + np.asarray(hz) / 700)


def _mulhi_round(a, b):
    """(a * b + 2^31) >> 32."""
    return (np.asarray(a, np.int64) * np.asarray(b, np.int64) + (1 << 31)) >> 32


def _bit_reversed(count: int) -> np.ndarray:
    """0 .. count - 1, a power of two, with the bits of each number in reverse."""
    order = np.zeros(1, np.int64)
    while len(order) < count:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


def _complex_fft(re: np.ndarray, im: np.ndarray, sine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, points], bit-reversed -> in order; not scaled. Radix 4, after one step of radix 2 if log2(points) is odd.

    A product with a twiddle, mulhi_round, is half of what it should be, so it is added twice.
    """
    n, points = re.shape
    size = 2 if points.bit_length() % 2 == 0 else 4
    if size == 2:
        parts = [(value.reshape(n, -1, 2)[..., 0], value.reshape(n, -1, 2)[..., 1]) for value in (re, im)]
        re, im = (np.stack([a + b, a - b], axis=2).reshape(n, points) for a, b in parts)
    else:
        re, im = _radix_4(re.reshape(n, -1, 4, 1), im.reshape(n, -1, 4, 1), None)
        re, im = re.reshape(n, points), im.reshape(n, points)
    while size < points:
        step = len(sine) // (4 * size)
        index = step * np.arange(size)[np.newaxis, :] * np.array([[2], [1], [3]])  # of the quarters 1, 2 and 3
        twiddles = sine[index].astype(np.int64), sine[index + len(sine) // 4].astype(np.int64)
        re, im = _radix_4(re.reshape(n, -1, 4, size), im.reshape(n, -1, 4, size), twiddles)
        re, im = re.reshape(n, points), im.reshape(n, points)
        size *= 4
    return re, im


def _radix_4(re: np.ndarray, im: np.ndarray, twiddles) -> tuple[np.ndarray, np.ndarray]:
    """[n, groups, 4, size]: the quarters hold the transforms of samples 0, 2, 1 and 3 modulo 4."""
    r0, r2, r1, r3 = (re[:, :, q] for q in range(4))
    i0, i2, i1, i3 = (im[:, :, q] for q in range(4))
    twice = 1
    if twiddles is not None:
        twice = 2
        (s2, s1, s3), (c2, c1, c3) = twiddles
        r1, i1 = _turned(r1, i1, s1, c1)
        r2, i2 = _turned(r2, i2, s2, c2)
        r3, i3 = _turned(r3, i3, s3, c3)
    sum_r, sum_i, less_r, less_i = r0 + twice * r2, i0 + twice * i2, r0 - twice * r2, i0 - twice * i2
    odd_r, odd_i, turn_r, turn_i = twice * (r1 + r3), twice * (i1 + i3), twice * (r1 - r3), twice * (i1 - i3)
    return (
        np.stack([sum_r + odd_r, less_r + turn_i, sum_r - odd_r, less_r - turn_i], axis=2),
        np.stack([sum_i + odd_i, less_i - turn_r, sum_i - odd_i, less_i + turn_r], axis=2),
    )


def _turned(re, im, s, c):
    """Half of (re + i im) * (c - i s)."""
    return _mulhi_round(re, c) + _mulhi_round(im, s), _mulhi_round(im, c) - _mulhi_round(re, s)


def _log2(value: np.ndarray) -> np.ndarray:
    """log2 of int64 values from 1, in Q15: the table, and a line between its entries."""
    exponent = np.zeros(value.shape, np.int64)
    for bits in (32, 16, 8, 4, 2, 1):
        high = (value >> (exponent + bits)) > 0
        exponent += bits * high
    top = (value.astype(np.uint64) << (63 - exponent).astype(np.uint64)) >> np.uint64(32)  # 32 bits, the first one set
    top = top.astype(np.int64)
    index, fraction = (top >> 26) & (LOG_STEPS - 1), (top >> 10) & 0xFFFF
    low, high = LOG_TABLE[index].astype(np.int64), LOG_TABLE[index + 1].astype(np.int64)
    return (exponent << LOG_BITS) + low + (((high - low) * fraction + (1 << 15)) >> 16)
