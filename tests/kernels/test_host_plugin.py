# SPDX-License-Identifier: Apache-2.0
"""The library that the interpreter loads: it adds the ops, and refuses what it does not know without a crash."""

from __future__ import annotations

import subprocess
import sys

import good_models
import numpy as np
import pytest
import tiny_model
from tflite_micro.python.tflite_micro import runtime

from mcuformer import kernel_library
from mcuformer.converter.ops import OPS
from mcuformer.errors import ToolchainError

# A program of its own, because a crash must not take the tests along. `library` and `resolver()`, an address of a real
# PythonOpsResolver, are there; the last line of output is what the ops were refused with.
PREAMBLE = """
import ctypes, sys
from tflite_micro.python.tflite_micro import _runtime
from mcuformer import kernel_library
from mcuformer.converter.ops import OPS
library = kernel_library.load()
wheel = ctypes.CDLL(_runtime.__file__)
SIZE = 13624

def resolver():
    memory = ctypes.create_string_buffer(SIZE + 4096)
    address = (ctypes.addressof(memory) + 63) // 64 * 64
    wheel._ZN6tflite17PythonOpsResolverC1Ev(ctypes.c_void_p(address))
    resolver.kept = memory
    return address

def word(address):
    return ctypes.c_uint32.from_address(address)

LENGTH, BUILTINS = 8 + 200 * 56, 8 + 200 * 56 + 4 + 800 + 4 + 1600

def try_register(address):
    print(library.RegisterMcuformerOps(address), "|", kernel_library.last_error())
"""


def in_subprocess(program: str) -> list[str]:
    result = subprocess.run([sys.executable, "-c", PREAMBLE + program], capture_output=True, text=True)
    assert result.returncode == 0, f"exit {result.returncode}: {result.stderr}"
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    "program",
    [
        "try_register(None)",
        "try_register(8)",
        "try_register(0x7fff_dead_beef)",
        "memory = ctypes.create_string_buffer(SIZE); try_register(ctypes.addressof(memory))",
        "memory = ctypes.create_string_buffer(b'\\xa5' * SIZE); try_register(ctypes.addressof(memory))",
        "try_register(id(sys))",
        "try_register(id(0))",
        # objects whose first word points into a library, but to no resolver's functions
        "pointer = ctypes.c_void_p.in_dll(ctypes.CDLL(None), 'stdout'); try_register(ctypes.addressof(pointer))",
        "table = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(wheel, '_ZTVN6tflite17PythonOpsResolverE')));"
        "try_register(ctypes.addressof(table))",
    ],
)
def test_foreign_memory_is_refused(program):
    (line,) = in_subprocess(program)
    assert line.startswith("False | the given object is not a resolver of the tflite-micro interpreter")


@pytest.mark.parametrize(
    "damage",
    [
        "word(r + LENGTH).value = 0",
        "word(r + LENGTH).value = 201",
        "word(r + LENGTH).value = 0xffffffff",
        "word(r + BUILTINS).value += 1",
        "word(r + BUILTINS).value = 0",
        "word(r + 8 + 40).value = 32",  # ... is a custom op without a name
        "word(r + 8 + 40).value = 32; ctypes.c_uint64.from_address(r + 8 + 48).value = 0xdeadbeef",
        "word(r + 8 + 56 + 40).value = word(r + 8 + 40).value",  # two of the same
    ],
)
def test_a_resolver_of_another_layout_is_refused_and_left_alone(damage):
    program = f"r = resolver(); {damage}; before = ctypes.string_at(r, SIZE); try_register(r)"
    line, same = in_subprocess(program + "; print(before == ctypes.string_at(r, SIZE))")
    assert line == "False | this version of tflite-micro has a resolver of unknown layout"
    assert same == "True"


def test_a_truncated_resolver_is_refused():
    """Only its first page can be read."""
    program = """
import mmap
libc = ctypes.CDLL(None)
area = mmap.mmap(-1, 4 * mmap.PAGESIZE)
base = ctypes.addressof(ctypes.c_char.from_buffer(area))
ctypes.memmove(base, resolver(), mmap.PAGESIZE)
assert libc.mprotect(ctypes.c_void_p(base + mmap.PAGESIZE), 3 * mmap.PAGESIZE, 0) == 0
try_register(base)
"""
    assert in_subprocess(program)[0].startswith("False | the given object is not a resolver")


