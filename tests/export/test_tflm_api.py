# SPDX-License-Identifier: Apache-2.0
"""The glue and an export's README compile for every generation of TFLM's API, with every warning an error.

Against the declarations in tests/tflm_api, which are used for nothing else; `make tflm-check` takes a real tree."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import HEADLESS, TINY, lively_subnet, skip_without, structured_images
from strict import CPP_WARNINGS
from tflm_exports import VARIANTS, exported

from mcuformer import sources
from mcuformer.simulator import firmware

MODEL = Path("models") / "model"  # in an export
API = Path(__file__).resolve().parents[1] / "tflm_api"
GENERATIONS = ("a", "a_2023", "b", "c")
ARM = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=softfp", "-mfpu=fpv4-sp-d16"]
RELEASE = ["-DTF_LITE_STATIC_MEMORY", "-DTF_LITE_STRIP_ERROR_STRINGS"]
COMPILERS = {
    "host": [shutil.which("c++") or "c++", "-std=c++11"],
    "host c++20": [shutil.which("c++") or "c++", "-std=c++20"],
    "cortex-m4": ["arm-none-eabi-g++", *ARM, "-std=gnu++14", "-fno-rtti", "-fno-exceptions", "-funsigned-char"],
}


def compiler(name: str) -> list[str]:
    skip_without(Path(COMPILERS[name][0]).name)
    if name == "cortex-m4" and (missing := firmware.missing_tools()):  # its C++ headers are a package of their own
        pytest.skip(missing)
    return [*COMPILERS[name], *CPP_WARNINGS]


def include(generation: str) -> list[str]:
    return [f"-isystem{API / generation}", f"-isystem{API / 'shared'}"]


def check(command: list[str], files: list[Path]) -> None:
    def one(file: Path) -> str:
        return subprocess.run([*command, str(file)], capture_output=True, text=True).stderr

    with ThreadPoolExecutor(2) as pool:
        assert "".join(pool.map(one, files)) == ""


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("target", COMPILERS)
def test_the_glue_compiles(target, generation):
    files = [sources.kernels_folder() / name for name in sources.listed("MCUF_TFLM_SRCS")]
    check([*compiler(target), *include(generation)], files)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_glue_compiles_with_the_defines_of_a_release_build(generation):
    files = [sources.kernels_folder() / "kernels" / name for name in ("kernel_check.cc", "int_gelu.cc")]
    check([*compiler("host"), *RELEASE, *include(generation)], files)


REGISTERS = """
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "op_resolver.h"
int Setup() {
  tflite::MicroMutableOpResolver<mcuformer::kOpCount> resolver;
  return mcuformer::AddMcuformerOps(resolver);
}
"""


@pytest.mark.needs("c++")
@pytest.mark.parametrize(
    ("firmware_has", "kernels_have", "missing"),
    [
        ([], [], ""),
        (RELEASE, RELEASE, ""),
        ([], RELEASE[1:], ""),  # a library that has MicroPrintf has it for all
        (RELEASE[:1], [], "KernelsCompiledWith_TF_LITE_STATIC_MEMORY"),
        ([], RELEASE[:1], "KernelsCompiledWithout_TF_LITE_STATIC_MEMORY"),
        (RELEASE, RELEASE[:1], "KernelsCompiledWith_TF_LITE_STRIP_ERROR_STRINGS"),
    ],
)
def test_kernels_with_other_defines_than_the_firmware_do_not_link(firmware_has, kernels_have, missing, tmp_path):
    """The linker names the define."""
    (tmp_path / "own.cc").write_text(REGISTERS)
    check_cc = sources.kernels_folder() / "kernels" / "kernel_check.cc"
    command = [*COMPILERS["host"], *include("b"), f"-I{sources.kernels_folder()}", "-c"]
    subprocess.run([*command, *firmware_has, "own.cc", "-o", "own.o"], cwd=tmp_path, check=True)
    subprocess.run([*command, *kernels_have, check_cc, "-o", "kernels.o"], cwd=tmp_path, check=True)
    linked = ["c++", "own.o", "kernels.o", "-nostdlib", "-Wl,--unresolved-symbols=report-all", "-o", "firmware"]
    said = subprocess.run(
        linked, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
    ).stderr
    named = set(re.findall(r"undefined reference to `mcuformer::(KernelsCompiled\w+)", said))
    assert "undefined reference to" in said and named == ({missing} if missing else set())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_readme_of_an_export_compiles(generation, variant, tmp_path):
    net, images = lively_subnet(TINY, 3), structured_images(TINY, 4)
    folder = exported(net, images, VARIANTS[variant], tmp_path / "model")
    use, planner = re.findall(r"```cpp\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    if generation == "a":  # as the README says of that time
        if "SetMicroExternalContext" in use:
            pytest.skip("kernels reach the external context since 2022-01")
        use = use.replace("sizeof(arena));", "sizeof(arena), GetMicroErrorReporter());")
        planner = planner.replace("&planner));", "&planner, GetMicroErrorReporter()), GetMicroErrorReporter());")
        use = '#include "tensorflow/lite/micro/micro_error_reporter.h"\n' + use
    includes, rest = planner.split("\n\n", 1)
    setup = "static MicroMutableOpResolver<mcuformer::kOpCount> resolver;\nMicroInterpreter& Planned() {\n"
    (tmp_path / "use.cc").write_text(f"{use}\n{includes}\n{setup}{rest}return runner;\n}}\n")
    for checked in ([], ["-DMCUFORMER_CHECK_MODEL"]):
        command = [*compiler("host"), *checked, *include(generation), f"-I{folder}", f"-I{folder / MODEL}"]
        check(command, [tmp_path / "use.cc", folder / MODEL / "model.cc"])


@pytest.mark.parametrize("generation", GENERATIONS[1:])
def test_the_readme_of_a_network_without_a_head_compiles(generation, tmp_path):
    net, images = lively_subnet(HEADLESS, 3), structured_images(HEADLESS, 4)
    folder = exported(net, images, {"strips": True}, tmp_path / "model")
    header, source = (folder / MODEL / "model.h").read_text(), (folder / MODEL / "model.cc").read_text()
    assert f"constexpr int model_embedding_length = {HEADLESS.embed_dim};" in header
    assert "constexpr float model_embedding_scale = " in header and "model_embedding_zero_point" in header
    assert "class" not in header + source
    use, _ = re.findall(r"```cpp\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    (tmp_path / "use.cc").write_text(use)
    check(
        [*compiler("host"), *include(generation), f"-I{folder}", f"-I{folder / MODEL}"],
        [tmp_path / "use.cc", folder / MODEL / "model.cc"],
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("target", COMPILERS)
def test_a_model_needs_no_header_of_the_cpp_standard_library(target, variant, tmp_path):
    """Its two files compile where the cross compiler comes without C++ headers."""
    net, images = lively_subnet(TINY, 3), structured_images(TINY, 4)
    folder = exported(net, images, VARIANTS[variant], tmp_path / "model")
    (tmp_path / "use.cc").write_text('#include "model.h"\nsize_t use() { return model_arena_size + model_data_len; }\n')
    check(
        [*compiler(target), "-nostdinc++", f"-I{folder}", f"-I{folder / MODEL}"],
        [tmp_path / "use.cc", folder / MODEL / "model.cc"],
    )


def test_no_two_sources_make_the_same_object():
    """TFLM's Makefile makes name.o of name.c, name.cc and name.S."""
    objects = [str(Path(name).with_suffix(".o")) for name in sources.listed("MCUF_CORE_SRCS")]
    objects += [str(Path(name).with_suffix(".o")) for name in sources.listed("MCUF_TFLM_SRCS")]
    assert len(objects) == len(set(objects))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    net, images = lively_subnet(TINY, 3), structured_images(TINY, 4)
    return exported(net, images, {}, tmp_path_factory.mktemp("project") / "vit", name="vit")


