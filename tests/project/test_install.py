# SPDX-License-Identifier: Apache-2.0
"""Building the library: what a user meets when something is missing."""

import configparser
import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "tflm_kernels"

C_SOURCE = 'int mcuf_two(void);\n__attribute__((visibility("default"))) int mcuf_two(void) { return 2; }\n'
CXX_SOURCE = """
extern "C" int mcuf_two(void);
extern "C" __attribute__((visibility("default"))) int mcuf_four() { return 2 * mcuf_two(); }
"""


@pytest.fixture
def project(tmp_path):
    """A project as small as can be, with this one's setup.py."""
    (tmp_path / "tflm_kernels" / "core").mkdir(parents=True)
    (tmp_path / "mcuformer").mkdir()
    shutil.copy(ROOT / "setup.py", tmp_path)
    shutil.copy(ROOT / "mcuformer" / "native.py", tmp_path / "mcuformer")
    (tmp_path / "tflm_kernels" / "sources.mk").write_text(
        "# the sources\nMCUF_CORE_SRCS := \\\n  core/two.c  # half of four\n"
        "MCUF_TFLM_SRCS = four.cc\nMCUF_HOST_SRCS = $(MCUF_TFLM_SRCS) \\\n  empty.cc\n"
    )
    (tmp_path / "tflm_kernels" / "core" / "two.c").write_text(C_SOURCE)
    (tmp_path / "tflm_kernels" / "four.cc").write_text(CXX_SOURCE)
    (tmp_path / "tflm_kernels" / "empty.cc").write_text("")
    return tmp_path


def build(project: Path, **env: str) -> subprocess.CompletedProcess:
    """Runs setup.py's compile step with these variables, and no CC, CFLAGS and so on of the outside."""
    kept = {name: value for name, value in os.environ.items() if not re.fullmatch("CC|CXX|.*FLAGS", name)}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "out", "--build-temp", "work"]
    return subprocess.run(command, cwd=project, env=kept | env, capture_output=True, text=True)


def assert_one_clear_line(result: subprocess.CompletedProcess, *parts: str) -> None:
    """The build failed, and the last thing it says is one line with these words and no traceback."""
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert "Traceback" not in result.stderr
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    for part in parts:
        assert part in lines[-1]


