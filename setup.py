# SPDX-License-Identifier: Apache-2.0
"""Compiles the kernels into mcuformer/libmcuformer_host.so (.dll, .dylib): the only thing setup.cfg cannot say.

The result is a plain shared library that Python loads with ctypes, not an extension module. tflm_kernels/sources.mk is
the only list of its files. It is built for the compiler's target, so CC=aarch64-linux-gnu-gcc
CXX=aarch64-linux-gnu-g++ builds it, and a wheel, for another machine. CC, CXX, CFLAGS, CXXFLAGS and LDFLAGS are
honoured.
"""

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

LIBRARY = "mcuformer.libmcuformer_host"
# Relative, because setuptools runs this file in the project's folder.
KERNELS = Path("tflm_kernels")
# No -Werror: a compiler newer than this project must not end an install. Tests build with it, by gcc and by clang.
COMMON_FLAGS = ["-O3", "-fvisibility=hidden", "-Wall", "-Wextra"]
C_COMPILERS = ("C", ["cc", "gcc", "clang"])
# MCUF_DISPATCH: with versions of the kernels for large processors; the header that the core then includes.
C_FLAGS = ["-std=c99", '-DMCUF_DISPATCH="host/mcuf_dispatch.h"']
CXX_FLAGS = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-DMCUF_HOST_PLUGIN"]

# Shared with the package, but not to be imported from it yet: the import would load its parent first.
_spec = importlib.util.spec_from_file_location("mcuformer_native", Path("mcuformer") / "native.py")
native = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(native)


def fail(message: str) -> None:
    """Ends the build with one line and no traceback, under pip as well."""
    raise SystemExit(f"error: {message}")


def find_compiler(variable: str, language: str, candidates: list) -> list:
    """The compiler's command as words: the environment variable's, else the first candidate found."""
    wanted = shlex.split(os.environ.get(variable, ""))
    for command in [wanted] if wanted else [[name] for name in candidates]:
        if shutil.which(command[0]):
            return command
    tried = f"{variable}={wanted[0]}" if wanted else ", ".join(candidates)
    fail(
        f"no {language} compiler found (tried {tried}); "
        f"install gcc and g++ (Debian, Ubuntu: apt install build-essential) or set CC and CXX"
    )


def target_of(compiler: list) -> str:
    """The compiler's target, such as x86_64-linux-gnu; if it does not say, the machine that Python runs on."""
    result = subprocess.run([*compiler, "-dumpmachine"], capture_output=True, text=True)
    return result.stdout.strip() or f"{platform.machine().lower()}-{sys.platform}"


def has_tflite_micro(target: str) -> bool:
    """True if the tflite-micro wheel has a build for it: setup.cfg requires it there and nowhere else."""
    return re.match(r"x86_64-.*linux", target) is not None


def read_sources(path: Path, variable: str) -> list:
    """The files that `variable` lists in sources.mk."""
    try:
        return [path.parent / name for name in native.listed_sources(path, variable)]
    except native.SourceListError as error:
        fail(str(error))


def run_compiler(command: list, subject: str) -> None:
    """Runs one compiler command; a failure shows the compiler's words, then one line of ours."""
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        print(shlex.join(command), result.stdout, result.stderr, sep="\n", flush=True)
        fail(f"{command[0]} could not build {subject}; its own messages are above")


def build_library(output: Path, work: Path, kernels: Path = KERNELS) -> None:
    """Compiles all listed sources into `work`, links `output`, which appears whole or not at all."""
    cc = find_compiler("CC", *C_COMPILERS)
    cxx = find_compiler("CXX", "C++", ["c++", "g++", "clang++"])
    target, cxx_target = target_of(cc), target_of(cxx)
    if target.split("-")[0] != cxx_target.split("-")[0]:
        fail(f"{cc[0]} makes code for {target} and {cxx[0]} for {cxx_target}; set both CC and CXX")
    windows, with_ops = native.is_windows(target), has_tflite_micro(target)
    common = [*COMMON_FLAGS, f"-I{kernels}", f"-I{kernels / 'core'}", *([] if windows else ["-fPIC"])]
    # MinGW's runtime goes into the library: Python would not find its DLLs.
    libraries = ["-ldl"] if with_ops else ["-static"] if windows and "msvc" not in target else []
    c_command = [*cc, *C_FLAGS, *common, *shlex.split(os.environ.get("CFLAGS", ""))]
    headers = f'-DMCUF_HEADERS="{native.headers_digest(kernels)}"'
    cxx_command = [*cxx, *CXX_FLAGS, headers, *common, *shlex.split(os.environ.get("CXXFLAGS", ""))]
    jobs = [(c_command, source) for source in read_sources(kernels / "sources.mk", "MCUF_CORE_SRCS")]
    host_sources = "MCUF_HOST_SRCS" if with_ops else "MCUF_HOST_CORE_SRCS"
    for source in read_sources(kernels / "sources.mk", host_sources):
        jobs.append((c_command if source.suffix == ".c" else cxx_command, source))

    def compile_one(job: tuple) -> str:
        command, source = job
        object_file = work / source.relative_to(kernels).with_suffix(source.suffix + ".o")
        object_file.parent.mkdir(parents=True, exist_ok=True)
        run_compiler([*command, "-c", str(source), "-o", str(object_file)], str(source))
        return str(object_file)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, jobs))

    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + f".{os.getpid()}.partial")
    try:
        ldflags = shlex.split(os.environ.get("LDFLAGS", ""))
        run_compiler([*cxx, "-shared", *objects, "-o", str(partial), *ldflags, *libraries], output.name)
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)


class BuildLibrary(build_ext):
    """build_ext whose one "extension" is the plain shared library."""

    def get_ext_filename(self, fullname: str) -> str:
        # No Python version in the name: the file is loaded with ctypes.
        suffix = native.library_suffix(target_of(find_compiler("CC", *C_COMPILERS)))
        return os.path.join(*fullname.split(".")) + suffix

    def build_extension(self, ext: Extension) -> None:
        build_library(Path(self.get_ext_fullpath(ext.name)), Path(self.build_temp))


class TagWheel(bdist_wheel):
    """A wheel for every Python 3 on the machine that the library is built for: ctypes loads it, so no Python's ABI."""

    def get_tag(self) -> tuple:
        own = super().get_tag()[2]
        if self.plat_name_supplied:
            return "py3", "none", own
        return "py3", "none", native.wheel_platform(target_of(find_compiler("CC", *C_COMPILERS)), own)


setup(
    ext_modules=[Extension(LIBRARY, sources=[])],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": TagWheel},
)
