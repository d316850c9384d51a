# SPDX-License-Identifier: Apache-2.0
"""The kernels and every kind of export compile without a warning, in every C from 99 and C++ from 11, with gcc and
clang, for this machine and for Cortex-M."""

import dataclasses
import functools
import re
import subprocess
from pathlib import Path

import pytest
from arm_tests import needs_tools
from conftest import lively_subnet, structured_images
from strict import C_WARNINGS, CPP_WARNINGS
from tflm_exports import VARIANTS, stored_graph

from mcuformer import QuantisationOptions, SubnetConfig, convert, sources
from mcuformer.converter.export import arduino, c_model, tflm_model
from mcuformer.converter.export.arduino import Samples
from mcuformer.converter.export.registry import Source
from mcuformer.cores import CORES
from mcuformer.gallery import Gallery
from mcuformer.sound import LogMel

TESTS = Path(__file__).resolve().parents[1]
API, STUBS = TESTS / "tflm_api", TESTS / "arduino" / "stubs"
C_STANDARDS, CPP_STANDARDS = ("c99", "c11", "c17", "c2x"), ("c++11", "c++14", "c++17", "c++20")

# As small as they can be: compilers are slow on long arrays.
SMALL = SubnetConfig(
    image_size=8, in_channels=1, patch_size=4, embed_dim=8, depth=1, num_heads=2, head_dim=4, num_classes=5
)
FRONT_END = LogMel(window=128, hop=128, frames=8, mels=8)
SOUND = dataclasses.replace(SMALL, image_size=(8, 8), patch_size=(1, 8))
CONV = dataclasses.replace(SMALL, image_size=9, stem="conv")
BLOCKS = dataclasses.replace(CONV, stem_blocks=(1,))
LOW_RANK = dataclasses.replace(SMALL, rank_ratio=0.2, kv_heads=1, norm="post", final_norm="none")
HEADLESS = dataclasses.replace(SMALL, image_size=(6, 10), patch_size=(3, 5), num_classes=0, prefix_tokens=1)
# name -> config, options of convert; together they have every op, and every form that a model takes
NETWORKS = {
    **{name: (SMALL, options) for name, options in VARIANTS.items()},
    "conv": (CONV, {"schedule": "overwrite", "quantisation": QuantisationOptions(fuse_gelu=False)}),
    "blocks": (BLOCKS, {"strips": True}),
    "low rank": (LOW_RANK, {"board": "nano33ble"}),
    "headless": (HEADLESS, {}),
    "headless strips": (HEADLESS, {"strips": True}),
    "int16 stream": (HEADLESS, {"quantisation": QuantisationOptions(residual="int16")}),
    "sound": (SOUND, {"front_end": FRONT_END}),
    "sound strips": (SOUND, {"strips": True, "front_end": FRONT_END}),
}
IN_LIBRARIES = ("streamed", "strips", "headless", "headless strips", "sound", "sound strips")


@functools.cache
def converted(name: str):
    config, options = NETWORKS[name]
    return convert(lively_subnet(config, 3), structured_images(config, 4), **options)


def names_of(name: str) -> tuple[str, ...]:
    return converted(name).class_names


def host(*names: str) -> list:
    return [pytest.param((name,), id=name, marks=pytest.mark.needs(name)) for name in names]


def arm(*names: str) -> list:
    """Each compiler for a core with DSP and for one with vectors."""
    return [
        pytest.param((name, core), id=f"{name} {core}", marks=[needs_tools, pytest.mark.needs(name)])
        for name in names
        for core in ("m4", "m55")
    ]


C_COMPILERS = [*host("gcc", "clang"), *arm("arm-none-eabi-gcc", "clang")]
CPP_COMPILERS = [*host("g++", "clang++"), *arm("arm-none-eabi-g++")]


def command(compiler: tuple[str, ...]) -> list[str]:
    """compiler: its name, and the core it compiles for, if that is not this machine's."""
    name, *core = compiler
    if not core:
        return [name]
    flags = list(CORES[core[0]].flags)
    if name != "clang":
        return [name, *flags]
    done = subprocess.run(["arm-none-eabi-gcc", "-print-file-name=libc.a"], capture_output=True, text=True, check=True)
    newlib = Path(done.stdout.strip()).parents[1] / "include"
    return ["clang", "--target=arm-none-eabi", *flags, "-isystem", str(newlib)]


