# SPDX-License-Identifier: Apache-2.0
"""The module for Zephyr: its Kconfig, and its CMake with stubs of Zephyr's functions."""

import re

import pytest
import yaml
from kconfig import configured
from kind_exports import STUBS, Kinds, cmake_build, run

ZEPHYR = STUBS / "zephyr"
ROOT = """
config PRINTK
    bool "printk"
config MAIN_STACK_SIZE
    int "bytes"
"""


def configure(folder, kinds, more):
    exports = kinds("zephyr")
    project = (exports.both / "samples/self_test/prj.conf").read_text()
    return configured(folder, ROOT, [exports.both / "Kconfig", exports.other / "Kconfig"], f"{project}\n{more}")


def test_kconfig_takes_the_samples_configuration(kinds: Kinds, tmp_path):
    found = configure(tmp_path, kinds, "")
    enabled = [name for name, symbol in found.syms.items() if name.startswith("MCUFORMER") and symbol.str_value == "y"]
    assert sorted(enabled) == ["MCUFORMER_ALPHA", "MCUFORMER_BETA", "MCUFORMER_KERNELS"]
    assert not found.syms["MCUFORMER_GAMMA_ARENA_SECTION"].visibility


def test_the_module_and_its_sample_are_found(kinds: Kinds):
    folder = kinds("zephyr").both
    module = yaml.safe_load((folder / "zephyr/module.yml").read_text())
    assert module["name"] == "mcuformer_alpha"
    assert (folder / module["build"]["cmake"] / "CMakeLists.txt").is_file()
    assert (folder / module["build"]["kconfig"]).is_file() and (folder / module["samples"][0]).is_dir()
    sample = yaml.safe_load((folder / "samples/self_test/sample.yaml").read_text())
    lines = sample["common"]["harness_config"]["regex"]
    for line, name in zip(lines, ("alpha", "beta"), strict=True):
        assert re.search(line, f"{name}: 5 of 5 values equal") and not re.search(line, f"{name}: 4 of 5 values equal")
    (test,) = sample["tests"].values()
    assert test["platform_allow"] == ["qemu_cortex_m3", "nrf5340dk/nrf5340/cpuapp"]


@pytest.mark.needs("cmake", "cc")
def test_two_modules_build_into_one_application_and_are_exact(kinds: Kinds, tmp_path):
    """With one model's arena and constants in sections of their own."""
    exports = kinds("zephyr")
    more = 'CONFIG_MCUFORMER_GAMMA=y\nCONFIG_MCUFORMER_GAMMA_ARENA_SECTION=".fast"\n'
    configure(tmp_path / "config", kinds, f'{more}CONFIG_MCUFORMER_GAMMA_CONST_SECTION=".flash"\n')
    build = tmp_path / "build"
    definitions = (f"KCONFIG={tmp_path / 'config'}", f"MORE_MODULES={exports.other}")
    cmake_build(exports.both / "samples/self_test", build, *definitions, ZEPHYR_BASE=str(ZEPHYR))
    kinds.check(run(build / "zephyr_final"))
    sections = dict(re.findall(r"(\.fast|\.flash) +(\d+)", run("size", "-A", build / "zephyr_final")))
    arena = int(re.search(r"ARENA_BYTES (\d+)", (exports.other / "models/gamma/gamma.h").read_text())[1])
    assert int(sections[".fast"]) == arena and int(sections[".flash"]) > 10000