def test_registering_twice_changes_nothing():
    program = "r = resolver(); n = word(r + LENGTH).value; try_register(r); m = word(r + LENGTH).value; try_register(r)"
    first, second, added = in_subprocess(program + "; print(m - n, word(r + LENGTH).value - m)")
    assert first == second == "True | "
    assert added == f"{len(OPS)} 0"


def test_a_full_resolver_is_refused_and_keeps_its_ops():
    program = """
r = resolver()
names = [b"filler%d" % i for i in range(200)]
filled = word(r + LENGTH).value
while filled < 196:  # room for four of the ops
    entry = r + 8 + 56 * filled
    ctypes.memset(entry, 0, 56)
    word(entry + 40).value = 32
    ctypes.c_char_p.from_address(entry + 48).value = names[filled]
    filled += 1
word(r + LENGTH).value = filled
try_register(r)
print(word(r + LENGTH).value)
"""
    line, length = in_subprocess(program)
    assert line == "False | the resolver has no room left: it holds 200 ops"
    assert length == "196"


def test_an_op_of_the_same_name_from_elsewhere_is_refused():
    program = """
r = resolver()
entry = r + 8 + 56 * word(r + LENGTH).value
ctypes.memset(entry, 0, 56)
word(entry + 40).value = 32
name = b"mcuformer.IntGeLU"
ctypes.c_char_p.from_address(entry + 48).value = name
word(r + LENGTH).value += 1
n = word(r + LENGTH).value
try_register(r)
print(word(r + LENGTH).value - n)
"""
    assert in_subprocess(program) == ["False | the resolver has an op mcuformer.IntGeLU from elsewhere", "0"]


def test_ops_are_in_the_interpreter():
    for op in good_models.ALL.values():
        tiny_model.interpreter(op().to_bytes())
    with pytest.raises(RuntimeError):  # and not without the registerer
        runtime.Interpreter.from_bytes(good_models.int_gelu().to_bytes(), arena_size=1 << 16)


def test_naming_the_registerer_twice_is_harmless():
    kernel_library.load()
    names = [kernel_library.REGISTERER] * 2
    runtime.Interpreter.from_bytes(good_models.int_gelu().to_bytes(), custom_op_registerers=names, arena_size=1 << 16)


def test_log_is_kept_until_cleared():
    bad = good_models.int_gelu().changed(lambda model: model.inputs.__setitem__("table", np.zeros(3, np.int8)))
    with pytest.raises(RuntimeError):
        tiny_model.interpreter(bad.to_bytes())
    assert kernel_library.last_log() == "mcuformer.IntGeLU: tensor 'table' has shape [3], needs [256]"
    kernel_library.clear_log()
    assert kernel_library.last_log() == ""


def test_many_interpreters_side_by_side():
    model = good_models.int_gelu()
    x = np.zeros((2, 3, 5), np.int8)
    networks = [tiny_model.interpreter(model.to_bytes()) for _ in range(20)]
    for network in networks:
        network.set_input(x, 0)
        network.invoke()
        assert (network.get_output(0) == -1).all()


def test_scratch_getters():
    assert kernel_library.scratch_bytes("in_place_fc", 96, 0, 0) == 4 * 96 * 2
    assert kernel_library.scratch_bytes("stem_conv", 3) == 4 * (9 * 3 + 1) * 2
    assert kernel_library.scratch_bytes("int_attention", 49, 32, 0) == 4 * (50 * 6 + 32 * 2) + 2 * 50 * 32
    assert (
        kernel_library.scratch_bytes("decomposed_patch_embed", 96, 3, 16, 96, 1, 0, 0, 1)
        == 16 * 96 + 4 * 48 * 2 + 6 * 96
    )


def test_missing_library_says_how_to_build_it(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_library, "LIBRARY", tmp_path / "none.so")
    with pytest.raises(ToolchainError, match=r"pip install -e \."):
        kernel_library.load.__wrapped__()


def test_foreign_library_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_library, "LIBRARY", tmp_path / "text.so")
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(ToolchainError, match="cannot be used"):
        kernel_library.load.__wrapped__()