@pytest.fixture(scope="module")
def other(folder):
    net, images = lively_subnet(TINY, 4), structured_images(TINY, 4)
    return exported(net, images, {}, folder.parent / "other", name="other")


def test_sources_mk_lists_every_source_wherever_it_is_included_from(folder, other):
    """And of two exports the kernels once, and both models."""
    there = {f"vit/{path.relative_to(folder)}" for path in folder.rglob("*") if path.suffix in (".c", ".cc", ".S")}
    for included, more in (((folder,), set()), ((folder, other), {"other/models/other/other.cc"})):
        lines = [*(f"include {path.name}/sources.mk" for path in included), "MCUF := $(MCUF_SRCS)"]
        lines.append("all: ; @echo $(MCUF) $(MICROLITE_CC_KERNEL_SRCS)\n")
        (folder.parent / "Makefile").write_text("\n".join(lines))
        done = subprocess.run(["make", "-s"], cwd=folder.parent, capture_output=True, text=True, check=True)
        assert set(done.stdout.split()) == there | more and len(done.stdout.split()) == 2 * len(there | more)


@pytest.mark.needs("cmake")
def test_cmake_builds_two_exports_as_part_of_a_project(folder, other, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.13)\nproject(firmware C CXX)\n"
        f"add_library(tflm INTERFACE)\ntarget_include_directories(tflm INTERFACE {API / 'b'})\n"
        f"add_subdirectory({folder} vit)\nadd_subdirectory({other} other)\n"
        "target_link_libraries(mcuformer PRIVATE tflm)\n"
        "add_library(own STATIC own.cc)\ntarget_link_libraries(own PRIVATE mcuformer::vit mcuformer::other tflm)\n"
    )
    (tmp_path / "own.cc").write_text(
        '#include "mcuformer/op_resolver.h"\n#include "vit.h"\n#include "other.h"\n'
        "unsigned char first() { return vit_data[0] + other_data[0]; }\n"
    )
    subprocess.run(["cmake", "-S", tmp_path, "-B", tmp_path / "build"], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", tmp_path / "build", "-j2"], check=True, capture_output=True)
    libraries = [*(tmp_path / "build").rglob("lib*.a")]
    symbols = subprocess.run(["nm", "-C", "--defined-only", *libraries], capture_output=True, text=True).stdout
    assert "vit_data" in symbols and "other_data" in symbols
    assert symbols.count("mcuformer::Register_INT_GELU()") == symbols.count("T mcuf_in_place_fc_s8\n") == 1


def test_the_arena_is_larger_without_static_memory(folder):
    """TfLiteNode and TfLiteTensor are larger then: as the Arduino library is built, and perhaps yours."""
    sizes = [
        int(size)
        for size in re.findall(r"sizeof\(void\*\) == 4 \? (\d+)", (folder / "models" / "vit" / "vit.h").read_text())
    ]
    ops, ports = 7, 2
    assert len(sizes) == 2 and sizes[1] - sizes[0] >= 12 * ops + 24 * ports
