# SPDX-License-Identifier: Apache-2.0
"""The front end: its C against the specification, bit for bit, and the specification against float64."""

import ctypes
import zlib

import numpy as np
import pytest
from signals import FRONT_ENDS, signals, speech_like

from mcuformer import kernel_library
from mcuformer.errors import ConfigError, DataError
from mcuformer.sound import LogMel, LogMelStream
from mcuformer.sound.stream import Params, params_of

NULL, SIZE, VALUE = 1, 2, 3


ROWS_CRC32 = {
    "98x40": 2373834969, "49x40": 297792107, "30 ms": 979707499, "8 kHz": 3314214747, "odd": 4084302862,
    "no overlap": 2225312727, "least": 1719004621, "128": 3440479044, "most": 76587249,
}  # fmt: skip


def test_rows_stay_what_they_are():
    """A model's file holds the numbers of its front end alone: every version must make the same rows from them."""
    n = np.arange(8000, dtype=np.int64)
    samples = (((n * n * 7919 + n * 104729) % 65536 - 32768) >> (n // 1000)).astype(np.int16)
    found = {name: zlib.crc32(front_end.rows(samples).tobytes()) for name, front_end in FRONT_ENDS.items()}
    assert found == ROWS_CRC32


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_c_equals_the_specification(name):
    front_end = FRONT_ENDS[name]
    rng = np.random.default_rng(1)
    stream = LogMelStream(front_end)
    for samples in signals(rng, front_end.window + 4 * front_end.hop + 3).values():
        stream.reset()
        got = stream.push(samples)
        assert got.shape == (5 if front_end.hop > 3 else 6, front_end.mels)
        np.testing.assert_array_equal(got, front_end.rows(samples))


def test_samples_in_pieces_of_any_length_give_the_same_rows():
    rng = np.random.default_rng(2)
    front_end, samples = LogMel(), rng.integers(-32768, 32768, 5000).astype(np.int16)
    want = front_end.rows(samples)
    stream = LogMelStream(front_end)
    for most in (1, 7, 159, 160, 161, 400, 401, 3000):
        stream.reset()
        rows, at = [], 0
        while at < len(samples):
            piece = samples[at : at + int(rng.integers(0, most + 1))]
            rows.append(stream.push(piece))
            at += len(piece)
        np.testing.assert_array_equal(np.concatenate(rows), want)


@pytest.mark.parametrize("length", [0, 1, 399, 400, 401, 559, 560, 561])
def test_rows_of_short_sounds(length):
    samples = np.random.default_rng(length).integers(-9000, 9000, length).astype(np.int16)
    want = LogMel().rows(samples)
    assert len(want) == (0 if length < 400 else (length - 400) // 160 + 1)
    np.testing.assert_array_equal(LogMelStream(LogMel()).push(samples), want)


# Rounding alone is 0.25 in the mean and 0.5 at most. -> how far 99.9 % are below, and all.
LIMITS = {"98x40": (0.53, 0.7), "49x40": (0.53, 0.7), "30 ms": (0.75, 0.8), "8 kHz": (0.6, 0.8), "most": (0.6, 0.8)}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("level", [30000, 3000, 300])
def test_error_against_float64(name, level):
    """In steps of the output; the limits are those of sounds of a few bits, near the floor."""
    rng, front_end, (most_of_all, most) = np.random.default_rng(3), FRONT_ENDS[name], LIMITS[name]
    noise = np.rint(rng.normal(0, level / 4, 32000)).clip(-32768, 32767).astype(np.int16)
    for samples in (speech_like(rng, 32000, level), noise):
        found = np.abs(front_end.rows(samples) - front_end.exact(samples))
        assert found.mean() < 0.26 and np.quantile(found, 0.999) < most_of_all and found.max() < most


def test_what_the_levels_mean():
    """A sine of full scale in the middle of a triangle is 0 dB, and 255 steps reach down to low_db."""
    front_end = LogMel(low_db=-80, high_db=20)
    peak = front_end.mel_weights().argmax(axis=1)[20]  # the bin nearest to the middle
    sine = np.sin(2 * np.pi * peak * np.arange(2000) / front_end.fft)
    for decibels in (0, -20, -40, -60):
        row = front_end.rows(np.rint(32767 * 10 ** (decibels / 20) * sine).astype(np.int16))[1].astype(int)
        assert row.argmax() == 20
        above = row[20] + 128 - 2.55 * (decibels + 80)
        assert 0 <= above < 2.55 * 10 * np.log10(1.5 * 512 / 400)  # the window spreads it over more bins
    assert LogMel().rows(np.zeros(400, np.int16)).tolist() == [[-128] * 40]


def test_frames_are_the_ones_of_a_second():
    for front_end in (LogMel(), LogMel(hop=320, frames=49)):
        assert front_end.clip_samples <= 16000 < front_end.clip_samples + front_end.hop
        image = front_end.image(np.full(700, 9000, np.int16))
        assert image.shape == front_end.image_shape and image.dtype == np.uint8
        assert image[:2].any() and not image[8:].any(), "padded with silence"
        long = np.random.default_rng(0).integers(-99, 99, 20000).astype(np.int16)
        np.testing.assert_array_equal(front_end.image(long), front_end.image(long[:16000]))
        np.testing.assert_array_equal(LogMelStream(front_end).image(long), front_end.image(long))


def test_a_front_end_is_found_by_the_image_it_makes():
    assert LogMel.of_image(98, 40) == LogMel()
    assert LogMel.of_image(49, 20) == LogMel(hop=320, mels=20, frames=49)
    assert LogMel.of_image(98, 20, rate=8000).window == 200
    with pytest.raises(ConfigError, match=r"image_size = \(40, 98\): no front end makes 40 rows .* use 98"):
        LogMel.of_image(40, 98)


def test_as_plain_values_and_back():
    for front_end in FRONT_ENDS.values():
        assert LogMel.from_dict(front_end.to_dict()) == front_end
    for values, message in (
        (None, "must be a mapping of kind 'log-mel'"),
        ({"kind": "mfcc"}, "must be a mapping of kind 'log-mel'"),
        ({"kind": "log-mel", "colour": 1}, "front_end colour: unknown; it has .*window"),
        ({"kind": "log-mel", "window": 1.5}, "front_end window"),
    ):
        with pytest.raises(ConfigError, match=message):
            LogMel.from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 15}, "window = 15"), ({"window": 2049}, "window = 2049"), ({"hop": 0}, "hop = 0"),
        ({"hop": 401}, "hop = 401"), ({"mels": 129}, "mels = 129"), ({"mels": True}, "mels = True"),
        ({"frames": 0}, "frames = 0"), ({"rate": 16000.0}, "rate = 16000.0"), ({"low_hz": 0}, "low_hz = 0"),
        ({"high_hz": 8001}, "high_hz = 8001"), ({"low_hz": 7500}, "must rise"), ({"low_hz": "x"}, "low_hz = 'x'"),
        ({"low_db": -3}, "at least 6 dB"), ({"low_db": float("nan")}, "low_db = nan"),
        ({"mels": 128}, "mels = 128: the lowest are narrower than a bin"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(values, message):
    with pytest.raises(ConfigError, match=message) as error:
        LogMel(**values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("samples", [np.zeros(9), np.zeros((2, 400), np.int16), [1, 2]])
def test_samples_are_int16(samples):
    for rows in (LogMel().rows, LogMelStream(LogMel()).push):
        with pytest.raises(DataError, match="give int16 of shape"):
            rows(samples)


def check(front_end=None, **changed) -> int:
    tables = params_of(front_end or LogMel())
    tables = {**tables, **{name: value(tables[name]) for name, value in changed.items()}}
    fields = {name: v.ctypes.data if isinstance(v, np.ndarray) else v for name, v in tables.items()}
    return kernel_library.load().mcuf_log_mel_check(ctypes.byref(Params(**fields)))


def test_the_check_of_the_kernel():
    assert all(check(front_end) == 0 for front_end in FRONT_ENDS.values())
    assert kernel_library.load().mcuf_log_mel_check(None) == NULL
    for name in ("taper", "sine", "band_bins", "rise", "log2_table"):
        assert check(**{name: lambda _: None}) == NULL
    wrong = {
        "window": (0, 513), "hop": (0, 401), "fft": (0, 32, 500, 4096), "mels": (0, 129), "first_bin": (0, 30),
    }  # fmt: skip
    for name, values in wrong.items():
        assert [check(**{name: lambda _, value=value: value}) for value in values] == [SIZE] * len(values), name
    assert check(band_bins=lambda bins: bins + np.uint16(1)) == SIZE
    for changed in (
        {"floor": lambda _: -1}, {"floor": lambda _: (1 << 21) + 1}, {"multiplier": lambda _: -1},
        {"rise": lambda rise: np.append(rise[:-1], np.uint16(32769))},
        {"taper": lambda taper: np.append(taper[:-1], np.int16(-1))},
    ):  # fmt: skip
        assert check(**changed) == VALUE


def test_a_full_frame_waits_until_its_row_is_taken():
    library, front_end = kernel_library.load(), LogMel()
    stream, samples = LogMelStream(front_end), np.arange(1000, dtype=np.int16)
    row = np.full(front_end.mels + 8, 77, np.int8)
    arguments = ctypes.byref(stream._params), ctypes.byref(stream._state)

    def push(count):
        return library.mcuf_log_mel_push(*arguments, ctypes.c_void_p(samples.ctypes.data), ctypes.c_int32(count))

    def take():
        return library.mcuf_log_mel_row(*arguments, ctypes.c_void_p(row.ctypes.data))

    assert (push(0), push(-1), push(399), take()) == (0, 0, 399, 0) and (row == 77).all()
    assert (push(5), push(5)) == (1, 0)
    assert (take(), take()) == (1, 0)
    assert (row[: front_end.mels] != 77).any() and (row[front_end.mels :] == 77).all()
    assert (push(1000), take(), take()) == (160, 1, 0)