def test_no_compiler_on_the_machine(project, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    result = build(project, PATH=str(empty))
    assert_one_clear_line(result, "no C compiler", "cc, gcc, clang", "build-essential", "set CC and CXX")
    assert not list(project.rglob("*.so"))


def test_no_cxx_compiler_on_the_machine(project, tmp_path):
    only_c = tmp_path / "only_c"
    only_c.mkdir()
    (only_c / "cc").symlink_to(shutil.which("cc"))
    assert_one_clear_line(build(project, PATH=str(only_c)), "no C++ compiler", "c++, g++, clang++")


def test_compiler_named_in_cc_is_missing(project):
    assert_one_clear_line(build(project, CC="no-such-cc"), "no C compiler", "CC=no-such-cc")


def compilers(folder: Path, machine: str, names: tuple = ("cc", "c++")) -> dict:
    """CC and CXX: this machine's compilers, which say that they make code for another."""
    for name in names:
        script = folder / name
        script.write_text(f'#!/bin/sh\n[ "$1" = -dumpmachine ] && echo {machine} || exec {name} "$@"\n')
        script.chmod(0o755)
    return {variable: str(folder / name) for variable, name in (("CC", "cc"), ("CXX", "c++")) if name in names}


def test_compilers_for_two_machines(project, tmp_path):
    result = build(project, **compilers(tmp_path, "riscv64-linux-gnu", ("cc",)))
    assert_one_clear_line(result, "code for riscv64-linux-gnu", "set both CC and CXX")


@pytest.mark.parametrize(
    ("machine", "suffix"), [("x86_64-apple-darwin23.1.0", ".dylib"), ("x86_64-unknown-hurd", ".so")]
)
def test_where_tflite_micro_has_no_build_its_ops_are_left_out(project, tmp_path, machine, suffix):
    listed = project / "tflm_kernels" / "sources.mk"
    listed.write_text(listed.read_text() + "MCUF_HOST_CORE_SRCS = three.cc\n")
    (project / "tflm_kernels" / "three.cc").write_text(
        CXX_SOURCE.replace("mcuf_four() { return 2", "mcuf_six() { return 3")
    )
    result = build(project, **compilers(tmp_path, machine))
    assert result.returncode == 0, result.stderr
    library = ctypes.CDLL(str(project / "out" / "mcuformer" / f"libmcuformer_host{suffix}"))
    assert library.mcuf_six() == 6 and not hasattr(library, "mcuf_four")


def test_library_holds_c_and_cxx_code(project):
    result = build(project)
    assert result.returncode == 0, result.stderr
    library = ctypes.CDLL(str(project / "out" / "mcuformer" / "libmcuformer_host.so"))
    assert library.mcuf_four() == 4
    assert [path.name for path in (project / "out" / "mcuformer").iterdir()] == ["libmcuformer_host.so"]


def test_flags_of_the_environment_are_used(project):
    (project / "tflm_kernels" / "core" / "two.c").write_text(C_SOURCE.replace("return 2", "return TWO"))
    (project / "tflm_kernels" / "four.cc").write_text(CXX_SOURCE.replace("return 2", "return TWO"))
    result = build(project, CFLAGS="-DTWO=3", CXXFLAGS="-DTWO=5")
    assert result.returncode == 0, result.stderr
    assert ctypes.CDLL(str(project / "out" / "mcuformer" / "libmcuformer_host.so")).mcuf_four() == 15


def test_source_that_does_not_compile(project):
    (project / "tflm_kernels" / "four.cc").write_text("int broken(\n")
    result = build(project)
    assert_one_clear_line(result, "could not build tflm_kernels/four.cc")
    assert "four.cc:1" in result.stdout  # the compiler's own words
    assert not list(project.rglob("*.so"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "sources.mk is missing"),
        ("MCUF_CORE_SRCS := core/two.c\n", "lists no files in MCUF_HOST_SRCS"),
        ("MCUF_CORE_SRCS := core/gone.c\nMCUF_HOST_SRCS := four.cc\n", "lists core/gone.c in MCUF_CORE_SRCS"),
        ("MCUF_CORE_SRCS := core/two.c\nMCUF_HOST_SRCS := $(GONE)\n", "lists $(GONE) in MCUF_HOST_SRCS"),
    ],
)
def test_incomplete_source_list(project, text, message):
    path = project / "tflm_kernels" / "sources.mk"
    path.unlink() if text is None else path.write_text(text)
    assert_one_clear_line(build(project), message)


def test_source_list_holds_every_source():
    text = re.sub(r"#.*", "", (KERNELS / "sources.mk").read_text())
    listed = {word for word in text.split() if word.endswith((".c", ".cc"))}
    there = {str(path.relative_to(KERNELS)) for path in KERNELS.rglob("*") if path.suffix in (".c", ".cc")}
    assert listed == there


def test_every_requirement_is_pinned():
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    text = (ROOT / "setup.cfg").read_text()
    wanted = re.search(r"install_requires =\n(.*?\n)\n", text, flags=re.DOTALL)[1]
    wanted += re.search(r"extras_require\]\n(.*?)\n\n", text, flags=re.DOTALL)[1]
    names = set(re.findall(r"^    ([\w-]+)", wanted, flags=re.MULTILINE)) - {"setuptools"}
    assert len(names) >= 13
    assert names <= pinned


@pytest.mark.parametrize(
    "package",
    [
        "mcuformer.arduino_sources",
        "mcuformer.firmware_sources",
        "mcuformer.tflm_kernels",
        "mcuformer.converter.estimate",
    ],
)
def test_an_installed_package_has_all_sources(package):
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    folders = dict(line.split(" = ") for line in settings["options"]["package_dir"].split("\n") if line)
    parent = max((name for name in folders if f"{package}.".startswith(f"{name}.")), key=len)
    folder = ROOT / folders[parent] / package.removeprefix(parent).lstrip(".").replace(".", "/")
    patterns = settings["options.package_data"][package].split()
    shipped = {path for pattern in patterns for path in folder.glob(pattern)}
    endings = {".c", ".cc", ".h", ".S", ".ld", ".mk", ".json", ".ino", ".properties", ".txt"}
    assert shipped == {p for p in folder.rglob("*") if p.suffix in endings or p.name == "LICENSE"} and shipped
