# SPDX-License-Identifier: Apache-2.0
"""Machines that are not x86-64 Linux: everything works without the tflite-micro wheel; the kernels built for them.

docs/platforms.md says of each machine what is run here, what is compiled only and what is untried.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_install import compilers

from mcuformer import kernel_library, native, sources
from mcuformer.simulator import firmware

ROOT = Path(__file__).resolve().parents[2]
# Debian's package of each tool; debian-packages.txt lists them as optional.
PACKAGES = {
    "clang": "clang",
    "clang++": "clang",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "qemu-aarch64-static": "qemu-user-static",
    "x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64",
    "x86_64-w64-mingw32-g++": "g++-mingw-w64-x86-64",
    "wine": "wine",
}
TIMEOUT_SECONDS = 300


def needs(*tools: str):
    """Skips a test where a tool is missing, and names its package."""
    missing = [tool for tool in tools if not shutil.which(tool)]
    packages = " ".join(dict.fromkeys(PACKAGES[tool] for tool in missing))
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: apt-get install {packages}")


def build(folder: Path, cc: str, cxx: str, flags: str = "-Werror") -> Path:
    """The library as setup.py makes it with these compilers, which must not warn of anything."""
    kept = {name: value for name, value in os.environ.items() if not re.fullmatch("CC|CXX|.*FLAGS", name)}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(folder), "--build-temp"]
    command.append(str(folder / "work"))
    given = {"CC": cc, "CXX": cxx, "CFLAGS": flags, "CXXFLAGS": flags}
    built = subprocess.run(command, cwd=ROOT, env=kept | given, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (library,) = (folder / "mcuformer").iterdir()
    return library


def driver(folder: Path, cc: str, *libraries: str, name: str = "drive_library") -> Path:
    """drive_library.c, or another of these files, as a program."""
    program = folder / f"{name}.exe"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{sources.c_kernel_folder()}"]
    subprocess.run([cc, *flags, Path(__file__).with_name(f"{name}.c"), "-o", program, *libraries], check=True)
    return program


def driven(command: list, **env: str) -> str:
    """What the driver prints of a library: on stdout what must be the same everywhere."""
    done = subprocess.run(
        list(map(str, command)), env=os.environ | env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@functools.cache
def _expected(folder: Path) -> str:
    folder.mkdir()
    return driven([driver(folder, "cc", "-ldl"), kernel_library.LIBRARY])


@pytest.fixture
def expected(tmp_path_factory) -> str:
    """What the library of this machine gives; tests/core compares its kernels with the references."""
    return _expected(tmp_path_factory.getbasetemp() / "native-driver")


def test_the_driver_knows_an_answer(expected):
    lines = dict(line.split(":") for line in expected.splitlines() if ":" in line)
    assert lines["mean 0"] == " 15 0"
    assert lines["placement 112"] == " 0 0 64"
    getters = (
        kernel_library.scratch_bytes("stem_conv", 24),
        kernel_library.scratch_bytes("int_attention", 49, 32, 0),
        kernel_library.scratch_bytes("in_place_fc", 96, 1024, 8),
        kernel_library.scratch_bytes("streamed_mlp", 4, 96, 384, 0),
        kernel_library.scratch_bytes("decomposed_patch_embed", 96, 3, 16, 96, 1, 0, 0, 1),
        kernel_library.scratch_bytes("streamed_attention", 36, 4, 96, 3, 3, 1, 32, 0, 0, 0),
    )
    assert expected.splitlines()[0] == f"scratch {' '.join(map(str, getters))}"
    for name in ("gelu", "layer_norm", "fc", "attention"):  # done, and not of one value
        assert len(set(lines[f"{name} 0"].split())) > 20


@pytest.mark.parametrize("cc, cxx", [("cc", "c++"), pytest.param("clang", "clang++", marks=needs("clang", "clang++"))])
def test_the_whole_library_builds_without_a_warning(tmp_path, cc, cxx, expected):
    library = build(tmp_path, cc, cxx)
    assert driven([driver(tmp_path, cc, "-ldl"), library]) == expected


@needs("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-aarch64-static")
def test_aarch64_linux_in_qemu(tmp_path, expected):
    library = build(tmp_path, "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")
    program = driver(tmp_path, "aarch64-linux-gnu-gcc", "-ldl")
    run = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"]
    assert driven([*run, program, library]) == expected
    compare = driver(tmp_path, "aarch64-linux-gnu-gcc", "-ldl", name="compare_versions")
    assert driven([*run, compare, library]) == "portable: exact\ndotprod: exact\n"
    assert driven([*run, "-cpu", "cortex-a53", compare, library]) == "portable: exact\ndotprod: not here\n"


def test_every_version_of_the_kernels_gives_the_same_bytes(tmp_path):
    lines = driven([driver(tmp_path, "cc", "-ldl", name="compare_versions"), kernel_library.LIBRARY])
    said = dict(line.split(": ") for line in lines.splitlines())
    assert said == {name: "exact" if runs else "not here" for name, runs in kernel_library.kernels().items()}


@pytest.fixture(scope="module")
def windows(tmp_path_factory) -> tuple[Path, Path]:
    """Driver and library."""
    folder = tmp_path_factory.mktemp("windows")
    library = build(folder, "x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-g++")
    return driver(folder, "x86_64-w64-mingw32-gcc"), library


@needs("x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-g++")
def test_windows_library_needs_no_other_dll(windows):
    _, library = windows
    assert library.name == "libmcuformer_host.dll"
    asked = subprocess.run(["x86_64-w64-mingw32-objdump", "-p", library], capture_output=True, text=True, check=True)
    assert set(re.findall(r"DLL Name: (\S+)", asked.stdout)) == {"KERNEL32.dll", "msvcrt.dll"}


@needs("x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-g++", "wine")
def test_windows_in_wine(windows, tmp_path, expected):
    program, library = windows
    env = {"WINEPREFIX": str(tmp_path / "prefix"), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
    try:
        hello = subprocess.run(
            ["wine", "cmd", "/c", "echo", "hello"], env=os.environ | env, capture_output=True, timeout=TIMEOUT_SECONDS
        )
        if b"hello" not in hello.stdout:
            pytest.skip("wine does not run here: compiled only")
        # Its own names for the files: drive Z is the root.
        assert driven(["wine", program, f"Z:{library}"], **env).replace("\r", "") == expected
    finally:
        subprocess.run(["wineserver", "-k"], env=os.environ | env, capture_output=True)


# All that the library takes from headers which come with the system; Apple's are on Apple's machines alone.
APPLE_HEADERS = {
    "string.h": "#include <stddef.h>\nvoid *memcpy(void *, const void *, size_t), *memset(void *, int, size_t);\n"
    "void *memmove(void *, const void *, size_t);\nint memcmp(const void *, const void *, size_t);\n"
    "size_t strlen(const char *);\n",
    "stdlib.h": "#include <stddef.h>\nvoid *malloc(size_t), free(void *);\n",
    "cstring": 'extern "C" {\n#include <string.h>\n}\n',
    "cstdint": "#include <stdint.h>\n",
    "cstddef": "#include <stddef.h>\n",
    "cstdarg": "#include <stdarg.h>\n",
    "cstdio": "#include <stdarg.h>\n#include <stddef.h>\n"
    'extern "C" int vsnprintf(char*, size_t, const char*, va_list);\n',
    "cstdlib": '#include <stddef.h>\nextern "C" void* calloc(size_t, size_t);\nextern "C" void free(void*);\n',
}


@needs("clang", "clang++")
@pytest.mark.parametrize("target", ["arm64-apple-macos11", "x86_64-apple-macos10.15"])
def test_macos_compiles(target, tmp_path):
    """Every source of the library, to Mach-O objects. Nothing is linked: that takes Apple's libraries."""
    for name, text in APPLE_HEADERS.items():
        (tmp_path / name).write_text(text)
    kernels = sources.kernels_folder()
    common = [f"--target={target}", "-ffreestanding", "-nostdinc++", "-isystem", tmp_path, "-O3", "-fPIC", "-Wall"]
    common += ["-Wextra", "-Werror", "-fvisibility=hidden", f"-I{kernels}", f"-I{kernels / 'core'}", "-c"]
    cxx = ["clang++", "-std=c++17", "-fno-exceptions", "-fno-rtti", "-DMCUF_HOST_PLUGIN"]
    for variable in ("MCUF_CORE_SRCS", "MCUF_HOST_CORE_SRCS"):
        for name in sources.listed(variable):
            language = cxx if name.endswith(".cc") else ["clang", "-std=c99", '-DMCUF_DISPATCH="host/mcuf_dispatch.h"']
            built = tmp_path / "object.o"
            subprocess.run([*language, *common, kernels / name, "-o", built], check=True)
            assert built.read_bytes()[:4] == b"\xcf\xfa\xed\xfe"  # 64-bit Mach-O