def check(compiler: tuple[str, ...], standards: tuple[str, ...], files, include=(), system=(), flags=()) -> None:
    """Checks the files in all of the standards by gcc and g++, in the first and the last by others: not a word."""
    warnings = C_WARNINGS if standards is C_STANDARDS else CPP_WARNINGS
    folders = [*(f"-I{path}" for path in include), *(f"-isystem{path}" for path in system)]
    assert files
    for standard in standards if compiler in (("gcc",), ("g++",)) else (standards[0], standards[-1]):
        line = [*command(compiler), *warnings, f"-std={standard}", *folders, *flags, *map(str, files)]
        done = subprocess.run(line, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), f"{' '.join(compiler)} -std={standard}"


def written(folder: Path, files: dict[str, str]) -> list[Path]:
    """Writes the files; returns the paths of those that are compiled."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files if name.endswith((".c", ".cc"))]


def using(folder: Path, headers: list[str], code: str = "") -> Path:
    """A C++ file that includes the headers, as firmware does."""
    (folder / "use.cc").write_text("".join(f'#include "{header}"\n' for header in headers) + code)
    return folder / "use.cc"


KERNELS = sources.kernels_folder()
KERNEL_SOURCES = [
    path
    for path in (*sources.c_kernel_sources(), *(KERNELS / name for name in sources.listed("MCUF_SOUND_SRCS")))
    if path.suffix == ".c"
]
INCLUDE = [KERNELS, sources.c_kernel_folder()]


@pytest.mark.parametrize("compiler", C_COMPILERS)
def test_the_kernels(compiler):
    check(compiler, C_STANDARDS, KERNEL_SOURCES, INCLUDE)


@pytest.mark.parametrize("compiler", CPP_COMPILERS)
def test_the_kernels_headers_in_cpp(compiler, tmp_path):
    headers = [path for folder in ("core", "sound") for path in sorted((KERNELS / folder).glob("*_s8.h"))]
    more = ["mcuf_packing.h", "mcuf_types.h", "mcuf_weight_source.h", "sound/mcuf_log_mel.h"]
    check(compiler, CPP_STANDARDS, [using(tmp_path, [*(path.name for path in headers), *more])], INCLUDE)


@pytest.mark.parametrize("compiler", host("clang++"))
@pytest.mark.parametrize("generation", ("a", "c"))
def test_the_ops_for_tflm(compiler, generation):
    """The oldest TFLM and the newest; g++, for this machine and an M4, is in test_tflm_api.py."""
    files = [KERNELS / name for name in sources.listed("MCUF_TFLM_SRCS")]
    check(compiler, CPP_STANDARDS, files, system=[API / generation, API / "shared"])


@pytest.mark.parametrize("compiler", host("clang++"))
def test_what_only_the_host_has(compiler):
    files = sorted((KERNELS / "host").glob("*.cc"))
    check(compiler, CPP_STANDARDS, files, INCLUDE, flags=["-DMCUF_HOST_PLUGIN=1"])


@pytest.fixture(scope="module")
def c_exports(tmp_path_factory):
    """The folder of all networks' C, its sources, its headers."""
    folder, compiled, headers = tmp_path_factory.mktemp("c"), [], []
    for i, (name, (_, options)) in enumerate(NETWORKS.items()):
        prefix, graph = f"net{i}", stored_graph(converted(name))
        made = c_model.generate(graph, names_of(name), prefix, front_end=options.get("front_end"))
        files = {**made.sources, f"{prefix}_main.c": made.example}
        compiled += written(folder, files)
        headers += [file for file in files if file.endswith(".h")]
    return folder, compiled, headers


@pytest.mark.parametrize("compiler", C_COMPILERS)
def test_plain_c(compiler, c_exports):
    """For Cortex-M only what calls the kernels: not the arrays, nor the example, which is for this machine."""
    folder, compiled, _ = c_exports
    if len(compiler) > 1:
        compiled = [path for path in compiled if not path.stem.endswith(("_data", "_main"))]
    check(compiler, C_STANDARDS, compiled, [folder, *INCLUDE])


