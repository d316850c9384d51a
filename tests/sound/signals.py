# SPDX-License-Identifier: Apache-2.0
"""Sounds that stress the front end, and front ends of every kind."""

import numpy as np

from mcuformer.sound import LogMel

FRONT_ENDS = {
    "98x40": LogMel(),
    "49x40": LogMel(hop=320, frames=49),
    "30 ms": LogMel(window=480, hop=320, frames=49, low_hz=60, low_db=-110, high_db=10),
    "8 kHz": LogMel(rate=8000, window=200, hop=80, mels=20, high_hz=3800),  # an FFT of 256: one step of radix 2
    "odd": LogMel(window=333, hop=97, mels=13, low_hz=211.5, high_hz=6789),
    "no overlap": LogMel(window=512, hop=512, mels=1, high_hz=8000),
    "least": LogMel(rate=1000, window=16, hop=3, mels=3, low_hz=40, high_hz=500),
    "128": LogMel(window=128, hop=64, mels=10, low_hz=300),
    "most": LogMel(rate=48000, window=2048, hop=480, mels=128, low_hz=1000, high_hz=24000),
}


def signals(rng: np.random.Generator, samples: int) -> dict[str, np.ndarray]:
    """int16 [samples] each."""
    n = np.arange(samples)

    def int16(values) -> np.ndarray:
        return np.clip(np.rint(values), -32768, 32767).astype(np.int16)

    def square(period: int) -> np.ndarray:
        return np.where(n % period < period // 2, 32767, -32768).astype(np.int16)

    impulses = np.zeros(samples, np.int16)
    impulses[rng.integers(0, samples, 5)] = [32767, -32768, 1, -1, 12345]
    sweep = np.sin(np.pi * np.cumsum(np.linspace(0, 1, samples)))
    return {
        "silence": np.zeros(samples, np.int16), "most": np.full(samples, 32767, np.int16),
        "least": np.full(samples, -32768, np.int16), "fastest square": square(2), "square": square(37),
        "slow square": square(1000), "impulses": impulses, "sweep": int16(32767 * sweep),
        "quiet sweep": int16(30 * sweep), "noise": int16(rng.normal(0, 3000, samples)),
        "loud noise": int16(rng.normal(0, 30000, samples)), "one bit": rng.integers(-1, 2, samples).astype(np.int16),
        "extremes": rng.choice(np.array([-32768, 32767], np.int16), samples),
        "two tones": int16(20000 * np.sin(0.3 * n) + 12767 * np.sin(1.1 * n + 1)),
    }  # fmt: skip


def speech_like(rng: np.random.Generator, samples: int, level: float) -> np.ndarray:
    """Harmonics with moving formants over noise, int16: not words, but their spectrum's slope and dynamics."""
    n = np.arange(samples)
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(n / 4000)) / 16000
    sound = sum(np.sin(k * pitch) / k * (1 + np.sin(n / 3000 + k)) for k in range(1, 40))
    envelope = np.clip(np.sin(2 * np.pi * n / 8000), 0, None)
    mixed = level * sound / np.abs(sound).max() * envelope + rng.normal(0, level / 300, samples)
    return np.clip(np.rint(mixed), -32768, 32767).astype(np.int16)