@pytest.mark.parametrize(
    ("suffix", "platforms"),
    [
        (".so", ("linux", "x86_64-linux-gnu", "x86_64-pc-linux-gnu", "aarch64-linux-gnu", "x86_64-unknown-freebsd14")),
        (".dll", ("win32", "x86_64-w64-mingw32", "x86_64-w64-windows-gnu", "x86_64-pc-windows-msvc", "amd64-win32")),
        (".dylib", ("darwin", "arm64-apple-darwin23.1.0", "x86_64-apple-macos10.15")),
    ],
)
def test_library_is_looked_for_under_the_name_that_setup_gives_it(suffix, platforms):
    assert [native.library_suffix(platform) for platform in platforms] == [suffix] * len(platforms)
    code = f"import ctypes, pathlib, sys; sys.platform = {platforms[0]!r}; from mcuformer import kernel_library"
    env = {name: value for name, value in os.environ.items() if name != "MCUFORMER_HOST_LIBRARY"}
    found = subprocess.run(
        [sys.executable, "-c", f"{code}; print(kernel_library.LIBRARY.name)"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert found.stdout == f"libmcuformer_host{suffix}\n", found.stderr


def test_tflite_micro_is_required_where_it_has_a_build():
    requirements = pytest.importorskip("packaging.requirements")
    (line,) = re.findall(r"^    (tflite-micro.*)$", (ROOT / "setup.cfg").read_text(), flags=re.MULTILINE)
    marker = requirements.Requirement(line).marker
    machines = [
        ("linux", "x86_64"),
        ("linux", "aarch64"),
        ("darwin", "arm64"),
        ("darwin", "x86_64"),
        ("win32", "AMD64"),
    ]
    wanted = [marker.evaluate({"sys_platform": system, "platform_machine": machine}) for system, machine in machines]
    assert wanted == [True, False, False, False, False]


HIDE = """
import importlib.abc, sys
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tflite_micro":
            raise ImportError("No module named 'tflite_micro'")
sys.meta_path.insert(0, Hide())
"""
USE = """
import sys
import numpy as np
import mcuformer
from mcuformer import Interpreter, SubnetConfig, convert, kernel_library, nas, run_op
from mcuformer.converter import tflite_file
from mcuformer.errors import ToolchainError
assert not kernel_library.has_ops()
config = SubnetConfig(image_size=16, in_channels=1, patch_size=4, embed_dim=24, depth=1, num_heads=2, head_dim=10,
                      num_classes=5)
images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), np.uint8)
net = nas.build_subnet(config)
nas.save_subnet(net, "subnet.pt")
np.savez("data.npz", x_train=images, y_train=np.arange(8) % 5, x_test=images, y_test=np.arange(8) % 5)
names = [str(i) for i in range(5)]
for name, choices in {"model": {}, "overwrite": {"schedule": "overwrite"}, "strips": {"strips": True},
                      "staged": {"weights": "staged"}, "pairs": {"board": "nano33ble"}}.items():
    model = convert(net, calibration=images, class_names=names, **choices)
    model.save(f"{name}.tflite")
    stored = tflite_file.read(open(f"{name}.tflite", "rb").read())
    assert tflite_file.same(model.graph, stored.graph) is None
    interpreter = Interpreter(f"{name}.tflite")
    want = model.reference(images)
    assert interpreter.engine == "c" and len(np.unique(want)) > 5
    assert np.array_equal(interpreter(images), want) and np.array_equal(interpreter.reference(images), want)
    outputs = interpreter.layer_outputs(images[0])
    assert np.array_equal(outputs["head"], want[0]) and len(outputs) == len(stored.graph.ops)
    assert interpreter.allocations["tail"] == 0 < interpreter.arena_used_bytes
assert np.array_equal(Interpreter("model.tflite", strips=True)(images), Interpreter("model.tflite")(images))
x = np.arange(-4, 4, dtype=np.int8).reshape(1, 8)
assert np.array_equal(run_op("IntGeLU", {"input": x}, {"table": np.arange(-128, 128).astype(np.int8)}), x)
for refused in (lambda: Interpreter("model.tflite", engine="tflm"), kernel_library.registerer):
    try:
        refused()
    except ToolchainError as error:
        assert "\\n" not in str(error) and "tflite-micro" in str(error) and 'engine="c"' in str(error), error
    else:
        sys.exit("the interpreter runs without its wheel")
"""


@pytest.fixture(scope="module")
def without_wheel(tmp_path_factory):
    """Runs Python without tflite-micro, with a library that was built for a machine without it; gives the process."""
    folder = tmp_path_factory.mktemp("without_wheel")
    environment = compilers(folder, "x86_64-unknown-hurd")
    library = build(folder / "built", environment["CC"], environment["CXX"], "-O1")  # quicker
    env = os.environ | {"MCUFORMER_HOST_LIBRARY": str(library), "PYTHONPATH": str(ROOT)}

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", HIDE + code, *arguments]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)

    return run


@pytest.fixture(scope="module")
def models_without_wheel(without_wheel):
    """The command line without tflite-micro, in a folder with models; gives the process."""
    done = without_wheel(USE)
    assert done.returncode == 0, done.stdout + done.stderr
    main = "import sys; sys.argv[0] = 'mcuformer'; from mcuformer.cli import main; main()"
    return lambda *arguments: without_wheel(main, *arguments)


def test_the_interpreter_works_without_tflite_micro(models_without_wheel):
    """What USE asserts: every kind of model, its reference, its layers, single ops."""


RUN = ("--data", "data.npz", "--split", "test")
EXPORT = ("export", "pairs.tflite", "--force")
COMMANDS = [
    ("by the kernels alone", ("run", "model.tflite", *RUN)),
    ("every logit equals the integer reference", ("run", "staged.tflite", *RUN, "--reference")),
    ("every logit equals the integer reference", ("run", "strips.tflite", *RUN, "--reference", "--engine", "c")),
    ("StreamedAttention", ("inspect", "model.tflite")),
    ("instructions", ("inspect", "pairs.tflite", "--board", "nano33ble")),
    ("wrote to_c", (*EXPORT, "--to", "c", "--out", "to_c")),
    ("wrote to_tflm", (*EXPORT, "--to", "tflm", "--out", "to_tflm")),
    ("wrote to_arduino", (*EXPORT, "--to", "arduino", "--out", "to_arduino", "--data", "data.npz")),
    ("wrote again.tflite", ("convert", "subnet.pt", "--data", "data.npz", "--out", "again.tflite")),
]


@pytest.mark.parametrize(("says", "command"), COMMANDS, ids=[" ".join(command[:4]) for _, command in COMMANDS])
def test_commands_without_tflite_micro(says, command, models_without_wheel):
    done = models_without_wheel(*command)
    assert done.returncode == 0 and says in done.stdout, done.stdout + done.stderr


def test_the_interpreter_that_is_not_there_is_one_line(models_without_wheel):
    done = models_without_wheel("run", "model.tflite", *RUN, "--engine", "tflm")
    assert done.returncode == 2 and 'engine="c"' in done.stderr and "Traceback" not in done.stderr
    done = models_without_wheel("run", "model.tflite", *RUN, "--engine", "onnx")
    assert done.returncode == 2 and "engine = 'onnx': must be one of tflm, c" in done.stderr


@pytest.mark.skipif(bool(firmware.missing_tools()), reason=str(firmware.missing_tools()))
def test_firmware_in_qemu_without_tflite_micro(models_without_wheel):
    done = models_without_wheel("run", "pairs.tflite", *RUN, "--board", "nano33ble", "--limit", "2", "--reference")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every logit equals mps2-an386" in done.stdout and "every logit equals the integer reference" in done.stdout


def test_what_the_page_names_is_there():
    """Every test that docs/platforms.md shows a claim with."""
    shown = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", (ROOT / "docs" / "platforms.md").read_text())
    assert len(shown) >= 5
    for path, name in shown:
        assert not name or re.search(rf"^def {name}\b", (ROOT / path).read_text(), flags=re.MULTILINE), name
