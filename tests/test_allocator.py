# SPDX-License-Identifier: Apache-2.0
"""mcuformer.allocator: freed memory is used again without a page fault."""

import platform
import subprocess
import sys

import pytest

from mcuformer import allocator

FAULTS = """
import resource, sys
import torch
from mcuformer.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def use():
    torch.ones(40 << 18)  # 40 MiB
for _ in range(40):  # until no hole is too small
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_freed_memory_is_used_again_without_page_faults():
    def faults(word: str) -> int:
        command = [sys.executable, "-c", FAULTS, word]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") < 100 < faults("not")  # 10 times 40 MiB are at least 200 pages of 2 MiB


def test_without_glibc_nothing_changes(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _name: object())
    assert not allocator.keep_freed_memory()


def test_an_older_glibc_takes_32_mib(monkeypatch):
    given = []

    class Library:
        @staticmethod
        def mallopt(parameter, value):
            given.append((parameter, value))
            return int(parameter != allocator.MMAP_THRESHOLD or value <= 1 << 25)

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _name: Library)
    assert allocator.keep_freed_memory()
    assert given == [(-3, 1 << 26), (-3, 1 << 25), (-1, 1 << 30)]
