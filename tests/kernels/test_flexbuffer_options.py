# SPDX-License-Identifier: Apache-2.0
"""ReadInt of flexbuffer_options.h: reads what the Python writer writes, and no byte outside the buffer."""

from __future__ import annotations

import ctypes
import random
import shutil
import string
import subprocess
from pathlib import Path

import pytest
from flatbuffers import flexbuffers

from mcuformer import kernel_library

KERNELS = Path(__file__).parents[2] / "tflm_kernels"
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
EDGES = sorted({sign * (1 << bits) + d for bits in (0, 7, 8, 15, 16, 31, 32, 62) for sign in (1, -1) for d in (-1, 0)})


def read_int(data: bytes, key: str) -> int | None:
    function = kernel_library.load().mcuf_flexbuffer_int
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int64)]
    function.restype = ctypes.c_bool
    value = ctypes.c_int64(-77)
    if function(data, len(data), key.encode(), value):
        return value.value
    assert value.value == -77
    return None


@pytest.mark.parametrize("value", [*EDGES, INT64_MIN, INT64_MAX])
@pytest.mark.parametrize("other", [0, 200, 1 << 40])
def test_every_width_and_sign(value, other):
    data = bytes(flexbuffers.Dumps({"other": other, "value": value}))
    assert read_int(data, "value") == value
    assert read_int(data, "other") == other


def test_unsigned_and_indirect_values():
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.UInt("unsigned", 255)
        builder.UInt("large", INT64_MAX)
        builder.UInt("too_large", INT64_MAX + 1)
        builder.IndirectInt("indirect", -5_000_000_000)
        builder.IndirectUInt("indirect_unsigned", 40_000)
    data = bytes(builder.Finish())
    wanted = {"unsigned": 255, "large": INT64_MAX, "too_large": None, "indirect": -5_000_000_000}
    for key, value in {**wanted, "indirect_unsigned": 40_000}.items():
        assert read_int(data, key) == value


def test_random_maps_round_trip():
    rng = random.Random(5)
    for _ in range(300):
        keys = {
            "".join(rng.choices(string.ascii_letters + "_", k=rng.randint(1, 12))) for _ in range(rng.randint(0, 20))
        }
        values = {key: rng.randint(INT64_MIN, INT64_MAX) >> rng.randint(0, 63) for key in keys}
        data = bytes(flexbuffers.Dumps(values))
        for key, value in values.items():
            assert read_int(data, key) == value
        for absent in ("", "absent1", *(key[:-1] for key in keys), *(key + "x" for key in keys)):
            if absent not in values:
                assert read_int(data, absent) is None


def test_a_map_with_many_keys_of_wide_offsets():
    values = {f"key_{i:04d}_{'x' * 60}": i - 700 for i in range(1400)}
    data = bytes(flexbuffers.Dumps(values))
    assert all(read_int(data, key) == value for key, value in values.items())


@pytest.mark.parametrize("value", [None, True, 1.0, 1.5, "3", b"3", [3], {"value": 3}])
def test_a_value_that_is_no_integer(value):
    assert read_int(bytes(flexbuffers.Dumps({"value": value})), "value") is None


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0", bytes(3), b"\xff" * 64, flexbuffers.Dumps([1]), b"value"])
def test_no_map(data):
    assert read_int(bytes(data), "value") is None


FUZZ_MAIN = r"""
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include "flexbuffer_options.h"
static uint64_t state = 88172645463325252ull;
static uint32_t Random(uint32_t below) {  // xorshift
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return static_cast<uint32_t>(state >> 32) % below;
}
// Reads from a copy of exactly `length` bytes, so that the sanitizer sees one byte too many.
static bool Read(const uint8_t* data, size_t length) {
  uint8_t* copy = static_cast<uint8_t*>(malloc(length ? length : 1));
  memcpy(copy, data, length);
  int64_t value;
  const bool found = mcuformer::ReadInt(copy, length, "zero_point", &value) |
                     mcuformer::ReadInt(copy, length, "epsilon", &value);
  free(copy);
  return found;
}
int main(int argc, char** argv) {
  long found = 0;
  for (int file = 1; file < argc; ++file) {  // valid maps: cut them, then change some bytes
    uint8_t good[4096], bad[4096];
    FILE* f = fopen(argv[file], "rb");
    const size_t length = fread(good, 1, sizeof(good), f);
    fclose(f);
    for (size_t cut = 0; cut <= length; ++cut) Read(good, cut), Read(good + cut, length - cut);
    for (int round = 0; round < 60000; ++round) {
      memcpy(bad, good, length);
      for (uint32_t n = 1 + Random(4); n > 0; --n) bad[Random(length)] = static_cast<uint8_t>(Random(256));
      found += Read(bad, length);
    }
  }
  for (int round = 0; round < 200000; ++round) {  // noise that ends like a map
    uint8_t noise[48];
    const size_t length = Random(sizeof(noise) + 1);
    for (size_t i = 0; i < length; ++i) noise[i] = static_cast<uint8_t>(Random(Random(2) ? 256 : 12));
    if (length >= 3) noise[length - 2] = static_cast<uint8_t>(9 << 2 | Random(4)), noise[length - 1] = 1 << Random(4);
    Read(noise, length);
  }
  printf("%ld\n", found);
}
"""


@pytest.mark.needs("g++")
def test_damaged_bytes_under_sanitizers(tmp_path):
    """Cut, changed and random bytes: no read outside, no undefined arithmetic."""
    compiler = shutil.which("g++")
    maps = [
        {"zero_point": -3},
        {"zero_point": 5, "epsilon": 1 << 50, "a": 1},
        {f"k{i}": i * 1000 for i in range(40)} | {"zero_point": 70_000},
    ]
    for i, options in enumerate(maps):
        (tmp_path / f"{i}.bin").write_bytes(flexbuffers.Dumps(options))
    (tmp_path / "fuzz.cc").write_text(FUZZ_MAIN)
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{KERNELS}"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    binary = tmp_path / "fuzz"
    sources = [tmp_path / "fuzz.cc", KERNELS / "flexbuffer_options.cc"]
    subprocess.run([compiler, *flags, *sources, "-o", binary], check=True)
    result = subprocess.run([binary, *sorted(tmp_path.glob("*.bin"))], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 1000  # many damaged maps still hold the option, so the reader was reached
