# SPDX-License-Identifier: Apache-2.0
"""The export for STM32CubeMX: in a Makefile of CubeMX's shape, for the host and for an STM32."""

import re

import pytest
from kind_exports import STUBS, Kinds, run

from mcuformer.cores import get_core

CUBE = STUBS / "stm32cube"


@pytest.fixture
def project(kinds: Kinds, tmp_path):
    """A CubeMX project with both exports, as the README says; and make's arguments."""
    exports = kinds("stm32cube")
    readme = (exports.both / "README.md").read_text()
    line = re.search(r"include Middlewares/alpha/stm32cube.mk", readme)[0]
    marker = re.search(r"a line before `(# .*?)`", readme)[1]
    makefile = (CUBE / "Makefile").read_text()
    assert makefile.count(marker) == 1
    (tmp_path / "Middlewares").mkdir()
    (tmp_path / "Middlewares/alpha").symlink_to(exports.both)
    (tmp_path / "Middlewares/gamma").symlink_to(exports.other)
    added = f"{line}\n{line.replace('alpha', 'gamma')}\n{marker}"
    (tmp_path / "Makefile").write_text(makefile.replace(marker, added))
    example = re.search(r"`(example/\w+\.c)`", readme)[1]
    return ["make", "-C", tmp_path, "-j2", "OPT=-O0", f"STUBS={CUBE}", f"EXAMPLE=Middlewares/alpha/{example}"]


@pytest.mark.needs("make", "cc")
def test_two_exports_build_into_one_project_and_are_exact(project, kinds: Kinds, tmp_path):
    run(*project)
    kinds.check(run(tmp_path / "build/firmware.elf"))


@pytest.mark.needs("make", "arm-none-eabi-g++")
def test_it_compiles_with_the_flags_of_an_stm32f7(project, tmp_path):
    run(*project, "objects", "PREFIX=arm-none-eabi-", f"MCU={' '.join(get_core('m7').flags)}")
    objects = [path.name for path in (tmp_path / "build").glob("*.o")]
    assert {"alpha.o", "beta.o", "gamma.o", "mcuf_block_dsp_loops.o", "mcuformer_self_test.o"} <= set(objects)
    assert len(objects) == len(set(objects))


def test_its_cmake_is_that_of_the_pico(kinds: Kinds):
    """Which tests/export/test_pico.py builds."""
    cube, pico = ((kinds(kind).both / "CMakeLists.txt").read_text() for kind in ("stm32cube", "pico"))
    assert cube == pico.replace("--to pico", "--to stm32cube")
