# SPDX-License-Identifier: Apache-2.0
"""The export for the Raspberry Pi Pico: its CMake with stubs of the SDK's functions, and its two processors."""

import re

import pytest
from kind_exports import STUBS, Kinds, c_sources, cmake_build, includes, run

from mcuformer.cores import get_core

PICO = STUBS / "pico"


@pytest.mark.needs("cmake", "cc")
def test_two_exports_build_into_one_program_and_are_exact(kinds: Kinds, tmp_path):
    exports, build = kinds("pico"), tmp_path / "build"
    cmake_build(
        exports.both / "example/self_test", build, f"OTHER_EXPORT={exports.other}", PICO_SDK_PATH=str(PICO)
    )  # fmt: skip
    kinds.check(run(build / "self_test"))


@pytest.mark.needs("cmake", "cc")
def test_kernels_of_another_version_are_refused_by_cmake(kinds: Kinds, tmp_path):
    exports = kinds("pico")
    old = tmp_path / "old"
    old.mkdir()
    text = (exports.other / "CMakeLists.txt").read_text()
    (old / "CMakeLists.txt").write_text(text.replace('STREQUAL "0.1.0"', 'STREQUAL "0.0.9"'))
    with pytest.raises(AssertionError, match="gamma: made by MCUFormer"):
        cmake_build(
            exports.both / "example/self_test", tmp_path / "build", f"OTHER_EXPORT={old}", PICO_SDK_PATH=str(PICO)
        )  # fmt: skip


@pytest.mark.needs("cmake", "cc")
def test_the_cmake_lines_of_its_readme(kinds: Kinds, tmp_path):
    """That join it to a project, and that put the constants into SRAM."""
    folder = kinds("pico").other
    join, constants = re.findall(r"```cmake\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    (tmp_path / "main.c").write_text('#include "gamma.h"\nint main(void) { return gamma_front_end.window == 0; }\n')
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(firmware C CXX ASM)\nadd_executable(your_program main.c)\n"
        + join.replace("path/to/this/folder", str(folder))
        + constants
    )
    cmake_build(tmp_path, tmp_path / "build")
    (library,) = (tmp_path / "build").rglob("libmcuformer_gamma.a")
    assert ".data.gamma" in run("objdump", "-h", library)


@pytest.mark.needs("arm-none-eabi-g++")
@pytest.mark.parametrize("core", ["m0plus", "m33"], ids=["RP2040", "RP2350"])
def test_it_compiles_for(core, kinds: Kinds, tmp_path):
    folder = kinds("pico").both
    flags = [*get_core(core).flags, "-Wall", "-Wextra", "-Werror"]
    run("arm-none-eabi-gcc", *flags, *includes(folder), "-c", *c_sources(folder), cwd=tmp_path)
    assert len(list(tmp_path.glob("*.o"))) == len(c_sources(folder))
