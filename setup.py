# SPDX-License-Identifier: Apache-2.0
"""Compiles the kernels into mcuformer/libmcuformer_host.so: the one thing setup.cfg cannot say.

The result is a plain shared library that Python loads with ctypes, not an extension module. Which files go
into it is written in tflm_kernels/sources.mk alone. CC, CXX, CFLAGS, CXXFLAGS and LDFLAGS are honoured.
"""

import os
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

LIBRARY = "mcuformer.libmcuformer_host"
# Relative, because setuptools runs this file in the project's folder.
KERNELS = Path("tflm_kernels")
COMMON_FLAGS = ["-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
C_FLAGS = ["-std=c99"]
CXX_FLAGS = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-DMCUF_HOST_PLUGIN"]


def fail(message: str) -> None:
    """Ends the build with one line and no traceback, under pip as well."""
    raise SystemExit(f"error: {message}")


def find_compiler(variable: str, language: str, candidates: list) -> list:
    """The compiler's command as words: what the environment variable says, else the first candidate found."""
    wanted = shlex.split(os.environ.get(variable, ""))
    for command in [wanted] if wanted else [[name] for name in candidates]:
        if shutil.which(command[0]):
            return command
    tried = f"{variable}={wanted[0]}" if wanted else ", ".join(candidates)
    fail(
        f"no {language} compiler found (tried {tried}); "
        f"install gcc and g++ (Debian, Ubuntu: apt install build-essential) or set CC and CXX"
    )


def read_sources(path: Path, variable: str) -> list:
    """The files that `variable` lists in a make file of plain lists; $(NAME) stands for a list above."""
    if not path.is_file():
        fail(f"{path} is missing; it lists the C and C++ sources; get a complete copy of the project")
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    text = re.sub(r"#.*", "", text)
    lists = {}
    for name, values in re.findall(r"^\s*(\w+)\s*:?=(.*)$", text, flags=re.MULTILINE):
        lists[name] = re.sub(r"\$\((\w+)\)", lambda match: lists.get(match[1], match[0]), values)
    names = lists.get(variable, "").split()
    if not names:
        fail(f"{path} lists no files in {variable}; get a complete copy of the project")
    for name in names:
        if not (path.parent / name).is_file():
            fail(f"{path} lists {name} in {variable}, and there is no such file")
    return [path.parent / name for name in names]


def run_compiler(command: list, subject: str) -> None:
    """Runs one compiler command; a failure shows its own words, and then one line of ours."""
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        print(shlex.join(command), result.stdout, result.stderr, sep="\n", flush=True)
        fail(f"{command[0]} could not build {subject}; its own messages are above")


def build_library(output: Path, work: Path, kernels: Path = KERNELS) -> None:
    """Compiles all listed sources into `work`, links `output`, which appears whole or not at all."""
    cc = find_compiler("CC", "C", ["cc", "gcc", "clang"])
    cxx = find_compiler("CXX", "C++", ["c++", "g++", "clang++"])
    include = [f"-I{kernels}", f"-I{kernels / 'core'}"]
    c_command = [*cc, *C_FLAGS, *COMMON_FLAGS, *include, *shlex.split(os.environ.get("CFLAGS", ""))]
    cxx_command = [*cxx, *CXX_FLAGS, *COMMON_FLAGS, *include, *shlex.split(os.environ.get("CXXFLAGS", ""))]
    jobs = [(c_command, source) for source in read_sources(kernels / "sources.mk", "MCUF_CORE_SRCS")]
    jobs += [(cxx_command, source) for source in read_sources(kernels / "sources.mk", "MCUF_HOST_SRCS")]

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
        run_compiler([*cxx, "-shared", *objects, "-o", str(partial), *ldflags, "-ldl"], output.name)
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)


class BuildLibrary(build_ext):
    """build_ext whose one "extension" is the plain shared library."""

    def get_ext_filename(self, fullname: str) -> str:
        # No Python version in the name: the file is loaded with ctypes.
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        build_library(Path(self.get_ext_fullpath(ext.name)), Path(self.build_temp))


setup(ext_modules=[Extension(LIBRARY, sources=[])], cmdclass={"build_ext": BuildLibrary})