WORTH = """float worth{0}(int8_t value) {{
  return static_cast<float>(value - NET{0}_{1}_ZERO_POINT) * NET{0}_{1}_SCALE;
}}
"""


@pytest.mark.parametrize("compiler", CPP_COMPILERS)
def test_headers_of_plain_c_in_cpp(compiler, c_exports, tmp_path):
    """And what a logit is worth, or a value of an embedding, is computed in float alone."""
    folder, _, headers = c_exports
    code = "".join(WORTH.format(i, "LOGIT" if names_of(name) else "EMBEDDING") for i, name in enumerate(NETWORKS))
    check(compiler, CPP_STANDARDS, [using(tmp_path, headers, code)], [folder, *INCLUDE])


@pytest.mark.parametrize("compiler", CPP_COMPILERS)
def test_models_for_tflm(compiler, tmp_path):
    headers, compiled = [], []
    for i, name in enumerate(NETWORKS):
        model = converted(name)
        files = tflm_model.model_files(
            tflm_model.tflm_model(model.content, stored_graph(model), model.class_names, f"net{i}")
        )
        compiled += written(tmp_path, files)
        headers += [file for file in files if file.endswith(".h")]
    check(compiler, CPP_STANDARDS, [*compiled, using(tmp_path, headers)], [tmp_path])


@pytest.mark.parametrize("compiler", host("gcc", "clang", "g++", "clang++"))
def test_constants_in_a_section_of_their_own(compiler, c_exports, tmp_path):
    section = '-DNET0_CONSTANT=__attribute__((section(".qspi")))'
    if "+" not in compiler[0]:
        folder, compiled, _ = c_exports
        check(compiler, C_STANDARDS, compiled[:4], [folder, *INCLUDE], flags=[section])
        return
    model = converted("streamed")
    files = tflm_model.model_files(tflm_model.tflm_model(model.content, stored_graph(model), model.class_names, "net0"))
    check(compiler, CPP_STANDARDS, written(tmp_path, files), [tmp_path], flags=[section])


@pytest.fixture(scope="module", params=IN_LIBRARIES)
def library(request, tmp_path_factory):
    config, options = NETWORKS[request.param]
    model, images = converted(request.param), structured_images(config, 4)
    gallery = None if model.class_names else Gallery(model.reference(images), ('"a"', "b", "c", "d"))
    made = arduino.library(
        Source(model.content, stored_graph(model), model.class_names, options.get("front_end")),
        Samples(images, list("abcd")), gallery=gallery,
    )  # fmt: skip
    return arduino.write(made, tmp_path_factory.mktemp("arduino") / "library")


@pytest.mark.parametrize("compiler", host("gcc", "clang"))
def test_c_of_an_arduino_library(compiler, library):
    """Its own: that of the kernels is above."""
    check(compiler, C_STANDARDS, sorted((library / "src").rglob("model*.c")), [library / "src"])


@pytest.mark.parametrize("compiler", host("g++", "clang++"))
def test_sketches(compiler, library, tmp_path):
    """And the library's headers, which they include."""
    sketches = []
    for sketch in sorted(library.rglob("*.ino")):
        sketches.append(tmp_path / f"{sketch.stem}.cc")
        text = re.sub('"(test_images|self_test).h"', rf'"{sketch.parent}/\1.h"', sketch.read_text())
        sketches[-1].write_text(f'#include <Arduino.h>\n#line 1 "{sketch}"\n{text}')
    check(compiler, CPP_STANDARDS, sketches, [library / "src"], [STUBS, API / "a_2023", API / "shared"])


@pytest.mark.parametrize("compiler", host("g++"))
def test_a_warning_is_found(compiler, tmp_path):
    (tmp_path / "a.cc").write_text("long f(double x) { return (long)x; }\n")
    with pytest.raises(AssertionError, match="std=c\\+\\+11"):
        check(compiler, CPP_STANDARDS, [tmp_path / "a.cc"])
