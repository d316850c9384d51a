# SPDX-License-Identifier: Apache-2.0
"""The component for ESP-IDF: both parses of its CMake, its Kconfig, and compilers for RISC-V and Xtensa."""

import re

import pytest
import yaml
from kconfig import configured
from kind_exports import STUBS, Kinds, c_sources, check_on, cmake_build, include_folders, includes, run

from mcuformer.cores import get_core
from mcuformer.simulator import firmware

IDF = STUBS / "esp_idf"
RISC_V = get_core("rv32imc")
ROOT = """
config FREERTOS_UNICORE
    bool "one core"
config SPIRAM_ALLOW_BSS_SEG_EXTERNAL_MEMORY
    bool "external RAM"
config COMPILER_OPTIMIZATION_PERF
    bool "optimise"
config PARTITION_TABLE_SINGLE_APP_LARGE
    bool "large"
config ESPTOOLPY_FLASHSIZE_4MB
    bool "4 MB"
"""


def configure(folder, kinds, config):
    exports = kinds("esp-idf")
    defaults = (exports.both / "examples/self_test/sdkconfig.defaults").read_text()
    sourced = [exports.both / "Kconfig", exports.other / "Kconfig"]
    return configured(folder, ROOT, sourced, f"{defaults}\n{config}")


def test_kconfig_offers_psram_where_there_is_some(kinds: Kinds, tmp_path):
    found = configure(tmp_path, kinds, "")
    assert found.syms["MCUFORMER_ALPHA_ARENA_INTERNAL"].str_value == "y"
    assert found.syms["MCUFORMER_ALPHA_ARENA_PSRAM"].visibility == 0
    assert found.syms["MCUFORMER_BETA_CORE"].str_value == "-1"
    config = "CONFIG_SPIRAM_ALLOW_BSS_SEG_EXTERNAL_MEMORY=y\nCONFIG_MCUFORMER_GAMMA_ARENA_PSRAM=y\n"
    found = configure(tmp_path, kinds, config)
    assert found.syms["MCUFORMER_GAMMA_ARENA_INTERNAL"].str_value == "n"
    assert found.syms["MCUFORMER_ALPHA_ARENA_INTERNAL"].str_value == "y"


def test_the_manifest_has_what_the_component_manager_needs(kinds: Kinds):
    manifest = yaml.safe_load((kinds("esp-idf").both / "idf_component.yml").read_text())
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"])
    assert manifest["license"] == "Apache-2.0" and manifest["dependencies"] == {"idf": ">=5.0"}


@pytest.mark.needs("cmake")
@pytest.mark.parametrize("folder", ["both", "other", "both/examples/self_test/main"])
def test_requirements_are_read_by_a_script(folder, kinds: Kinds):
    component = kinds("esp-idf").both.parent / folder
    assert run("cmake", f"-DCOMPONENT={component}", "-P", IDF / "requirements.cmake") == "requires:   left over: \n"


@pytest.mark.needs("cmake", "cc")
def test_two_exports_build_into_one_project_and_are_exact(kinds: Kinds, tmp_path):
    """With one model's arena in PSRAM, and its task on a core."""
    exports = kinds("esp-idf")
    config = """CONFIG_SPIRAM_ALLOW_BSS_SEG_EXTERNAL_MEMORY=y
CONFIG_MCUFORMER_ALPHA_ARENA_PSRAM=y
CONFIG_MCUFORMER_ALPHA_CORE=1
"""
    configure(tmp_path / "config", kinds, config)
    build = tmp_path / "build"
    definitions = (f"KCONFIG={tmp_path / 'config'}", f"MORE_COMPONENTS={exports.other}")
    cmake_build(exports.both / "examples/self_test", build, *definitions, IDF_PATH=str(IDF))
    text = run(build / "self_test")
    kinds.check(text)
    assert re.findall("task .*", text) == ["task alpha on core 1"]
    arena = int(re.search(r"ALPHA_ARENA_BYTES (\d+)", (exports.both / "models/alpha/alpha.h").read_text())[1])
    assert int(re.search(r"\.ext_ram\.bss +(\d+)", run("size", "-A", build / "self_test"))[1]) == arena


@pytest.mark.skipif(firmware.missing_tools(RISC_V) is not None, reason=str(firmware.missing_tools(RISC_V)))
def test_it_runs_on_the_core_of_an_esp32_c3_and_is_exact(kinds: Kinds, tmp_path):
    """A simulated RV32IMC; the models of both exports."""
    exports = kinds("esp-idf")
    sources = [*c_sources(exports.both), *(exports.other / "models").rglob("*.c")]
    sources += (exports.other / "mcuformer/sound").glob("*.c")
    include = [*include_folders(exports.both), *include_folders(exports.other)]
    check_on(RISC_V.machine, sources, include, tmp_path)


@pytest.mark.needs("xtensa-lx106-elf-g++")
def test_it_compiles_for_xtensa(kinds: Kinds, tmp_path):
    """By the compiler of an ESP8266, which is what Debian has."""
    xtensa = get_core("lx6")
    if missing := firmware.missing_tools(xtensa):
        pytest.skip(missing)
    folder = kinds("esp-idf").both
    flags = [*xtensa.flags, "-Wall", "-Wextra", "-Werror"]
    run(f"{xtensa.toolchain}gcc", *flags, *includes(folder), "-c", *c_sources(folder), cwd=tmp_path)
    assert len(list(tmp_path.glob("*.o"))) == len(c_sources(folder))
